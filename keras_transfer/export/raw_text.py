"""RawText: strings in, the tokenizer in the graph."""

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
    """Say how strings become the inputs of a model, for `kt.export_serving`.

    `kt.export_serving` makes one itself of a keras-hub preprocessor or a
    `keras.layers.TextVectorization`. Use it to name the inputs, and for models of
    pairs: a request then holds one string per name, and the preprocessor is called
    with a tuple of them. The preprocessor is traced, so it must be made of TensorFlow
    operations, as all tokenizers of keras-hub are.

    The tokenizers of keras-hub use operations of `tensorflow_text`. A Python client
    must run `import tensorflow_text` before it loads the SavedModel. TensorFlow Serving
    is built with TensorFlow Text, but an older release can lack some operations.
    `kt.export_serving` prints the operations that the graph contains.

    Args:
        preprocessor: A layer, or a function of a string tensor `(batch,)`, that gives
            the inputs of the model.
        names: The names of the strings of an example.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        words = keras.layers.TextVectorization(vocabulary=["good", "bad"])
        raw = kt.export.RawText(words, names=("review",))
        assert raw.names == ("review",)
        ```

    Raises:
        TypeError: If the preprocessor cannot be called.
        ValueError: If there are no names, or not different ones.

    Reference:
        keras.io, "Text classification from scratch", the end-to-end model; TensorFlow
        Text, which TensorFlow Serving links (model_servers/BUILD).
    """

    preprocessor: keras.Layer | Callable
    names: tuple[str, ...] = ("text",)

    def __post_init__(self) -> None:
        if not callable(self.preprocessor):
            raise TypeError(
                f"The preprocessor is {self.preprocessor!r}. Pass a layer or a "
                "function from strings to the inputs of the model."
            )
        names = (self.names,) if isinstance(self.names, str) else tuple(self.names)
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"names is {self.names!r}. Give each string of an example a name."
            )
        if not all(isinstance(each, str) and each.isidentifier() for each in names):
            raise ValueError(
                f"names is {self.names!r}. A name has letters, digits and '_' only."
            )
        object.__setattr__(self, "names", names)

    def entry(self, plain: Entry) -> Entry:
        """Return the way into a model whose own way in is `plain`."""

        def prepare(tensors: dict[str, tf.Tensor]) -> object:
            texts = tuple(tensors[name] for name in self.names)
            try:
                prepared = self._called(texts)
            except Exception as error:  # whatever Python says of a symbolic tensor
                raise ValueError(
                    f"The preprocessor {self.preprocessor!r} cannot be traced into a "
                    f"graph: {error}. It must be made of TensorFlow operations and "
                    f"take {len(texts)} string tensor(s)."
                ) from error
            return fitted(prepared, plain, f"The preprocessor {self.preprocessor!r}")

        specs = {n: tf.TensorSpec((None,), tf.string, name=n) for n in self.names}
        return raw_entry(specs, prepare, self.preprocessor)

    def _called(self, texts: tuple[tf.Tensor, ...]) -> object:
        if len(texts) == 1:
            return self.preprocessor(texts[0])
        call = getattr(self.preprocessor, "call", self.preprocessor)
        if "y" not in inspect.signature(call).parameters:
            return self.preprocessor(texts)
        # Without y=None keras-hub takes a pair for (x, y), and reads the first alone.
        return self.preprocessor(texts, y=None)
