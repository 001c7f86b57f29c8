"""ResponsePreprocessor: prompts with responses, and a loss on the responses only."""

from __future__ import annotations

import copy
import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

KEYS = ("prompts", "responses")


@keras.saving.register_keras_serializable(package="keras_transfer")
class ResponsePreprocessor:
    """Preprocesses prompts with responses for a `CausalLM`, which learns the responses.

    The tokens of a prompt and of its response follow each other, with the start and end
    tokens of the preprocessor. The sample weight is 1 where the next token is one of
    the response or its end, and 0 elsewhere. So the model learns to answer, and not to
    write prompts. The two are tokenized apart and used as they are: for tokenizers that
    keep spaces, as GPT-2's, begin a response with a space.

    If both are too long together, the prompt loses tokens at its start. A response that
    is too long alone loses tokens at its end. `num_cut` counts such examples.

    Put it into the Task with `task.preprocessor = ...`. Then `fit` and `kt.fine_tune`
    take a dict of prompts and responses, and `generate` takes prompts, as before. The
    result is an instance of the class of `preprocessor` too, and is saved with the Task
    in a `.keras` file.

    Args:
        preprocessor: `CausalLMPreprocessor` of keras-hub for texts. It does not change.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "yes", "no"]
        tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
        preprocessor = kt.data.ResponsePreprocessor(
            keras_hub.models.CausalLMPreprocessor(tokenizer, sequence_length=5)
        )
        pairs = {"prompts": ["good good"], "responses": ["yes"]}
        x, y, sample_weight = preprocessor(pairs)
        assert [words[i] for i in y[0]] == ["good", "good", "yes", "[SEP]", "[PAD]"]
        assert list(sample_weight[0]) == [0, 0, 1, 1, 0]
        ```

    Raises:
        TypeError: If `preprocessor` is not a `CausalLMPreprocessor` for texts.
        ValueError: When it is called: if the data has not both keys.

    Reference:
        Ouyang et al., 2022, "Training Language Models to Follow Instructions with Human
        Feedback", arXiv:2203.02155, section 3.5 (supervised fine-tuning).
    """

    base: type

    def __new__(cls, preprocessor: keras.Layer) -> ResponsePreprocessor:
        """Return a copy of the preprocessor that takes prompts and responses."""
        import keras_hub

        kind = type(preprocessor)
        if isinstance(preprocessor, ResponsePreprocessor):
            return copy.deepcopy(preprocessor)
        if not isinstance(preprocessor, keras_hub.models.CausalLMPreprocessor):
            raise TypeError(
                f"preprocessor is a {kind.__name__}. Pass a CausalLMPreprocessor of "
                "keras-hub, such as `task.preprocessor` of a GPT2CausalLM."
            )
        if getattr(preprocessor, "image_converter", None) is not None:
            raise TypeError(
                f"The {kind.__name__} takes images. A ResponsePreprocessor is for "
                "prompts of text only."
            )
        return _changed(copy.deepcopy(preprocessor))

    def get_config(self) -> dict:
        """Return the config of the given preprocessor."""
        name = keras.saving.get_registered_name(self.base)
        return {
            "preprocessor": {
                "module": self.base.__module__,
                "class_name": self.base.__name__,
                "config": self.base.get_config(self),
                "registered_name": name,
            }
        }

    @classmethod
    def from_config(cls, config: dict) -> ResponsePreprocessor:
        """Make the preprocessor from its config. Keras loads the vocabulary later."""
        return _changed(keras.saving.deserialize_keras_object(config["preprocessor"]))


class _Responses(ResponsePreprocessor):
    """What an instance does, before the class of the given preprocessor."""

    def __init__(self, preprocessor: keras.Layer) -> None:
        """Change nothing. Python calls it after `ResponsePreprocessor.__new__`."""

    def __call__(self, x: Any, y: Any = None, sample_weight: Any = None) -> tuple:
        """Return `(x, y, sample_weight)` of a dict of prompts and responses.

        Raises:
            ValueError: If there are other keys, or labels.
        """
        if y is not None or sample_weight is not None:
            raise ValueError(
                "A ResponsePreprocessor makes labels and weights itself. Pass only "
                "prompts and responses."
            )
        found, _ = self._pack(*_pairs(x))
        if not tf.executing_eagerly():
            return found
        return keras.tree.map_structure(np.asarray, found)

    def num_cut(self, x: Any) -> int:
        """Return how many examples lose tokens because of `sequence_length`.

        Args:
            x: Dict of prompts and responses, lists or arrays of strings.

        Raises:
            ValueError: If there are other keys.
        """
        return int(np.sum(self._pack(*_pairs(x))[1]))

    def _pack(self, prompts: tf.Tensor, responses: tf.Tensor) -> tuple:
        """Return `(x, y, sample_weight)`, and which examples are cut."""
        single = prompts.shape.rank == 0
        if single:
            prompts, responses = prompts[None], responses[None]
        tokenizer, room = self.tokenizer, self.sequence_length + 1
        start = [tokenizer.start_token_id] if self.add_start_token else []
        end = [tokenizer.end_token_id] if self.add_end_token else []
        prompt = _before(start, _tokens(tokenizer, prompts))
        response = _after(_tokens(tokenizer, responses), end)
        lengths = prompt.row_lengths() + response.row_lengths()
        # The start token stays, and so does one token at least of the response.
        response = response[:, : room - len(start)]
        over = prompt.row_lengths() + response.row_lengths() - room
        first, rest = prompt[:, : len(start)], prompt[:, len(start) :]
        places = tf.ragged.range(rest.row_lengths())
        kept = places >= tf.expand_dims(tf.maximum(over, 0), 1)
        prompt = tf.concat([first, tf.ragged.boolean_mask(rest, kept)], 1)
        rows = tf.concat([prompt, response], 1)
        shape = (None, room)
        ids = rows.to_tensor(tokenizer.pad_token_id, shape=shape)
        mask = tf.ones_like(rows, "bool").to_tensor(False, shape=shape)
        learned = [tf.zeros_like(prompt, "float32"), tf.ones_like(response, "float32")]
        weights = tf.concat(learned, 1).to_tensor(0.0, shape=shape)
        x = {"token_ids": ids[:, :-1], "padding_mask": mask[:, :-1]}
        found = (x, ids[:, 1:], weights[:, 1:]), lengths > room
        if single:
            found = keras.tree.map_structure(lambda each: each[0], found)
        return found


def _pairs(x: Any) -> tuple[tf.Tensor, tf.Tensor]:
    if not isinstance(x, dict) or set(x) != set(KEYS):
        given = sorted(x) if isinstance(x, dict) else f"a {type(x).__name__}"
        raise ValueError(
            f"A ResponsePreprocessor got {given}. Pass a dict with the keys {KEYS}, "
            "texts of the same number."
        )
    prompts, responses = (tf.convert_to_tensor(x[key]) for key in KEYS)
    if not prompts.shape.is_compatible_with(responses.shape):
        raise ValueError(
            f"There are prompts of shape {prompts.shape}, but responses of shape "
            f"{responses.shape}. Pass one response for each prompt."
        )
    return prompts, responses


def _tokens(tokenizer: keras.Layer, texts: tf.Tensor) -> tf.RaggedTensor:
    if not tf.executing_eagerly():
        return tokenizer(texts)
    # Outside of graphs, tokenizers take and return lists.
    rows = tokenizer([text.decode() for text in texts.numpy()])
    return tf.ragged.constant([list(map(int, row)) for row in rows], tf.int32, 1)


def _before(ids: list[int], rows: tf.RaggedTensor) -> tf.RaggedTensor:
    return tf.concat([_column(ids, rows), rows], 1)


def _after(rows: tf.RaggedTensor, ids: list[int]) -> tf.RaggedTensor:
    return tf.concat([rows, _column(ids, rows)], 1)


def _column(ids: list[int], rows: tf.RaggedTensor) -> tf.Tensor:
    return tf.tile(tf.constant([ids], rows.dtype, (1, len(ids))), [rows.nrows(), 1])


def _changed(preprocessor: keras.Layer) -> ResponsePreprocessor:
    """Give a preprocessor the class that takes prompts and responses."""
    preprocessor.__class__ = _class_of(type(preprocessor))
    return preprocessor


@functools.cache
def _class_of(base: type) -> type:
    made = type(base.__name__, (_Responses, base), {"base": base})
    register = keras.saving.register_keras_serializable("keras_transfer")
    name = ResponsePreprocessor.__name__
    keras.saving.register_keras_serializable("keras_transfer", name)(made)
    register(ResponsePreprocessor)  # which makes the class again in another process
    return made
