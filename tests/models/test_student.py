"""student: its blocks are the teacher's, in several families, and wrong blocks."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.backbones import families
from tests.contracts.compare import array
from tests.contracts.compare import assert_close

X = {
    "token_ids": np.arange(12).reshape(2, 6),
    "padding_mask": np.ones((2, 6), "int32"),
    "segment_ids": np.zeros((2, 6), "int32"),
}


def test_blocks_are_copied_and_numbered_again():
    teacher = tiny.bert(num_layers=4)
    small = kt.models.student(teacher, keep=[0, 2])
    assert type(small) is type(teacher) and small.num_layers == 2
    for ours, theirs in ((0, 0), (1, 2)):
        pair = [
            m.get_layer(f"transformer_layer_{n}")
            for m, n in ((small, ours), (teacher, theirs))
        ]
        assert_close(pair[0].weights, pair[1].weights)
    states = [kt.backbones.hidden_states(each)(X) for each in (small, teacher)]
    for place in (0, 1):  # the stem and the first block
        assert_close(states[0][place], states[1][place])
    third = teacher.get_layer("transformer_layer_2")
    by_hand = third(states[0][1], padding_mask=X["padding_mask"])
    assert_close(small(X)["sequence_output"], by_hand, 1e-5)
    small.get_layer("transformer_layer_0").weights[0].assign_add(
        np.ones(small.get_layer("transformer_layer_0").weights[0].shape)
    )
    before = teacher.get_layer("transformer_layer_0").weights[0]
    after = small.get_layer("transformer_layer_0").weights[0]
    assert (array(before) != array(after)).all()  # a copy


@pytest.mark.slow
@pytest.mark.parametrize("family", ["distilbert", "llama", "hub_vit"])
def test_all_blocks_give_the_teacher_in_other_families(family):
    teacher = families.build(family)
    assert isinstance(teacher, keras.Model)
    keep = list(range(teacher.num_layers))
    small = kt.models.student(teacher, keep)
    assert_close(small.get_weights(), teacher.get_weights())
    last = kt.models.student(teacher, keep[-1:])
    assert last.num_layers == 1
    names = kt.layer_groups(last).names
    theirs = kt.layer_groups(teacher)
    ours = [v for v in kt.layer_groups(last)[names[-1]].variables]
    assert_close(ours, [v for v in theirs[theirs.names[-1]].variables])


def test_wrong_blocks_and_models():
    teacher = tiny.bert(num_layers=3)
    adapted = tiny.bert(num_layers=3)
    kt.adapters.LoRA(rank=1).attach(adapted, verbose=0)
    cases = [
        (teacher, [], "names no blocks"),
        (teacher, "012", "names no blocks"),
        (teacher, [0, 3], "from 0 to 2"),
        (teacher, [0.5], "from 0 to 2"),
        (teacher, [0, 0], "repeats blocks"),
        (teacher, [2, 0], r"Pass \[0, 2\]"),
        (adapted, [0], "has the adapters"),
        (tiny.mlp(), [0], "num_layers=None"),
        (families.build("albert"), [0], "one block for each"),
        ("bert", [0], "not a Keras model"),
    ]
    for backbone, keep, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            kt.models.student(backbone, keep)
