"""adapt: adapt a classifier to a domain without labels, without harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer._arguments import different_names
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.domains.classifier import balanced_error
from keras_transfer.analysis.domains.classifier import log_density_ratios
from keras_transfer.analysis.domains.importance_weights import SEPARABLE
from keras_transfer.backbones.compiled_model import check_built
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.fine_tuning.adaptation.candidates import ADA_BN
from keras_transfer.fine_tuning.adaptation.candidates import METHODS
from keras_transfer.fine_tuning.adaptation.candidates import Trainer
from keras_transfer.fine_tuning.adaptation.candidates import Trial
from keras_transfer.fine_tuning.adaptation.choice import Choice
from keras_transfer.fine_tuning.adaptation.choice import choose
from keras_transfer.fine_tuning.adaptation.choice import guesses
from keras_transfer.fine_tuning.adaptation.compiled_copy import compile_again
from keras_transfer.fine_tuning.adaptation.domains import Domains
from keras_transfer.fine_tuning.adaptation.domains import read_domains
from keras_transfer.fine_tuning.adaptation.parts import cut
from keras_transfer.fine_tuning.adaptation.parts import Parts
from keras_transfer.fine_tuning.adaptation.result import Adaptation
from keras_transfer.fine_tuning.adaptation.source_training import train_on_source
from keras_transfer.models.copied_model import copy_of
from keras_transfer.models.copied_model import with_new_metrics

LEAST_TARGET = 50  # examples, with which a difference of scores can be clear
BATCH_SIZE = 32


def adapt(
    model: keras.Model,
    source: Any,
    target: Any,
    *,
    epochs: int = 5,
    methods: Sequence[str] = METHODS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    verbose: int | str = 1,
) -> keras.Model:
    """Adapt a classifier to a target domain without labels, unless it would do harm.

    The function trains a copy of the model with several methods of domain adaptation,
    each from the same weights, and returns the copy with the weights of the best. No
    method is the best on all data, and each can do harm. So "source only", the model
    without adaptation, is a candidate, and it is returned if no other is clearly
    better by scores that need no label of the target:

    - agreement: the share of target examples for which a candidate predicts what all
      candidates together predict (`kt.analysis.ensemble_agreement`).
    - reverse accuracy: the accuracy on the source of a classifier that learned the
      predictions for the target (`kt.analysis.reverse_accuracy`), from the features of
      the model before the adaptation.

    No method trains on these scores. A method is refused if its accuracy on a held-out
    quarter of the source fell by more than 2 points and more than two standard errors,
    if it hardly predicts a class that source only does predict, or if its training
    diverged. Of the others, the one with the largest sum of the two scores is chosen,
    if the sum is higher than that of source only by two standard errors of the
    difference. With a single method, only the reverse accuracy counts, because two
    candidates cannot vote. If the target has fewer than 50 examples, or the model only
    guesses on the held-out source, no method is trained, and `adaptation.why` of the
    result says so.

    Weights of examples count in training, and not in the scores. If the model was
    trained on all of `source` before, it knows the held-out quarter, so a method is
    refused sooner.

    A model whose head is new is first trained on the source: with `kt.fine_tune` at its
    default strategy, or, if all its layers are new, by `fit`. Its compiled optimizer is
    used for this alone. The candidates train with Adam at 3e-4 (5e-5 for models of more
    than 60 million parameters, 1e-3 with an adapter), which falls along `GaninDecay`.
    Layers that are frozen stay frozen.

    Args:
        model: A built and compiled classifier with a loss for classes: functional,
            Sequential, a `TransferClassifier`, a keras-hub Task, or a model of
            `kt.models` for two domains. It does not change.
        source: Labeled examples: arrays `(x, y)` or `(x, y, sample_weight)`, or a
            batched `tf.data.Dataset` or `keras.utils.PyDataset` of these. A dataset is
            read once and kept in memory.
        target: The x of examples without labels, as an array, a structure of arrays or
            a dataset of x alone.
        epochs: Integer, passes over the longer domain for each candidate. Defaults to
            5.
        methods: Names of the candidates, in addition to source only. Defaults to
            `("AdaBN", "DeepCORAL", "DAN", "DANN", "CDAN", "MDD", "MCC")`. Those that
            cannot change the model are left out and named.
        batch_size: Integer, examples of each domain in a batch. Defaults to 32.
        seed: Integer, the seed of the held-out examples, of the order, of dropout and
            of heads that a method adds. Defaults to 0.
        verbose: 1 or `"auto"` prints a line for each candidate and the choice, 2 also
            prints the training, 0 prints nothing. Defaults to 1.

    Returns:
        A new compiled model of the same kind. Its attribute `adaptation` is a
        `kt.fine_tuning.Adaptation` with all scores and the reason for the choice. It
        belongs to this object and is not saved with the model.

    Raises:
        TypeError: If `model` is not a Keras model, or the type of the data is unknown.
        ValueError: If the model is not a compiled classifier that can be copied and cut
            below its head, if the target has labels, if the source has only one class
            or fewer than 40 examples, if the domains have different shapes, if values
            are not finite, or if a setting is not valid.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        rng = np.random.default_rng(0)
        y = np.arange(200) % 2
        x = rng.normal(0, 0.3, (200, 4)) + y[:, None]
        layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
        model.fit(x, y, epochs=2, verbose=0)
        adapted = kt.adapt(model, (x, y), x + 0.5, epochs=1, methods=["DANN"])
        print(adapted.adaptation)
        assert adapted.predict(x, verbose=0).shape == (200, 2)
        ```

    Reference:
        Musgrave, Belongie and Lim 2021, Unsupervised Domain Adaptation: A Reality
        Check, arXiv:2111.15672.
        Hu, Luo, Liang and Foo 2024, Towards Reliable Model Selection for Unsupervised
        Domain Adaptation: An Empirical Study and A Certified Baseline, NeurIPS Datasets
        and Benchmarks (EnsV).
    """
    why = "source only is always a candidate"
    names = list(different_names("methods", methods, METHODS, why))
    epochs = whole_number("epochs", epochs)
    batch_size = whole_number("batch_size", batch_size)
    seed = whole_number("seed", seed, 0, most=2**32 - 1)
    check_built(model)
    shown = one_of("verbose", verbose, (0, 1, 2, "auto")) != 0
    with _keras.random_state_kept():
        keras.utils.set_random_seed(seed)
        parts = cut(copy_of(model))
        domains = read_domains(model, source, target, seed)
        names, notes = _able(parts, names)
        compiled = with_new_metrics(_keras.compile_arguments(model))
        inner = 1 if verbose == 2 else 0
        trained = train_on_source(parts, model, domains.source, epochs, inner)
        if trained:
            notes.append(trained)
        settings = epochs, batch_size, seed, inner
        trainer = Trainer(parts, domains, compiled["loss"], *settings)
        reference = _source_only(trainer)
        why = _why_none(names, domains, reference)
        trials = [reference, *_trials(trainer, [] if why else names, shown)]
        features = trainer.features()
        notes += _overlap(features)
        choice = choose(trials, features, domains.held_out_labels)
        if why:
            choice = choice._replace(why=why)
    chosen = next(trial for trial in trials if trial.name == choice.chosen)
    adapted = parts.model
    adapted.set_weights(chosen.weights)
    compile_again(adapted, compiled)
    remember_class_names(adapted, domains.class_names)
    adapted.adaptation = _result(choice, trials, notes)
    if shown:
        for note in notes:
            print(f"adapt: {note}")
        print(f"adapt: chose {choice.chosen}. {choice.why}")
    return adapted


def _able(parts: Parts, names: list[str]) -> tuple[list[str], list[str]]:
    """Return the methods that can change the model, and notes on the others."""
    notes = []
    norms = [
        layer
        for layer in _keras.flat_layers(parts.model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    able = list(names)
    if ADA_BN in able and not norms:
        able.remove(ADA_BN)
        notes.append("left out: AdaBN, because the model has no BatchNormalization.")
    if not parts.feature_extractor.trainable_variables:
        fixed = [name for name in able if name in ("DANN", "CDAN", "MDD")]
        able = [name for name in able if name not in fixed]
        if fixed:
            notes.append(
                f"left out: {', '.join(fixed)}, because all layers below the head are "
                "frozen, so no gradient reaches them."
            )
    if not parts.model.trainable_variables:
        able = [name for name in able if name == ADA_BN]
        notes.append("The model is frozen, so nothing but AdaBN can change it.")
    classes = parts.model.output_shape[-1]
    if classes == 1:
        single = [name for name in able if name in ("MDD", "MCC")]
        able = [name for name in able if name not in single]
        if single:
            notes.append(
                f"left out: {', '.join(single)}, because there must be one output for "
                "each class, and the model has a single one."
            )
    return able, notes


def _source_only(trainer: Trainer) -> Trial:
    trial = trainer.source_only()
    if not trial.finite:
        raise ValueError(
            "The outputs of the model are not finite before the adaptation. Check its "
            "weights, and whether `target` has values that are NaN or infinite."
        )
    return trial


def _why_none(names: Sequence[str], domains: Domains, reference: Trial) -> str:
    """Return why no candidate is trained, or ""."""
    if domains.num_target < LEAST_TARGET:
        return (
            f"The target has {domains.num_target} examples, and with fewer than "
            f"{LEAST_TARGET} no score can tell candidates apart, so none was trained."
        )
    if not names:
        return "No method can change the model."
    return guesses(reference, domains.held_out_labels)


def _trials(trainer: Trainer, names: Sequence[str], shown: bool) -> list[Trial]:
    trials = []
    for name in names:
        trials.append(trainer.train(name))
        if shown:
            trial = trials[-1]
            state = "" if trial.finite else ", its loss is not finite"
            print(f"adapt: {name} took {trial.seconds:.1f} s{state}", flush=True)
    return trials


def _overlap(features: tuple) -> list[str]:
    """Return a note if a linear classifier separates the domains."""
    source, target = features
    if min(len(source), len(target)) < LEAST_TARGET:
        return []
    error = balanced_error(*log_density_ratios(source, target, seed=0))
    if error >= SEPARABLE:
        return []
    return [
        "The domains do not overlap in the features of the model: a linear classifier "
        f"is wrong on {error:.1%} of them. A target that differs so much may have "
        "other classes, or inputs that were prepared in another way."
    ]


def _result(
    choice: Choice, trials: Sequence[Trial], notes: Sequence[str]
) -> Adaptation:
    rows = []
    for scores, trial in zip(choice.scores, trials, strict=True):
        verdict = f"refused: {scores.refused}" if scores.refused else ""
        if scores.name == choice.chosen:
            verdict = "chosen"
        rows.append(
            {
                "method": scores.name,
                "agreement": scores.agreement,
                "reverse_accuracy": scores.reverse,
                "source_accuracy": scores.source,
                "seconds": trial.seconds,
                "verdict": verdict,
            }
        )
    return Adaptation(
        {
            "rows": rows,
            "chosen": choice.chosen,
            "why": choice.why,
            "notes": list(notes),
        }
    )
