"""SavedModels of models of JAX, and the outputs that they must have.

KERAS_BACKEND=jax python -W error -m tests.backends.exports folder
"""

import pathlib
import sys

import keras
import numpy as np
from keras import layers

import keras_transfer as kt
from tests.export import files
from tests.golden import bases


def adapted(folder):
    """Export a BERT with LoRA and BatchNormalization-free heads, of any length."""
    model = bases.bert()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    bases.exact(model, 0.5)
    samples = bases.tokens(4)
    kt.export_serving(model, folder, samples=samples, labels=["a", "b", "c"])
    for rows, length in ((1, 4), (5, 8)):
        x = bases.tokens(rows, length)
        yield "serving_default", x, {"outputs": model.predict(x, verbose=0)}


def images(folder):
    """Export a network for images of any size, which also takes files."""
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    files.shaken(model)
    pixels = kt.export.ImageBytes(1 / 255, size=(8, 8))
    kt.export_serving(model, folder, preprocessor=pixels)
    rng = np.random.default_rng(0)
    for shape in ((2, 9, 7, 3), (1, 16, 16, 3)):
        x = rng.normal(size=shape).astype("float32")
        yield "serving_default", {"inputs": x}, {"outputs": model.predict(x, verbose=0)}


def texts(folder):
    """Export a Task of keras-hub, with its preprocessor in TensorFlow."""
    task = files.shaken(files.text_task(), 0.1)
    kt.export_serving(task, folder, samples=files.TEXTS, features=True)
    strings = np.array([text.encode() for text in files.TEXTS])
    outputs = task.predict(files.TEXTS, verbose=0)
    yield "serving_default", {"text": strings}, {"outputs": outputs}
    x = task.preprocessor(files.TEXTS)
    x = {name: keras.ops.convert_to_numpy(each) for name, each in x.items()}
    x = {name: each.astype("int32") for name, each in x.items()}
    yield "preprocessed", x, {"outputs": outputs}


def towers(folder):
    """Export two inputs of tokens, each with a mask, of independent lengths."""
    embedding, inputs, means = layers.Embedding(10, 4), {}, []
    for name in ("query", "document"):
        ids = keras.Input((None,), dtype="int32", name=f"{name}_ids")
        mask = keras.Input((None,), dtype="float32", name=f"{name}_mask")
        inputs |= {ids.name: ids, mask.name: mask}
        means.append(keras.ops.sum(embedding(ids) * mask[..., None], axis=1))
    model = keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(means)))
    files.shaken(model)
    kt.export_serving(model, folder)
    x = {}
    for name, length in (("query", 5), ("document", 9)):
        x[f"{name}_ids"] = np.arange(2 * length).reshape(2, length) % 10
        x[f"{name}_mask"] = np.ones((2, length), "float32")
    x = {k: v.astype("int32") if "ids" in k else v for k, v in x.items()}
    yield "serving_default", x, {"outputs": model.predict(x, verbose=0)}


EXPORTS = {each.__name__: each for each in (adapted, images, texts, towers)}


def main(folder):
    folder = pathlib.Path(folder)
    for name, export in EXPORTS.items():
        for number, (signature, x, outputs) in enumerate(export(folder / name)):
            path = folder / f"{name}_{number}_{signature}.npz"
            inputs = {f"x {key}": value for key, value in x.items()}
            np.savez(path, **inputs, **{f"y {k}": y for k, y in outputs.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
