"""Reloading in the middle of a schedule, compared with Keras's own loading."""

import warnings

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer.callbacks.monitor import PhaseState
from tests import tiny
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit

GradualUnfreezing = kt.callbacks.GradualUnfreezing


def tokens():
    ids = np.random.default_rng(0).integers(1, 64, (8, 8))
    x = dict(token_ids=ids, segment_ids=0 * ids, padding_mask=0 * ids + 1)
    return x, np.array([0, 1, 2, 0, 1, 2, 0, 1])


def vectors():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6)).astype("float32")
    return x, rng.normal(size=(8, 3)).astype("float32")


def bert():
    inner = tiny.bert(num_layers=1, dropout=0.0)
    outputs = keras.layers.Dense(3, name="logits")(inner.output["pooled_output"])
    return keras.Model(inner.input, outputs)


def nested_bert():
    inner = tiny.bert(num_layers=1, dropout=0.0)
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "segment_ids", "padding_mask")
    }
    outputs = keras.layers.Dense(3, name="logits")(inner(inputs)["pooled_output"])
    return keras.Model(inputs, outputs)


def task():
    import keras_hub

    inner = tiny.bert(num_layers=1, dropout=0.0)
    return keras_hub.models.BertTextClassifier(inner, num_classes=3, dropout=0.0)


def compiled(model, optimizer=None):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        optimizer or keras.optimizers.Adam(1e-3), loss, metrics=[], run_eagerly=True
    )
    return model


def half_way(model, data, path, **settings):
    """Train the head alone, then one more group, and save the model."""
    fit(model, *data, epochs=2, callbacks=[GradualUnfreezing(model, **settings)])
    model.save(path)
    return path


def trainable(model):
    return [any(v is each for each in model.trainable_weights) for v in model.weights]


@pytest.mark.slow
@pytest.mark.parametrize("make", [nested_bert, task])
def test_training_continues_as_if_never_stopped(tmp_path, make):
    model = compiled(make())
    path = half_way(model, tokens(), tmp_path / "half.keras")
    again = kt.resume(path)
    assert trainable(again) == trainable(model)
    assert_close(again.optimizer.variables, model.optimizer.variables)
    for each in (model, again):
        callbacks = [GradualUnfreezing(each)]
        fit(each, *tokens(), initial_epoch=2, epochs=3, callbacks=callbacks)
    assert_close(again.get_weights(), model.get_weights())


@pytest.mark.slow
def test_keras_alone_loses_the_moments_of_a_partly_frozen_bert(tmp_path):
    model = bert()
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.get_layer("transformer_layer_0").trainable = True
    for layer in _keras.sublayers(model.get_layer("transformer_layer_0"))[:2]:
        layer.trainable = False
    compiled(model)
    fit(model, *tokens())
    model.save(tmp_path / "stock.keras")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = keras.saving.load_model(tmp_path / "stock.keras")
    # If this fails, Keras saves the flags of sub-layers, and resume() can be simpler.
    assert len(again.trainable_variables) > len(model.trainable_variables)
    assert _keras.value(again.optimizer.iterations) == 0
    assert any("Skipping variable loading" in str(w.message) for w in caught)
    with pytest.raises(ValueError, match="cannot be restored"):
        kt.resume(tmp_path / "stock.keras")


def test_load_model_names_resume_in_its_error(tmp_path):
    path = half_way(compiled_mlp(), vectors(), tmp_path / "half.keras")
    with pytest.raises(ValueError, match=r"keras_transfer\.resume"):
        keras.saving.load_model(path)


def compiled_mlp(optimizer=None):
    model = tiny.mlp()
    model.compile(optimizer or keras.optimizers.Adam(1e-3), "mse", jit_compile=False)
    return model


def test_rates_and_phase_are_restored(tmp_path):
    model = tiny.mlp()
    adamw = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    rates = {"dense_0": 0.5, "dense_2": 2.0}
    optimizer = kt.optimizers.discriminative(
        adamw, model, rates=rates, no_weight_decay=True
    )
    model.compile(optimizer, "mse", jit_compile=False)
    settings = dict(epochs_per_phase=1, monitor="loss", patience=5)
    path = half_way(model, vectors(), tmp_path / "half.keras", **settings)
    again = kt.resume(path)
    assert again.optimizer.rates == model.optimizer.rates
    assert again.optimizer.decay_mask == (True, False) * 3
    state = PhaseState.kept_by(again.optimizer)
    assert state == PhaseState.kept_by(model.optimizer)
    assert state.phase == 1


@pytest.mark.slow
def test_mixed_precision_is_restored_with_its_loss_scale(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled_mlp()
    path = half_way(model, vectors(), tmp_path / "half.keras")
    again = kt.resume(path)
    assert type(again.optimizer) is keras.optimizers.LossScaleOptimizer
    assert_close(again.optimizer.variables, model.optimizer.variables)
    keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match="policy mixed_float16"):
        kt.resume(path)


@pytest.mark.slow
def test_resumes_under_a_strategy(tmp_path, strategy):
    model = compiled_mlp()
    path = half_way(model, vectors(), tmp_path / "half.keras")
    with strategy.scope():
        again = kt.resume(path)
    for each in (model, again):
        callbacks = [GradualUnfreezing(each)]
        fit(each, *vectors(), initial_epoch=2, epochs=4, callbacks=callbacks)
    assert_close(again.get_weights(), model.get_weights(), 1e-6)


def test_an_optimizer_of_all_variables_is_loaded_as_by_keras(tmp_path):
    model = compiled_mlp()
    fit(model, *vectors())
    model.save(tmp_path / "all.keras")
    again = kt.resume(tmp_path / "all.keras")
    assert type(again.optimizer) is keras.optimizers.Adam
    assert_close(again.optimizer.variables, model.optimizer.variables)


def test_the_legacy_format_is_refused(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match="Legacy `.h5` files mix up"):
        kt.resume(path)


def test_files_that_cannot_be_resumed_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        kt.resume(tmp_path / "none.keras")
    tiny.mlp().save(tmp_path / "bare.keras")
    with pytest.raises(ValueError, match="was not compiled"):
        kt.resume(tmp_path / "bare.keras")
    model = tiny.mlp()
    optimizer = kt.optimizers.discriminative(keras.optimizers.Adam(), model)
    model.compile(optimizer, "mse", jit_compile=False)
    model.save(tmp_path / "untrained.keras")
    with pytest.raises(ValueError, match="saved before it was "):
        kt.resume(tmp_path / "untrained.keras")


def test_layers_with_statistics_only_keep_their_flag(tmp_path):
    norm = keras.layers.BatchNormalization(center=False, scale=False)
    model = keras.Sequential([keras.Input((6,)), norm, keras.layers.Dense(3)])
    optimizer = kt.optimizers.discriminative(keras.optimizers.Adam(), model)
    model.compile(optimizer, "mse", jit_compile=False)
    fit(model, *vectors())
    model.save(tmp_path / "norm.keras")
    assert kt.resume(tmp_path / "norm.keras").layers[0].trainable is True


def test_custom_objects_are_passed_on(tmp_path):
    def error(y, prediction):
        return keras.ops.mean((y - prediction) ** 2)

    model = tiny.mlp()
    model.compile("adam", error, jit_compile=False)
    path = half_way(model, vectors(), tmp_path / "half.keras")
    again = kt.resume(path, custom_objects={"error": error})
    assert_close(again.optimizer.variables, model.optimizer.variables)


@pytest.mark.slow
def test_a_custom_compile_is_called_as_by_keras(tmp_path):
    class Own(keras.Model):
        def compile(self, optimizer, scale):
            super().compile(optimizer, "mse", jit_compile=False)
            self.scale = scale

        def get_compile_config(self):
            optimizer = keras.saving.serialize_keras_object(self.optimizer)
            return {"optimizer": optimizer, "scale": self.scale}

        def compile_from_config(self, config):
            optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
            self.compile(optimizer, config["scale"])
            self.optimizer.build(self.trainable_variables)

    plain = tiny.mlp()
    model = Own(plain.inputs, plain.outputs)
    model.compile(keras.optimizers.Adam(1e-3), scale=2)
    path = half_way(model, vectors(), tmp_path / "half.keras")
    again = kt.resume(path, custom_objects={"Own": Own})
    assert again.scale == 2
    assert_close(again.optimizer.variables, model.optimizer.variables)
