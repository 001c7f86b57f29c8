"""Small ready compositions."""

from keras_transfer.models.transfer_classifier import (
    TransferClassifier as TransferClassifier,
)
