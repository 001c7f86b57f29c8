"""Each strategy on one backbone family of each architecture."""

import importlib.util
import re

import keras
import pytest

import keras_transfer as kt
from tests.backbones import family_table
from tests.public import ROOT

# The strategies that an architecture does not support, and the errors.
REFUSED = {
    ("hub_resnet", "BitFit"): "has no biases",
    ("hub_resnet", "Bottleneck"): "transformer block",
    ("hub_resnet", "PfeifferBottleneck"): "transformer block",
    ("hub_resnet", "PrefixTuning"): "no attention layer",
    ("hub_resnet", "PromptTuning"): "embedding of tokens",
    ("hub_resnet", "VeRA"): "No default targets",
    ("llama", "BitFit"): "has no biases",
}


# Each technique has its own test on a BERT. benchmarks/families.py tries all.
FEW = ("unfreezing", "LoRA, reload", "export")
ALL = ("CNN", "decoder")  # the architectures that try everything


@pytest.mark.slow
@pytest.mark.parametrize("architecture", family_table.ARCHITECTURES)
def test_strategies_on_one_family_of_each_architecture(architecture):
    family = family_table.ARCHITECTURES[architecture]
    changes = {} if architecture == "CNN" else {"num_layers": 1}
    trial = family_table.Trial(family, **changes)
    wrong = {}
    for strategy in family_table.STRATEGIES if architecture in ALL else FEW:
        said, reason = family_table.tried(trial, strategy)
        expected = REFUSED.get((family, strategy))
        if expected is None and said != family_table.OK:
            wrong[strategy] = (said, reason)
        if expected and not (
            said == family_table.REFUSED and re.search(expected, reason)
        ):
            wrong[strategy] = (said, reason, expected)
    assert not wrong


def test_the_table_has_all_families_and_techniques():
    assert set(family_table.ARCHITECTURES.values()) <= set(family_table.NAMES)
    assert {"DoRA", "VeRA", "BitFit", "LoHa"} < set(family_table.STRATEGIES)
    assert "merge" in family_table.STRATEGIES


def test_a_fault_is_distinguished_from_a_refusal(monkeypatch):
    def refused(trial):
        kt.adapters.LoRA(rank=-1)

    def fault(trial):
        raise ValueError("not of the package")

    def keras_alone(trial):
        keras.layers.Dense(-1)

    strategies = {
        "fine": lambda trial: None,
        "refused": refused,
        "fault": fault,
        "Keras cannot": keras_alone,
    }
    monkeypatch.setattr(family_table, "STRATEGIES", strategies)
    outcomes = {name: family_table.tried(None, name)[0] for name in strategies}
    assert outcomes.pop("fine") == "ok"
    assert outcomes == {name: name for name in outcomes}


def test_the_script_prints_a_table_with_notes(monkeypatch, capsys):
    def fault(trial):
        raise ValueError(f"{trial.family} | wrong")

    monkeypatch.setattr(
        family_table, "STRATEGIES", {"fine": lambda trial: None, "bad": fault}
    )
    path = ROOT / "benchmarks" / "families.py"
    spec = importlib.util.spec_from_file_location("families_script", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(["bert", "esm"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| family | fine | bad |"
    assert lines[2:4] == ["| bert | ok | fault (1) |", "| esm | ok | fault (2) |"]
    assert lines[5].startswith("1. ValueError: bert \\| wrong")
    with pytest.raises(SystemExit, match="brt"):
        script.main(["brt"])
