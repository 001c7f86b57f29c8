"""WordModel: the base class of models over the words of a vocabulary."""

from __future__ import annotations

import keras

from keras_transfer.data.word_vocabulary import word_vectorizer
from keras_transfer.models.backbone_model import BackboneModel


@keras.saving.register_keras_serializable(package="keras_transfer")
class WordModel(BackboneModel):
    """A model that keeps its vocabulary, as `_words`, a function that returns it."""

    @property
    def vocabulary(self) -> list[str]:
        """The words. The id of a word is its place."""
        return list(self._words())

    def vectorizer(
        self, sequence_length: int | None = None
    ) -> keras.layers.TextVectorization:
        """Return `kt.data.word_vectorizer` for the vocabulary of this model."""
        return word_vectorizer(self._words(), sequence_length)
