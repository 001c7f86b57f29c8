"""Reduce the output of a backbone to one vector, in the way that fits its shape."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.backbones.pooling import LastToken
from keras_transfer.backbones.pooling import MaskedMean
from keras_transfer.layers.concat_pooling import ConcatPooling

POOLINGS = ("auto", "mean", "first", "last", "concat", "pooled", "average", None)


def pooled_by(
    outputs: keras.KerasTensor,
    mask: keras.KerasTensor | None,
    pooling: str | None,
    network: keras.Model,
    *,
    dtype: object,
    name: str = "pooling",
) -> keras.KerasTensor:
    """Return an output after a pooling that `fitting_pooling` has returned."""
    if pooling == "mean":
        return MaskedMean(name=name, dtype=dtype)(outputs, mask=mask)
    if pooling == "last":
        return LastToken(name=name, dtype=dtype)(outputs, mask=mask)
    if pooling == "concat":
        return ConcatPooling(name=name, dtype=dtype)(outputs, mask=mask)
    if pooling == "first":
        return outputs[:, 0]
    if pooling == "average":
        kind = {
            4: keras.layers.GlobalAveragePooling2D,
            5: keras.layers.GlobalAveragePooling3D,
        }[len(outputs.shape)]
        data_format = _data_format(network, keras.config.image_data_format())
        return kind(data_format=data_format, name=name, dtype=dtype)(outputs)
    return outputs


def fitting_pooling(pooling: str | None, shape: tuple, name: str) -> str | None:
    """Return the pooling to apply, or raise an error if it does not fit the shape."""
    rank = len(shape)
    automatic = {2: None, 3: "mean", 4: "average", 5: "average"}
    fits = {
        "auto": tuple(automatic),
        "mean": (3,),
        "first": (3,),
        "last": (3,),
        "concat": (3,),
        "pooled": (2,),
        "average": (4, 5),
        None: (2,),
    }
    if rank not in fits[pooling]:
        fitting = [p for p in POOLINGS if rank in fits[p] and p != "pooled"]
        raise ValueError(
            f"pooling={pooling!r} does not fit the output {shape} of '{name}'. "
            f"For {rank} axes use one of {fitting}."
        )
    if pooling == "auto":
        return automatic[rank]
    return pooling


def _data_format(layer: keras.Layer, data_format: str) -> str:
    """Return the data format of the last inner layer that defines a data format."""
    for child in _keras.sublayers(layer):
        data_format = _data_format(child, getattr(child, "data_format", data_format))
    return data_format
