"""Load texts and images, select few labels, and combine domains."""

from keras_transfer.data import digits as digits
from keras_transfer.data.bucket_by_length import bucket_by_length as bucket_by_length
from keras_transfer.data.conll import from_conll as from_conll
from keras_transfer.data.domains import domain_dataset as domain_dataset
from keras_transfer.data.few_labels import few_labels as few_labels
from keras_transfer.data.tagging_preprocessor import (
    TaggingPreprocessor as TaggingPreprocessor,
)
from keras_transfer.data.tfds import from_tfds as from_tfds
from keras_transfer.data.tsv import from_tsv as from_tsv

__all__ = [
    "TaggingPreprocessor",
    "bucket_by_length",
    "digits",
    "domain_dataset",
    "few_labels",
    "from_conll",
    "from_tfds",
    "from_tsv",
]
