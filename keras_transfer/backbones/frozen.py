"""FrozenBackbone: a pretrained network that stays exactly as it is."""

import keras
from keras import ops

from keras_transfer import _keras


@keras.saving.register_keras_serializable(package="keras_transfer")
class FrozenBackbone(keras.layers.Wrapper):
    """Hold a layer fixed: no weight, no statistic, no dropout ever moves.

    With backbone `f` and inputs `x` the wrapper computes

        y = stop_gradient(f(x, training=False))

    for every output of `f`. Use it when features are to be the same before,
    during and after `fit`: for a linear probe, a cached feature set or a
    teacher. It does more than `backbone.trainable = False`, which leaves
    dropout on, and more than `backbone(x, training=False)` in a functional
    model, which `fit` overrides (keras-team/keras#20285).

    What is promised:

    - Weights and BatchNormalization statistics are the same bits after `fit`.
    - Dropout, stochastic depth and augmentation inside the backbone are off.
    - `outer.trainable = True` does not thaw it. `trainable` is always False,
      and setting it to True is without effect, since Keras sets the flag of a
      parent on all its children.
    - A flag set by hand on something inside does not train it either: the
      gradient is stopped, and the flags are set to False again when the
      wrapper is next called in training.
    - It reloads from a `.keras` file as frozen, so the optimizer finds the
      variables that it was saved with.
    - Masks, and dictionaries of inputs and outputs, pass through.

    To thaw the backbone take `frozen.layer`, set its `trainable = True`, and
    build a model on it without the wrapper. Flags belong to the variables:
    training a model that still has the wrapper freezes them once more. No
    gradient reaches layers in front of the wrapper.

    Args:
        layer: The layer or model to hold fixed. Its `trainable` flags are set
            to False, down to the last variable, also for everybody else who
            holds this layer.
        trainable: `None` or False. There is no True.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Input shape:
        That of `layer`; a tensor or any structure of tensors.

    Output shape:
        That of `layer`.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        backbone = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)]
        )
        model = keras.Sequential(
            [kt.backbones.FrozenBackbone(backbone), keras.layers.Dense(1)]
        )
        model.compile("sgd", "mse")
        model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        assert len(model.trainable_variables) == 2  # the head's
        ```

    Raises:
        ValueError: If `trainable=True` is given or `layer` is no Keras layer.

    Reference:
        Keras, "Transfer learning & fine-tuning", keras.io/guides; the wrapper
        builds on `keras.layers.Wrapper`.
    """

    def __init__(
        self, layer: keras.Layer, *, trainable: bool | None = None, **kwargs: object
    ):
        if trainable:
            raise ValueError(
                f"FrozenBackbone received trainable={trainable!r}, but it never "
                "trains. Leave the argument out, or use the layer without the "
                "wrapper to train it."
            )
        # The wrapped layer casts its own inputs; casting here would lose bits
        # of a float32 backbone under a mixed global policy.
        super().__init__(layer, trainable=False, autocast=False, **kwargs)
        self.stop_gradient = _StopGradient(name="stop_gradient")
        _freeze(self.layer)

    @property
    def trainable(self) -> bool:
        """Always False."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        # An error here would forbid `outer.trainable = True`.
        pass

    def build(self, input_shape: object = None) -> None:
        """Build the layer and freeze what that created."""
        # A layer without a `build` of its own is built by its first call.
        if not self.layer.built and type(self.layer).build is not keras.Layer.build:
            self.layer.build(input_shape)
        self.stop_gradient.build(input_shape)
        _freeze(self.layer)

    def call(self, inputs: object, training: bool | None = None) -> object:
        """Return the layer's outputs at inference, without a gradient."""
        was_built = self.layer.built
        outputs = self.layer(inputs, training=False)
        if training or not was_built:
            _freeze(self.layer)
        # Keras remembers the last `training` of a call for all layers after
        # it. Naming the outer one here gives it back, or the dropout of the
        # head would be off in a subclassed model.
        return keras.tree.map_structure(
            lambda x: self.stop_gradient(x, training=training), outputs
        )

    def compute_output_spec(
        self, inputs: object, training: bool | None = None
    ) -> object:
        """Return the layer's own output specification."""
        if self.layer.built:
            return self.layer.compute_output_spec(inputs)
        return super().compute_output_spec(inputs, training=training)

    def compute_mask(self, inputs: object, previous_mask: object) -> object:
        """Return the layer's own mask."""
        # Eager masks are on the tensors already. This serves symbolic calls.
        if self.layer.supports_masking:
            return self.layer.compute_mask(inputs, previous_mask)
        return None


class _StopGradient(keras.Layer):
    """Stop the gradient; as a layer, since only layers carry masks along."""

    def __init__(self, **kwargs: object):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def build(self, input_shape: object = None) -> None:
        self.built = True

    def call(self, inputs: object) -> object:
        return ops.stop_gradient(inputs)

    def compute_output_spec(self, inputs: object) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)


def _freeze(layer: keras.Layer) -> None:
    # Keras passes a flag on only where it changes, so a parent that is False
    # already does not reach a child that is True. Hence each one by itself.
    for part in _keras.flat_layers(layer):
        part.trainable = False
    for variable in layer.weights:
        variable.trainable = False
