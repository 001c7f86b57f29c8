"""EWC: its penalty from the Fisher information, several tasks, and reload."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit

EWC = kt.regularizers.EWC
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
OLD, NEW = RNG.normal(size=(2, 8, 6)).astype("float32")
Y = np.arange(8) % 3


def compiled(model=None, **settings):
    model = model or tiny.mlp((4, 3))
    settings = dict(jit_compile=False) | settings
    model.compile(keras.optimizers.SGD(0.05), SPARSE, **settings)
    return model


def state(model):
    """Return the weights and the Fisher information for NEW."""
    fisher = kt.regularizers.diagonal_fisher(model, NEW)
    return [array(v) for v in model.trainable_variables], fisher


def by_hand(model, tasks, strength=50.0):
    return sum(
        0.5 * strength * np.sum(f * (array(v) - w) ** 2)
        for weights, fisher in tasks
        for v, w, f in zip(model.trainable_variables, weights, fisher, strict=True)
    )


def two_tasks(gamma=None, count=2, **settings):
    model, tasks = compiled(**settings), []
    for _ in range(count):
        EWC(50.0, gamma=gamma).attach(model, NEW)
        tasks.append(state(model))
        fit(model, OLD, Y)  # after the second task, the trace is old
    return model, tasks


def test_two_tasks_add_up_and_a_third_after_reload(tmp_path):
    model, tasks = two_tasks()
    assert float(sum(model.losses)) == pytest.approx(by_hand(model, tasks), rel=1e-4)
    model.save(tmp_path / "model.keras")
    again = kt.resume(tmp_path / "model.keras")
    assert float(sum(again.losses)) == pytest.approx(float(sum(model.losses)))
    EWC(50.0).attach(again, NEW)
    tasks.append(state(again))
    for variable in again.weights:
        variable.assign_add(np.ones(variable.shape))
    assert float(sum(again.losses)) == pytest.approx(by_hand(again, tasks), rel=1e-4)


@pytest.mark.slow
def test_the_online_form_keeps_a_part_of_the_importance():
    model, [(_, first), (weights, second)] = two_tasks(gamma=0.25, run_eagerly=True)
    both = [0.25 * a + b for a, b in zip(first, second, strict=True)]
    expected = by_hand(model, [(weights, both)])
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_fit_equals_fit_with_the_penalty_written_out():
    model = compiled(run_eagerly=True)
    EWC(50.0).attach(model, NEW)
    start, fisher = state(model)
    plain = compiled(run_eagerly=True)
    for _ in range(3):
        here = plain.get_weights()
        fit(plain, OLD, Y, batch_size=8)
        pulls = zip(plain.get_weights(), here, start, fisher, strict=True)
        plain.set_weights([w - 0.05 * 50 * f * (h - s) for w, h, s, f in pulls])
    fit(model, OLD, Y, batch_size=8, epochs=3)
    assert_close(model.get_weights(), plain.get_weights(), 1e-5)


def test_the_old_classifier_on_the_same_backbone_gives_the_importance():
    backbone = tiny.mlp((5, 4))
    old = compiled(kt.models.TransferClassifier(backbone, 3))
    new = compiled(kt.models.TransferClassifier(backbone, 2))
    EWC(50.0).attach(new, (OLD, Y), task_model=old)
    fisher = kt.regularizers.diagonal_fisher(old, OLD, weights=backbone.weights)
    for variable in [*backbone.weights, *new.layers[-1].weights]:
        variable.assign_add(np.ones(variable.shape))
    expected = 25 * sum(np.sum(each) for each in fisher)
    assert float(sum(new.losses)) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="shares no weight"):
        EWC(50.0).attach(new, OLD, task_model=tiny.mlp())


@pytest.mark.slow
def test_both_penalties_on_one_model_add_up():
    model = compiled()
    EWC(50.0).attach(model, NEW)
    kt.regularizers.L2SP(2.0, 0.0).attach(model, head=[])
    start, fisher = state(model)
    for variable in model.weights:
        variable.assign_add(np.ones(variable.shape))
    expected = sum(np.sum(25 * f + 1.0) for f in fisher)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)


def test_wrong_arguments_change_nothing():
    model = compiled()
    cases = [
        (lambda: EWC(0), "strength=0"),
        (lambda: EWC(gamma=2), "gamma=2"),
        (lambda: EWC(classes="all"), "classes="),
        (lambda: EWC().attach(model, OLD[:0]), "empty"),
        (lambda: EWC().attach(model, OLD * np.inf), "not finite"),
        (lambda: EWC().attach(model, (OLD, Y + 1)), "outside 0 to 2"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    assert not model.losses
    EWC(1.0).attach(model, OLD)
    with pytest.raises(ValueError, match="same arguments"):
        EWC(2.0).attach(model, OLD)


@pytest.mark.slow
def test_two_replicas_equal_one(strategy):
    one, _ = two_tasks(count=1)
    with strategy.scope():
        two, _ = two_tasks(count=1)
    assert_close(two.get_weights(), one.get_weights(), 1e-5)
