"""Weights of few bits: quantize a model in place, below its head."""

from keras_transfer.quantization.quantize import quantize as quantize
