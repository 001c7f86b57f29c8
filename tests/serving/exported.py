"""Tiny models exported with kt.export_serving, with requests and Keras's outputs."""

import dataclasses
import os
import pathlib
import pickle
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.lora import LoRA
from keras_transfer.export.image_bytes import ImageBytes
from keras_transfer.export.serving import export_serving
from tests import public
from tests import tiny

WORDS = ["the", "film", "is", "good", "fine", "bad", "dull"]
TEXTS = ["the film is good", "", "Film \u00e9t\u00e9 \u6620\u753b"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A request to a signature of a SavedModel, and the outputs of Keras."""

    folder: pathlib.Path
    signature: str
    arrays: dict
    wanted: np.ndarray
    output: str = "outputs"


def run(jobs, folder):
    """Run jobs with the C API in a new process. Return results and loaded modules."""
    source, target = folder / "jobs.pickle", folder / "results.pickle"
    source.write_bytes(pickle.dumps(jobs))
    command = [sys.executable, "-m", "tests.serving.c_api", source, target]
    done = subprocess.run(
        command, cwd=public.ROOT, env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise AssertionError(f"the C API: {done.returncode}\n{done.stderr[-3000:]}")
    return pickle.loads(target.read_bytes())


def environment():
    """Return the environment for a process outside pytest."""
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}


def with_lora(model, **settings):
    """Return the model with a LoRA whose weights have random values."""
    LoRA(**settings).attach(model)
    disturb(model)
    return model


def disturb(model, seed=0):
    """Give all pairs random values, as if they were trained."""
    rng = np.random.default_rng(seed)
    for _, part in all_parts(model):
        for variable in part.named_weights.values():
            variable.assign(rng.normal(0, 0.3, variable.shape))


def text_model():
    """Return a text Task of keras-hub with its preprocessor."""
    import keras_hub

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = keras_hub.models.BertTokenizer([*special, *WORDS])
    packer = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, 8)
    return keras_hub.models.BertTextClassifier(
        backbone=tiny.bert(num_layers=1), num_classes=3, preprocessor=packer
    )


def vision_cases(folder, name, model, rng):
    """Export an image model and return its cases, for arrays and files."""
    shape = model.input_shape[1:]
    images = rng.integers(0, 256, (3, *shape)).astype("uint8")
    files = [tf.io.encode_png(each).numpy() for each in images]
    export_serving(
        model,
        folder / name,
        samples=files,
        preprocessor=ImageBytes(scale=1 / 127.5, offset=-1),
        labels=["cat", "dog", "cow"],
    )
    path = folder / name / "1"
    floats = (images / 127.5 - 1).astype("float32")
    wanted = model(floats, training=False).numpy()
    many = np.tile(floats, (3, 1, 1, 1))[:7]
    return {
        name: Case(path, "serving_default", {"inputs": floats}, wanted),
        f"{name}, one": Case(
            path, "serving_default", {"inputs": floats[:1]}, wanted[:1]
        ),
        f"{name}, seven": Case(
            *(path, "serving_default", {"inputs": many}),
            model(many, training=False).numpy(),
        ),
        f"{name}, files": Case(
            path, "image_bytes", {"image_bytes": np.array(files, object)}, wanted
        ),
        f"{name}, labels": Case(
            *(path, "serving_default", {"inputs": floats}),
            np.array([b"cat", b"dog", b"cow"], object)[wanted.argmax(-1)],
            "label",
        ),
    }


def text_cases(folder, name, model):
    """Export a text model and return its cases, for strings and token ids."""
    export_serving(model, folder / name, samples=TEXTS)
    path = folder / name / "1"
    tokens = keras.tree.map_structure(
        keras.ops.convert_to_numpy, model.preprocessor(TEXTS)
    )
    wanted = model(model.preprocessor(TEXTS), training=False).numpy()
    return {
        name: Case(path, "serving_default", {"text": TEXTS}, wanted),
        f"{name}, tokens": Case(path, "preprocessed", tokens, wanted),
    }


def cases(folder):
    """Export a model of each kind and return the cases by name."""
    rng = np.random.default_rng(0)
    adapted = with_lora(tiny.convnet(), rank=2, targets=["conv", "hidden"])
    return {
        **vision_cases(folder, "vision", tiny.convnet(), rng),
        **vision_cases(folder, "vision with LoRA", adapted, rng),
        **text_cases(folder, "text", text_model()),
        **text_cases(folder, "text with LoRA", with_lora(text_model(), rank=2)),
    }
