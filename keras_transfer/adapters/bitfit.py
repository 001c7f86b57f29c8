"""BitFit: biases alone learn."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer.adapters.weight_selection import own_learnable
from keras_transfer.adapters.weight_selection import OwnWeights

# What Keras calls a bias; `beta` is that of a normalization.
BIASES = ("bias", "beta")


@keras.saving.register_keras_serializable("keras_transfer")
class BitFit(OwnWeights):
    """Learn the biases of a model and nothing else of it, but the head.

    In `y = act(x W + b)` and `gamma * (x - mean) / deviation + beta` only b and beta
    learn. In BERT-base these are 102,912 parameters, 0.09 %. The
    paper finds this on par with fine-tuning all where examples are few.

    The offsets of a BatchNormalization are left out: such a layer, when it learns,
    normalizes by the batch and moves its statistics, which is more than a bias. For
    these there is `NormTuning`. Many convolutional networks have no other biases, and
    Llama and its like have none at all: attaching is an error there, which names what
    the network can have.

    The model's own biases are changed. So another adapter cannot be next to this
    one, and it cannot be switched off. `kt.adapters.merge` and `kt.adapters.detach`
    make plain Keras layers of it, and both leave the learned biases in place.

    Args:
        targets: None for all biases below the head; or, of which layers:
            `"all-linear"`, a regular expression that is searched in the paths, or a
            list of expressions and layers. The paper's smaller choice is
            `["query$", "feedforward_intermediate_dense$"]`.

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
