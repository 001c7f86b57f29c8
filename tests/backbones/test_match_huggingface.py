"""match_huggingface: it applies the settings that keras-hub ignores, and keeps them."""

import json
import shutil

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.backbones.match_huggingface import _norms
from keras_transfer.backbones.match_huggingface import match_huggingface
from keras_transfer.backbones.match_huggingface import unmatched
from tests import tiny
from tests.contracts import fresh
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.saving import peft_models


def parity(family, model):
    wanted = peft_models.expected(family, "base")
    outputs = peft_models.outputs_of(model, family)
    return peft_models.difference(family, outputs, wanted)


# Behavior of keras-hub. If one fails: unmatched() no longer needs to report the family.


def test_keras_hub_reads_bert_with_another_gelu():
    backbone = peft_models.backbone("bert", matched=False)
    assert 1e-4 < parity("bert", backbone) < 1e-2
    assert "gelu" in unmatched(backbone)


def test_keras_hub_drops_the_token_types_of_roberta():
    backbone = peft_models.backbone("roberta", matched=False)
    assert parity("roberta", backbone) > 0.1
    assert "token type" in unmatched(backbone)


@pytest.mark.parametrize("family", ["albert", "distilbert", "gpt2", "llama"])
def test_the_other_families_are_equal_without_matching(family):
    backbone = peft_models.backbone(family, matched=False)
    assert parity(family, backbone) < 1e-5
    assert unmatched(backbone) is None


# Behavior of match_huggingface.


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_matched_backbone_equals_pytorch(family):
    backbone = peft_models.backbone(family)
    assert parity(family, backbone) < 1e-5
    assert unmatched(backbone) is None


def test_without_a_folder_bert_gets_the_usual_gelu():
    backbone = peft_models.backbone("bert", matched=False)
    assert match_huggingface(backbone) is backbone
    assert parity("bert", backbone) < 1e-5
    assert backbone.huggingface == {"hidden_act": "gelu"}


def test_the_config_contains_the_settings():
    backbone = match_huggingface(tiny.bert(num_layers=1), hidden_act="gelu_new")
    assert backbone.get_config()["huggingface"] == {"hidden_act": "gelu_new"}
    assert unmatched(backbone) is None


def test_another_activation_is_read_from_the_folder(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(peft_models.GOLDEN / "distilbert" / "base", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"activation": "relu"}))
    backbone = peft_models.backbone("distilbert")
    before = peft_models.outputs_of(backbone, "distilbert")
    match_huggingface(backbone, folder)
    assert np.abs(peft_models.outputs_of(backbone, "distilbert") - before).max() > 1e-3


def test_the_epsilon_of_the_norms_is_read_from_the_folder():
    # The converter of Llama leaves keras-hub's default, 1e-6.
    backbone = peft_models.backbone("llama")
    folder = peft_models.GOLDEN / "llama" / "base"
    match_huggingface(backbone, folder)
    assert backbone.huggingface == {"layer_norm_epsilon": 1e-6}
    norms = _norms(backbone)
    assert len(norms) == 5
    assert {each.epsilon for each in norms} == {1e-6}


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_settings_are_kept_after_loading_in_a_new_process(tmp_path, family):
    backbone = peft_models.backbone(family)
    inputs = peft_models.inputs_of(backbone, family)
    backbone.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", inputs)
    assert_close(again.outputs, backbone(inputs, training=False))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.huggingface == backbone.huggingface
    assert isinstance(loaded, type(backbone).hub_class)


def test_adapters_and_a_merge_keep_the_settings(tmp_path):
    backbone = peft_models.backbone("bert")
    adapters.LoRA(rank=2).attach(backbone)
    inputs = peft_models.inputs_of(backbone, "bert")
    for part in kt.adapters.attached(backbone), backbone.huggingface:
        assert part
    backbone.save(tmp_path / "adapted.keras")
    again = fresh.load(tmp_path / "adapted.keras", inputs)
    assert_close(again.outputs, backbone(inputs, training=False))
    adapters.merge(backbone)
    assert backbone.huggingface["hidden_act"] == "gelu"
    assert parity("bert", backbone) < 1e-5
    backbone.save(tmp_path / "merged.keras")
    again = fresh.load(tmp_path / "merged.keras", inputs)
    assert_close(again.outputs, backbone(inputs, training=False))


@pytest.mark.slow
def test_traced_functions_of_the_backbone_are_retraced():
    backbone = peft_models.backbone("bert", matched=False)
    inputs = peft_models.inputs_of(backbone, "bert")
    before = backbone.predict(inputs, verbose=0)["sequence_output"]
    match_huggingface(backbone)
    after = backbone.predict(inputs, verbose=0)["sequence_output"]
    assert np.abs(after - before).max() > 1e-4


def test_a_second_call_changes_nothing():
    folder = peft_models.GOLDEN / "roberta" / "base"
    backbone = peft_models.backbone("roberta")
    before = arrays(backbone.weights)
    match_huggingface(backbone, folder)  # the row is not added again
    assert_close(backbone.weights, before)
    assert [each.__name__ for each in type(backbone).__mro__].count("Matched") == 1


def test_matching_to_two_models_raises():
    backbone = match_huggingface(tiny.bert(num_layers=1))
    with pytest.raises(ValueError, match="was already matched to"):
        match_huggingface(backbone, hidden_act="relu")


def test_a_backbone_with_adapters_raises():
    backbone = tiny.bert(num_layers=1)
    adapters.LoRA(rank=2).attach(backbone)
    with pytest.raises(ValueError, match="before you attach adapters"):
        match_huggingface(backbone)


@pytest.mark.parametrize("model", [tiny.mlp, tiny.bert_classifier])
def test_only_keras_hub_backbones_are_accepted(model):
    with pytest.raises(TypeError, match="keras-hub backbone"):
        match_huggingface(model())


def test_missing_information_raises(tmp_path):
    with pytest.raises(ValueError, match="'quick_gelu' is not supported"):
        match_huggingface(tiny.bert(num_layers=1), hidden_act="quick_gelu")
    with pytest.raises(ValueError, match="does not exist"):
        match_huggingface(tiny.bert(num_layers=1), tmp_path)
    with pytest.raises(ValueError, match="No difference between"):
        match_huggingface(peft_models.backbone("llama"))


def test_roberta_without_its_token_type_row_raises(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(peft_models.GOLDEN / "roberta" / "base", folder)
    (folder / "model.safetensors").unlink()
    backbone = peft_models.backbone("roberta", matched=False)
    before = arrays(backbone.weights)
    with pytest.raises(ValueError, match="token types cannot be read"):
        match_huggingface(backbone, folder)
    assert_close(backbone.weights, before)
    assert not hasattr(backbone, "huggingface")
    assert match_huggingface(backbone).huggingface["token_types"] is False
