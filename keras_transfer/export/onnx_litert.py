"""export_file: export a model to one ONNX or LiteRT file."""

from __future__ import annotations

import importlib
import os
import pathlib
import tempfile
from collections.abc import Callable
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._whole_file import new_path
from keras_transfer.export import comparison
from keras_transfer.export.graph import Folded
from keras_transfer.export.graph import forward
from keras_transfer.export.graph import INSTEAD
from keras_transfer.export.graph import signature
from keras_transfer.export.graph import write
from keras_transfer.export.request import Entry
from keras_transfer.export.request import plain_entry
from keras_transfer.export.samples import request
from keras_transfer.export.samples import run

# The lowest ONNX opset with all operations that tf2onnx writes for attention.
OPSET = 17


def export_file(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    format: str,
    samples: object = None,
) -> pathlib.Path:
    """Write a model to one file for ONNX Runtime or LiteRT.

    As in `kt.export_serving`, adapters are merged into a copy of the weights, the
    names of inputs and outputs are stable, the batch size is free, and the file is
    compared with the model on `samples` before it is put in place. The file takes the
    model's own inputs, because tokenizers and image decoders are operations of
    TensorFlow.

    Args:
        model: A functional, Sequential or subclassed model. A subclassed model needs
            `samples`, from which its inputs are inferred.
        path: Path of the file, such as `"model.onnx"`.
        format: `"onnx"` or `"litert"`. `"onnx"` needs tf2onnx, and onnxruntime for the
            comparison. `"litert"` needs ai-edge-litert for the comparison.
        samples: A few inputs of the model for the comparison. Defaults to None, which
            skips the comparison.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: If the file exists already.
        NotImplementedError: If Keras does not run on TensorFlow.
        ImportError: If a package that is needed is not installed.
        TypeError: If `model` is not a Keras model.
        ValueError: If the format does not support the model, such as some quantized
            layers in LiteRT, or if the file gives other outputs than the model.

    Example:
        ```python
        import pathlib
        import tempfile

        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "model.tflite")
            kt.export.export_file(model, path, format="litert")
            assert path.stat().st_size > 0
        ```

    Reference:
        Keras, `Model.export`, formats "onnx" and "litert"; tf2onnx; LiteRT (TensorFlow
        Lite).
    """
    _keras.check_backend("tensorflow", "kt.export.export_file", INSTEAD)
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"The model is a {type(model).__name__}. Pass a keras.Model instead."
        )
    one_of("format", format, FORMATS, "kt.export_serving writes a SavedModel")
    convert, load, needs, to_compare = FORMATS[format]
    _require(needs + (to_compare if samples is not None else ()), format)
    target = pathlib.Path(path)
    with new_path(target) as partial:
        entry = plain_entry(model, samples)
        compute = forward(model, entry, "outputs", Folded(model))
        try:
            convert(entry, compute, partial)
        except Exception as error:  # converters raise many types of errors
            raise ValueError(_refusal(model, format, error)) from error
        if samples is not None:
            asked = request(entry, samples, format)
            right = comparison.expected(model, run(entry, asked), "outputs")
            found = load(partial)(asked)
            comparison.compare(
                f"The {format} file", found, right, comparison.tolerance(model)
            )
    return target


def _to_onnx(entry: Entry, compute: Callable, path: pathlib.Path) -> None:
    import tf2onnx

    def serve(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return compute(entry.prepare(tensors))

    traced = tf.function(serve, input_signature=[entry.specs], autograph=False)
    tf2onnx.convert.from_function(
        traced, [entry.specs], opset=OPSET, output_path=str(path)
    )


def _to_litert(entry: Entry, compute: Callable, path: pathlib.Path) -> None:
    key = "serving_default"
    with tempfile.TemporaryDirectory() as folder:
        write({key: signature(entry, compute)}, entry.resources, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[key]
        )
        path.write_bytes(converter.convert())


def _load_onnx(path: pathlib.Path) -> Callable[[Mapping], dict[str, np.ndarray]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes())
    names = [each.name for each in session.get_outputs()]
    return lambda asked: dict(zip(names, session.run(names, dict(asked)), strict=True))


def _load_litert(path: pathlib.Path) -> Callable[[Mapping], dict[str, np.ndarray]]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=path.read_bytes()).get_signature_runner()
    return lambda asked: runner(**asked)


# For each format: how to write it, how to run it, and the modules, with their packages,
# to write and to run it.
FORMATS = {
    "onnx": (
        _to_onnx,
        _load_onnx,
        (("tf2onnx", "tf2onnx"), ("onnx", "onnx")),
        (("onnxruntime", "onnxruntime"),),
    ),
    "litert": (_to_litert, _load_litert, (), (("ai_edge_litert", "ai-edge-litert"),)),
}


def _require(modules: tuple[tuple[str, str], ...], format: str) -> None:
    for module, package in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ImportError(
                f"format={format!r} needs {package}, which is not installed. Run "
                f"pip install {package}, or pip install keras_transfer[export]."
            ) from error


def _refusal(model: keras.Model, format: str, error: Exception) -> str:
    layers = _keras.flat_layers(model)
    modes = {getattr(layer, "quantization_mode", None) for layer in layers} - {None}
    reason = str(error).strip().splitlines()
    text = f"'{model.name}' cannot be written as {format}"
    if modes:
        text += (
            f": it is quantized ({', '.join(sorted(modes))}), and the converter does "
            "not support operations of quantized layers. Export the model before it is "
            "quantized, or as a SavedModel with kt.export_serving"
        )
    return f"{text}. The converter's error: {reason[0][:300] if reason else error!r}"
