"""The version of keras_transfer."""

__version__ = "0.1.0"
