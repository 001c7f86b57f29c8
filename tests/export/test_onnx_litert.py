import sys

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.export import export_file
from tests import tiny
from tests.adapters import models as am
from tests.export import files

RUNTIMES = {"onnx": ("tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}
# These warnings come from tf2onnx and from quantization.
pytestmark = [
    pytest.mark.export,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tf2onnx"),
    pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method"),
]
each_format = pytest.mark.parametrize("format", RUNTIMES)


def needs(format):
    for module in RUNTIMES[format]:
        reason = f"needs {module} (the extra 'export')"
        pytest.importorskip(module, reason=reason, exc_type=ImportError)


def runner(format, path):
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        names = [each.name for each in session.get_outputs()]
        return lambda x: dict(zip(names, session.run(names, x), strict=True))
    from ai_edge_litert.interpreter import Interpreter

    signature = Interpreter(model_path=str(path)).get_signature_runner()
    return lambda x: signature(**x)


@each_format
def test_bert_with_lora(tmp_path, format):
    needs(format)
    model = am.nested()
    kt.adapters.LoRA(rank=2).attach(model)
    am.disturb(model)
    before = [weight.numpy() for weight in model.weights]
    path = export_file(
        model, tmp_path / f"bert.{format}", format=format, samples=am.tokens()
    )
    run = runner(format, path)
    for rows, length in ((8, 8), (3, 5)):  # batch size and length are free
        x = am.tokens(rows, length=length)
        answer = run(x)
        assert list(answer) == ["outputs"]
        right = model(x, training=False)
        np.testing.assert_allclose(answer["outputs"], right, rtol=0, atol=2e-6)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@each_format
def test_a_network_with_batch_norm(tmp_path, format):
    needs(format)
    model = files.shaken(tiny.convnet())
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    path = export_file(model, tmp_path / "conv", format=format, samples=x)
    answer = runner(format, path)({"inputs": x})
    np.testing.assert_allclose(answer["outputs"], model(x), rtol=1e-5, atol=1e-5)


@each_format
def test_quantized_models_are_written_correctly_or_refused(tmp_path, format):
    needs(format)
    for mode in ("int8", "int4"):
        model = am.nested()
        model.quantize(mode)
        path = tmp_path / f"{mode}.{format}"
        if (mode, format) == ("int8", "litert"):
            with pytest.raises(ValueError, match=r"quantized \(int8\)"):
                export_file(model, path, format=format, samples=am.tokens())
            assert not path.exists()
            continue
        export_file(model, path, format=format, samples=am.tokens())
        right = model(am.tokens(), training=False).numpy()
        got = runner(format, path)(am.tokens())["outputs"]
        assert np.abs(got - right).max() < 0.05 * np.abs(right).max()
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


@each_format
def test_an_existing_file_is_not_overwritten(tmp_path, format):
    needs(format)
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        export_file(tiny.mlp(), tmp_path / "model", format=format)
    assert (tmp_path / "model").read_text() == "mine"


def test_litert_needs_no_package_without_samples(tmp_path):
    path = export_file(tiny.mlp(), tmp_path / "new" / "m.tflite", format="litert")
    assert path.read_bytes()[4:8] == b"TFL3"


@each_format
def test_a_missing_package_is_named(tmp_path, format, monkeypatch):
    for module in (*RUNTIMES[format], "onnx"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="pip install"):
        export_file(tiny.mlp(), tmp_path / "x", format=format, samples=np.ones((2, 6)))
    assert files.everything(tmp_path) == []


def test_an_unknown_format_and_a_layer_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be one of"):
        export_file(tiny.mlp(), tmp_path / "x", format="coreml")
    with pytest.raises(TypeError, match=r"keras\.Model"):
        export_file(keras.layers.Dense(2), tmp_path / "x", format="onnx")
