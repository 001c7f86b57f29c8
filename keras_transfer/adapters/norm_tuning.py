"""NormTuning: scales and offsets of normalizations alone learn."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer.adapters.weight_selection import is_norm
from keras_transfer.adapters.weight_selection import OwnWeights


@keras.saving.register_keras_serializable("keras_transfer")
class NormTuning(OwnWeights):
    """Learn the scales and offsets of normalizations and nothing else, but the head.

    In `gamma * (x - mean) / deviation + beta` gamma and beta learn: those of
    LayerNormalization, BatchNormalization, GroupNormalization, RMSNormalization (which
    has gamma alone), and of keras-hub's own classes with `Norm` in their name. In
    BERT-base these are 38,400 parameters, 0.04 %. PEFT has it for LayerNorm as
    `LNTuningConfig`.

    A BatchNormalization that learns does what Keras has it do: in training it
    normalizes by the batch, and its moving mean and variance follow the new data, as
    in Frankle et al. They count among the weights of this adapter.

    The model's own weights are changed. So another adapter cannot be next to this
    one, and it cannot be switched off. `kt.adapters.merge` and `kt.adapters.detach`
    make plain Keras layers of it, and both leave what was learned in place.

    Args:
        targets: None for all normalizations below the head; or a regular expression
            that is searched in the paths, or a list of expressions and layers:
            `"self_attention_layer_norm$"` is the choice of Zhao et al. for some models.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3),
                keras.layers.LayerNormalization(),
            ]
        )
        kt.adapters.NormTuning().attach(model)
        names = [variable.name for variable in model.trainable_weights]
        assert names == ["gamma", "beta"]
        ```

    Reference:
        J. Frankle et al., 2021, "Training BatchNorm and Only BatchNorm: On the
        Expressive Power of Random Features in CNNs", arXiv:2003.00152; B. Zhao et al.,
        2024, "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM
        Finetuning", arXiv:2312.11420.
    """

    what = "normalization with a scale or an offset"

    def chosen(self, layer: keras.Layer) -> Sequence[keras.Variable]:
        """Return scale and offset, and the statistics, which change with them."""
        return _keras.own_weights(layer) if is_norm(layer) else []
