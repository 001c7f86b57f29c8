"""ZeroShotClassifier: classes that descriptions define, without labeled examples."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.features import features
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.data.description_templates import by_class
from keras_transfer.data.description_templates import checked_descriptions
from keras_transfer.data.description_templates import checked_templates
from keras_transfer.data.description_templates import filled
from keras_transfer.data.texts import checked_texts
from keras_transfer.data.vocabulary import check_vocabulary
from keras_transfer.models.encoded_texts import by_length
from keras_transfer.models.encoded_texts import encoded
from keras_transfer.models.encoded_texts import is_texts
from keras_transfer.models.encoded_texts import lengths_of
from keras_transfer.models.encoded_texts import to_longest
from keras_transfer.models.nearest_class_model import BATCH_SIZE
from keras_transfer.models.nearest_class_model import NearestClassModel

Encoder = keras.Model | FrozenBackbone


@keras.saving.register_keras_serializable(package="keras_transfer")
class ZeroShotClassifier(NearestClassModel):
    """A zero-shot classifier: the nearest embedding of the description of a class.

    An encoder of texts embeds the descriptions of a class in all templates. The vector
    of the class is their mean on the unit sphere,

        e_c = unit(mean_{d, t} unit(g(t(d)))),    unit(v) = v / ||v||,

    and its score for an example x is `cos(f(x), e_c) / temperature`. For texts, f = g
    is one encoder, such as MiniLM. For images, f and g are the two encoders of a model
    that was trained on pairs, such as CLIP: pass both. Encoders that were not trained
    to give similar vectors to what belongs together are close to guessing, such as a
    plain BERT.

    Measure it next to the majority and to a probe with a few labels: descriptions say
    little about classes such as sentiment, and other words give other figures.
    `predict` takes strings, and is a row of `kt.compare`, as `zero_shot=model.predict`.

    Classes come and go without the encoder, whose weights do not change:

    - `add_class(name, descriptions)` embeds these descriptions only, and
      `remove_class(name)` nothing. Embeddings are weights, saved with the model.
    - On a server, `kt.export_serving(model, folder, features=True)` has the signature
      `features`, from raw strings to vectors. Embed the descriptions of new classes
      with it, or with `embed`, and choose the class of the largest cosine. For classes
      in each request, export `model.with_class_inputs()`.

    `fit` is as for every model with logits, with the embeddings as fixed weights of
    the head. `refresh()` embeds all descriptions again, with the trained encoder.

    Args:
        encoder: A backbone of texts, as in `kt.models.TransferClassifier`. Or a pair
            `(encoder, text_encoder)` whose vectors have the same width, such as two
            `kt.backbones.features(clip, output=...)`, where only the second one reads
            descriptions.
        classes: Dict from class names to a description, or to a list of them. Or a
            list of names that are the descriptions themselves. It can be empty.
        preprocessor: Layer from strings to the inputs of the encoder of texts, such as
            a `BertTextClassifierPreprocessor` or a `CLIPPreprocessor` of keras-hub. It
            is saved with the model.
        templates: Text with `{}` for the description, such as `"This text is about
            {}."`, or a list of texts, which are averaged. Defaults to `"{}"`.
        temperature: Float above 0, by which the cosines are divided. Defaults to 0.01,
            that of CLIP. It changes the softmax of the scores, but not the class.
        pooling: As in `kt.backbones.features`. Defaults to `"auto"`, the mean of the
            tokens.
        name: Name of the model.

    Input shape:
        The input shape of the encoder. `predict` and `classify` also take a list of
        strings if the encoder reads texts.

    Output shape:
        `(batch, classes)`, larger is nearer.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad"]
        tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary=words)
        model = kt.models.ZeroShotClassifier(
            keras_hub.models.BertBackbone(8, 1, 2, 8, 16, max_sequence_length=8),
            {"plus": ["good", "a good one"], "minus": "bad"},
            preprocessor=keras_hub.models.BertTextClassifierPreprocessor(tokenizer, 8),
        )
        assert model.classify(["bad"]) == ["minus"]
        ```

    Raises:
        TypeError: If an encoder is not a model, or `classes` is neither dict nor list.
        ValueError: If there is no preprocessor, a class is there twice or has no
            description, a template has no `{}`, the two encoders have vectors of
            different widths, or an argument is out of range.

    Reference:
        Radford et al., 2021, "Learning Transferable Visual Models From Natural Language
        Supervision", arXiv:2103.00020; Reimers and Gurevych, 2019, "Sentence-BERT",
        arXiv:1908.10084.
    """

    def __init__(
        self,
        encoder: Encoder | tuple[Encoder, Encoder],
        classes: Mapping[str, str | Sequence[str]] | Sequence[str] = (),
        *,
        preprocessor: keras.Layer,
        templates: str | Sequence[str] = "{}",
        temperature: float = 0.01,
        pooling: str | None = "auto",
        name: str | None = None,
    ):
        templates = checked_templates(templates)
        if not isinstance(preprocessor, keras.Layer):
            raise ValueError(
                f"preprocessor is a {type(preprocessor).__name__}, not a layer. Pass "
                "one from strings to the inputs of the encoder, such as a "
                "BertTextClassifierPreprocessor of keras-hub: it is saved with the "
                "model."
            )
        of_texts = None
        if isinstance(encoder, list | tuple):
            encoder, of_texts = _pair(encoder)
        super().__init__(
            encoder,
            distance="cosine",
            temperature=temperature,
            pooling=pooling,
            name=name,
        )
        self.templates = templates
        self.text_backbone = of_texts
        # Keras saves the vocabulary with what it tracks. A preprocessor of keras-hub
        # gets further layers when it is first called, so a lambda hides it.
        self.tokenizer = getattr(preprocessor, "tokenizer", None) or preprocessor
        self._preprocessor = lambda: preprocessor
        self._descriptions: dict[str, tuple[str, ...]] = {}
        network = self._network()
        if of_texts is not None:
            used = {id(weight) for weight in network.weights}
            # The scores have no gradient for the encoder of the descriptions.
            idle = [each for each in of_texts.weights if id(each) not in used]
            self._keep_idle([*self.idle_weights(), *idle])
            network = features(of_texts, pooling)
        self._text_network = lambda: network
        self._check_texts()
        for each, descriptions in by_class(classes).items():
            self.add_class(each, descriptions)

    @property
    def text_preprocessor(self) -> keras.Layer | None:
        """What `kt.export_serving` runs first: None if the inputs are not texts."""
        return self._preprocessor() if self.text_backbone is None else None

    @property
    def descriptions(self) -> dict[str, tuple[str, ...]]:
        """The descriptions of each class."""
        return {name: self._descriptions[name] for name in self.class_names}

    @property
    def class_embeddings(self) -> np.ndarray:
        """The vectors of the classes, float32 `(classes, width)`, of length 1."""
        return _keras.value(self._classes.prototypes)

    def add_class(
        self, name: str, descriptions: str | Sequence[str]
    ) -> ZeroShotClassifier:
        """Add a class by its descriptions, and return the model.

        Args:
            name: Its name, which no other class has.
            descriptions: Text, or list of texts.

        Raises:
            ValueError: If the name is taken, or a description is empty.
        """
        name = self._check_new(name)
        found = checked_descriptions(name, descriptions)
        self._append(name, self._of_descriptions(found))
        self._descriptions = {**self._descriptions, name: found}
        return self

    def refresh(self) -> None:
        """Embed all descriptions again, such as after training the encoder."""
        rows = [self._of_descriptions(each) for each in self.descriptions.values()]
        if rows:
            self._set_classes(self.class_names, np.stack(rows))

    def embed(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Return the vectors of texts, float32 `(texts, width)`, of length 1.

        Args:
            texts: Strings.
            batch_size: Number of texts that run at once. Defaults to 32.

        Raises:
            TypeError: If a text is not a string.
            ValueError: If there is no text.
        """
        whole_number("batch_size", batch_size)
        x = to_longest(self.encode(texts))
        return _unit(self._vectors(x, batch_size, self._text_network()))

    def encode(self, texts: Sequence[str]) -> Any:
        """Return texts as arrays: the inputs of the encoder of texts.

        Args:
            texts: Strings.

        Raises:
            TypeError: If a text is not a string.
            ValueError: If there is no text, or the preprocessor lacks an input.
        """
        return encoded(checked_texts(texts), self._preprocessor(), self._text_network())

    def predict(self, x: Any, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Return the scores `(examples, classes)`, float32.

        Args:
            x: Strings, if the encoder reads texts. Or as for every model.
            batch_size: As for every model. Defaults to None, 32.
            **kwargs: Other arguments of `keras.Model.predict`.

        Raises:
            ValueError: If there is no class, or strings are passed to an encoder of
                images.
        """
        if not is_texts(x):
            return super().predict(x, batch_size=batch_size, **kwargs)
        if self.text_backbone is not None:
            raise ValueError(
                "The inputs of the model are not texts: only its classes are. Pass "
                "what the first of the two encoders takes."
            )
        x, kwargs = self.encode(np.asarray(x, object)), {"verbose": 0, **kwargs}
        lengths = lengths_of(x)
        if lengths is None:
            return super().predict(x, batch_size=batch_size, **kwargs)
        found = np.zeros((len(lengths), len(self.class_names)), "float32")
        for rows, part in by_length(x, lengths):
            found[rows] = super().predict(part, batch_size=batch_size, **kwargs)
        return found

    def with_class_inputs(self) -> keras.Model:
        """Return a model that gets the vectors of the classes with each example.

        Its inputs are those of the encoder and `class_embeddings`, `(batch, classes,
        width)`, such as from `embed`: each example of a batch can have its own classes.
        Its output is `(batch, classes)`. It shares the weights of the encoder.
        """
        classes = keras.Input(
            (None, self.class_embeddings.shape[1]), name="class_embeddings"
        )
        inputs = self.input if isinstance(self.input, dict) else {"inputs": self.input}
        cosine = keras.layers.Dot((2, 1), normalize=True, dtype="float32")
        vectors = self._network()(self.input)
        scores = cosine([classes, vectors]) / self._classes.temperature
        inputs = {**inputs, "class_embeddings": classes}
        return keras.Model(inputs, scores, name=f"{self.name}_with_class_inputs")

    def get_config(self) -> dict:
        """Return the arguments, the trainable flags and the descriptions."""
        save = keras.saving.serialize_keras_object
        config = super().get_config()
        return {
            **{key: config[key] for key in config if key != "backbone"},
            "encoder": config["backbone"],
            "text_encoder": self.text_backbone and save(self.text_backbone),
            "preprocessor": save(self._preprocessor()),
            "templates": list(self.templates),
            "descriptions": {k: list(v) for k, v in self.descriptions.items()},
        }

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> ZeroShotClassifier:
        """Return the model from its config, without running its encoder.

        Keras loads the values of the embeddings later, with the other weights.
        """
        config = dict(config)
        descriptions = config.pop("descriptions")
        of_texts = config.pop("text_encoder")
        if of_texts is not None:
            load = keras.saving.deserialize_keras_object
            pair = (config["encoder"], of_texts)
            config["encoder"] = [load(each, custom_objects) for each in pair]
        model = super().from_config(config, custom_objects)
        model._descriptions = {k: tuple(v) for k, v in descriptions.items()}
        return model

    def _of_descriptions(self, descriptions: Sequence[str]) -> np.ndarray:
        vectors = self.embed(filled(self.templates, descriptions))
        return _unit(vectors.mean(0, keepdims=True))[0]

    def _check_texts(self) -> None:
        networks = [self._network(), self._text_network()]
        widths = [network.output_shape[-1] for network in networks]
        if len(set(widths)) > 1:
            raise ValueError(
                f"The two encoders have vectors of the widths {widths}, so they have "
                "no cosine. Pass the outputs of their projections."
            )
        if self.tokenizer is not self._preprocessor():
            of_texts = self.text_backbone
            network = self.backbone if of_texts is None else of_texts
            check_vocabulary(unwrap(network), self.tokenizer)


def _pair(encoders: Sequence) -> tuple[Encoder, Encoder]:
    if len(encoders) != 2:
        raise ValueError(
            f"encoder is {len(encoders)} encoders. Pass one encoder of texts, or a "
            "pair: the encoder of the inputs, and the encoder of the descriptions."
        )
    return tuple(encoders)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-6)
