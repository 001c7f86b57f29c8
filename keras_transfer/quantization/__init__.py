"""Weights of few bits: quantize a model in place, below its head."""
