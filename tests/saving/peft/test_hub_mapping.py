"""The mapping to Hugging Face's names, and keras-hub's private code that it uses."""

import inspect
import json
import re

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from keras_transfer import adapters
from keras_transfer.saving.peft import files
from keras_transfer.saving.peft import hub_mapping
from keras_transfer.saving.peft.hub_mapping import read_mapping
from keras_transfer.saving.peft.load import load_peft
from keras_transfer.saving.peft.save import save_peft
from tests import tiny
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.saving import peft_models

each_family = pytest.mark.parametrize("family", peft_models.FAMILIES)


# Private code of keras-hub. If one of these tests fails, change hub_mapping.py.


def test_the_converters_are_found_by_the_class_of_their_backbone():
    from keras_hub.src.utils.transformers import preset_loader

    modules = [x for name, x in vars(preset_loader).items() if "convert_" in name]
    assert len(modules) >= 30
    assert all(hasattr(each, "convert_weights") for each in modules)
    assert sum(hasattr(each, "backbone_cls") for each in modules) >= 30


def test_the_converters_call_port_weight_of_a_loader():
    from keras_hub.src.utils.transformers import safetensor_utils

    loader = safetensor_utils.SafetensorLoader
    wanted = ["self", "keras_variable", "hf_weight_key", "hook_fn"]
    assert list(inspect.signature(loader.port_weight).parameters) == wanted
    recorder = inspect.signature(hub_mapping._Recorder.port_weight)
    assert list(recorder.parameters) == wanted


def test_a_hook_gets_the_tensor_and_the_shape():
    backbone = peft_models.backbone("bert")
    share = read_mapping(backbone).shares["encoder.layer.0.attention.self.key.weight"]
    assert share[0].layer.name == "key"
    assert share[0].read(np.zeros((12, 12))).shape == (12, 3, 4)


# The mapping.


@each_family
def test_each_weight_of_the_backbone_has_a_tensor_and_stays_unchanged(family):
    backbone = peft_models.shared(peft_models.backbone, family)
    before = arrays(backbone.weights)
    mapping = read_mapping(backbone)
    assert_close(backbone.weights, before)
    found = {id(x.variable) for shares in mapping.shares.values() for x in shares}
    all_weights = {id(each) for each in backbone.weights}
    if family == "xlm_roberta":  # its positions are the sum of two tensors
        positions = backbone.embeddings.position_embedding.position_embeddings
        all_weights.remove(id(positions))
    assert found == all_weights


@each_family
def test_the_index_maps_give_the_kernels_of_keras_hub(family):
    mapping = read_mapping(peft_models.shared(peft_models.backbone, family))
    rng = np.random.default_rng(0)
    count = 0
    for module in set(mapping.module_of().values()):
        shares = mapping.shares[f"{module}.weight"]
        try:
            factors = mapping.factors(module)
        except ValueError:
            places = "position|wpe|relative_attention_bias|patch_embeddings"
            assert re.search(places, module)
            continue
        matrix = rng.normal(size=mapping.shape(f"{module}.weight"))
        by_rows = matrix if factors[0].rows_out else matrix.T  # (out, in)
        for share, each in zip(shares, factors, strict=True):
            ours = by_rows[each.outputs][:, each.inputs].T
            theirs = share.read(matrix)
            pair = adapters.LoRA().part_class(share.layer)(1, 1.0)
            eye = np.eye(len(each.inputs))
            np.testing.assert_array_equal(pair.product(share.layer, eye, ours), theirs)
            count += 1
    assert count >= 7


def test_an_attached_backbone_has_the_same_mapping():
    backbone = peft_models.backbone("bert")
    before = {k: id(v[0].variable) for k, v in read_mapping(backbone).shares.items()}
    adapters.LoRA(rank=2, targets="all-linear").attach(backbone)
    after = {k: id(v[0].variable) for k, v in read_mapping(backbone).shares.items()}
    assert after == before


def test_gpt2_has_one_tensor_for_three_kernels():
    mapping = read_mapping(peft_models.backbone("gpt2"))
    factors = mapping.factors("h.0.attn.c_attn")
    assert [each.layer.name for each in factors] == ["query", "key", "value"]
    joined = np.concatenate([each.outputs for each in factors])
    np.testing.assert_array_equal(joined, np.arange(27))


def test_the_untied_output_of_llama_cannot_have_a_pair():
    mapping = read_mapping(peft_models.backbone("llama"))
    with pytest.raises(ValueError, match="reverse_embeddings"):
        mapping.factors("lm_head")


def test_models_without_a_converter_are_refused():
    with pytest.raises(ValueError, match="contains 0 keras-hub backbones"):
        hub_mapping.hub_backbone(tiny.mlp())
    with pytest.raises(ValueError, match="no converter .*ResNetBackbone"):
        read_mapping(tiny.hub_resnet())
    import keras_hub

    whisper = keras_hub.models.WhisperBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_encoder_sequence_length=8,
        max_decoder_sequence_length=8,
    )
    with pytest.raises(ValueError, match="no converter .*WhisperBackbone"):
        read_mapping(whisper)


def test_a_llama_has_the_names_of_llama_3():
    import keras_hub

    llama3 = peft_models.backbone("llama")
    wanted = read_mapping(llama3)
    llama = keras_hub.models.LlamaBackbone(
        vocabulary_size=20,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=16,
        intermediate_dim=10,
    )
    llama.set_weights(llama3.get_weights())
    found = read_mapping(llama)
    assert (found.prefix, list(found.shares)) == ("model", list(wanted.shares))
    load_peft(llama, peft_models.GOLDEN / "llama" / "dora")
    outputs = peft_models.outputs_of(llama, "llama")
    assert (
        peft_models.difference("llama", outputs, peft_models.expected("llama", "dora"))
        < 1e-5
    )


def test_gemma_2_has_a_norm_more():
    import keras_hub

    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
        head_dim=4,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
    )
    mapping = read_mapping(backbone)
    assert "layers.0.pre_feedforward_layernorm.weight" in mapping.shares
    count = sum(len(shares) for shares in mapping.shares.values())
    assert count == len(backbone.weights)


def test_the_old_and_the_new_names_of_vit(tmp_path):
    old = {
        "layers.": "encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.v_proj": "attention.attention.value",
        "mlp.fc2": "output.dense",
    }
    case = peft_models.GOLDEN / "vit" / "features"
    tensors = load_file(case / "adapter_model.safetensors")
    for new, name in old.items():
        tensors = {key.replace(new, name): value for key, value in tensors.items()}
    config = json.loads((case / "adapter_config.json").read_text())
    config["target_modules"] = r".*(query|value|\d\.output\.dense)"
    text = json.dumps(config, indent=2).encode()
    files.write(tmp_path, text, tensors)
    model = peft_models.backbone("vit")
    load_peft(model, tmp_path)
    outputs = peft_models.outputs_of(model, "vit")
    wanted = peft_models.expected("vit", "features")
    assert peft_models.difference("vit", outputs, wanted) < 1e-5
    save_peft(model, tmp_path / "again")
    again = tmp_path / "again"
    assert load_file(again / "adapter_model.safetensors").keys() == tensors.keys()


def test_a_converter_that_reads_values_is_refused():
    import keras_hub

    backbone = keras_hub.models.MixtralBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=8,
        num_experts=2,
    )
    before = arrays(backbone.weights)
    with pytest.raises(ValueError, match="cannot be derived"):
        read_mapping(backbone)
    assert_close(backbone.weights, before)


def test_a_head_of_another_kind_is_refused():
    backbone = peft_models.backbone("bert")
    outputs = keras.layers.Dense(3)(
        keras.layers.Dense(3)(backbone.output["pooled_output"])
    )
    model = keras.Model(backbone.input, outputs)
    with pytest.raises(ValueError, match="Hugging Face's has"):
        hub_mapping.with_head(read_mapping(backbone), model, backbone)
