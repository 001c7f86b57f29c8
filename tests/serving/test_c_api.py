"""Exported models run with TF Serving's loader, without TensorFlow's Python code."""

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.export.serving import export_serving
from tests import tiny
from tests.serving import c_api
from tests.serving import exported

pytestmark = pytest.mark.slow  # its fixtures start processes
KINDS = ["vision", "vision with LoRA"]
KINDS = [f"{k}{each}" for k in KINDS for each in ("", ", one", ", seven", ", files")]
KINDS += ["text", "text, tokens", "text with LoRA", "text with LoRA, tokens"]
HEAVY = {"keras", "keras_hub", "keras_transfer", "tensorflow.python"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return exported.cases(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def answers(made, tmp_path_factory):
    """Return the results, the error without tensorflow_text, and loaded modules."""

    def job(case):
        return str(case.folder), case.signature, case.arrays

    libraries = c_api.text_operations()
    jobs = [job(made["text"])]
    jobs += [("library", str(each)) for each in libraries]
    jobs += [job(case) for case in made.values()]
    results, modules = exported.run(jobs, tmp_path_factory.mktemp("jobs"))
    found = dict(zip(made, results[1 + len(libraries) :], strict=True))
    return found, results[0], set(modules)


@pytest.mark.parametrize("name", KINDS)
def test_same_outputs_as_keras(name, made, answers):
    found, _, _ = answers
    wanted = made[name].wanted
    assert not isinstance(found[name], str), found[name]
    allowed = 1e-6 * max(1, np.abs(wanted).max())
    np.testing.assert_allclose(found[name]["outputs"], wanted, rtol=0, atol=allowed)
    assert np.ptp(wanted) > 1e-3  # the outputs differ


def test_labels_are_strings(made, answers):
    found, _, _ = answers
    case = made["vision, labels"]
    assert list(found["vision, labels"]["label"]) == list(case.wanted)


def test_lora_changes_the_outputs(made):
    for name in ("vision", "text"):
        lora = made[f"{name} with LoRA"].wanted
        assert np.abs(made[name].wanted - lora).max() > 1e-3


def test_the_process_imports_neither_keras_nor_this_package(answers):
    _, _, modules = answers
    assert modules & HEAVY == set()
    assert "tensorflow.core.protobuf.meta_graph_pb2" in modules  # only messages


def test_strings_need_the_operations_of_tensorflow_text(answers):
    _, before, _ = answers
    assert "Op type not registered" in before


def test_errors_are_returned_as_text(tmp_path):
    model = tiny.mlp()
    export_serving(model, tmp_path / "mlp")
    path, x = str(tmp_path / "mlp" / "1"), np.ones((2, 6), "float32")
    jobs = [
        (path, "serving_default", {"other": x}),
        (str(tmp_path / "none"), "serving_default", {"inputs": x}),
        (path, "serving_default", {"inputs": x[:, :5]}),
        (path, "serving_default", {"inputs": x}),
        (path, "serving_default", {"inputs": x[:0]}),
    ]
    results, _ = exported.run(jobs, tmp_path)
    assert results[0] == "serving_default takes ['inputs'], not ['other']"
    assert "Could not find SavedModel" in results[1]
    assert "[2,5]" in results[2]
    wanted = model(x)
    np.testing.assert_allclose(results[3]["outputs"], wanted, rtol=0, atol=1e-6)
    assert results[4]["outputs"].shape == (0, 3)


def test_a_wrong_shape_does_not_abort_the_process(tmp_path):
    # The convolutions of oneDNN would abort the process ("Check failed: index >= 0").
    export_serving(tiny.convnet(), tmp_path / "conv")
    path, x = str(tmp_path / "conv" / "1"), np.ones((8, 8, 3), "float32")
    jobs = [(path, "serving_default", {"inputs": x})]
    (text,), _ = exported.run(jobs, tmp_path)
    assert "[8,8,3]" in text and "[?,8,8,3]" in text


def test_strings_are_not_changed_by_the_c_api(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def twice(text):
        return {"same": text, "twice": text + text}

    texts = ["", "a\0b", "\u00e9t\u00e9", "long " * 50]
    module = tf.Module()
    path = str(tmp_path / "strings")
    tf.saved_model.save(module, path, {"serving_default": twice})
    jobs = [(path, "serving_default", {"text": np.array(texts, object)})]
    (found,), _ = exported.run(jobs, tmp_path)
    wanted = [each.encode() for each in texts]
    assert list(found["same"]) == wanted
    assert list(found["twice"]) == [each * 2 for each in wanted]
