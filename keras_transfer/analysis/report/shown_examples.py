"""Show one example of a dataset as text, or as a PNG if it is an image."""

import base64
import io
from typing import Any

import keras
import numpy as np

CHANNELS = (1, 3, 4)
SMALLEST = 4  # pixels per side; smaller arrays are not shown as images
LARGEST = 256  # pixels per side; larger images are shown with fewer pixels


def described(example: Any) -> str:
    """Return an example as text. Arrays are shortened, and texts are not."""
    leaves = keras.tree.flatten(example)
    if isinstance(example, dict):
        parts = [f"{key}: {_words(leaf)}" for key, leaf in _named(example)]
        return "; ".join(parts)
    return " / ".join(_words(leaf) for leaf in leaves)


def picture(example: Any) -> str | None:
    """Return an image as a PNG in base64, or None if the example is not an image.

    Integers from 0 to 255 and floats from 0 to 1 are drawn without scaling. Other
    images are scaled so that their smallest value is black and their largest is white.
    """
    leaves = keras.tree.flatten(example)
    if len(leaves) != 1 or not _is_picture(leaves[0]):
        return None
    pixels = np.asarray(leaves[0])
    step = -(-max(pixels.shape[:2]) // LARGEST)
    pixels = pixels[::step, ::step]
    whole = pixels.dtype.kind in "iu"
    pixels = np.nan_to_num(pixels.astype("float64"), posinf=0.0, neginf=0.0)
    if pixels.min() < 0 or pixels.max() > (255 if whole else 1):
        pixels = pixels - pixels.min()
        pixels = pixels / max(pixels.max(), 1e-12)
    elif whole:
        pixels = pixels / 255
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _is_picture(leaf: np.ndarray) -> bool:
    shape = leaf.shape
    return (
        leaf.dtype.kind in "biuf"
        and len(shape) == 3
        and shape[-1] in CHANNELS
        and min(shape[:2]) >= SMALLEST
    )


def _words(leaf: np.ndarray) -> str:
    if leaf.dtype.kind in "OUS" and leaf.ndim == 0:
        text = leaf.item()
        return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    if leaf.dtype.kind in "OUS":
        return ", ".join(_words(np.asarray(each)) for each in leaf.reshape(-1)[:4])
    size = " x ".join(map(str, leaf.shape))
    if _is_picture(leaf):
        return f"picture of {size}"
    values = leaf.reshape(-1)
    form = "d" if leaf.dtype.kind in "biu" else ".4g"
    shown = ", ".join(f"{value:{form}}" for value in values[:6].tolist())
    if len(values) > 6:
        return f"{shown}, ... ({size})"
    return shown


def _named(example: dict) -> list:
    return [(key, leaf) for key in example for leaf in keras.tree.flatten(example[key])]
