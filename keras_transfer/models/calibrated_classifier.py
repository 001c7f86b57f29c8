"""CalibratedClassifier: a classifier with a calibration layer after its output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer.analysis.calibration.calibration import Calibration
from keras_transfer.analysis.calibration.kinds_of_outputs import check_one_output
from keras_transfer.backbones.used_weights import Unused
from keras_transfer.data.examples import rows_of
from keras_transfer.layers.calibration_layer import CalibrationLayer
from keras_transfer.models.backbone_model import BackboneModel


@keras.saving.register_keras_serializable(package="keras_transfer")
class CalibratedClassifier(BackboneModel):
    """A classifier, and a layer that calibrates its output.

    `kt.calibrate` returns it. It takes what the classifier takes, and gives outputs of
    the same kind: logits stay logits. It contains the classifier itself, not a copy, so
    both have the same weights. `save` and `kt.export_serving` keep the calibration. A
    Task of keras-hub takes its raw texts or images in `predict`, `evaluate` and `fit`,
    and `kt.export_serving` writes its preprocessor.

    Training changes the weights of both, and then the calibration does not fit any
    more: calibrate the classifier again. `fit` uses the compiled loss alone, without
    the further losses of a method such as DANN.

    Args:
        model: A built classifier with one output.
        calibrator: A `kt.layers.TemperatureScaling`, `VectorScaling` or
            `IsotonicCalibration` for its outputs.
        calibration: Dict, the content of `calibration`. Defaults to None, not measured.
        inputs: Symbolic inputs, a structure of `keras.KerasTensor`. Only for a model
            that is not functional. Defaults to None.
        name: Name of the model.

    Input shape:
        The input shape of the classifier.

    Output shape:
        The output shape of the classifier.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        layer = kt.layers.TemperatureScaling(2.0)
        calibrated = kt.models.CalibratedClassifier(model, layer)
        assert calibrated.model is model
        assert len(calibrated.weights) == len(model.weights) + 1
        ```

    Raises:
        TypeError: If `model` is not a Keras model, or `calibrator` is another layer.
        ValueError: If the model has several outputs, or its inputs are unknown.

    Reference:
        Guo et al., 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
    """

    def __init__(
        self,
        model: keras.Model,
        calibrator: CalibrationLayer,
        *,
        calibration: dict | None = None,
        inputs: Any = None,
        name: str | None = None,
    ):
        check_one_output(model)
        if not isinstance(calibrator, CalibrationLayer):
            raise TypeError(
                f"calibrator is a {type(calibrator).__name__}. Pass a layer such as "
                "kt.layers.TemperatureScaling."
            )
        known = inputs_of(model)
        if (known is None) is (inputs is None):
            kind = "is functional, so `inputs` has no effect. Leave it out."
            if known is None:
                kind = "is not functional, so its inputs are unknown. Pass `inputs`."
            raise ValueError(f"The model {model.name!r} {kind}")
        made = _new_inputs(inputs if known is None else known)
        outputs = calibrator(model(made))
        idle = model.idle_weights() if isinstance(model, BackboneModel) else []
        super().__init__(made, outputs, Unused(idle, []), name)
        self.model = model
        self.calibrator = calibrator
        self._own_inputs = lambda: inputs  # a lambda hides them from Keras
        self._calibration = lambda: calibration

    @property
    def calibration(self) -> Calibration | None:
        """What `kt.calibrate` has measured, before and after; None without it."""
        content = self._calibration()
        return None if content is None else Calibration(content)

    @property
    def backbone(self) -> object:
        """The backbone of the classifier, or None."""
        return getattr(self.model, "backbone", None)

    @property
    def pooling(self) -> object:
        """The pooling of the classifier, or None."""
        return getattr(self.model, "pooling", None)

    @property
    def preprocessor(self) -> object:
        """The preprocessor of a Task of keras-hub, or None."""
        return getattr(self.model, "preprocessor", None)

    @property
    def audio_preprocessor(self) -> object:
        """The preprocessor of an `AudioClassifier`, or None."""
        return getattr(self.model, "audio_preprocessor", None)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the calibrated outputs, as `keras.Model.predict`."""
        return super().predict(self._prepared(x), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Return the calibrated outputs of a batch."""
        return super().predict_on_batch(self._prepared(x))

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return loss and metrics, as `keras.Model.evaluate`."""
        return super().evaluate(self._prepared(x), *args, **kwargs)

    def fit(
        self, x: Any = None, *args: Any, validation_data: Any = None, **kwargs: Any
    ) -> Any:
        """Train classifier and all, as `keras.Model.fit`. Calibrate again after it."""
        if isinstance(validation_data, tuple):
            first, *others = validation_data
            validation_data = (self._prepared(first), *others)
        elif validation_data is not None:
            validation_data = self._prepared(validation_data)
        return super().fit(
            self._prepared(x), *args, validation_data=validation_data, **kwargs
        )

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write the model, as `keras.Model.save`, without the optimizer inside."""
        with self._without_optimizer():
            super().save(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Write the weights, as `keras.Model.save_weights`."""
        with self._without_optimizer():
            super().save_weights(*args, **kwargs)

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Load the weights, as `keras.Model.load_weights`."""
        with self._without_optimizer():
            super().load_weights(*args, **kwargs)

    @contextlib.contextmanager
    def _without_optimizer(self) -> Iterator[None]:
        # Keras would save it with its slots, and fails to load it.
        optimizer = getattr(self.model, "optimizer", None)
        self.model.optimizer = None
        try:
            yield
        finally:
            self.model.optimizer = optimizer

    def _prepared(self, x: Any) -> Any:
        """Return raw inputs of a Task of keras-hub as the inputs of its network."""
        prepare = getattr(self.model, "preprocess_samples", None)
        if prepare is None or self.preprocessor is None or x is None:
            return x
        own = self.input
        if isinstance(x, dict) and isinstance(own, dict) and set(x) == set(own):
            return x  # `fit` calls `evaluate` with such inputs
        if hasattr(x, "element_spec"):  # a dataset
            return x.map(prepare)
        return prepare(rows_of(x, slice(None)))

    def compile_from_config(self, config: dict) -> None:
        """Compile as before, also without an optimizer."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            with _keras.scope(self):
                self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict:
        """Return the arguments, the trainable flags and the names of the classes."""
        inputs = self._own_inputs()
        saved = keras.saving.serialize_keras_object
        model = saved(self.model)
        # The loss of this model is in its own config, and a Task cannot be compiled
        # from a config.
        model.pop("compile_config", None)
        return {
            "model": model,
            "calibrator": saved(self.calibrator),
            "calibration": self._calibration(),
            "inputs": None if inputs is None else saved(inputs),
            "name": self.name,
            **self.flags_config(),
        }

    def flags_config(self) -> dict:
        """Return the trainable flags, without those of a preprocessor.

        The preprocessor of a Task makes layers when it is first used.
        """
        config = super().flags_config()
        if self.preprocessor is not None:
            config["trainable_layers"] = None
            config["flags"] = [layer.trainable for layer in self._network_layers()]
        return config

    def _network_layers(self) -> list[keras.Layer]:
        layers = _keras.flat_layers(self)
        own = self.preprocessor
        if isinstance(own, keras.Layer):
            outside = {id(layer) for layer in [own, *_keras.flat_layers(own)]}
            layers = [layer for layer in layers if id(layer) not in outside]
        return layers

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> CalibratedClassifier:
        """Return the model from its config, with the same trainable flags."""
        config = dict(config)
        inputs, flags = config.get("inputs"), config.pop("flags", None)
        weights = config.get("trainable_weights")
        if inputs is not None:
            config["inputs"] = keras.saving.deserialize_keras_object(inputs)
        model = super().from_config(config, custom_objects)
        model.model.optimizer = None  # a Task makes one, which is not in the file
        if flags is not None:
            for layer, flag in zip(model._network_layers(), flags, strict=True):
                _keras.set_flag(layer, flag)
            for weight, flag in zip(model.weights, weights, strict=True):
                weight.trainable = flag
        return model


def inputs_of(model: keras.Model) -> Any:
    """Return the symbolic inputs of a functional model, or None for other models."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    # `Sequential.input` belongs to the last call, which can be in another model.
    return inputs[0] if isinstance(model, keras.Sequential) else model.input


def _new_inputs(tensors: Any) -> Any:
    """Return symbolic inputs like `tensors`. The keys of a dict are their names."""

    def made(tensor: Any, name: str | None) -> Any:
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)

    if isinstance(tensors, dict):
        return {name: made(tensor, name) for name, tensor in tensors.items()}
    return keras.tree.map_structure(
        lambda tensor: made(tensor, getattr(tensor, "name", None)), tensors
    )
