"""The parts of a prompt: its embeddings, and what other layers do about its length."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import drawn
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.positions import check_length
from keras_transfer.adapters.positions import rows_from
from keras_transfer.adapters.prompted_block import PromptedBlock


@keras.saving.register_keras_serializable("keras_transfer")
class PromptPart(Part):
    """Base of the parts of a prompt with `tokens` virtual tokens.

    The prompt makes the sequence longer, so a graph cannot choose by the gate. The gate
    is read when a graph is traced.

    Args:
        tokens: Number of virtual tokens, 1 or more.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    in_weights = False
    asked_early = True

    def __init__(
        self, tokens: int, name: str = "default", dtype: object = None
    ) -> None:
        super().__init__(name, dtype)
        self.tokens = tokens

    @property
    def in_use(self) -> bool:
        """Whether the gate is not 0 now."""
        return bool(_keras.value_now(self.gate))

    def fold(self, host: keras.Layer, weights: dict) -> None:
        """Refuse, because no weight of the model can replace further tokens."""
        raise ValueError(
            f"The prompt {self.name!r} cannot be merged. It adds tokens to each text, "
            "and no weight of the model can replace them. Keep the adapter, or remove "
            "it with kt.adapters.detach(model)."
        )

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return super().get_config() | {"tokens": self.tokens}


@keras.saving.register_keras_serializable("keras_transfer")
class PromptEmbeddings(PromptPart):
    """Trained embeddings before those of the text, on the embedding of the tokens.

    Args:
        tokens: Number of virtual tokens, 1 or more.
        init: `"random"`, `"vocabulary"` or `"text"`. Defaults to `"random"`.
        text: Token ids for `"text"`. Defaults to `()`.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    def __init__(
        self,
        tokens: int,
        init: str = "random",
        text: Sequence[int] = (),
        name: str = "default",
        dtype: object = None,
    ) -> None:
        super().__init__(tokens, name, dtype)
        self.init = init
        self.text = list(text)

    def weight_specs(self, host: keras.Layer) -> dict[str, tuple[tuple, object]]:
        """Return the embeddings of the virtual tokens."""
        shape = (self.tokens, host.output_dim)
        return {"prompt_embeddings": (shape, self._start(host))}

    def on_return(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Put the virtual tokens before the text, unless the host computes logits."""
        if kwargs.get("reverse") or not self.in_use:
            return outputs
        return before(self.prompt_embeddings, outputs)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return super().get_config() | {"init": self.init, "text": self.text}

    def _start(self, host: keras.Layer) -> Callable | dict:
        table = host.embeddings
        if self.init == "random":
            mean, stddev = (float(f(ops.convert_to_tensor(table))) for f in MOMENTS)
            return drawn("RandomNormal", mean=mean, stddev=stddev)

        def rows(shape: tuple, dtype: object = None) -> object:
            ids = [self.text[i % len(self.text)] for i in range(self.tokens)]
            return ops.cast(ops.take(table, ids, axis=0), dtype)

        def any_rows(shape: tuple, dtype: object = None) -> object:
            ids = keras.random.randint((self.tokens,), 0, table.shape[0])
            return ops.cast(ops.take(table, ids, axis=0), dtype)

        return rows if self.init == "text" else any_rows


MOMENTS = (ops.mean, ops.std)


@keras.saving.register_keras_serializable("keras_transfer")
class PromptSegments(PromptPart):
    """The segment 0 for each virtual token, on the embedding of the segments."""

    def on_return(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Put the embedding of segment 0 before those of the text."""
        if not self.in_use:
            return outputs
        first = ops.convert_to_tensor(host.embeddings)[:1]
        return before(ops.repeat(first, self.tokens, axis=0), outputs)


@keras.saving.register_keras_serializable("keras_transfer")
class PromptPositions(PromptPart):
    """The positions 0 to tokens - 1 for the prompt, and later ones for the text."""

    def on_inputs(self, host: keras.Layer, inputs: object) -> object:
        """Check that there is a position for each token."""
        if inputs.shape[1] is not None and self.in_use:
            check_length(host, inputs.shape[1] - self.tokens, self)
        return inputs

    def on_return(
        self, host: keras.Layer, inputs: object, outputs: object, **kwargs: object
    ) -> object:
        """Return the positions of a text that is given from `start_index` on."""
        start = kwargs.get("start_index", 0)
        if not self.in_use or (isinstance(start, int) and start == 0):
            return outputs
        prompt = rows_from(host, 0, outputs[:, : self.tokens])
        text = rows_from(host, start + self.tokens, outputs[:, self.tokens :])
        return ops.concatenate([prompt, text], axis=1)


@keras.saving.register_keras_serializable("keras_transfer")
class PromptBlock(PromptPart):
    """The masks and caches of a transformer block, with room for a prompt.

    Args:
        tokens: Number of virtual tokens, 1 or more.
        last: Whether the block removes the virtual tokens again. Defaults to False.
        name: Name of the adapter. Defaults to `"default"`.
        dtype: Dtype policy of the computation. Defaults to None.
    """

    layer_class = PromptedBlock

    def __init__(
        self,
        tokens: int,
        last: bool = False,
        name: str = "default",
        dtype: object = None,
    ) -> None:
        super().__init__(tokens, name, dtype)
        self.last = last

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return super().get_config() | {"last": self.last}


def before(prompt: object, outputs: object) -> object:
    """Return `outputs` (batch, text, features) after `prompt` (tokens, features)."""
    prompt = ops.cast(prompt, outputs.dtype)
    shape = (ops.shape(outputs)[0], *prompt.shape)
    return ops.concatenate([ops.broadcast_to(prompt, shape), outputs], axis=1)
