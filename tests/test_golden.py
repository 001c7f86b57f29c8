"""Files that earlier versions saved can be loaded, and give the same results.

tests/golden/make_saved.py makes these files and says when to run it.
"""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.adapters.switching import own_places
from keras_transfer.adapters.techniques import techniques
from keras_transfer.backbones.fingerprint import of_network
from tests.golden import bases
from tests.golden.make_saved import facts
from tests.golden.make_saved import joined
from tests.golden.make_saved import MAKERS
from tests.golden.make_saved import SAVED
from tests.golden.models import RECIPES
from tests.golden.trainings import HALF
from tests.golden.trainings import TRAININGS

TOLERANCE = 1e-5  # outputs differ between machines


def each_of(pattern):
    """Parametrize a test over the saved files, or folders, of a pattern."""
    paths = [path for path in sorted(SAVED.glob(pattern)) if path.suffix != ".npz"]
    ids = [f"{path.parent.name}-{path.stem}" for path in paths]
    return pytest.mark.parametrize("path", paths, ids=ids)


def arrays_of(path):
    """Return the arrays in the `.npz` file of a saved file."""
    with np.load(path.with_suffix(".npz")) as arrays:
        return dict(arrays)


def inputs_in(arrays):
    """Return the inputs in the form that the model takes."""
    if "inputs" in arrays:
        return arrays["inputs"]
    keys = [key for key in arrays if key.startswith("inputs/")]
    return {key.removeprefix("inputs/"): arrays[key] for key in keys}


def assert_same(actual, expected):
    """Fail unless numbers are equal within the tolerance, and strings are equal."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if expected.dtype.kind in "US":
        assert actual.tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


def with_own_head(arrays, model):
    """Return arrays of an old version, in which adapters had no own head.

    The paths of the model's head are replaced by the paths of the adapter's head.
    """
    owned = {
        variable.path: mine.path
        for _, host, part in own_places(model)
        for _, variable, mine in part.stands_for(host)
    }
    trainable = [owned.get(path, path) for path in arrays["trainable"]]
    return arrays | {"trainable": np.array(trainable)}


def assert_as_saved(model, arrays):
    """Fail unless outputs, trainable weights, strengths and optimizer are the same."""
    current = facts(model, inputs_in(arrays))
    firsts = {"outputs", "outputs/0", "outputs/pooled_output", "outputs/kind"}
    assert firsts & current.keys()
    if isinstance(model, kt.models.SourceOnly | kt.models.ImportanceWeighting):
        # Old files record a constant that had no effect and no longer exists.
        assert current.pop("strengths").size == 0
        arrays = {k: value for k, value in arrays.items() if k != "strengths"}
    # test_a_training_continues compares the loss and the final weights.
    recorded = {k for k in arrays if k not in ("loss", "weights")}
    assert current.keys() == recorded
    for name, value in current.items():
        assert_same(value, arrays[name])


@pytest.mark.parametrize("name", MAKERS)
def test_each_kind_has_a_golden_file(name):
    assert (SAVED / name).exists(), "run python -m tests.golden.make_saved"


def test_each_technique_has_a_golden_file():
    kinds = techniques()
    ours = {kind for name, kind in kinds.items() if name.startswith("keras_transfer>")}
    assert {type(recipe) for recipe in RECIPES.values()} == ours


@each_of("models/*.keras")
def test_a_model_loads(path):
    assert_as_saved(keras.models.load_model(path), arrays_of(path))


@pytest.mark.slow
@each_of("trainings/*.keras")
def test_a_training_continues(path):
    training, arrays = TRAININGS[path.stem], arrays_of(path)
    model = training.load(path)
    assert_as_saved(model, arrays)
    losses = training.fit(model, initial_epoch=HALF).history["loss"]
    assert_same(losses, arrays["loss"][HALF:])
    assert_same(joined(model.weights), arrays["weights"])


@each_of("adapters*/*.safetensors")
def test_an_adapter_loads_onto_its_base(path):
    model = kt.load_adapter(bases.bert(), path)
    assert_as_saved(model, with_own_head(arrays_of(path), model))


@each_of("peft/*")
def test_a_peft_folder_loads_onto_its_base(path):
    model = kt.load_adapter(bases.distil_bert(), path)
    assert_as_saved(model, with_own_head(arrays_of(path), model))


def without_modules(config):
    """Return a config without the modules of classes, which are not public."""
    if isinstance(config, dict):
        return {k: without_modules(v) for k, v in config.items() if k != "module"}
    return [*map(without_modules, config)] if isinstance(config, list) else config


@each_of("objects/*.json")
def test_an_object_has_the_same_config(path):
    text = path.read_text(encoding="utf-8")
    # Keras changes the config that it reads, so it gets a copy.
    restored = keras.saving.deserialize_keras_object(json.loads(text))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(restored)))
    assert without_modules(config) == without_modules(json.loads(text))


@pytest.mark.slow
@each_of("runs/*")
def test_a_run_of_fine_tune_continues(path, tmp_path):
    shutil.copytree(path, tmp_path / "run")
    model, arrays = bases.classifier_of_run(), arrays_of(path)
    pilot = (path / "pilot.json").exists()
    history = bases.start_or_continue(model, tmp_path / "run", pilot=pilot)
    assert history.epoch == [0, 1, 2, 3, 4, 5]
    assert_same(history.history["val_loss"], arrays["val_loss"])
    assert_same(joined(model.weights), arrays["weights"])


@pytest.mark.parametrize(
    "name, fingerprint",
    [
        ("ia3", "c90854466081e574aa6030767305bd3e"),
        ("lora", "6781d331af2778eba3fceb72fa86c926"),
    ],
)
def test_features_cached_below_an_adapter_are_not_stale(name, fingerprint):
    # The fingerprints from before the classes of adapted layers moved to a new module.
    model = keras.models.load_model(SAVED / "models" / f"{name}.keras", compile=False)
    assert of_network(model) == fingerprint


@each_of("features/*")
def test_cached_features_are_read(path, tmp_path):
    shutil.copytree(path, tmp_path / "cache")
    rows = (bases.tokens(), bases.labels(4))
    cached = kt.backbones.cache_features(
        bases.pooled_bert(), rows, tmp_path / "cache", verbose=0
    )
    read = next(cached.batch(4).as_numpy_iterator())
    for name, value in zip(("features", "labels", "weights"), read, strict=True):
        assert_same(value, arrays_of(path)[name])
    files = [each.name for each in sorted(path.iterdir())]
    assert [each.name for each in sorted((tmp_path / "cache").iterdir())] == files


@each_of("growing/*")
def test_an_adapter_is_added_to_the_files_of_an_earlier_version(path, tmp_path):
    shutil.copytree(path, tmp_path / "export")
    added = kt.export.add_adapter(tmp_path / "export", path / "second.safetensors")
    serve = tf.saved_model.load(str(added)).signatures["serving_default"]
    arrays = arrays_of(path)
    x = {name: tf.constant(arrays[name]) for name in ("inputs", "adapter")}
    assert_same(serve(**x)["outputs"], arrays["outputs"])


@each_of("monitored/*")
def test_a_reference_of_an_earlier_version_gives_the_same_statistics(path):
    monitor, arrays = kt.ShiftMonitor.load(path), arrays_of(path)
    monitor.update(arrays["inputs"])
    found = [row["statistic"] for row in monitor.report().table]
    np.testing.assert_allclose(found, arrays["statistics"], atol=0.04)


@each_of("served/*")
def test_a_saved_model_gives_the_same_outputs(path):
    serve = tf.saved_model.load(str(path / "1")).signatures["serving_default"]
    arrays = arrays_of(path)
    _, wanted = serve.structured_input_signature
    answer = serve(**{name: tf.constant(arrays[name]) for name in wanted})
    assert_same(answer["outputs"], arrays["outputs"])
    if "label" in arrays:
        assert [each.decode() for each in answer["label"].numpy()] == [*arrays["label"]]
