"""CalibratedClassifier: shared weights, raw inputs, files, export, class names."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.models import CalibratedClassifier
from tests import tiny
from tests.contracts import compare
from tests.contracts import fresh
from tests.contracts.compare import assert_close
from tests.contracts.model_contract import ModelContract
from tests.models import calibration_models


def run(model, x):
    """Return the outputs of a model or layer as an array."""
    return compare.arrays(model(x))[0]


class TestCalibratedClassifier(ModelContract):
    def make(self):
        return CalibratedClassifier(tiny.mlp(), kt.layers.TemperatureScaling(2.0))

    def inputs(self):
        return np.random.default_rng(0).normal(size=(8, 6)).astype("float32")

    def targets(self):
        return np.ones((8, 3))


class OwnModel(keras.Model):
    """A model that is not functional."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scores = keras.layers.Dense(3)

    def call(self, inputs):
        return 4.0 * inputs["x"] + 0.0 * self.scores(inputs["x"])


def test_the_weights_are_shared_and_the_model_stays_as_it_was():
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    before, outputs = model.get_weights(), run(model, x)
    optimizer, function = model.optimizer, model.predict_function
    calibrated = kt.calibrate(model, (x, y))
    assert calibrated.model is model
    assert {id(w) for w in model.weights} < {id(w) for w in calibrated.weights}
    assert_close(model.get_weights(), before)
    assert_close(run(model, x), outputs)
    assert model.optimizer is optimizer and model.predict_function is function
    np.testing.assert_allclose(
        run(calibrated, x), outputs / calibrated.calibration.temperature, rtol=1e-5
    )
    model.layers[0].kernel.assign(np.eye(3) * 8)
    np.testing.assert_allclose(run(calibrated, x), run(model, x) / 4.42, rtol=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["temperature", "vector", "isotonic"])
def test_reload_and_export(tmp_path, method):
    x, y = calibration_models.drawn()
    calibrated = kt.calibrate(
        calibration_models.certain(), (x, y), method=method, class_names=list("abc")
    )
    calibrated.save(tmp_path / "c.keras")
    again = fresh.load(tmp_path / "c.keras", x)
    assert_close(again.outputs, run(calibrated, x))
    loaded = keras.saving.load_model(tmp_path / "c.keras")
    assert loaded.calibration.to_dict() == calibrated.calibration.to_dict()
    assert loaded.evaluate(x, y, verbose=0) == calibrated.evaluate(x, y, verbose=0)
    path = kt.export_serving(loaded, tmp_path / "served", samples=x[:4])
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = serve(inputs=tf.constant(x[:9]))
    assert_close(found["outputs"], run(calibrated, x[:9]), 1e-5)
    label = np.array(list("abc"))[run(calibrated, x[:9]).argmax(1)]
    assert found["label"].numpy().astype(str).tolist() == label.tolist()


@pytest.mark.slow
def test_a_task_takes_raw_texts_in_predict_files_and_export(tmp_path):
    model, texts, labels = calibration_models.task()
    calibrated = kt.calibrate(model, (texts, labels))
    raw = model.predict(texts[:5], verbose=0)
    expected = raw / calibrated.calibration.temperature
    dataset = tf.data.Dataset.from_tensor_slices((texts, labels)).batch(16)
    np.testing.assert_allclose(
        calibrated.predict(texts[:5], verbose=0), expected, rtol=1e-4
    )
    np.testing.assert_allclose(
        calibrated.predict(dataset, verbose=0)[:5], expected, rtol=1e-4
    )
    accuracy = calibrated.evaluate(texts, labels, verbose=0)[1]
    assert accuracy == model.evaluate(texts, labels, verbose=0)[1]
    assert accuracy == calibrated.evaluate(dataset, verbose=0)[1]
    calibrated.model.backbone.trainable = False
    count = len(calibrated.trainable_variables)
    calibrated.save(tmp_path / "c.keras")
    loaded = keras.saving.load_model(tmp_path / "c.keras")
    assert len(loaded.trainable_variables) == count == 2
    np.testing.assert_allclose(
        loaded.predict(texts[:5], verbose=0), expected, rtol=1e-4
    )
    path = kt.export_serving(loaded, tmp_path / "served", samples=texts[:3])
    import tensorflow_text  # noqa: F401  operations of the tokenizer

    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = served(tf.constant(texts[:5]))["outputs"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    calibrated.model.backbone.trainable = True
    loss = calibration_models.SPARSE(from_logits=True)
    calibrated.compile("sgd", loss, run_eagerly=True)
    few = texts[:20], labels[:20]
    history = calibrated.fit(*few, validation_data=few, verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()


@pytest.mark.slow
def test_a_transfer_classifier_keeps_names_backbone_and_idle_weights(tmp_path):
    backbone = tiny.bert(num_layers=1)
    model = kt.models.TransferClassifier(backbone, 3, pooling="mean")
    calibrated = CalibratedClassifier(model, kt.layers.VectorScaling())
    assert calibrated.backbone is backbone and calibrated.pooling == "mean"
    assert len(calibrated.trainable_variables) == len(model.trainable_variables)
    idle = [w.path for w in model.idle_weights()]
    assert idle and [w.path for w in calibrated.idle_weights()] == idle
    assert kt.layer_groups(calibrated).names == kt.layer_groups(model).names
    calibrated.save(tmp_path / "c.keras")
    loaded = keras.saving.load_model(tmp_path / "c.keras")
    assert len(loaded.trainable_variables) == len(model.trainable_variables)


def test_a_model_that_is_not_functional():
    x, y = calibration_models.drawn()
    model = OwnModel()
    model.compile(loss=calibration_models.SPARSE(from_logits=True))
    calibrated = kt.calibrate(model, ({"x": x}, y))
    assert 4 < calibrated.calibration.temperature < 5
    expected = run(model, {"x": x}) / calibrated.calibration.temperature
    np.testing.assert_allclose(run(calibrated, {"x": x}), expected, rtol=1e-5)
    with keras.saving.custom_object_scope({"OwnModel": OwnModel}):
        again = CalibratedClassifier.from_config(calibrated.get_config())
    assert again.input["x"].shape == (None, 3)


def test_the_optimizer_of_the_classifier_is_not_in_files(tmp_path):
    x, y = calibration_models.drawn()
    model = calibration_models.certain()
    model.optimizer.build(model.trainable_variables)
    calibrated = kt.calibrate(model, (x, y))
    assert calibrated.optimizer is None and model.optimizer is not None
    calibrated.save_weights(tmp_path / "c.weights.h5")
    other = kt.calibrate(calibration_models.certain(), (x[:300], y[:300]))
    other.load_weights(tmp_path / "c.weights.h5")
    np.testing.assert_array_equal(run(other, x), run(calibrated, x))
    assert model.optimizer is not None


def test_wrong_arguments():
    layer = kt.layers.TemperatureScaling()
    with pytest.raises(TypeError, match="calibrator is a Dense"):
        CalibratedClassifier(tiny.mlp(), keras.layers.Dense(3))
    with pytest.raises(TypeError, match="not a keras.Model"):
        CalibratedClassifier(keras.layers.Dense(3), layer)
    with pytest.raises(ValueError, match="inputs are unknown. Pass `inputs`"):
        CalibratedClassifier(OwnModel(), layer)
    with pytest.raises(ValueError, match="`inputs` has no effect"):
        CalibratedClassifier(tiny.mlp(), layer, inputs=keras.KerasTensor((None, 6)))
