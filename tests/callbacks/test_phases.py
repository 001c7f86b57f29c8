"""Phases: schedules computed by hand, and wrong input."""

import pytest

import keras_transfer as kt
from keras_transfer.callbacks.phases import Phases
from keras_transfer.callbacks.phases import to_config
from tests import tiny

Phase = kt.callbacks.Phase


def bind(*phases, model=None, batch_norm="frozen"):
    groups = kt.layer_groups(model or tiny.mlp())
    return Phases(groups, [Phase.of(each) for each in phases], batch_norm)


def test_the_schedule_from_the_head_down():
    phases = Phases.from_head_down(kt.layer_groups(tiny.mlp()), 2, "frozen")
    assert list(phases) == [
        Phase("dense_2", 2),
        Phase(("dense_1", "dense_2"), 2),
        Phase(("dense_0", "dense_1", "dense_2"), None),
    ]
    assert phases.starts() == [0, 2, 4]


def test_a_group_with_only_batch_norm_has_no_phase():
    groups = kt.layer_groups(tiny.convnet())
    frozen = Phases.from_head_down(groups, 1, "frozen")
    train = Phases.from_head_down(groups, 1, "train")
    assert [len(each.groups) for each in frozen] == [1, 2, 4]
    assert [len(each.groups) for each in train] == [1, 2, 3, 4]


def test_a_phase_trains_batch_norm_as_set():
    model = tiny.convnet()
    norm = model.get_layer("norm")
    for batch_norm, expected in (("frozen", False), ("train", True)):
        phases = bind((("norm", "logits"), 1), model=model, batch_norm=batch_norm)
        found = any(v is norm.gamma for v in phases.variables(phases[0]))
        assert found is expected


def test_batch_norm_of_the_head_trains():
    import keras

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(name="new"),
        ]
    )
    phases = bind(("new", 1), model=model)
    assert len(phases.variables(phases[0])) == 2


def test_printing_shows_the_schedule():
    phases = bind(("dense_2", 1), (["dense_1", "dense_2"], None, 0.5))
    assert str(phases) == (
        "phase  epochs  rate  parameters  groups that train\n"
        "    0       0     1          15  dense_2\n"
        "    1      1-   0.5          39  dense_1, dense_2\n"
        "always frozen: dense_0"
    )


def test_printing_names_frozen_batch_norm():
    table = str(bind(("logits", 1), model=tiny.convnet()))
    assert table.endswith("BatchNorm below logits: always frozen")


def test_printing_changes_no_flag():
    model = tiny.convnet()
    model.get_layer("conv").trainable = False
    model.get_layer("hidden").bias.trainable = False
    flags = [each.trainable for each in (*model.layers, *model.weights)]
    phases = Phases.from_head_down(kt.layer_groups(model), 1, "frozen")
    print(phases, phases.variables(*phases))
    assert [each.trainable for each in (*model.layers, *model.weights)] == flags


def test_a_phase_is_made_from_a_tuple_a_dict_or_a_phase():
    phase = Phase("dense_2", 3, 0.5)
    assert Phase.of(("dense_2", 3, 0.5)) == phase
    assert Phase.of({"groups": ["dense_2"], "epochs": 3, "rate": 0.5}) == phase
    assert Phase.of(phase) is phase


def test_config_has_only_types_that_json_can_store():
    assert to_config(bind(("dense_2", 3))) == [
        {"groups": ["dense_2"], "epochs": 3, "rate": 1.0}
    ]


@pytest.mark.parametrize(
    "phases, message",
    [
        ([], "no phases"),
        ([("dense_3", 1)], "Did you mean"),
        ([((), 1)], "names no groups"),
        ([(("dense_2", "dense_2"), 1)], "more than once"),
        ([("dense_2", 0)], "above 0"),
        ([("dense_2", 1.5)], "above 0"),
        ([("dense_2", 1, -1.0)], "finite number above 0"),
        ([("dense_2", None), ("dense_1", 1)], "Phase 0 has epochs=None"),
        ([("dense_2", 1), ("dense_2", 2)], "are the same"),
    ],
    ids=str,
)
def test_wrong_phases_raise(phases, message):
    with pytest.raises(ValueError, match=message):
        bind(*phases)


@pytest.mark.parametrize(
    "phase", ["dense_2", None, ("dense_2",), ("dense_2", 1, 1.0, 1), {"group": "x"}]
)
def test_values_that_are_not_phases_raise(phase):
    with pytest.raises(TypeError, match="is not a phase"):
        Phase.of(phase)


def test_a_phase_accepts_groups_and_numpy_numbers():
    import numpy as np

    groups = kt.layer_groups(tiny.mlp())
    assert Phase(groups["dense_2"], np.int64(2)) == Phase("dense_2", 2)
    assert Phase(list(groups)[1:]) == Phase(("dense_1", "dense_2"))
    with pytest.raises(TypeError, match="by strings"):
        Phase([3])
    with pytest.raises(ValueError, match="whole number"):
        Phase("dense_2", True)


def test_a_phase_that_trains_nothing_raises():
    with pytest.raises(ValueError, match="trains nothing"):
        bind(("norm", 1), model=tiny.convnet())
