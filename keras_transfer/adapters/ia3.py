"""IA3: scale keys, values and the hidden features of feed-forward networks."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters import matrix
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import check_overrides
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.peft_format import PeftTensor
from keras_transfer.adapters.targets import by_pattern
from keras_transfer.adapters.targets import check_patterns
from keras_transfer.adapters.targets import find
from keras_transfer.adapters.targets import projections
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.projections import FEED_FORWARD_OUTPUTS
from keras_transfer.backbones.projections import is_one
from keras_transfer.backbones.projections import KEYS_AND_VALUES


@keras.saving.register_keras_serializable("keras_transfer")
class IA3Scale(Part):
    """A factor for each output of the host, before its activation, or for each input.

    Args:
        of_inputs: Whether the inputs are scaled instead of the outputs.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    peft_tensors = {
        "ia3_l": PeftTensor("ia3_scale", ("outputs", "one"), ("outputs",), rest=1.0)
    }
    peft_inputs = {"ia3_l": PeftTensor("ia3_scale", ("one", "inputs"), ("inputs",))}

    def __init__(
        self, of_inputs: bool, name: str = "default", dtype: object = None
    ) -> None:
        super().__init__(name, dtype)
        self.of_inputs = of_inputs

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return the factors, which start at 1."""
        size = matrix.sizes(host)[0 if self.of_inputs else 1]
        return {"ia3_scale": ((size,), "ones")}

    def on_inputs(self, host: keras.Layer, inputs: object) -> object:
        """Scale the inputs if `of_inputs` is True."""
        if not self.of_inputs:
            return inputs
        return inputs * matrix.beside_inputs(host, self._factors(inputs.dtype))

    def on_outputs(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Scale the outputs, including the bias, if `of_inputs` is False."""
        if self.of_inputs:
            return outputs
        return outputs * matrix.beside_outputs(host, self._factors(outputs.dtype))

    def fold(self, host: keras.Layer, weights: dict[str, np.ndarray]) -> None:
        """Scale the rows of the kernel, or its columns and the bias."""
        factors = 1 + gate_value(self) * (_keras.value(self.ia3_scale) - 1)
        kernel = matrix.as_matrix(host, weights["kernel"])
        if self.of_inputs:
            # A convolution's kernel has a row for each input at each window position.
            places = kernel.shape[0] // factors.size
            kernel = kernel * np.tile(factors, places)[:, np.newaxis]
        else:
            kernel = kernel * factors
            if "bias" in weights:
                weights["bias"] = matrix.scaled_bias(host, weights["bias"], factors)
        weights["kernel"] = matrix.as_kernel(host, kernel)

    def joined(
        self, host: keras.Layer, others: list[tuple[Part, float]], name: str
    ) -> Part:
        """Return the factors `1 + sum of weight * (factors - 1)`.

        If the weights sum to 1, this equals PEFT's weighted sum of the factors.
        """
        check_overrides(self, "joined")
        if any(part.of_inputs != self.of_inputs for part, _ in others):
            raise ValueError(
                f"One of the adapters {[part.name for part, _ in others]} scales the "
                f"inputs of {host.name!r}, and another scales its outputs. They have "
                "no sum. Sum adapters that have the same `feedforward`."
            )
        new = type(self)(self.of_inputs, name)
        new.create(host)
        changes = [
            weight * (_keras.value(part.ia3_scale) - 1) for part, weight in others
        ]
        new.ia3_scale.assign(1 + sum(changes))
        return new

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return super().get_config() | {"of_inputs": self.of_inputs}

    def _factors(self, dtype: object) -> object:
        gate = ops.cast(self.gate, dtype)
        return 1 + gate * (ops.cast(self.ia3_scale, dtype) - 1)


@keras.saving.register_keras_serializable("keras_transfer")
class IA3(Adapter):
    """Train a factor for each key, value and hidden feature of the feed-forward net.

    Attention computes with `l_k * K` and `l_v * V`. The second layer of the
    feed-forward network computes `W2 (l_ff * act(W1 x))`. The vectors l start at 1 and
    train, and all other weights are frozen. In BERT-base 55,296 parameters train
    (0.05 %), fewer than with LoRA. `kt.adapters.merge` multiplies the rows and columns
    of the weights by the factors.

    PEFT calls this `IA3Config`, and `kt.load_adapter` reads its files. If a target has
    an activation, as `keras.layers.Dense` can, the factors come before the activation,
    as in PEFT.

    Args:
        targets: None, `"all-linear"`, a regular expression that is searched in the
            paths, or a list of expressions and layers. None selects the keys and values
            of each attention, including cross-attention, and the second layer of each
            feed-forward network. In convolutional networks None selects the
            convolutions of the blocks. A Dense, EinsumDense or convolution can be a
            target. Defaults to None.
        feedforward: List of regular expressions such as `["output_dense"]`. Targets
            whose path ends in a match are scaled at their inputs, as in PEFT. None
            selects the second layers of feed-forward networks by their names in
            keras-hub. Defaults to None.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(8, activation="gelu", name="wide"),
                keras.layers.Dense(4, name="narrow"),
            ]
        )
        recipe = kt.adapters.IA3(targets="narrow", feedforward=["narrow"])
        recipe.attach(model)
        assert [tuple(v.shape) for v in model.trainable_weights] == [(8,)]
        ```

    Raises:
        TypeError: If `feedforward` is not a list of strings.

    Reference:
        H. Liu et al., 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and
        Cheaper than In-Context Learning", arXiv:2205.05638.
    """

    parts = {
        keras.layers.Dense: IA3Scale,
        keras.layers.EinsumDense: IA3Scale,
        keras.layers.Conv1D: IA3Scale,
        keras.layers.Conv2D: IA3Scale,
        keras.layers.Conv3D: IA3Scale,
    }
    peft = PeftFormat(
        settings={"peft_type": "IA3"},
        arguments={},
        blocks=False,
        # A loaded recipe names its layers, so the modules become `feedforward`.
        ignored=frozenset(
            {"feedforward_modules", "fan_in_fan_out", "init_ia3_weights"}
        ),
    )

    def __init__(
        self, targets: object = None, feedforward: Iterable[str] | None = None
    ) -> None:
        super().__init__(targets)
        if feedforward is not None:
            if isinstance(feedforward, str) or not isinstance(feedforward, Iterable):
                raise TypeError(
                    f"feedforward={feedforward!r} is not a list of expressions. Write "
                    f"[{feedforward!r}]."
                )
            feedforward = list(feedforward)
            if not all(isinstance(each, str) for each in feedforward):
                raise TypeError(
                    f"feedforward={feedforward!r} contains a value that is not a "
                    "string. Give regular expressions over paths."
                )
        self.feedforward = feedforward

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the targets. Each expression of `feedforward` must match one."""
        targets = []
        if self.targets is None:
            patterns = (KEYS_AND_VALUES, FEED_FORWARD_OUTPUTS)
            targets = projections(model, self.parts, patterns, cross=True)
        kind = type(self).__name__
        targets = targets or find(model, self.targets, self.parts, kind)
        check_patterns(self.feedforward or (), targets)
        return targets

    def part(self, target: Target) -> Part:
        """Return the factors of one layer."""
        if self.feedforward is None:
            of_inputs = is_one(FEED_FORWARD_OUTPUTS, target.path)
        else:
            patterns = dict.fromkeys(self.feedforward, True)
            of_inputs = by_pattern(patterns, target.path, False)
        if of_inputs and getattr(target.layer, "groups", 1) != 1:
            raise matrix.Unfit(
                f"The Conv2D {target.path!r} has groups of channels, so factors of its "
                "inputs cannot be merged. Leave it out of `feedforward`. Its outputs "
                "are then scaled instead."
            )
        return self.part_class(target.layer)(of_inputs)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return super().get_config() | {"feedforward": self.feedforward}
