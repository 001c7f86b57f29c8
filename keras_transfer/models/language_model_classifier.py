"""LanguageModelClassifier: a classifier that stays a language model while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.pooling import LastToken
from keras_transfer.backbones.sequence_output import sequence_output
from keras_transfer.backbones.used_weights import Unused
from keras_transfer.data.texts import checked_texts
from keras_transfer.data.vocabulary import check_vocabulary
from keras_transfer.models.backbone_model import BackboneModel
from keras_transfer.models.encoded_texts import encoded
from keras_transfer.models.encoded_texts import is_texts
from keras_transfer.models.next_token_loss import NextTokenLoss

INPUTS = {"token_ids", "padding_mask"}


@keras.saving.register_keras_serializable(package="keras_transfer")
class LanguageModelClassifier(BackboneModel):
    """A classifier on a causal language model that goes on to learn to write.

    `logits = W dropout(h_last) + b`, where `h_last` is the output at the last token of
    a text, the only one that depends on all of it. Padding may be on either side. While
    the model trains, its loss is

        L_labels + auxiliary_weight * L_tokens,

    where `L_tokens` is the mean cross-entropy of each next token of the texts, without
    padding. In GPT-1 this helped on larger data sets, and the model still writes text
    afterward: a `CausalLM` Task on the same backbone object can `generate()`.
    Evaluation and prediction compute only the labels.

    It is an ordinary functional model, for `fit`, `kt.fine_tune`, adapters, gradual
    unfreezing and export, as a `TransferClassifier` with `pooling="last"`, which it
    equals for `auxiliary_weight=0`. On several replicas, `L_tokens` is the mean over
    the replicas of their means.

    Args:
        backbone: Causal backbone of keras-hub, such as a `GPT2Backbone`, with the
            inputs `token_ids` and `padding_mask`, and an embedding that also gives the
            logits of tokens.
        num_classes: Int of at least 1, the number of logits.
        auxiliary_weight: Float of 0 or more, the weight of `L_tokens`. Defaults to 0.5,
            as in GPT-1.
        dropout: Float in [0, 1), the dropout rate before the last layer. Defaults to
            0.1.
        preprocessor: Layer from strings to the inputs, such as a
            `GPT2CausalLMPreprocessor` of keras-hub, without its labels. `predict` then
            takes strings too, and the model is served with raw strings. It is saved
            with the model. Defaults to None.
        dtype: Dtype policy of pooling and dropout. Defaults to None, the policy of the
            backbone. The logits and the loss are float32.
        name: Name of the model.

    Input shape:
        The input shape of the backbone: a dictionary of `(batch, tokens)`. With a
        preprocessor, `predict` also takes a list of strings.

    Output shape:
        `(batch, num_classes)`.

    Example:
        ```python
        import keras
        import keras_hub
        import numpy as np
        import keras_transfer as kt

        backbone = keras_hub.models.GPT2Backbone(20, 1, 2, 8, 16, max_sequence_length=8)
        model = kt.models.LanguageModelClassifier(backbone, num_classes=2)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        ids = np.array([[1, 2, 3, 0], [4, 5, 0, 0]])
        x = {"token_ids": ids, "padding_mask": (ids > 0).astype("int32")}
        model.fit(x, np.array([0, 1]), verbose=0)
        ```

    Raises:
        TypeError: If the backbone is not a model, or is a Task that already has a head,
            or the preprocessor is not a layer.
        ValueError: If the backbone is not causal, has other inputs, or no such
            embedding; if it is frozen, so the auxiliary loss has no effect; or if
            another argument is out of range.

    Reference:
        Radford et al., 2018, "Improving Language Understanding by Generative
        Pre-Training", section 3.2; no arXiv number.
    """

    def __init__(
        self,
        backbone: keras.Model | FrozenBackbone,
        num_classes: int,
        *,
        auxiliary_weight: float = 0.5,
        dropout: float = 0.1,
        preprocessor: keras.Layer | None = None,
        dtype: object = None,
        name: str | None = None,
    ):
        whole_number("num_classes", num_classes, why="it is the number of logits")
        number("auxiliary_weight", auxiliary_weight, 0)
        dropout_rate("dropout", dropout)
        if not isinstance(preprocessor, keras.Layer | None):
            raise TypeError(
                f"preprocessor is a {type(preprocessor).__name__}, not a layer. Pass "
                "one from strings to the inputs, such as a "
                "GPT2CausalLMPreprocessor of keras-hub: it is saved with the model."
            )
        inputs, tokens, unused = sequence_output(backbone)
        network = unwrap(backbone)
        _check_inputs(network, inputs)
        dtype = network.dtype_policy if dtype is None else dtype
        x, mask = tokens, inputs["padding_mask"]
        if auxiliary_weight:
            embedding = _embedding(network, backbone)
            unused = _without(unused, embedding)
            tell = NextTokenLoss(embedding, auxiliary_weight, name="next_token_loss")
            x = tell(x, inputs["token_ids"], mask)
        x = LastToken(name="pooling", dtype=dtype)(x, mask=mask)
        x = keras.layers.Dropout(dropout, dtype=dtype, name="dropout")(x)
        logits = keras.layers.Dense(int(num_classes), dtype="float32", name="logits")
        super().__init__(inputs, logits(x), unused, name)
        self.backbone = backbone
        self.num_classes = int(num_classes)
        self.auxiliary_weight = auxiliary_weight
        if preprocessor is not None:
            # Keras saves the vocabulary with what it tracks. A preprocessor of
            # keras-hub gets layers when it is first called, so a lambda hides it.
            self.tokenizer = getattr(preprocessor, "tokenizer", None) or preprocessor
            if self.tokenizer is not preprocessor:
                check_vocabulary(network, self.tokenizer)
        self._preprocessor = lambda: preprocessor

    @property
    def text_preprocessor(self) -> keras.Layer | None:
        """The preprocessor, which `kt.export_serving` runs first."""
        return self._preprocessor()

    def encode(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return texts as arrays, the inputs of the model, such as for `fit`.

        Args:
            texts: Strings.

        Raises:
            TypeError: If a text is not a string.
            ValueError: If the model has no preprocessor, or there is no text.
        """
        if self.text_preprocessor is None:
            raise ValueError(
                f"{self.name!r} has no preprocessor, so it takes tokens and no "
                "strings. Make it with preprocessor=."
            )
        return encoded(checked_texts(texts), self.text_preprocessor, self)

    def predict(self, x: Any, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Return the logits `(examples, num_classes)`, float32.

        Args:
            x: Strings, if the model has a preprocessor. Or as for every model.
            batch_size: As for every model. Defaults to None, 32.
            **kwargs: Other arguments of `keras.Model.predict`.

        Raises:
            ValueError: If strings are passed to a model without a preprocessor.
        """
        if is_texts(x) or isinstance(x, list | tuple) and not x:
            x = self.encode(np.asarray(x, object))
        return super().predict(x, batch_size=batch_size, **kwargs)

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        dropout, own = self.get_layer("dropout"), self.text_preprocessor
        saved = own and keras.saving.serialize_keras_object(own)
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "num_classes": self.num_classes,
            "auxiliary_weight": self.auxiliary_weight,
            "dropout": dropout.rate,
            **({"preprocessor": saved} if saved else {}),
            "dtype": keras.dtype_policies.serialize(dropout.dtype_policy),
            "name": self.name,
            **self.flags_config(),
        }


def _check_inputs(network: keras.Model, inputs: object) -> None:
    names = set(inputs) if isinstance(inputs, dict) else set()
    if names != INPUTS:
        raise ValueError(
            f"The inputs of '{network.name}' are {sorted(names) or 'no dictionary'}, "
            f"but a LanguageModelClassifier needs a causal backbone with the inputs "
            f"{sorted(INPUTS)}, such as a GPT2Backbone."
        )
    ids = np.array([[1, 1, 1], [1, 1, 2]], "int32")
    states = network({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    first, other = keras.ops.convert_to_numpy(states)[:, 0].astype("float32")
    if np.abs(first - other).max() > 1e-4 * max(1.0, np.abs(first).max()):
        raise ValueError(
            f"'{network.name}' is not causal: the state of its first token depends on "
            "later tokens, so it knows the next token. Use a TransferClassifier."
        )


def _embedding(
    network: keras.Model, backbone: keras.Layer
) -> keras.layers.ReversibleEmbedding:
    """Return the layer that also gives the logits of tokens."""
    if isinstance(backbone, FrozenBackbone):
        raise ValueError(
            "auxiliary_weight has no effect on a FrozenBackbone, whose weights cannot "
            "train. Pass auxiliary_weight=0, or the backbone itself."
        )
    embedding = getattr(network, "token_embedding", None)
    if not isinstance(embedding, keras.layers.ReversibleEmbedding):
        raise ValueError(
            f"'{network.name}' has no `token_embedding` that gives the logits of "
            "tokens, so there is no loss of the language model. Pass "
            "auxiliary_weight=0."
        )
    return embedding


def _without(unused: Unused, embedding: keras.Layer) -> Unused:
    """Return the unused weights without those of the embedding."""
    used = {id(weight) for weight in embedding.weights}
    return Unused(*([x for x in each if id(x) not in used] for each in unused))
