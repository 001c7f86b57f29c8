"""A monitored value, epoch by epoch, computed by hand."""

import pytest

from keras_transfer.callbacks.monitor import Monitor
from keras_transfer.callbacks.monitor import NONE_YET


def run(monitor, *epochs, last_chance=False):
    wait, best = NONE_YET, 0.0
    for logs in epochs:
        wait, best = monitor.update(logs, wait, best, last_chance=last_chance)
    return wait, best


def losses(*values):
    return [{"loss": value} for value in values]


def test_epochs_without_improvement_are_counted():
    loss = Monitor("loss", 2, "auto")
    assert run(loss, *losses(3.0)) == (0, 3.0)
    assert run(loss, *losses(3.0, 4.0, 3.0)) == (2, 3.0)
    assert run(loss, *losses(3.0, 4.0, 2.0)) == (0, 2.0)


def test_a_constant_that_float32_rounds_does_not_improve():
    assert run(Monitor("loss", 1, "auto"), *losses(0.1, 0.1))[0] == 1


@pytest.mark.parametrize(
    "name, expected", [("val_accuracy", True), ("auc", True), ("val_loss", False)]
)
def test_the_name_shows_the_direction(name, expected):
    assert Monitor(name, 1, "auto").larger_is_better is expected


def test_the_mode_overrides_the_name():
    assert run(Monitor("loss", 1, "max"), *losses(1.0, 2.0)) == (0, 2.0)


def test_epochs_without_the_value_do_not_count():
    monitor = Monitor("val_loss", 1, "auto")
    assert run(monitor, {"loss": 1.0}, {"val_loss": 2.0}, {"loss": 1.0}) == (0, 2.0)


@pytest.mark.parametrize(
    "name, logs, last_chance",
    [
        ("los_loss", {"loss": 1.0}, False),
        ("val_loss", {"loss": 1.0, "val_error": 1.0}, False),
        ("val_loss", {"loss": 1.0}, True),
    ],
)
def test_a_value_that_cannot_appear_later_raises(name, logs, last_chance):
    with pytest.raises(ValueError, match="is not in the logs"):
        run(Monitor(name, 1, "auto"), logs, last_chance=last_chance)
