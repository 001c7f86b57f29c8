"""The modules that a PEFT config names, by PEFT's own rules."""

import pytest

from keras_transfer.saving.peft.expressions import Expressions
from keras_transfer.saving.peft.named_modules import is_target
from keras_transfer.saving.peft.named_modules import short_names
from keras_transfer.saving.peft.named_modules import target_settings

BERT = "encoder.layer.{}.attention.self.{}"
NAMES = [BERT.format(i, name) for i in (0, 1) for name in ("query", "key", "value")]


@pytest.mark.parametrize(
    "config, wanted",
    [
        (dict(target_modules=["query"]), [0, 3]),
        (dict(target_modules=["uery"]), []),
        (dict(target_modules=["self.query", NAMES[4]]), [0, 3, 4]),
        (dict(target_modules=r".*\.(query|value)"), [0, 2, 3, 5]),
        (dict(target_modules=r"layer"), []),
        (dict(target_modules=["query", "key"], exclude_modules=["key"]), [0, 3]),
        (dict(target_modules=["key"], exclude_modules=[NAMES[1]]), [4]),
        (dict(target_modules=["key"], exclude_modules=r".*\.1\..*"), [1]),
        (dict(target_modules=["key"], layers_to_transform=1), [4]),
        (dict(target_modules=["key"], layers_to_transform=[0, 1]), [1, 4]),
        (dict(target_modules=["key"], layers_to_transform=[]), [1, 4]),
        # PEFT ignores layers_to_transform with an expression or a full name.
        (dict(target_modules=r".*key", layers_to_transform=[1]), [1, 4]),
        (dict(target_modules=[NAMES[1]], layers_to_transform=[1]), [1]),
        (
            dict(
                target_modules=["key"], layers_to_transform=[1], layers_pattern="layer"
            ),
            [4],
        ),
        (
            dict(target_modules=["key"], layers_to_transform=[1], layers_pattern=["h"]),
            [],
        ),
        (dict(target_modules=None), []),
    ],
)
def test_the_rules_of_peft(config, wanted):
    found = [i for i, x in enumerate(NAMES) if is_target(config, x, Expressions())]
    assert found == wanted


def test_some_blocks_are_named_by_their_numbers():
    wanted = {
        "target_modules": ["attention.self.query", "attention.self.key"],
        "layers_to_transform": [1],
        "layers_pattern": ["layer"],
    }
    assert target_settings(NAMES[3:5], NAMES) == wanted
    assert target_settings([NAMES[0], NAMES[4]], NAMES)["target_modules"] == [
        NAMES[0],
        NAMES[4],
    ]
    assert target_settings(NAMES[3:5], NAMES, blocks=False) == {
        "target_modules": NAMES[3:5]
    }
    first = ["h.0.a", "h.1.a"]  # without a name before the list, PEFT finds no number
    assert target_settings(first[1:], first) == {"target_modules": first[1:]}


def test_short_names_match_these_modules_and_no_others():
    assert short_names([NAMES[0], NAMES[3]], NAMES) == ["attention.self.query"]
    assert short_names([NAMES[0], NAMES[4]], NAMES) == [NAMES[0], NAMES[4]]
    known = [*NAMES, "pooler.dense"]
    assert short_names(["pooler.dense"], known) == ["pooler.dense"]
    outputs = ["a.0.output.dense", "a.0.attention.output.dense"]
    assert short_names(outputs[:1], outputs) == outputs[:1]
    twice = ["a.block.0.x", "b.block.0.x"]
    assert short_names(twice[:1], twice) == twice[:1]
