"""RawText: a tokenizer in the graph, for signatures that take strings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_transfer.export.request import Entry
from keras_transfer.export.request import fitted
from keras_transfer.export.request import raw_entry


@dataclasses.dataclass(frozen=True)
class RawText:
    """Converts strings to the inputs of a model in the graph, for `kt.export_serving`.

    `kt.export_serving` itself wraps a keras-hub preprocessor or a
    `keras.layers.TextVectorization` in a `RawText`. Use the class to name the inputs,
    and for models that take several strings per example, such as pairs of sentences. A
    request then has one string for each name, and the preprocessor is called with a
    tuple of string tensors. The preprocessor is traced into the graph, so it must
    consist of TensorFlow operations. All tokenizers of keras-hub do. If it has a method
    `complete(texts, outputs)`, this makes the outputs of the signature from the
    outputs of the model and the texts, as `kt.data.TaggingPreprocessor` does.

    The tokenizers of keras-hub use operations of `tensorflow_text`. A Python client
    must run `import tensorflow_text` before it loads the SavedModel. TensorFlow Serving
    is built with TensorFlow Text, but an older release can lack some operations.
    `kt.export_serving` prints the operations that the graph contains.

    Args:
        preprocessor: A layer or a function that takes a string tensor `(batch,)`, or a
            tuple of string tensors, and returns the inputs of the model.
        names: Names of the string inputs. Defaults to `("text",)`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        words = keras.layers.TextVectorization(vocabulary=["good", "bad"])
        raw = kt.export.RawText(words, names=("review",))
        assert raw.names == ("review",)
        ```

    Raises:
        TypeError: If the preprocessor is not callable.
        ValueError: If `names` is empty, has a name twice, or has an invalid name.

    Reference:
        keras.io, "Text classification from scratch", the end-to-end model; TensorFlow
        Serving, model_servers/BUILD, for its operations of TensorFlow Text.
    """

    preprocessor: keras.Layer | Callable
    names: tuple[str, ...] = ("text",)

    def __post_init__(self) -> None:
        if not callable(self.preprocessor):
            raise TypeError(
                f"The preprocessor {self.preprocessor!r} is not callable. Pass a layer "
                "or a function from strings to the inputs of the model."
            )
        names = (self.names,) if isinstance(self.names, str) else tuple(self.names)
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"names is {self.names!r}. Pass a different name for each string of an "
                "example."
            )
        if not all(isinstance(each, str) and each.isidentifier() for each in names):
            raise ValueError(
                f"names is {self.names!r}. A name can contain only letters, digits and "
                "'_', and cannot begin with a digit."
            )
        object.__setattr__(self, "names", names)

    def entry(self, plain: Entry) -> Entry:
        """Return the entry for strings of a model whose own entry is `plain`."""

        def prepare(tensors: dict[str, tf.Tensor]) -> object:
            texts = tuple(tensors[name] for name in self.names)
            try:
                prepared = self._called(texts)
            except Exception as error:  # Python raises many types for symbolic tensors
                raise ValueError(
                    f"The preprocessor {self.preprocessor!r} cannot be traced into a "
                    f"graph: {error}. It must consist of TensorFlow operations and "
                    f"take {len(texts)} string tensor(s)."
                ) from error
            return fitted(prepared, plain, f"The preprocessor {self.preprocessor!r}")

        specs = {n: tf.TensorSpec((None,), tf.string, name=n) for n in self.names}
        owner = self.preprocessor
        if not isinstance(owner, keras.Layer):
            owner = getattr(owner, "tokenizer", None)
        entry = raw_entry(specs, prepare, owner)
        complete = getattr(self.preprocessor, "complete", None)
        if complete is None:
            return entry

        def add(tensors: dict[str, tf.Tensor], outputs: dict) -> dict:
            return complete(*(tensors[name] for name in self.names), outputs)

        return dataclasses.replace(entry, complete=add)

    def _called(self, texts: tuple[tf.Tensor, ...]) -> object:
        if len(texts) == 1:
            return self.preprocessor(texts[0])
        call = getattr(self.preprocessor, "call", self.preprocessor)
        if "y" not in inspect.signature(call).parameters:
            return self.preprocessor(texts)
        # Without y=None keras-hub treats a pair as (x, y) and ignores the second text.
        return self.preprocessor(texts, y=None)
