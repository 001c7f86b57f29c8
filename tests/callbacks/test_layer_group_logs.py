"""Rates and movement of layer groups in the logs and in the files of TensorBoard."""

import csv

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.contracts.callback_contract import CallbackContract
from tests.contracts.compare import build

LayerGroupLogs = kt.callbacks.LayerGroupLogs


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 6)).astype("float32")
    return x, rng.normal(size=(16, 3)).astype("float32")


def compiled(rate=0.1, decay=0.5, model=None):
    model = model or tiny.mlp()
    sgd = keras.optimizers.SGD(rate)
    optimizer = kt.optimizers.discriminative(sgd, model, layer_decay=decay)
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def fit(model, *callbacks, epochs=2, **kwargs):
    settings = dict(batch_size=8, shuffle=False, verbose=0) | kwargs
    build(model, *data())
    return model.fit(*data(), epochs=epochs, callbacks=list(callbacks), **settings)


class TestLayerGroupLogs(CallbackContract):
    epochs = 3
    # It does nothing during the steps.
    test_steps_per_execution_trains_the_same = test_xla_trains_the_same = None

    def make_callbacks(self, model):
        return [LayerGroupLogs(model)]


def test_the_rate_of_a_group_is_the_learning_rate_times_its_factor():
    model = compiled()
    history = fit(model, LayerGroupLogs()).history
    names = kt.layer_groups(model).names
    for depth, name in enumerate(reversed(names)):
        wanted = [0.1 * 0.5**depth] * 2
        np.testing.assert_allclose(
            history[f"learning_rate/{name}"], wanted, rtol=1e-6, err_msg=name
        )


def test_the_rate_of_a_stock_optimizer_is_the_same_for_all_groups():
    model = tiny.mlp()
    model.compile(keras.optimizers.Adam(0.03), "mse", jit_compile=False)
    history = fit(model, LayerGroupLogs(moved=False)).history
    rates = [v[0] for k, v in history.items() if k.startswith("learning_rate/")]
    np.testing.assert_allclose(rates, [0.03] * len(kt.layer_groups(model)), rtol=1e-6)
    assert not any(key.startswith("moved/") for key in history)


def test_a_frozen_group_has_rate_0_and_does_not_move():
    model = compiled()
    names = kt.layer_groups(model).names
    phases = [(names[-1], 1), (names, None, 0.1)]
    unfreezing = kt.callbacks.GradualUnfreezing(model, phases)
    history = fit(model, unfreezing, LayerGroupLogs()).history
    assert history[f"learning_rate/{names[0]}"][0] == 0
    assert history[f"moved/{names[0]}"][0] == 0
    assert history[f"moved/{names[0]}"][1] > 0
    # The second phase runs at a tenth of the rate.
    head = history[f"learning_rate/{names[-1]}"]
    np.testing.assert_allclose(head, [0.1, 0.01], rtol=1e-6)


def test_movement_is_relative_to_the_norm_of_the_start():
    model = compiled()
    group = kt.layer_groups(model)[0]
    before = [keras.ops.convert_to_numpy(v) for v in group.variables]
    history = fit(model, LayerGroupLogs(rates=False)).history
    after = [keras.ops.convert_to_numpy(v) for v in group.variables]
    change = np.concatenate([(a - b).ravel() for a, b in zip(after, before)])
    start = np.concatenate([b.ravel() for b in before])
    wanted = np.linalg.norm(change) / np.linalg.norm(start)
    np.testing.assert_allclose(history[f"moved/{group.name}"][-1], wanted, rtol=1e-5)


def test_the_rates_follow_a_schedule():
    model = tiny.mlp()
    schedule = kt.optimizers.SlantedTriangular(0.32, 4)
    model.compile(keras.optimizers.SGD(schedule), "mse", jit_compile=False)
    history = fit(model, LayerGroupLogs(moved=False)).history
    name = kt.layer_groups(model).names[-1]
    wanted = [float(schedule(2)), float(schedule(4))]
    np.testing.assert_allclose(history[f"learning_rate/{name}"], wanted, rtol=1e-6)


def test_tensorboard_and_csv_have_the_scalars(tmp_path):
    import tensorflow as tf

    model = compiled()
    names = kt.layer_groups(model).names
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    board = keras.callbacks.TensorBoard(str(tmp_path / "board"), write_graph=False)
    table = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    fit(model, unfreezing, LayerGroupLogs(), board, table, epochs=3)
    (path,) = (tmp_path / "board" / "train").glob("events*")
    tags = set()
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        tags |= {value.tag for value in event.summary.value}
    wanted = {f"epoch_learning_rate/{name}" for name in names}
    wanted |= {f"epoch_moved/{name}" for name in names}
    assert wanted | {"epoch_loss", "epoch_phase"} <= tags
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2][f"learning_rate/{names[0]}"]) > 0


@pytest.mark.parametrize(
    "writer", [keras.callbacks.TensorBoard, keras.callbacks.CSVLogger]
)
def test_a_writer_before_this_callback_raises(tmp_path, writer):
    model = compiled()
    with pytest.raises(ValueError, match="comes before LayerGroupLogs"):
        fit(model, writer(str(tmp_path / "x")), LayerGroupLogs())


def test_nothing_to_log_and_another_model_raise():
    with pytest.raises(ValueError, match="leave nothing to log"):
        LayerGroupLogs(rates=False, moved=False)
    with pytest.raises(ValueError, match="which has other weights"):
        fit(compiled(), LayerGroupLogs(tiny.mlp()))
