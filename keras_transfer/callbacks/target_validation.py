"""Scores for choosing a checkpoint, computed each epoch without target labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.arrays import as_classes
from keras_transfer.analysis.arrays import as_probabilities
from keras_transfer.analysis.domains import validators as scores
from keras_transfer.analysis.domains.importance_weights import importance_weights
from keras_transfer.analysis.domains.outputs import check_domain
from keras_transfer.analysis.domains.outputs import read_domain
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.backbones.features import features as features_of
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.data.examples import ARRAYS
from keras_transfer.data.examples import BATCH_SIZE
from keras_transfer.data.examples import kind_of
from keras_transfer.losses.compiled_loss import check_exclusive
from keras_transfer.losses.compiled_loss import says_logits

ON_TARGET = {
    "target_entropy": scores.target_entropy,
    "information_maximization": scores.information_maximization,
    "soft_neighborhood_density": scores.soft_neighborhood_density,
}
RISKS = ("importance_weighted_risk", "deep_embedded_validation")
ACCURACY = "source_accuracy"
DEFAULT = (ACCURACY, *ON_TARGET)
KNOWN = (*DEFAULT, *RISKS)
SIZE = "val_effective_sample_size"
TINY = 1e-12  # a probability of 0 would give an infinite loss

# Callbacks that write the logs, so they must come after this callback.
WRITERS = (keras.callbacks.TensorBoard, keras.callbacks.CSVLogger)


@keras.saving.register_keras_serializable(package="keras_transfer")
class TargetValidation(keras.callbacks.Callback):
    """Score the model after each epoch on a target domain without labels.

    The best epoch for the source is often not the best for the target, and domain
    adaptation has no target labels to find it. Each validator adds `val_<name>` to the
    logs, for a ModelCheckpoint or EarlyStopping **after this callback** to monitor. A
    higher value is always better, so set **mode="max"**. The logs therefore contain the
    two risks with a minus sign.

    - `source_accuracy`: accuracy on the held-out source examples.
    - `target_entropy`: minus the mean entropy of the predictions on the target.
    - `information_maximization`: the mutual information of target examples and their
      predictions.
    - `soft_neighborhood_density`: how densely the predictions on the target cluster.
      The cost grows with the square of the number of examples.
    - `importance_weighted_risk`, `deep_embedded_validation`: cross entropy on the
      held-out source, weighted by a density ratio of the features. Both also log
      `val_effective_sample_size`, at most the number of source examples.

    Each validator is the function of the same name in `kt.analysis`. Its docstring
    lists what the validator cannot detect. The scores use the outputs of `predict` on
    plain input. For `DANN` and similar models these are the outputs of the label head.
    The callback does not change the model or its training.

    Args:
        source: Held-out labeled source data: arrays `(x, y)`, or a batched
            `tf.data.Dataset` or `keras.utils.PyDataset` of such pairs. y are class
            numbers or one-hot rows. Pass None if all validators use the target only.
        target: Inputs of the target without labels: arrays, or a batched dataset of x
            only. It may be the data that the model is adapted to.
        validators: List of validator names, in the order of the logs. Defaults to the
            first four above.
        features: Model or backbone that maps the inputs to the features, in which the
            two risks compare the domains. It must share layers with the fitted model.
            Defaults to None: the `feature_extractor` of the fitted model.
        from_logits: Bool, whether the outputs are logits. Defaults to None, which takes
            the setting of the compiled loss. A loss without this setting raises an
            error.
        clip: Float above 0, the largest density ratio, as in `importance_weights`.
            Defaults to None, which means no limit.
        batch_size: Int, examples per batch, for arrays only. Defaults to None, which
            means 32.

    Raises:
        TypeError: If data can be read only once, or an argument has the wrong type.
        ValueError: If target labels are passed, if a validator is unknown or lacks its
            source or features, if data is empty, infinite or does not fit the model, or
            if a callback that monitors or writes these values comes before this one or
            has a mode other than "max".

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(64, 4)), np.arange(64) % 2
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        validation = kt.callbacks.TargetValidation((x[:32], y[:32]), x[:32] + 1)
        stop = keras.callbacks.EarlyStopping(
            "val_information_maximization", mode="max", patience=2
        )
        callbacks = [validation, stop]
        logs = model.fit(x[32:], y[32:], callbacks=callbacks, verbose=0).history
        assert 0 <= logs["val_source_accuracy"][0] <= 1
        ```

    Reference:
        Musgrave, Belongie and Lim 2021, Unsupervised Domain Adaptation: A Reality
        Check, arXiv:2111.15672. Saito et al. 2021, Tune it the Right Way, arXiv:
        2108.10860.
    """

    def __init__(
        self,
        source: Any,
        target: Any,
        *,
        validators: Sequence[str] = DEFAULT,
        features: keras.Model | FrozenBackbone | None = None,
        from_logits: bool | None = None,
        clip: float | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.validators = _known(validators)
        self.from_logits = from_logits
        self.clip = clip
        self.batch_size = batch_size
        self._features = features
        self._source, self._target = source, target
        risks = [each for each in self.validators if each in RISKS]
        of_source = [each for each in self.validators if each not in ON_TARGET]
        self._risks, self._of_source = risks, of_source
        if from_logits is not None and not isinstance(from_logits, bool):
            raise TypeError(f"from_logits={from_logits!r} must be True, False or None.")
        if not risks and (features is not None or clip is not None):
            raise ValueError(
                f"`features` and `clip` have no effect on {list(self.validators)}. "
                f"Leave them out, or add one of {list(RISKS)}."
            )
        if (source is None) != (not of_source):
            raise ValueError(
                f"source is None, but {of_source} are computed on held-out source "
                "examples. Pass these examples as (x, y)."
                if source is None
                else f"source has no effect on {list(self.validators)}. Pass None."
            )
        given = [target] if source is None else [source, target]
        if source is not None:
            check_domain("source", source, True)
        check_domain("target", target, False)
        kinds = [kind_of(each, x_alone=True) for each in given]
        _check_batch_size(batch_size, ARRAYS not in kinds)

    def get_config(self) -> dict:
        """Return the arguments without `source`, `target` and `features`.

        To restore the callback, pass the config and these three arguments to the class.
        """
        names = ("from_logits", "clip", "batch_size")
        config = {name: getattr(self, name) for name in names}
        return {"validators": list(self.validators)} | config

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that this callback adds to the logs."""
        names = tuple(f"val_{each}" for each in self.validators)
        return (*names, SIZE) if self._risks else names

    def set_model(self, model: keras.Model) -> None:
        """Check the other callbacks, and find the kind of outputs and the features."""
        super().set_model(model)
        self._check_neighbors()
        self._logits = self.from_logits
        if self._logits is None:
            self._logits = says_logits(model)
        self._models = [model]
        self._functions = {}
        if self._risks:
            self._models.append(self._feature_model())

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the scores of this epoch to `logs`."""
        if logs is None:
            return
        taken = [each for each in self.keys if each in logs]
        if taken:
            raise ValueError(
                f"{taken} are in the logs already, because a metric of the model or "
                "another callback uses the same names. Rename that metric."
            )
        if self.model.stop_training and not np.isfinite(logs.get("loss", 0.0)):
            # TerminateOnNaN ended the training. Other callbacks may still restore the
            # best epoch. NaN is never above their best value.
            logs.update(dict.fromkeys(self.keys, np.nan))
            return
        logs.update(self._scores())

    def _scores(self) -> dict[str, float]:
        _, (outputs, *features) = self._read("target", self._target, False)
        check_exclusive(self.model, outputs)
        found = {
            name: ON_TARGET[name](outputs, from_logits=self._logits)
            for name in self.validators
            if name in ON_TARGET
        }
        if self._of_source:
            y, (outputs, *others) = self._read("source", self._source, True)
            found[ACCURACY] = scores.source_accuracy(
                y, outputs, from_logits=self._logits
            )
        logs = {}
        if self._risks:
            weights = importance_weights(others[0], features[0], clip=self.clip)
            losses = _losses(y, as_probabilities(outputs, self._logits))
            risk = scores.importance_weighted_risk(losses, weights.weights)
            found["importance_weighted_risk"] = -risk
            risk = scores.deep_embedded_validation(losses, weights.ratios)
            found["deep_embedded_validation"] = -risk
            logs[SIZE] = weights.effective_sample_size
        return {f"val_{name}": found[name] for name in self.validators} | logs

    def _read(self, name: str, data: Any, labeled: bool) -> tuple:
        """Run the models on `data`. Each model is traced once per `fit`."""
        model, size = self.model, self.batch_size or BATCH_SIZE
        with unchanged(model):
            key = _keras.outputs_key(model)
            model.predict_function = self._functions.get(key)
            found = read_domain(name, self._models, data, labeled, size)
            self._functions[key] = model.predict_function
        return found

    def _feature_model(self) -> keras.Model:
        found = self._features
        if found is None:
            found = getattr(self.model, "feature_extractor", None)
        if found is None:
            raise ValueError(
                f"{self._risks} compare the features of the domains, but "
                f"{self.model.name!r} has no `feature_extractor`. Pass features="
                "keras.Model(model.inputs, output of the layer before the head)."
            )
        with _keras.scope(self.model):
            return features_of(found)

    def _check_neighbors(self) -> None:
        before = True
        ours = {f"val_{each}" for each in KNOWN} | {SIZE}
        for callback in _keras.running_callbacks():
            if callback is self:
                before = False
                continue
            what = type(callback).__name__
            monitored = getattr(callback, "monitor", None)
            if isinstance(callback, TargetValidation):
                raise ValueError(
                    "There are two TargetValidation in one `fit`, and both write the "
                    "same names. Use one callback with all validators."
                )
            if before and (isinstance(callback, WRITERS) or monitored in self.keys):
                raise ValueError(
                    f"{what} comes before TargetValidation, so it would not get the "
                    f"values of the epoch. Put TargetValidation before {what}."
                )
            if monitored not in ours:
                continue
            if monitored not in self.keys:
                raise ValueError(
                    f"{what} monitors {monitored!r}, which is not among the "
                    f"validators {list(self.validators)}. Add it to `validators`."
                )
            if getattr(callback, "mode", "max") != "max":
                raise ValueError(
                    f"{what} monitors {monitored!r} with mode={callback.mode!r}, but a "
                    'higher value is better for all validators. Pass mode="max".'
                )


def _known(validators: Any) -> tuple[str, ...]:
    if isinstance(validators, str) or not isinstance(validators, Sequence):
        raise TypeError(f"validators={validators!r} must be a list of names.")
    unknown = [each for each in validators if each not in KNOWN]
    if unknown or not validators or len(set(validators)) < len(validators):
        raise ValueError(
            f"validators={list(validators)} must be one or more of {list(KNOWN)}, "
            "without repetition."
        )
    return tuple(validators)


def _check_batch_size(batch_size: int | None, useless: bool) -> None:
    if batch_size is None:
        return
    whole_number("batch_size", batch_size, kind=TypeError)
    if useless:
        raise ValueError(
            f"batch_size={batch_size} has no effect, because datasets have batches of "
            "their own. Leave batch_size out."
        )


def _losses(y: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the cross entropy of each example."""
    labels = as_classes(y, probabilities.shape[1])
    right = probabilities[np.arange(len(labels)), labels]
    return np.maximum(0, -np.log(np.maximum(right, TINY)))
