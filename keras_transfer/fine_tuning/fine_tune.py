"""fine_tune: a pretrained model fitted to a small labeled set, in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer._instead import arguments_instead
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.fine_tuning.kept_frozen import note_frozen
from keras_transfer.fine_tuning.phased_fit import PhasedFit
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.strategies import give_slanted_rates
from keras_transfer.fine_tuning.unchanged import unchanged_after_error

Callbacks = keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None
ClassWeight = Mapping[int | str, float] | Sequence[float] | str | None

INSTEAD = {
    "sample_weight": "Put the weights into `data`: (x, y, sample_weight).",
    "validation_split": "Pass `validation_data=`, chosen at random: the end of sorted "
    "data, which validation_split takes, may lack whole classes.",
    "initial_epoch": "Pass `directory=` to continue an interrupted run.",
    "shuffle": "fine_tune shuffles arrays itself; shuffle a tf.data.Dataset yourself.",
    "steps_per_epoch": "An epoch is one pass over `data`; pass less data.",
    "validation_steps": "All of `validation_data` is evaluated; pass less data.",
    "validation_batch_size": "`batch_size` holds for both.",
}


@arguments_instead(**INSTEAD)
def fine_tune(
    model: keras.Model,
    data: Any,
    *,
    validation_data: Any = None,
    epochs: int = 5,
    strategy: str = "auto",
    directory: str | os.PathLike | None = None,
    frozen: str | Iterable[str] = (),
    batch_norm: str = "frozen",
    batch_size: int | None = None,
    callbacks: Callbacks = None,
    class_weight: ClassWeight = None,
    validation_freq: int | Sequence[int] = 1,
    verbose: int | str = 1,
) -> keras.callbacks.History:
    """Train a pretrained model with a new head on a small labeled set.

    The head learns first, alone, on features that the frozen backbone computes once;
    then layer groups thaw from the head down, each at a smaller rate than the one
    above, while the rate rises fast and falls slowly. The strategies are

    - `"probe"`: the head alone, in all epochs;
    - `"lp-ft"`: the head in a third of the epochs, then all groups;
    - `"gradual"`: the head in a third of the epochs, then a group more in each epoch
      (several, if there are more groups than epochs);
    - `"full"`: all groups from the first epoch on;
    - `"auto"`: under 500 labels `"probe"`, to 5,000 `"gradual"` over the upper half of
      the groups, above that `"gradual"` over all, a rule of thumb; `"full"` where there
      is no head, as in a causal language model or a U-Net.

    Compile the model first, with the loss and metrics of your task, be it of
    classes, several labels at once, or regression, and an optimizer whose learning
    rate is the one that suits the head, such as AdamW(1e-3). The optimizer is replaced
    by its discriminative subclass: the stem learns at 1/100 of that rate, the groups
    between in equal ratios, along `SlantedTriangular` over all epochs; the head while
    it is alone, a mere linear probe, at 10 times that rate if it is new: if its biases
    and scales are still as initialized. A head that was trained, and the last block of
    a model without one, learn at the rate itself. A `discriminative`
    optimizer keeps its factors, a schedule of your own stays, and next to a
    LearningRateScheduler or ReduceLROnPlateau none is set. BatchNorm below the head
    stays frozen, and so do layers whose `trainable` is False and weights that were
    frozen one by one, in each phase; what only an earlier `fine_tune` has frozen thaws.

    Features are cached where they are the same in each epoch and the model can be cut
    below its head; else the first phase runs the whole model. Which of the two, and
    why, is printed, with the phases and what trains at the end. Flags stay as in the
    last phase. `fine_tune` shuffles arrays itself, by a seed and the epoch, those of a
    keras-hub Task too, which Keras leaves as they are; the seed follows
    `keras.utils.set_random_seed`. A tf.data.Dataset is shuffled by its owner.

    Labels that are names are numbered in their alphabetical order, as scikit-learn's
    LabelEncoder does, unless the model has learned them with other numbers. The names
    are kept: `kt.report` and `kt.export_serving` find them.

    With `directory`, the state is saved after each epoch, and the same call, after a
    kill and with a model built in the same way, goes on there; with arrays, as if it
    had not been interrupted. Callbacks begin anew. A run that has ended, by its epochs
    or by a callback, gives its weights and History back and calls no callbacks. The
    folder takes the bytes of the weights and of the optimizer, and of the features.

    Args:
        model: A built and compiled model: functional, Sequential, a
            `TransferClassifier`, or a keras-hub Task.
        data: Tuple of arrays `(x, y)` or `(x, y, sample_weight)`, a batched, finite
            `tf.data.Dataset` of these, or a `keras.utils.PyDataset`. Raw strings for
            a Task with a preprocessor, and texts alone where that makes the labels, as
            for causal and masked language models. Lists, and tables and columns of
            pandas, are arrays.
        validation_data: The same, evaluated after each epoch. Default None.
        epochs: Epochs of all phases together. Default 5.
        strategy: See above. Default "auto".
        directory: Folder to go on from after a kill, new or of this run. Default None.
        frozen: Names of layer groups that learn in no phase, or regular expressions
            that are searched in the paths of layers, as in `kt.layer_groups`. Default
            none.
        batch_norm: `"frozen"` or `"train"`, as in `GradualUnfreezing`. Defaults to
            `"frozen"`.
        batch_size: Examples per batch, if the data are arrays. Defaults to 32.
        callbacks: Keras callback, or list of callbacks. Defaults to None.
        class_weight: Dict from class number or class name to weight, list of weights
            in the order of the classes, or `"balanced"`. Defaults to None.
        validation_freq: As in `fit`: number of epochs from one evaluation of
            `validation_data` to the next, or list of epochs. Defaults to 1.
        verbose: As in `fit`; 0 prints nothing. Defaults to 1.

    Returns:
        The History of all phases. Its logs have the `phase` of each epoch, an int, its
        `seconds`, and its `trainable_parameters`. Its `class_names` are a tuple in the
        order of the numbers, or None where the labels or the model have no names.

    Raises:
        TypeError: If `model` is not a model or `data` of an unknown kind.
        ValueError: If the model is not built, not compiled, or was trained; if data
            are empty, endless, or their labels missing, out of range, of one class or
            fewer than the classes; if a setting is unknown, the strategy does not fit
            into the epochs, or `directory` is of another run. Whatever fails, in the
            middle of training too, leaves the model as it was; an interrupt (Ctrl-C)
            keeps what was trained so far.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        backbone = keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3)], name="stem"
        )
        model = kt.models.TransferClassifier(backbone, num_classes=2)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
        x, y = np.random.rand(20, 8, 8, 3), np.arange(20) % 2
        history = kt.fine_tune(model, (x, y), epochs=3, strategy="lp-ft", verbose=0)
        assert history.history["phase"] == [0, 1, 1]
        ```

    Reference:
        Howard and Ruder 2018, Universal Language Model Fine-tuning for Text
        Classification, arXiv:1801.06146. Kumar et al. 2022, Fine-Tuning can Distort
        Pretrained Features and Underperform Out-of-Distribution, arXiv:2202.10054.
        Howard and Gugger 2020, fastai: A Layered API for Deep Learning,
        arXiv:2002.04688 (`fine_tune`).
    """
    settings = {
        "batch_norm": batch_norm,
        "batch_size": batch_size,
        "callbacks": callbacks,
        "class_weight": class_weight,
        "validation_freq": validation_freq,
        "verbose": verbose,
    }
    run = Run.of(
        model, data, validation_data, epochs, strategy, directory, frozen, settings
    )
    phases = run.unfreezing.phases
    try:
        with unchanged_after_error(model, phases.variables(*phases)):
            run.history.class_names = run.class_names
            remember_class_names(model, run.class_names)
            _train(run)
    finally:
        note_frozen(model, run.kept)
    if run.verbose:
        _print_end(run)
    return run.history


def _train(run: Run) -> None:
    give_slanted_rates(run.model, run.groups, run.scheduled_batches)
    fit = PhasedFit(run)
    if run.folder:
        run.folder.begin(run.model, run.seed)
    if run.verbose:
        _print_start(run)
    if run.finished:
        # The flags of the last phase; what callbacks have written stays as it is.
        run.unfreezing.on_epoch_begin(run.done - 1)
        run.unfreezing.on_train_end()
    else:
        fit.train()


def _print_start(run: Run) -> None:
    print(f"fine_tune: strategy {run.strategy.name!r}, {run.strategy.reason}")
    print(run.unfreezing.phases)
    for line in run.kept.said:
        print(line)
    if run.finished:
        print(f"this run has ended after {run.done} epochs; nothing is trained")
    elif run.done:
        print(f"{run.done} epochs are done already")


def _print_end(run: Run) -> None:
    learning = [group.name for group in run.groups if group.trainable_variables]
    print(f"fine_tune: what trains stays {', '.join(learning)}, as in the last phase")
