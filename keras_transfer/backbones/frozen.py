"""FrozenBackbone: a pretrained network that never changes."""

import keras
from keras import ops

from keras_transfer import _keras


@keras.saving.register_keras_serializable(package="keras_transfer")
class FrozenBackbone(keras.layers.Wrapper):
    """Wrap a layer so that its weights, statistics and outputs never change.

    For a backbone `f` and inputs `x` the wrapper computes the following, for every
    output of `f`:

        y = stop_gradient(f(x, training=False))

    Use this wrapper if the features must be the same before, during and after `fit`:
    for a linear probe, a feature cache or a teacher. `backbone.trainable = False` does
    not turn off dropout. In a functional model, `fit` overrides the argument of
    `backbone(x, training=False)` (keras-team/keras#20285).

    The wrapper guarantees:

    - Weights and BatchNormalization statistics have the same bits after `fit`.
    - Dropout, stochastic depth and augmentation in the backbone are off.
    - `outer.trainable = True` does not unfreeze the backbone. Keras sets the flag of a
      parent on all its children, so `trainable` of the wrapper is always False and
      setting it has no effect.
    - Flags that you set on layers inside have no effect either. The gradient is
      stopped, and the next call in training sets the flags to False again.
    - A loaded `.keras` file is frozen again, so the optimizer finds the variables that
      it was saved with.
    - Masks, and dictionaries of inputs and outputs, pass through.

    To unfreeze the backbone, set `frozen.layer.trainable = True` and build a model on
    `frozen.layer` without the wrapper. The flags belong to the variables, so training
    a model that still has the wrapper freezes the backbone again. No gradient reaches
    the layers in front of the wrapper.

    Args:
        layer: Keras layer or model to freeze. The `trainable` flags of its layers and
            variables are set to False, also for all other models with this layer.
        trainable: `None` or `False`. `True` is not allowed. Defaults to `None`.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Input shape:
        The input shape of `layer`: a tensor or any structure of tensors.

    Output shape:
        The output shape of `layer`.

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
        assert len(model.trainable_variables) == 2  # only the head
        ```

    Raises:
        ValueError: If `trainable=True` is passed, or `layer` is not a Keras layer.

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
                "trains. Leave out the argument. To train the layer, use it without "
                "the wrapper."
            )
        # The wrapped layer casts its own inputs. A cast here would lose bits of a
        # float32 backbone under a mixed global policy.
        super().__init__(layer, trainable=False, autocast=False, **kwargs)
        self.stop_gradient = _StopGradient(name="stop_gradient")
        _freeze(self.layer)

    @property
    def trainable(self) -> bool:
        """Always False."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        # An error here would make `outer.trainable = True` impossible.
        pass

    def build(self, input_shape: object = None) -> None:
        """Build the layer and freeze its new weights."""
        # A layer that does not define `build` is built by its first call.
        if not self.layer.built and type(self.layer).build is not keras.Layer.build:
            self.layer.build(input_shape)
        self.stop_gradient.build(input_shape)
        _freeze(self.layer)

    def call(self, inputs: object, training: bool | None = None) -> object:
        """Return the layer's outputs in inference mode, without a gradient."""
        was_built = self.layer.built
        outputs = self.layer(inputs, training=False)
        if training or not was_built:
            _freeze(self.layer)
        # Keras keeps the `training` of the last call for all later layers. Passing the
        # outer `training` here restores it. Without this, the dropout of the head
        # would be off in a subclassed model.
        return keras.tree.map_structure(
            lambda x: self.stop_gradient(x, training=training), outputs
        )

    def compute_output_spec(
        self, inputs: object, training: bool | None = None
    ) -> object:
        """Return the output specification of the wrapped layer."""
        if self.layer.built:
            return self.layer.compute_output_spec(inputs)
        return super().compute_output_spec(inputs, training=training)

    def compute_mask(self, inputs: object, previous_mask: object) -> object:
        """Return the mask of the wrapped layer."""
        # For symbolic calls; eager tensors already have their masks.
        if self.layer.supports_masking:
            return self.layer.compute_mask(inputs, previous_mask)
        return None


class _StopGradient(keras.Layer):
    """Stop the gradient. This is a layer because only layers pass on masks."""

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
    # Keras passes a flag to the children only if the flag changes. A parent that is
    # already False does not reach a child that is True, so the loop sets each layer.
    for child in _keras.flat_layers(layer):
        child.trainable = False
    for variable in layer.weights:
        variable.trainable = False
