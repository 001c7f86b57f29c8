"""fine_tune: train a pretrained model on a small labeled set in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer._arguments import one_of
from keras_transfer._instead import arguments_instead
from keras_transfer.data.class_names import remember_class_names
from keras_transfer.fine_tuning.candidate import POLICIES
from keras_transfer.fine_tuning.contrastive import PairTraining
from keras_transfer.fine_tuning.kept_frozen import note_frozen
from keras_transfer.fine_tuning.phased_fit import PhasedFit
from keras_transfer.fine_tuning.planned_run import BUDGET
from keras_transfer.fine_tuning.planned_run import planned_run
from keras_transfer.fine_tuning.rates import set_earlier_rates
from keras_transfer.fine_tuning.rates import set_rates
from keras_transfer.fine_tuning.run import Call
from keras_transfer.fine_tuning.run import Run
from keras_transfer.fine_tuning.strategies import CONTRASTIVE
from keras_transfer.fine_tuning.unchanged import ModelState
from keras_transfer.fine_tuning.unchanged import unchanged_after_error

Callbacks = keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None
ClassWeight = Mapping[int | str, float] | Sequence[float] | str | None

INSTEAD = {
    "sample_weight": "Put the weights into `data`: (x, y, sample_weight).",
    "validation_split": "Pass `validation_data=`, chosen at random. validation_split "
    "takes the end of the data, which lacks classes if the data are sorted by class.",
    "initial_epoch": "Pass `directory=` to continue an interrupted run.",
    "shuffle": "fine_tune shuffles arrays itself. Shuffle a tf.data.Dataset yourself.",
    "steps_per_epoch": "An epoch is one pass over `data`. Pass less data.",
    "validation_steps": "All of `validation_data` is evaluated. Pass less data.",
    "validation_batch_size": "`batch_size` applies to validation data too.",
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
    batch_norm: str = "auto",
    budget: float = BUDGET,
    batch_size: int | None = None,
    callbacks: Callbacks = None,
    class_weight: ClassWeight = None,
    validation_freq: int | Sequence[int] = 1,
    verbose: int | str = 1,
) -> keras.callbacks.History:
    """Train a pretrained model with a new head on a small labeled set.

    First a new head trains to its end, on features that the frozen backbone computes
    once. Then layer groups are unfrozen, and all of them train at a rate that does not
    damage what is pretrained. The strategies are

    - `"probe"`: only the head, in all epochs.
    - `"lp-ft"`: all groups, after the head has trained to its end.
    - `"gradual"`: after the head has trained to its end, also the group below it, and
      one more group in each epoch, or several if there are more groups than epochs.
    - `"full"`: all groups, from the initial weights of a new head.
    - `"contrastive"`: the layers below the head train on pairs of examples, so that
      those of one class become similar (`kt.losses.CosinePairs`), in 8 passes for each
      epoch and at most 500 steps, and then the head trains as in `"probe"`. It is meant
      for a sentence encoder and 8 to 64 labels per class, and compares whole vectors,
      not tokens. It cannot continue a run.
    - `"lora"`: as `"lp-ft"`, but LoRA instead of the pretrained weights. It is attached
      with the default targets of the model's family and stays attached. An adapter that
      the model has already is used instead.
    - `"auto"`: the strategy that a pilot chooses. Without a pilot it is `"lp-ft"`, with
      a backbone that stays frozen `"probe"`, and for a model without a head, such as a
      causal language model or a U-Net, `"full"`.

    The pilot makes short trials on three quarters of the training labels, and compares
    the candidates on the quarter that it holds out. With a larger budget it does so for
    up to four such folds. It never uses `validation_data`. The candidates are the
    converged head alone, and `"lp-ft"`, `"full"`, `"gradual"` and `"lora"` at two or
    three rates. If the model has BatchNorm and `batch_norm="auto"`, training BatchNorm
    is another candidate. `"lp-ft"` at its default rate and at 1.5 times this rate are
    always in the final trials if there are steps for two, and the best of the others
    joins them if there are steps for three. The first compiled metric that is a mean
    over examples, such as an accuracy, is compared, and otherwise the loss. Another
    candidate replaces `"lp-ft"` at its default rate only if its metric is better by a
    standard error of the difference, or its metric and loss together by two.
    `fine_tune` prints what it tried, and the History keeps it. The pilot changes
    nothing in the model. There is none with fewer than 40 labels, with too few steps
    for a trial, or if the preprocessor creates the labels. Then `fine_tune` prints why.

    If the training loss is higher at the end than it was when only the head had
    trained, `fine_tune` restores the weights of that time and says so.

    Compile the model first, with the loss and metrics of your task (classes, several
    labels per example, or regression) and an optimizer. Choose a learning rate for the
    head, such as AdamW(1e-3). `fine_tune` replaces the optimizer with its
    discriminative subclass.

    A head is new if its biases and scales have their initial values. A new head that is
    linear in the features starts, with up to 20,000 examples, at the solution of
    scikit-learn: a logistic regression for classes, with the penalty that has the best
    log loss in cross-validation, and a ridge regression for numbers. Any other new head
    trains with Adam until the loss of held-out examples stops falling. So the result
    does not depend on how far a head gets in a few epochs. This training is before the
    first epoch. If the features cannot be cached, or the head was trained before, the
    head trains alone in the first third of the epochs, a new one at 10 times the
    learning rate. With a single epoch, `"auto"` is then `"probe"`.

    Pretrained groups, and a head that has converged or was trained before, train at 0.3
    of the learning rate, so at 3e-4 for AdamW(1e-3), and in models with more than 60
    million parameters at 1/20, so at 5e-5. In `"full"` a new head trains at the
    learning rate itself, and so does everything if the model has an adapter.
    Where groups are unfrozen, the rate warms up over a tenth of the remaining updates,
    and then falls linearly to 0. Without unfreezing, it follows `SlantedTriangular`.

    A `discriminative` optimizer keeps its factors, and your own learning rate schedule
    stays. With the callbacks LearningRateScheduler and ReduceLROnPlateau, `fine_tune`
    sets no schedule. In each phase, BatchNorm below the head, layers with
    `trainable=False` and weights that you froze one by one stay frozen. Layers that
    only an earlier `fine_tune` has frozen can be unfrozen.

    `fine_tune` caches features if they are the same in each epoch and the model can be
    split below its head. Otherwise the first phase runs the whole model. `fine_tune`
    prints whether it caches features and why, the phases, and what is trainable at the
    end. The trainable flags stay as in the last phase. `fine_tune` shuffles arrays
    itself, because Keras does not shuffle the arrays of a keras-hub Task. The order
    depends on the epoch and on a seed from `keras.utils.set_random_seed`. Shuffle a
    tf.data.Dataset yourself.

    On one device, arrays of raw strings for a keras-hub Task are padded to their
    longest text, rounded up to a multiple of 8 tokens, not to the `sequence_length` of
    the preprocessor, if the outputs of the model do not change. The preprocessor stays
    as it was.

    Labels that are names get numbers in alphabetical order, as in scikit-learn's
    LabelEncoder, unless the model was trained with other numbers for the names. The
    model stores the names, and `kt.report` and `kt.export_serving` use them.

    With `directory`, the state is saved after each epoch. If the process is killed,
    build the model in the same way and repeat the call, and the run continues. With
    arrays, the result is the same as without the interruption. Callbacks start again.
    A run that has ended, by its epochs or by a callback, restores its weights and
    History and calls no callbacks. The folder needs disk space for the weights, the
    optimizer state and the cached features.

    Args:
        model: A built and compiled model: functional, Sequential, a
            `TransferClassifier`, or a keras-hub Task.
        data: Tuple of arrays `(x, y)` or `(x, y, sample_weight)`, a batched, finite
            `tf.data.Dataset` of these, or a `keras.utils.PyDataset`. Pass raw strings
            for a Task with a preprocessor. Pass only texts if the preprocessor creates
            the labels, as for causal and masked language models. Lists and pandas
            tables and columns count as arrays.
        validation_data: Data of the same types, evaluated after each epoch. Defaults to
            None.
        epochs: Int, epochs of all phases together. Defaults to 5.
        strategy: Name of the strategy, see above. Defaults to `"auto"`.
        directory: Folder for the state of the run. Pass a new folder, or the folder of
            the run to continue. Defaults to None, which saves nothing.
        frozen: Names of layer groups that no phase trains, or regular expressions for
            the paths of layers, as in `kt.layer_groups`. Defaults to no names.
        batch_norm: `"frozen"` or `"train"`, as in `GradualUnfreezing`. Defaults to
            `"auto"`, which is `"frozen"` unless the pilot finds that `"train"` is
            better.
        budget: Float of 0 or more, the most steps of the pilot, as a multiple of the
            steps in which the run without a pilot trains the whole model. With more
            steps, more candidates are tried for longer, and then on more folds. 0 means
            no pilot. Defaults to 1.0.
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
        order of the class numbers, or None if the classes have no names. Its `strategy`
        is the name of the strategy. Its `pilot` has what the pilot tried, or is None:
        print it, or call `pilot.rows()` for a list of dicts. Its `hurt` is a sentence
        if the weights of the converged head were restored, or None. Its `pair_losses`
        are the losses of all passes of `"contrastive"`, or None.

    Raises:
        TypeError: If `model` is not a Keras model, or the type of `data` is unknown.
        ValueError: If the model is not built or not compiled, if its optimizer has made
            updates, if data are empty or infinite, if labels are missing, out of range,
            of one class or fewer than the classes, if a setting is unknown, if there
            are too few epochs for the strategy, or if `directory` belongs to another
            run. After any error, even during training, the model is unchanged. After an
            interrupt (Ctrl-C), the model keeps its trained weights.

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
        assert history.epoch == [0, 1, 2]
        ```

    Reference:
        Howard and Ruder 2018, Universal Language Model Fine-tuning for Text
        Classification, arXiv:1801.06146. Kumar et al. 2022, Fine-Tuning can Distort
        Pretrained Features and Underperform Out-of-Distribution, arXiv:2202.10054.
        Howard and Gugger 2020, fastai: A Layered API for Deep Learning,
        arXiv:2002.04688 (`fine_tune`). Jamieson and Talwalkar 2016, Non-stochastic Best
        Arm Identification and Hyperparameter Optimization, arXiv:1502.07943 (successive
        halving). Tunstall et al. 2022, Efficient Few-Shot Learning Without Prompts,
        arXiv:2209.11055 (`"contrastive"`).
    """
    settings = {
        "batch_size": batch_size,
        "callbacks": callbacks,
        "class_weight": class_weight,
        "validation_freq": validation_freq,
        "verbose": verbose,
    }
    if isinstance(frozen, Iterator):  # several runs read it
        frozen = tuple(frozen)
    call = Call(model, data, validation_data, epochs, directory, frozen, settings)
    one_of("batch_norm", batch_norm, POLICIES)
    with planned_run(call, strategy, batch_norm, budget) as run:
        run.history.strategy = run.strategy.name
        run.history.hurt = run.history.pair_losses = None
        phases = run.unfreezing.phases
        variables, pairs = phases.variables(*phases), None
        if run.strategy.name == CONTRASTIVE:
            pairs = PairTraining(run)
            variables = [*variables, *pairs.variables]
        try:
            with unchanged_after_error(model, variables) as start:
                run.history.class_names = run.class_names
                remember_class_names(model, run.class_names)
                if pairs:
                    pairs.train()
                _train(run, start)
        finally:
            note_frozen(model, run.kept)
    if run.verbose:
        _print_end(run)
    return run.history


def _train(run: Run, start: ModelState) -> None:
    if run.recipe == 0:
        set_earlier_rates(run.model, run.groups, run.scheduled_batches)
    else:
        set_rates(
            run.model,
            run.groups,
            share=run.share,
            new_head=run.strategy.new_head,
            batches=run.scheduled_batches,
            thaws=run.thaws,
        )
    fit = PhasedFit(run, start)
    if run.folder:
        run.folder.begin(run.model, run.seed)
    if run.verbose:
        _print_start(run)
    if run.finished:
        # Set the flags of the last phase, and call no callbacks of the user.
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
        print(f"this run has already ended after {run.done} epochs, nothing to train")
    elif run.done:
        print(f"this run continues after {run.done} completed epochs")


def _print_end(run: Run) -> None:
    learning = [group.name for group in run.groups if group.trainable_variables]
    print(f"fine_tune: trainable now, as in the last phase: {', '.join(learning)}")
