"""Load and save PEFT's folders, compared with the real PEFT and PyTorch.

tests/golden/make_peft.py makes the golden files.
"""

import functools
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save_file

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.random_projection import matrices
from keras_transfer.adapters.switching import own_places
from keras_transfer.adapters.switching import places
from keras_transfer.backbones.match_huggingface import match_huggingface
from keras_transfer.saving.peft import files
from keras_transfer.saving.peft.load import load_peft
from keras_transfer.saving.peft.save import save_peft
from tests import tiny
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.saving import peft_models

FILES = (files.CONFIG, files.WEIGHTS)

# T5 is slow to build, and its IA3 has the places of its LoRA.
CASES = [case for case in peft_models.CASES if case != "t5/ia3"]
each_case = pytest.mark.parametrize("case", CASES)


def train(model, case):
    """Train two steps on arbitrary data to change all trainable weights."""
    family = case.split("/")[0]
    inputs = peft_models.inputs_of(model, family)
    model.compile("sgd", "mse", metrics=[], run_eagerly=True)
    outputs = model(inputs)
    target = {k: 0 * v for k, v in outputs.items()} if isinstance(outputs, dict) else 0
    target = 0 * outputs if target == 0 else target
    model.train_on_batch(inputs, target)
    model.train_on_batch(inputs, target)


def disturb(model, name="default"):
    """Give the pairs of a new adapter different values in each layer."""
    rng = np.random.default_rng(0)
    for _, _, part in places(model, name):
        for weight in part.named_weights.values():
            weight.assign(rng.normal(size=weight.shape) * 0.3)


def copy_of(case, folder):
    """Return a copy of a case's folder that a test can change."""
    shutil.copytree(peft_models.GOLDEN / case, folder)
    return folder


def edit(folder, **settings):
    config = json.loads((folder / files.CONFIG).read_text())
    (folder / files.CONFIG).write_text(json.dumps(config | settings))


def edit_tensors(folder, change):
    tensors = load_file(folder / files.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / files.WEIGHTS, {"format": "pt"})


def config_in(folder):
    return json.loads((folder / files.CONFIG).read_text())


def names_in(folder):
    return set(load_file(folder / files.WEIGHTS))


# Folders of the real PEFT.


@each_case
def test_outputs_equal_pytorch_and_the_files_are_saved_bit_for_bit(
    case, tmp_path, shared
):
    family, name = case.split("/")
    model = shared(peft_models.maker_of(case), family)
    folder = peft_models.GOLDEN / case
    load_peft(model, folder)
    outputs = peft_models.outputs_of(model, family)
    wanted = peft_models.expected(family, name)
    assert outputs.shape == wanted.shape
    assert peft_models.difference(family, outputs, wanted) < 1e-5
    base = peft_models.expected(family, "base")
    if wanted.shape == base.shape:
        assert peft_models.difference(family, base, wanted) > 0.1  # it has an effect
    save_peft(model, tmp_path)
    for each in FILES:
        assert (tmp_path / each).read_bytes() == (folder / each).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["bert/query_value", "bert/seq_cls", "llama/dora"])
def test_after_training_the_file_keeps_names_dtypes_and_config(case, tmp_path):
    model, folder = peft_models.model_of(case)
    load_peft(model, folder)
    train(model, case)
    save_peft(model, tmp_path)
    before, after = (load_file(x / files.WEIGHTS) for x in (folder, tmp_path))
    assert before.keys() == after.keys()
    assert all(np.any(before[key] != after[key]) for key in before)
    assert config_in(tmp_path) == config_in(folder)
    again, _ = peft_models.model_of(case)
    load_peft(again, tmp_path)
    family = case.split("/")[0]
    assert_close(
        peft_models.outputs_of(again, family), peft_models.outputs_of(model, family)
    )


def test_the_recipe_has_the_settings_of_the_file():
    model, folder = peft_models.model_of("bert/patterns")
    load_peft(model, folder, name="theirs")
    recipe = adapters.attached(model)["theirs"]
    assert isinstance(recipe, adapters.RsLoRA)
    assert (recipe.rank, recipe.alpha, recipe.dropout) == (2, 6, 0.1)
    parts = {path: part for path, _, part in places(model, "theirs")}
    block = "transformer_layer_0/self_attention_layer"
    assert parts[f"{block}/query"].rank == 3
    assert parts[f"{block}/key"].scaling == 3 / np.sqrt(2)
    assert parts[f"{block}/attention_output"].scaling == 6 / np.sqrt(1)


def test_the_adapter_and_the_head_are_trainable():
    model, folder = peft_models.model_of("bert/seq_cls")
    load_peft(model, folder)
    names = {each.path.split("/")[-1] for each in model.trainable_variables}
    assert names == {"lora_a", "lora_b", "kernel", "bias"}
    assert len(model.trainable_variables) == 2 * 4 + 2


def test_trained_biases_stay_trainable():
    model, folder = peft_models.model_of("bert/bias_lora_only")
    load_peft(model, folder)
    biases = [each for each in model.trainable_variables if each.name == "bias"]
    assert len(biases) == 6


def test_half_precision_tensors_are_saved_as_such(tmp_path):
    for dtype in ("float16", ml_dtypes.bfloat16):
        folder = copy_of("bert/query_value", tmp_path / str(np.dtype(dtype)))

        def narrow(tensors, dtype=dtype):
            tensors.update({k: v.astype(dtype) for k, v in tensors.items()})

        edit_tensors(folder, narrow)
        model = peft_models.backbone("bert")
        load_peft(model, folder)
        save_peft(model, tmp_path / "again")
        content = (tmp_path / "again" / files.WEIGHTS).read_bytes()
        assert content == (folder / files.WEIGHTS).read_bytes()


def test_old_names_of_biases_without_base_layer_are_read(tmp_path):
    folder = copy_of("bert/bias_lora_only", tmp_path / "old")

    def rename(tensors):
        for key in list(tensors):
            tensors[key.replace(".base_layer.", ".")] = tensors.pop(key)

    edit_tensors(folder, rename)
    model = peft_models.backbone("bert")
    load_peft(model, folder)
    outputs = peft_models.outputs_of(model, "bert")
    wanted = peft_models.expected("bert", "bias_lora_only")
    assert peft_models.difference("bert", outputs, wanted) < 1e-5
    save_peft(model, tmp_path / "again")
    assert names_in(tmp_path / "again") == names_in(folder)


def test_a_file_can_have_pairs_for_some_layers_only(tmp_path):
    folder = copy_of("bert/query_value", tmp_path / "some")
    edit(folder, layers_to_transform=[1])

    def keep(tensors):
        for key in [key for key in tensors if "layer.0" in key]:
            tensors.pop(key)

    edit_tensors(folder, keep)
    model = peft_models.backbone("bert")
    load_peft(model, folder)
    paths = [path for path, _, _ in places(model, "default")]
    assert len(paths) == 2
    assert all(path.startswith("transformer_layer_1") for path in paths)
    save_peft(model, tmp_path / "again")
    for each in FILES:
        assert (tmp_path / "again" / each).read_bytes() == (folder / each).read_bytes()


def test_an_output_that_shares_the_embedding_does_not_use_its_pair():
    # As in PEFT. If the pair was merged, it would also change the logits.
    model, folder = peft_models.model_of("gpt2/embeddings")
    load_peft(model, folder)
    with pytest.raises(ValueError, match="computes the logits too"):
        adapters.merge(model)


@pytest.mark.parametrize("case", ["bert/embeddings", "bert/dora", "gpt2/fused"])
def test_a_merge_keeps_the_outputs_of_pytorch(case, shared):
    family, name = case.split("/")
    model = shared(peft_models.maker_of(case), family)
    folder = peft_models.GOLDEN / case
    load_peft(model, folder)
    adapters.merge(model)
    outputs = peft_models.outputs_of(model, family)
    wanted = peft_models.expected(family, name)
    assert peft_models.difference(family, outputs, wanted) < 1e-5


def test_a_model_that_contains_the_backbone_can_be_passed():
    backbone = peft_models.backbone("distilbert")
    model = kt.models.TransferClassifier(backbone, 3)
    folder = peft_models.GOLDEN / "distilbert" / "all_linear"
    load_peft(model, folder)
    outputs = peft_models.outputs_of(backbone, "distilbert")
    wanted = peft_models.expected("distilbert", "all_linear")
    assert peft_models.difference("distilbert", outputs, wanted) < 1e-5


# New folders of save_peft.


def test_a_new_file_is_for_the_bare_model(tmp_path):
    model = peft_models.backbone("bert")
    adapters.LoRA(rank=3, alpha=5, dropout=0.1).attach(model, "mine")
    disturb(model, "mine")
    save_peft(model, tmp_path, name="mine")
    stem = "base_model.model.encoder.layer.1.attention.self.value.lora_"
    assert {f"{stem}A.weight", f"{stem}B.weight"} <= names_in(tmp_path)
    config = config_in(tmp_path)
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (3, 5, 0.1)
    assert config["task_type"] is None
    # The names have no block number, so a deeper model is found to lack pairs.
    names = ["attention.self.query", "attention.self.value"]
    assert config["target_modules"] == names


def test_a_new_file_with_a_task_type_has_the_head(tmp_path):
    model = peft_models.classifier("roberta")
    adapters.LoRA(rank=2).attach(model)
    save_peft(model, tmp_path, task_type="SEQ_CLS")
    names = names_in(tmp_path)
    assert "base_model.model.classifier.out_proj.weight" in names
    stem = "base_model.model.roberta.encoder.layer.0.attention.self.query.lora_A"
    assert f"{stem}.weight" in names
    assert config_in(tmp_path)["modules_to_save"] == ["classifier"]


RECIPES = {
    "ranks": adapters.LoRA(
        rank=2,
        alpha=3,
        targets="all-linear",
        rank_pattern={"query": 3, "transformer_layer_1/.*value": 1},
        alpha_pattern={"key": 7},
    ),
    "rank_stabilized": adapters.RsLoRA(rank=3, targets="all-linear"),
    "dora": adapters.DoRA(rank=2, targets="all-linear"),
    "all biases": adapters.LoRA(rank=2, bias="all"),
    "own biases": adapters.LoRA(rank=2, bias="pair"),
    "biases of targets": adapters.LoRA(rank=2, bias="lora_only"),
    "embedding": adapters.LoRA(rank=2, targets=["token_embedding", "query"]),
    "ia3": adapters.IA3(),
    "norms": adapters.NormTuning(),
    "vera": adapters.VeRA(rank=5, targets="all-linear"),
    "vera as in PEFT": adapters.VeRA(rank=5, draw="peft"),
}
FUSED = ("ranks", "dora", "biases of targets", "ia3", "norms")  # for GPT-2


@pytest.mark.slow
@pytest.mark.parametrize(
    "family, recipe",
    [("bert", each) for each in RECIPES] + [("gpt2", each) for each in FUSED],
)
def test_a_new_file_can_be_loaded(family, recipe, tmp_path, shared):
    model = shared(peft_models.backbone, family)
    before = model.get_weights()
    RECIPES[recipe].attach(model)
    disturb(model)
    if "biases" in recipe or recipe == "norms":
        for variable in model.trainable_variables:
            variable.assign(variable + 0.1)
    save_peft(model, tmp_path)
    outputs = peft_models.outputs_of(model, family)
    count = len(model.trainable_variables)
    adapters.detach(model)
    model.set_weights(before)
    load_peft(model, tmp_path)
    assert_close(peft_models.outputs_of(model, family), outputs, 2e-6)
    assert len(model.trainable_variables) >= count


def test_pairs_of_a_fused_projection_become_one_with_the_sum_of_the_ranks(tmp_path):
    model = peft_models.backbone("gpt2")
    adapters.LoRA(rank=2, alpha=3).attach(model)  # query and value, not key
    disturb(model)
    save_peft(model, tmp_path)
    tensors = load_file(tmp_path / files.WEIGHTS)
    stem = "base_model.model.h.0.attn.c_attn.lora_"
    assert tensors[f"{stem}A.weight"].shape == (4, 9)
    b = tensors[f"{stem}B.weight"]
    assert not b[9:18].any() and not b[:9, 2:].any() and not b[18:, :2].any()
    config = config_in(tmp_path)
    assert (config["r"], config["lora_alpha"]) == (4, 6)
    assert config["fan_in_fan_out"] is True


def test_an_ia3_of_a_part_of_a_fused_projection_leaves_the_rest_at_1(tmp_path):
    model = peft_models.backbone("gpt2")
    adapters.IA3(targets="layer_0/.*key").attach(model)
    disturb(model)
    save_peft(model, tmp_path)
    (scale,) = load_file(tmp_path / files.WEIGHTS).values()
    assert scale.shape == (27, 1)
    assert np.all(scale[:9] == 1) and np.all(scale[18:] == 1)
    assert np.all(scale[9:18] != 1)
    config = config_in(tmp_path)
    assert (config["feedforward_modules"], config["fan_in_fan_out"]) == ([], True)


def test_the_matrices_of_vera_are_drawn_as_in_pytorch(tmp_path):
    case = peft_models.GOLDEN / "bert" / "vera"
    tensors = load_file(case / files.WEIGHTS)
    a, b = matrices(3, 5, (12, 12), "peft")
    np.testing.assert_array_equal(tensors["base_model.vera_A"], a.T)
    np.testing.assert_array_equal(tensors["base_model.vera_B"], b.T)
    folder = copy_of("bert/vera", tmp_path / "file")
    edit(folder, projection_prng_key=4)
    refused(folder, "not drawn from its projection_prng_key=4")
    edit(folder, projection_prng_key=-1)
    refused(folder, "projection_prng_key=-1 must be")
    edit(folder, projection_prng_key=3, bias="vera_only")
    refused(folder, "bias='vera_only' of a VERA")
    edit(folder, bias="none")
    edit_tensors(folder, lambda x: x.pop("base_model.vera_A"))
    refused(folder, "lacks .'base_model.vera_A'")


def test_norms_of_a_file_train_in_place_with_the_head(tmp_path):
    model, folder = peft_models.model_of("bert/ln_seq_cls")
    kt.load_adapter(model, folder, verbose=0)
    names = {each.path.split("/")[-1] for each in model.trainable_variables}
    assert names == {"gamma", "beta", "kernel", "bias"}
    assert len(model.trainable_variables) == 2 * 4 + 2
    kt.save_adapter(model, tmp_path / "own.safetensors", verbose=0)
    again = peft_models.classifier("bert")
    kt.load_adapter(again, tmp_path / "own.safetensors", verbose=0)
    outputs = peft_models.outputs_of(model, "bert")
    assert_close(peft_models.outputs_of(again, "bert"), outputs)
    broken = copy_of("bert/ln_tuning", tmp_path / "file")
    stem = "base_model.model.embeddings.LayerNorm.ln_tuning_layers."
    edit_tensors(broken, lambda x: x.pop(f"{stem}bias"))
    refused(broken, "lacks .'embeddings.LayerNorm.bias'")
    edit(broken, target_modules=["output.LayerNorm", "pooler"])
    edit_tensors(broken, lambda x: x.pop(f"{stem}weight"))
    load_peft(peft_models.backbone("bert"), broken)


@pytest.mark.slow
def test_a_trained_fused_pair_has_a_larger_rank(tmp_path):
    model, folder = peft_models.model_of("gpt2/fused")
    load_peft(model, folder)
    train(model, "gpt2/fused")
    save_peft(model, tmp_path)
    config = config_in(tmp_path)
    assert config["r"] == 6 and config["lora_alpha"] == 18
    assert config["base_model_name_or_path"] == "tiny/gpt2"
    again = peft_models.backbone("gpt2")
    load_peft(again, tmp_path)
    outputs = peft_models.outputs_of(model, "gpt2")
    assert_close(peft_models.outputs_of(again, "gpt2"), outputs, 2e-6)


@pytest.mark.slow
def test_a_sum_of_adapters_can_be_saved(tmp_path):
    model = peft_models.backbone("bert")
    for each in ("first", "second"):
        adapters.LoRA(rank=2).attach(model, each)
        disturb(model, each)
    adapters.add_weighted(model, "sum", {"first": 0.3, "second": 0.7})
    save_peft(model, tmp_path, name="sum")
    again = peft_models.backbone("bert")
    load_peft(again, tmp_path)
    outputs = peft_models.outputs_of(model, "bert")
    assert_close(peft_models.outputs_of(again, "bert"), outputs, 2e-6)


@pytest.mark.slow
def test_a_sum_with_a_rank_above_the_weights_can_be_loaded(tmp_path):
    # PEFT also has no limit for a rank.
    model = peft_models.backbone("bert")
    names = [f"number_{i}" for i in range(4)]
    for each in names:
        adapters.LoRA(rank=5, targets="query").attach(model, each)
        disturb(model, each)
    adapters.add_weighted(model, "sum", dict.fromkeys(names, 0.5))
    save_peft(model, tmp_path / "peft", name="sum")
    assert config_in(tmp_path / "peft")["r"] == 20 > model.hidden_dim
    again = peft_models.backbone("bert")
    load_peft(again, tmp_path / "peft")
    outputs = peft_models.outputs_of(model, "bert")
    assert_close(peft_models.outputs_of(again, "bert"), outputs, 2e-6)
    kt.save_adapter(again, tmp_path / "own.safetensors")
    adapters.detach(again)
    kt.load_adapter(again, tmp_path / "own.safetensors")
    assert_close(peft_models.outputs_of(again, "bert"), outputs, 2e-6)


def test_a_sum_of_one_untied_embedding_equals_it():
    model, folder = peft_models.model_of("gpt2/embeddings")
    load_peft(model, folder, name="one")
    outputs = peft_models.outputs_of(model, "gpt2")
    adapters.add_weighted(model, "sum", {"one": 1.0})
    assert_close(peft_models.outputs_of(model, "gpt2"), outputs, 1e-5)


# Refused folders and models, which do not change.


def test_an_unmatched_base_is_refused():
    for family, name in (("bert", "query_value"), ("roberta", "seq_cls")):
        model = peft_models.backbone(family, matched=False)
        with pytest.raises(ValueError, match="kt.backbones.match_huggingface"):
            load_peft(model, peft_models.GOLDEN / family / name)
        assert adapters.attached(model) == {}


def test_saving_from_an_unmatched_base_warns(tmp_path):
    model = peft_models.backbone("bert", matched=False)
    adapters.LoRA(rank=2).attach(model)
    with pytest.warns(UserWarning, match="match_huggingface"):
        save_peft(model, tmp_path)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(peft_type="OFT"), "'OFT'"),
        (dict(peft_type="BOFT"), "'BOFT'"),
        (dict(peft_type="IA3"), "'lora_alpha': 6"),
        (dict(init_lora_weights="pissa"), "own weights"),
        (dict(init_lora_weights="loftq"), "own weights"),
        (dict(lora_bias=True), "needs .*lora_B.bias"),
        (dict(lora_bias=True, bias="all"), "lora_bias=True and bias='all'"),
        (dict(layer_replication=[[0, 2]]), "layer_replication"),
        (dict(target_parameters=["x"]), "target_parameters: the pairs belong"),
        (dict(trainable_token_indices=[1]), "indices: single rows"),
        (dict(use_qalora=True), "use_qalora"),
        (dict(a_setting_of_tomorrow=1), "a_setting_of_tomorrow"),
        (dict(use_dora=True), "lora_magnitude_vector"),
        (dict(bias="some"), "'some'"),
        (dict(bias="all"), "lacks"),
        (dict(r=3), "shape"),
        (dict(r="2"), "r='2'"),
        (dict(r=None), "r=None"),
        (dict(lora_alpha=float("inf")), "Infinity"),
        (dict(rank_pattern={"query": 4}), "shape"),
        (dict(rank_pattern={"(": 4}), "regular expression"),
        (dict(target_modules=["query", "value", "key"]), "no pairs"),
        (dict(target_modules="("), "regular expression"),
        (dict(target_modules=["query"]), "does not name"),
        (dict(target_modules=[["query"]]), "not a list of names"),
        (dict(exclude_modules=["value"]), "does not name"),
        (dict(exclude_modules={"value": 1}), "not a list of names"),
        (dict(exclude_modules="("), "regular expression"),
        (dict(layers_to_transform=[0]), "does not name"),
        (dict(layers_to_transform="0"), "must be a whole number or a list"),
        (dict(layers_to_transform=0, layers_pattern="("), "regular expression"),
        (dict(layers_pattern=[1]), "not a list of names"),
        (dict(r=-2), "r=-2 must be"),
        (dict(r=2.0), "r=2.0 must be"),
        (dict(r=10**12), "shape"),
        (dict(lora_alpha=10**400), "lora_alpha=1000"),
        (dict(lora_alpha=1e300), "its size must be from"),
        (dict(lora_alpha={"query": 2}), "lora_alpha={'query': 2}"),
        (dict(lora_dropout=1.5), "lora_dropout=1.5"),
        (dict(rank_pattern={"query": [2]}), r"rank_pattern of 'query' is \[2\]"),
        (dict(rank_pattern=["query"]), "not a dict"),
        (dict(alpha_pattern={"query": 0}), "alpha_pattern of 'query'"),
        (dict(alpha_pattern={r"(a)\1": 2}), "groupref is not supported"),
    ],
)
def test_unsupported_settings_are_refused(settings, words, tmp_path):
    folder = copy_of("bert/query_value", tmp_path / "file")
    edit(folder, **settings)
    refused(folder, words)


STEM = "base_model.model.encoder.layer.0.attention.self.query.lora_"
DAMAGES = {
    "missing B": (lambda x: x.pop(f"{STEM}B.weight"), "has the tensors"),
    "missing module": (
        lambda x: [x.pop(f"{STEM}{each}.weight") for each in "AB"],
        "no pairs",
    ),
    "surplus module": (
        lambda x: x.update(
            {
                key.replace("layer.0", "layer.7"): value
                for key, value in x.items()
                if "layer.0" in key
            }
        ),
        "layer.7",
    ),
    "surplus head": (
        lambda x: x.update({"base_model.model.classifier.bias": np.zeros(3, "f4")}),
        "needs a model with this head",
    ),
    "surplus bias": (
        lambda x: x.update(
            {STEM.replace("lora_", "base_layer.bias"): np.zeros(12, "f4")}
        ),
        "whole",
    ),
    "whole module": (
        lambda x: x.update(
            {"base_model.model.pooler.dense.weight": np.zeros((12, 12), "f4")}
        ),
        "only the head can be",
    ),
    "bias of B": (
        lambda x: x.update({f"{STEM}B.bias": np.zeros(12, "f4")}),
        "an unsupported kind",
    ),
    "wrong shape": (
        lambda x: x.update({f"{STEM}B.weight": np.zeros((11, 2), "f4")}),
        "shape",
    ),
    "not finite": (
        lambda x: x.update({f"{STEM}B.weight": np.full((12, 2), np.nan, "f4")}),
        "NaN",
    ),
    "whole numbers": (
        lambda x: x.update({f"{STEM}B.weight": np.zeros((12, 2), "i4")}),
        "I32",
    ),
    "other root": (
        lambda x: x.update({"model.x": np.zeros(1, "f4")}),
        "does not begin",
    ),
    "no pair": (lambda x: x.clear(), "no pair"),
    "twice": (
        lambda x: x.update(
            {
                f"base_model.model.bert.{key.removeprefix('base_model.model.')}": value
                for key, value in x.items()
            }
        ),
        "twice",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_tensors_that_do_not_fit_are_refused(damage, tmp_path):
    folder = copy_of("bert/query_value", tmp_path / "file")
    change, words = DAMAGES[damage]
    edit_tensors(folder, change)
    refused(folder, words)


@functools.cache
def untouched():
    """Return the model for all tests of refusals, which must not change the model."""
    return peft_models.backbone("bert")


def refused(folder, words):
    model = untouched()
    before = arrays(model.weights)
    flags = [each.trainable for each in model.weights]
    with pytest.raises(ValueError, match=words):
        load_peft(model, folder)
    assert adapters.attached(model) == {}
    assert_close(model.weights, before)
    assert [each.trainable for each in model.weights] == flags


def test_a_truncated_file_is_refused(tmp_path):
    folder = copy_of("bert/query_value", tmp_path / "file")
    content = (folder / files.WEIGHTS).read_bytes()
    (folder / files.WEIGHTS).write_bytes(content[:-1])
    refused(folder, "not a valid safetensors file")
    (folder / files.CONFIG).write_text("{")
    refused(folder, "JSON")
    (folder / files.CONFIG).write_text("[1]")
    refused(folder, "not a dict")


def test_expressions_that_are_slow_in_re_are_matched_fast(tmp_path):
    folder = copy_of("bert/query_value", tmp_path / "file")
    endless = "([a-z0-9.]+)+!"
    patterns = {"rank_pattern": {endless: 2}, "alpha_pattern": {endless: 2}}
    targets = rf"{endless}|.*\.(query|value)"
    edit(folder, **patterns, target_modules=targets, exclude_modules=endless)
    model = peft_models.backbone("bert")
    load_peft(model, folder)
    assert len(list(places(model))) == 4
    edit(folder, layers_to_transform=[0], layers_pattern=[endless])
    edit(folder, target_modules=["query", "value"])
    refused(folder, "does not name")


def test_a_missing_pair_is_refused_with_excluded_modules_too(tmp_path):
    model = peft_models.backbone("bert")
    config = model.get_config() | {"num_layers": 3, "name": "more"}
    more = type(model).from_config(config)  # also matched
    adapters.LoRA(rank=2).attach(model)
    save_peft(model, tmp_path)
    edit(tmp_path, exclude_modules=["pooler.dense"])
    adapters.detach(model)
    load_peft(model, tmp_path)
    with pytest.raises(ValueError, match="layer.2.*no pairs"):
        load_peft(more, tmp_path)
    assert adapters.attached(more) == {}


@pytest.mark.parametrize(
    "settings",
    [
        dict(task_type="TOKEN_CLS"),
        dict(task_type="QUESTION_ANS"),
        dict(task_type="CAUSAL_LM"),
        dict(
            task_type=None,
            auto_mapping={"base_model_class": "BertForTokenClassification"},
        ),
    ],
)
def test_the_head_of_another_task_is_refused(settings, tmp_path, shared):
    # The head of BertForTokenClassification is also called `classifier`.
    folder = copy_of("bert/seq_cls", tmp_path / "file")
    edit(folder, **settings)
    model = shared(peft_models.classifier, "bert")
    before = arrays(model.weights)
    with pytest.raises(ValueError, match="of another task"):
        load_peft(model, folder)
    assert_close(model.weights, before)
    edit(folder, task_type=None, auto_mapping=None)
    load_peft(model, folder)


def test_a_head_with_another_number_of_labels_is_the_adapters_own(tmp_path):
    import keras_hub

    model = keras_hub.models.BertTextClassifier(
        backbone=peft_models.backbone("bert"), num_classes=5, preprocessor=None
    )
    folder = peft_models.GOLDEN / "bert" / "seq_cls"
    base = peft_models.outputs_of(model, "bert")
    load_peft(model, folder)
    outputs = peft_models.outputs_of(model, "bert")
    wanted = peft_models.expected("bert", "seq_cls")
    assert outputs.shape == wanted.shape
    assert peft_models.difference("bert", outputs, wanted) < 1e-5
    save_peft(model, tmp_path)
    for each in FILES:
        assert (tmp_path / each).read_bytes() == (folder / each).read_bytes()
    with adapters.disabled(model):
        assert np.array_equal(peft_models.outputs_of(model, "bert"), base)


def test_changed_embeddings_in_a_file_are_the_adapters_own(tmp_path):
    folder = copy_of("bert/saved_embeddings", tmp_path / "file")
    words = "base_model.model.embeddings.word_embeddings.weight"
    model = peft_models.backbone("bert")
    base = peft_models.outputs_of(model, "bert")
    load_peft(model, folder, name="same")
    assert not list(own_places(model, "same"))
    edit_tensors(folder, lambda x: x.update({words: x[words] + 0.5}))
    load_peft(model, folder, name="changed")
    ((path, _, part),) = own_places(model, "changed")
    assert path == "token_embedding"
    assert_close(part.named_weights["embeddings"], load_file(folder / FILES[1])[words])
    assert np.abs(peft_models.outputs_of(model, "bert") - base).max() > 0.1
    with adapters.disabled(model):
        assert np.array_equal(peft_models.outputs_of(model, "bert"), base)
    edit_tensors(folder, lambda x: x.update({words: np.zeros((22, 12), "f4")}))
    refused(folder, "22 rows, but the model has 20")


@pytest.mark.slow
def test_own_layers_are_saved_as_modules_to_save(tmp_path):
    model = peft_models.classifier("bert")
    adapters.LoRA(rank=2).attach(model, train=["_1/.*layer_norm$", "head"])
    disturb(model)
    for _, _, part in own_places(model):
        for variable in part.named_weights.values():
            variable.assign(variable + 0.1)
    save_peft(model, tmp_path, task_type="SEQ_CLS")
    stem = "bert.encoder.layer.1"
    names = [f"{stem}.attention.output.LayerNorm", f"{stem}.output.LayerNorm"]
    assert sorted(config_in(tmp_path)["modules_to_save"]) == [*names, "classifier"]
    assert f"base_model.model.{names[0]}.weight" in names_in(tmp_path)
    again = peft_models.classifier("bert")
    load_peft(again, tmp_path)
    outputs = peft_models.outputs_of(model, "bert")
    assert_close(peft_models.outputs_of(again, "bert"), outputs, 2e-6)
    names = [layer.name for _, layer, _ in own_places(model, "default")]
    assert [layer.name for _, layer, _ in own_places(again, "default")] == names
    edit(tmp_path, modules_to_save=["classifier"])
    with pytest.raises(ValueError, match="neither in its modules_to_save|covers"):
        load_peft(peft_models.classifier("bert"), tmp_path)


def test_a_pickle_is_not_read(tmp_path):
    folder = copy_of("bert/query_value", tmp_path / "file")
    (folder / files.WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match="a pickle"):
        load_peft(peft_models.backbone("bert"), folder)


def test_a_model_of_another_size_is_refused():
    model = match_huggingface(tiny.bert(num_layers=2))
    with pytest.raises(ValueError, match="shape"):
        load_peft(model, peft_models.GOLDEN / "bert" / "query_value")


def test_another_base_is_refused_if_the_file_has_base_weights(tmp_path):
    model, folder = peft_models.model_of("llama/embeddings")
    embedding = model.backbone.token_embedding.embeddings
    embedding.assign(embedding + 0.1)
    with pytest.raises(ValueError, match="another base"):
        load_peft(model, folder)


def test_a_name_that_is_taken_is_refused():
    model, folder = peft_models.model_of("bert/bias_lora_only")
    adapters.LoRA(rank=2).attach(model)
    before = arrays(model.weights)
    with pytest.raises(ValueError, match="already has an adapter 'default'"):
        load_peft(model, folder)
    assert_close(model.weights, before)


def test_an_incomplete_head_warns(tmp_path):
    folder = copy_of("distilbert/seq_cls", tmp_path / "file")

    def drop(tensors):
        for each in ("weight", "bias"):
            tensors.pop(f"base_model.model.pre_classifier.{each}")

    edit_tensors(folder, drop)
    with pytest.warns(UserWarning, match="pooled_dense"):
        load_peft(peft_models.classifier("distilbert"), folder)


@pytest.mark.slow
def test_saving_without_the_head_is_refused(tmp_path):
    model = peft_models.classifier("bert")
    adapters.LoRA(rank=2).attach(model)
    with pytest.raises(ValueError, match="SEQ_CLS"):
        save_peft(model, tmp_path)
    around = kt.models.TransferClassifier(peft_models.backbone("bert"), 3)
    adapters.LoRA(rank=2).attach(around)
    with pytest.raises(ValueError, match="has a head"):
        save_peft(around, tmp_path)
    with pytest.raises(ValueError, match="needs a keras-hub TextClassifier"):
        save_peft(around, tmp_path, task_type="SEQ_CLS")
    with pytest.raises(ValueError, match="must be one of"):
        save_peft(model, tmp_path, task_type="TOKEN_CLS")
    assert not any(tmp_path.iterdir())


def test_a_loaded_adapter_with_a_new_head_needs_a_task_type(tmp_path):
    model = peft_models.classifier("bert")
    load_peft(model, peft_models.GOLDEN / "bert" / "query_value")
    with pytest.raises(ValueError, match="SEQ_CLS"):
        save_peft(model, tmp_path)
    save_peft(model, tmp_path, task_type="SEQ_CLS")
    assert "base_model.model.classifier.weight" in names_in(tmp_path)


@pytest.mark.slow
def test_adapters_that_peft_does_not_support_are_refused(tmp_path):
    model = peft_models.backbone("bert")
    with pytest.raises(ValueError, match="has no adapter"):
        save_peft(model, tmp_path)
    adapters.BitFit().attach(model)
    with pytest.raises(ValueError, match="supported for .*DoRA"):
        save_peft(model, tmp_path)
    model = peft_models.classifier("bert")
    adapters.LoRA(rank=2, targets=["query", "logits"]).attach(model)
    with pytest.raises(ValueError, match="'classifier'"):
        save_peft(model, tmp_path, task_type="SEQ_CLS")
    model = peft_models.backbone("gpt2")
    adapters.LoRA(rank=2, targets="token_embedding").attach(model)
    with pytest.raises(ValueError, match="changes the logits"):
        save_peft(model, tmp_path)
    model = peft_models.backbone("gpt2")
    adapters.DoRA(rank=2).attach(model)
    with pytest.raises(ValueError, match="all of these layers as targets"):
        save_peft(model, tmp_path)
    model = peft_models.backbone("gpt2")
    adapters.VeRA(rank=2).attach(model)
    with pytest.raises(ValueError, match="the module as a whole"):
        save_peft(model, tmp_path)
    assert not any(tmp_path.iterdir())
