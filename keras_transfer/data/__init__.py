"""Data for transfer learning: the embedded digits in two domains."""

from keras_transfer.data import digits as digits

__all__ = ["digits"]
