"""BitFit: train only the biases."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer.adapters.weight_selection import own_learnable
from keras_transfer.adapters.weight_selection import OwnWeights

# The names of biases in Keras. A normalization's bias is `beta`.
BIASES = ("bias", "beta")


@keras.saving.register_keras_serializable("keras_transfer")
class BitFit(OwnWeights):
    """Train the biases of a model and its head, and freeze all other weights.

    In `y = act(x W + b)` and `gamma * (x - mean) / deviation + beta` only b and beta
    train. In BERT-base these are 102,912 parameters (0.09 %). The paper finds this
    equal to fine-tuning all weights if there are few examples.

    The offsets of a BatchNormalization do not train. A BatchNormalization that trains
    normalizes by the batch and updates its statistics, which is more than a bias. Use
    `NormTuning` for these layers. Many convolutional networks have no other biases, and
    Llama and similar models have no biases. Attaching then raises an error that names
    the techniques that fit the model.

    BitFit changes the model's own biases. So the model can have no other adapter, and
    BitFit cannot be switched off. `kt.adapters.merge` and `kt.adapters.detach` restore
    plain Keras layers, and both keep the trained biases.

    Args:
        targets: None, `"all-linear"`, a regular expression that is searched in the
            paths, or a list of expressions and layers. None selects all layers below
            the head that have a bias. The paper's smaller choice is
            `["query$", "feedforward_intermediate_dense$"]`. Defaults to None.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        kt.adapters.BitFit().attach(model)
        assert [variable.name for variable in model.trainable_weights] == ["bias"]
        ```

    Reference:
        E. Ben Zaken et al., 2022, "BitFit: Simple Parameter-efficient Fine-tuning for
        Transformer-based Masked Language-models", arXiv:2106.10199.
    """

    what = "biases"

    def chosen(self, layer: keras.Layer) -> Sequence[keras.Variable]:
        """Return the biases of `layer` itself."""
        if isinstance(layer, keras.layers.BatchNormalization):
            return []
        return [each for each in own_learnable(layer) if each.name in BIASES]
