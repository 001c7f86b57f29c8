"""ScalarMix: the weighted sum of the hidden states of several blocks."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_transfer._arguments import dropout_rate

MASKED = -1e20  # finite: if all blocks are left out, they get equal weights, not NaN
EPSILON = 1e-6  # added to the variance


@keras.saving.register_keras_serializable(package="keras_transfer")
class ScalarMix(keras.layers.Layer):
    """Return a weighted sum of tensors, with weights that are learned.

    For tensors `h_0, ..., h_L`, usually the states of
    `kt.backbones.hidden_states`, scores `w` and a scale gamma, the layer computes

        y = gamma * sum_j s_j h_j,   s = softmax(w)

    It has one weight for each tensor and the scale. The weights start equal and the
    scale at 1, so the layer starts as the mean. Use it where the last block of a
    backbone is not the best one for a task, as `kt.analysis.probe_layers` shows before
    you train. With a few hundred labels or less, the weights learn little, and the
    mean of the blocks is as good (benchmarks/README.md). The sum is computed in
    float32 for every dtype.

    The Keras masks of the tensors are kept. If they differ, only the positions that all
    masks keep are kept.

    Args:
        layer_dropout: Float in [0, 1), the probability that a tensor is left out of
            a training step, so that the mix does not depend on one block. The
            remaining weights add up to 1. If all are left out, they have equal
            weights. Defaults to 0.0.
        layer_norm: Bool, whether each tensor is normalized over its features first,
            to mean 0 and variance 1 without weights, as blocks can differ in their
            scale. AllenNLP's `do_layer_norm` divides by one variance of the whole
            batch, so the output of an example would depend on the others. Defaults to
            False.
        regularizer: Keras regularizer of the scores, such as `"l2"`, which keeps the
            weights nearly equal. Defaults to None.
        seed: Integer, the seed of `layer_dropout`. Defaults to None, a random seed.
        **kwargs: `name` and `dtype`, as for every layer.

    Input shape:
        A list of tensors of equal shape `(batch, ..., features)`.

    Output shape:
        The shape of one tensor.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        layers = [keras.layers.Dense(4, name=f"block_{n}") for n in range(3)]
        backbone = keras.Sequential([keras.Input((5,)), *layers])
        states = kt.backbones.hidden_states(backbone)
        mix = kt.layers.ScalarMix()
        model = keras.Model(states.input, mix(states.outputs))
        assert model(np.ones((2, 5))).shape == (2, 4)
        np.testing.assert_allclose(mix.block_weights, 1 / 3, rtol=1e-6)
        ```

    Raises:
        TypeError: If the input is not a list of tensors.
        ValueError: If `layer_dropout` is out of range, or the tensors differ in
            their shapes.

    Reference:
        Peters et al., 2018, "Deep contextualized word representations", arXiv
        1802.05365, equation 1. AllenNLP's `ScalarMix` is the same, with
        `layer_dropout` as its `dropout`.
    """

    def __init__(
        self,
        layer_dropout: float = 0.0,
        *,
        layer_norm: bool = False,
        regularizer: object = None,
        seed: int | None = None,
        **kwargs: object,
    ):
        super().__init__(**kwargs)
        self.layer_dropout = dropout_rate("layer_dropout", layer_dropout)
        self.layer_norm = bool(layer_norm)
        self.regularizer = keras.regularizers.get(regularizer)
        self.seed = seed
        if self.layer_dropout:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape: Sequence) -> None:
        """Make a weight for each tensor."""
        count = len(_checked_shapes(input_shape))
        self.scores = self.add_weight(
            name="scores",
            shape=(count,),
            initializer="zeros",
            regularizer=self.regularizer,
            dtype="float32",
            autocast=False,
        )
        self.gamma = self.add_weight(
            name="gamma", shape=(), initializer="ones", dtype="float32", autocast=False
        )

    @property
    def block_weights(self) -> np.ndarray:
        """The weights of the tensors, in their order. They add up to 1."""
        if not self.built:
            raise ValueError(
                f"'{self.name}' was not called yet, so the number of its weights is "
                "unknown. Call it on a list of tensors first."
            )
        return ops.convert_to_numpy(_softmax(self.scores.value))

    def call(self, inputs: Sequence, training: bool | None = None) -> object:
        """Return the weighted sum."""
        if len(inputs) != self.scores.shape[0]:
            raise ValueError(
                f"'{self.name}' got {len(inputs)} tensors, but it was built for "
                f"{self.scores.shape[0]}. Pass the same number in each call."
            )
        scores = ops.convert_to_tensor(self.scores)
        if self.layer_dropout and training:
            shape = tuple(scores.shape)
            drawn = keras.random.uniform(
                shape, dtype="float32", seed=self.seed_generator
            )
            scores = ops.where(drawn < self.layer_dropout, MASKED, scores)
        shares = _softmax(scores) * self.gamma
        total = 0.0
        for index, state in enumerate(inputs):
            state = ops.cast(state, "float32")
            if self.layer_norm:
                state = state - ops.mean(state, axis=-1, keepdims=True)
                variance = ops.mean(ops.square(state), axis=-1, keepdims=True)
                state = state * ops.rsqrt(variance + EPSILON)
            total = total + shares[index] * state
        return ops.cast(total, self.compute_dtype)

    def compute_mask(self, inputs: Sequence, previous_mask: object) -> object:
        """Return the mask of the tensors."""
        masks = {id(x): x for x in keras.tree.flatten(previous_mask) if x is not None}
        kept = None
        for mask in masks.values():
            kept = mask if kept is None else ops.logical_and(kept, mask)
        return kept

    def compute_output_shape(self, input_shape: Sequence) -> tuple:
        """Return the shape of one tensor."""
        return tuple(_checked_shapes(input_shape)[0])

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {
            "layer_dropout": self.layer_dropout,
            "layer_norm": self.layer_norm,
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "seed": self.seed,
        }


def _softmax(scores: object) -> object:
    powers = ops.exp(scores - ops.max(scores))  # ops.softmax warns of a single score
    return powers / ops.sum(powers)


def _checked_shapes(shapes: object) -> list:
    if shapes is None or len(shapes) == 0:
        raise ValueError("ScalarMix got an empty list. Pass at least one tensor.")
    several = isinstance(shapes, list | tuple)
    if not several or not all(isinstance(each, list | tuple) for each in shapes):
        given = (
            f"{len(shapes)} named tensors" if isinstance(shapes, dict) else "a tensor"
        )
        raise TypeError(
            f"ScalarMix takes a list of tensors, but got {given} of shape {shapes}. "
            "Pass the outputs of kt.backbones.hidden_states(backbone), or a list in "
            "the order of the blocks."
        )
    first = shapes[0]
    for index, shape in enumerate(shapes):
        pairs = zip(first, shape, strict=False)
        if len(shape) != len(first) or any(
            None not in pair and pair[0] != pair[1] for pair in pairs
        ):
            raise ValueError(
                f"ScalarMix adds tensors of equal shape, but tensor 0 has the shape "
                f"{tuple(first)} and tensor {index} has {tuple(shape)}. Choose blocks "
                "of equal shape, as in kt.backbones.hidden_states(backbone, blocks), "
                "or put a layer such as Dense on each of them."
            )
    return list(shapes)
