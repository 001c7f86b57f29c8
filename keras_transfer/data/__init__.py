"""Load texts and images, select few labels, and combine domains."""

from keras_transfer.data import digits as digits
from keras_transfer.data.answer_scores import AnswerScores as AnswerScores
from keras_transfer.data.audio_preprocessor import (
    AudioPreprocessor as AudioPreprocessor,
)
from keras_transfer.data.bucket_by_length import bucket_by_length as bucket_by_length
from keras_transfer.data.conll import from_conll as from_conll
from keras_transfer.data.domains import domain_dataset as domain_dataset
from keras_transfer.data.episodes import episodes as episodes
from keras_transfer.data.few_labels import few_labels as few_labels
from keras_transfer.data.hold_out_classes import hold_out_classes as hold_out_classes
from keras_transfer.data.is_held_out import is_held_out as is_held_out
from keras_transfer.data.language_model_batches import (
    language_model_batches as language_model_batches,
)
from keras_transfer.data.mixed_tasks import TextToText as TextToText
from keras_transfer.data.replay import replay as replay
from keras_transfer.data.resample import resample as resample
from keras_transfer.data.response_preprocessor import (
    ResponsePreprocessor as ResponsePreprocessor,
)
from keras_transfer.data.tagging_preprocessor import (
    TaggingPreprocessor as TaggingPreprocessor,
)
from keras_transfer.data.task_mixture import task_mixture as task_mixture
from keras_transfer.data.text_to_text import text_to_text as text_to_text
from keras_transfer.data.tfds import from_tfds as from_tfds
from keras_transfer.data.tsv import from_tsv as from_tsv
from keras_transfer.data.word_vocabulary import word_vectorizer as word_vectorizer
from keras_transfer.data.word_vocabulary import word_vocabulary as word_vocabulary
