"""NormTuning: train only the scales and offsets of normalizations."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer.adapters.peft_format import PeftFormat
from keras_transfer.adapters.weight_selection import is_norm
from keras_transfer.adapters.weight_selection import OwnWeights


@keras.saving.register_keras_serializable("keras_transfer")
class NormTuning(OwnWeights):
    """Train the scales and offsets of normalizations, and the head.

    In `gamma * (x - mean) / deviation + beta` gamma and beta train. All other weights
    below the head are frozen. This applies to LayerNormalization, BatchNormalization,
    GroupNormalization, RMSNormalization (which only has gamma), and keras-hub's own
    classes with `Norm` in their name. In BERT-base 38,400 parameters train (0.04 %).
    PEFT calls this `LNTuningConfig`, and `kt.load_adapter` reads its files.

    A BatchNormalization that trains works as in Keras. In training it normalizes by the
    batch, and its moving mean and variance follow the new data, as in Frankle et al.
    The moving mean and variance belong to the weights of this adapter.

    NormTuning changes the model's own weights. So the model can have no other adapter,
    and NormTuning cannot be switched off. `kt.adapters.merge` and `kt.adapters.detach`
    restore plain Keras layers, and both keep the trained weights.

    Args:
        targets: None, a regular expression that is searched in the paths, or a list of
            expressions and layers. None selects all normalizations below the head.
            Zhao et al. choose `"self_attention_layer_norm$"` for some models. Defaults
            to None.

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
    peft = PeftFormat(
        settings={"peft_type": "LN_TUNING"},
        arguments={},
        infix="ln_tuning_layers",
        blocks=False,
    )

    def chosen(self, layer: keras.Layer) -> Sequence[keras.Variable]:
        """Return the scale, the offset, and the statistics, which also change."""
        return _keras.own_weights(layer) if is_norm(layer) else []
