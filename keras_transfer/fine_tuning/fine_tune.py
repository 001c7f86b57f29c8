"""fine_tune: a pretrained model made to fit a small labelled set, in one call."""

from __future__ import annotations

import os
import zlib
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.fingerprint import RowDigest
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.callbacks.gradual_unfreezing import GradualUnfreezing
from keras_transfer.callbacks.phases import Phase
from keras_transfer.callbacks.phases import Phases
from keras_transfer.callbacks.phases import to_config
from keras_transfer.data.epochs import Epochs
from keras_transfer.data.examples import map_arrays
from keras_transfer.data.repeats import with_length
from keras_transfer.distribute.check import check as check_replicas
from keras_transfer.fine_tuning.inputs import all_classes
from keras_transfer.fine_tuning.inputs import check_model
from keras_transfer.fine_tuning.inputs import check_settings
from keras_transfer.fine_tuning.inputs import checked_labels
from keras_transfer.fine_tuning.inputs import without_none
from keras_transfer.fine_tuning.phased_fit import PhasedFit
from keras_transfer.fine_tuning.rates import give_slanted_rates
from keras_transfer.fine_tuning.run_folder import RunFolder
from keras_transfer.fine_tuning.strategies import Recipe
from keras_transfer.fine_tuning.strategies import recipe

CHUNK = 1024  # rows whose bytes are copied at a time

RATE_CALLBACKS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)


def fine_tune(
    model: keras.Model,
    data: Any,
    *,
    validation_data: Any = None,
    epochs: int = 5,
    strategy: str = "auto",
    directory: str | os.PathLike | None = None,
    **settings: Any,
) -> keras.callbacks.History:
    """Train a pretrained model with a new head on a small labelled set.

    The head learns first, alone, on features that the frozen backbone computes once;
    then layer groups thaw from the head down, each at a smaller rate than the one
    above, while the rate rises fast and falls slowly. The strategies are

    - `"probe"`: the head alone, in all epochs;
    - `"lp-ft"`: the head in a third of the epochs, then all groups;
    - `"gradual"`: the head in a third of the epochs, then a group more in each epoch
      (several, if there are more groups than epochs);
    - `"full"`: all groups from the first epoch on;
    - `"auto"`: under 500 labels `"probe"`, to 5,000 `"gradual"` over the upper half of
      the groups, above that `"gradual"` over all. That is a rule of thumb.

    Compile the model first, with the loss and metrics of your task, be it of
    classes, several labels at once, or regression, and an optimizer whose learning
    rate is the one that suits the head, such as AdamW(1e-3). The optimizer is replaced
    by its discriminative subclass: the stem learns at 1/100 of that rate, the groups
    between in equal ratios, along `SlantedTriangular` over all epochs; the head while
    it is alone, a mere linear probe, at 10 times that rate. A `discriminative`
    optimizer keeps its factors, a schedule of your own stays, and beside a
    LearningRateScheduler or ReduceLROnPlateau none is set. BatchNorm below the head
    stays frozen.

    Features are cached where they are the same in each epoch and the model can be cut
    below its head; else the first phase runs the whole model. Which of the two, and
    why, is printed, with the phases and what trains at the end. Flags stay as in the
    last phase. `fine_tune` shuffles arrays itself, by a seed and the epoch, those of a
    keras-hub Task too, which Keras leaves as they are; the seed follows
    `keras.utils.set_random_seed`. A tf.data.Dataset is shuffled by its owner.

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
            a Task with a preprocessor.
        validation_data: The same, evaluated after each epoch. Default None.
        epochs: Epochs of all phases together. Default 5.
        strategy: See above. Default "auto".
        directory: Folder to go on from after a kill, new or of this run. Default None.
        **settings: Of `fit`: `batch_size` (of arrays, default 32), `callbacks`,
            `class_weight`, `validation_freq`, and `verbose` (0 prints nothing).

    Returns:
        The History of all phases. Its logs have the `phase` of each epoch, an int, its
        `seconds`, and its `trainable_parameters`.

    Raises:
        TypeError: If `model` is no model or `data` of an unknown kind.
        ValueError: If the model is not built, not compiled, or was trained; if data
            are empty, endless, or their labels missing, out of range, of one class or
            fewer than the classes; if a setting is unknown, the strategy does not fit
            into the epochs, or `directory` is of another run. Nothing is changed then.

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
    check_model(model)
    check_replicas(model)
    epochs = whole_number("epochs", epochs)
    data, validation_data = without_none(data), without_none(validation_data)
    settings = check_settings(settings, data)
    batch_size, callbacks = settings.pop("batch_size"), settings.pop("callbacks")
    labels, held_out = checked_labels(model, data, validation_data, batch_size)
    settings["class_weight"] = all_classes(settings.get("class_weight"), labels)
    groups = layer_groups(model)
    count, frozen = _rows(labels), _is_frozen(model)
    plan = recipe(strategy, _learnable(groups), epochs, count, frozen=frozen)
    unfreezing = GradualUnfreezing(groups, plan.phases)
    history, folder = keras.callbacks.History(), None
    if directory is not None:
        run = _run(model, plan, epochs, batch_size, data, labels)
        folder = RunFolder(directory, run, history)
    seed = int(np.random.randint(2**31))
    data = _in_epochs(data, batch_size, seed, labels)
    validation_data = _in_epochs(validation_data, batch_size, 0, held_out)
    steps = _num_batches(data)
    every = [unfreezing, *callbacks, history]
    every[-1:-1] = [data.clock] if isinstance(data, Epochs) else []
    every += [folder.callback] if folder else []
    with _keras.optimizer_kept(model):
        own_rate = any(isinstance(each, RATE_CALLBACKS) for each in callbacks)
        give_slanted_rates(model, groups, None if own_rate else epochs * steps)
        fit = PhasedFit(model, every, epochs, steps, seed, settings)
        if folder:
            fit.seed, fit.done = folder.begin(model, seed), folder.epoch
    if isinstance(data, Epochs):
        data.seed = fit.seed
    if settings["verbose"]:
        _print_plan(plan, unfreezing, folder)
    if folder and folder.finished:
        # The flags of the last phase; what callbacks have written stays as it is.
        unfreezing.on_epoch_begin(fit.done - 1)
        unfreezing.on_train_end()
    else:
        fit.run(unfreezing.phases, data, validation_data, directory)
    if settings["verbose"]:
        _print_end(groups)
    return history


def _learnable(groups: LayerGroups) -> list[str]:
    """Return the names of groups that are not of frozen BatchNorm alone, or pinned."""
    phases = Phases(groups, [Phase(tuple(groups.names))], "frozen")
    return [name for name in groups.names if phases.variables(Phase(name))]


def _is_frozen(model: keras.Model) -> bool:
    return any(isinstance(x, FrozenBackbone) for x in _keras.flat_layers(model))


def _run(
    model: keras.Model,
    plan: Recipe,
    epochs: int,
    batch_size: int | None,
    data: Any,
    labels: Any,
) -> dict:
    """Return what makes a run, to tell it from another."""
    optimizer = _keras.inner_optimizer(model.optimizer)
    rate = _keras.settings(optimizer)["learning_rate"]
    # The order of arrays counts, since an epoch's follows from it and the seed; that
    # of a dataset may be another in each pass.
    known = map_arrays(np.asarray, data) if isinstance(data, tuple) else labels
    digest = RowDigest()
    for each in keras.tree.flatten(known):
        rows = each if known is not labels else np.sort(each, axis=None)
        for start in range(0, len(rows), CHUNK):
            digest.update(rows[start : start + CHUNK])
    return {
        "strategy": plan.strategy,
        "phases": to_config(plan.phases),
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": type(optimizer).__name__,
        "learning_rate": rate if isinstance(rate, float) else type(rate).__name__,
        "weights": zlib.crc32(str([x.shape for x in model.weights]).encode()),
        "data": digest.value(),
    }


def _rows(labels: Any) -> int:
    return len(keras.tree.flatten(labels)[0])


def _in_epochs(data: Any, batch_size: int | None, seed: int, labels: Any) -> Any:
    """Return arrays as `Epochs`, and a dataset with its length."""
    if isinstance(data, tuple):
        return Epochs(data, batch_size or 32, seed)
    if hasattr(data, "cardinality"):
        return with_length(data, _rows(labels))
    return data


def _num_batches(data: Any) -> int:
    if isinstance(data, Epochs):
        return data.batches
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches
    known = int(data.cardinality())
    return known if known >= 0 else sum(1 for _ in data)


def _print_plan(
    plan: Recipe, unfreezing: GradualUnfreezing, folder: RunFolder | None
) -> None:
    print(f"fine_tune: strategy {plan.strategy!r}, {plan.reason}")
    print(unfreezing.phases)
    if folder and folder.finished:
        print(f"this run has ended after {folder.epoch} epochs; nothing is trained")
    elif folder and folder.epoch:
        print(f"{folder.epoch} epochs are done already")


def _print_end(groups: LayerGroups) -> None:
    learning = [group.name for group in groups if group.trainable_variables]
    print(f"fine_tune: what trains stays {', '.join(learning)}, as in the last phase")
