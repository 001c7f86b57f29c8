"""The real PEFT reads the folders of save_peft, and PyTorch computes the same."""

import sys
import warnings

import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from keras_transfer.saving.peft.load import load_peft
from keras_transfer.saving.peft.save import save_peft
from tests.contracts.compare import assert_close
from tests.saving import peft_models

pytestmark = [
    pytest.mark.peft,
    # These come from torch and transformers.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ALL = "all-linear"
CASES = {
    "bert query and value": ("bert", adapters.LoRA(rank=3, alpha=5)),
    "bert ranks": (
        "bert",
        adapters.RsLoRA(
            rank=2, targets=ALL, rank_pattern={"key": 3}, alpha_pattern={"value": 7}
        ),
    ),
    "bert embedding": ("bert", adapters.LoRA(rank=2, targets=["token_emb", "key"])),
    "bert segments": ("bert", adapters.LoRA(rank=2, targets=["segment_embedding"])),
    "bert biases": ("bert", adapters.LoRA(rank=2, bias="all")),
    "bert some biases": ("bert", adapters.LoRA(rank=2, bias="lora_only")),
    "bert dora": ("bert", adapters.DoRA(rank=2, targets=ALL)),
    "distilbert": ("distilbert", adapters.LoRA(rank=2, targets=ALL)),
    "albert": ("albert", adapters.LoRA(rank=2, targets=ALL)),
    "roberta": ("roberta", adapters.LoRA(rank=2, targets=ALL)),
    "gpt2 query and value": ("gpt2", adapters.LoRA(rank=2)),
    "gpt2 all": ("gpt2", adapters.LoRA(rank=2, targets=ALL)),
    "gpt2 rank-stabilized": ("gpt2", adapters.RsLoRA(rank=2, targets=ALL)),
    "gpt2 dora": ("gpt2", adapters.DoRA(rank=2, targets=ALL)),
    "llama": ("llama", adapters.LoRA(rank=2, targets=ALL)),
    "gemma": ("gemma", adapters.LoRA(rank=2, targets=ALL)),
    "mistral": ("mistral", adapters.DoRA(rank=2, targets=ALL)),
    "qwen3": ("qwen3", adapters.LoRA(rank=2, targets=ALL)),
    "t5": ("t5", adapters.LoRA(rank=2, targets=ALL)),
    "t5 ia3": ("t5", adapters.IA3()),
    "t5 norms": ("t5", adapters.NormTuning()),
    "vit": ("vit", adapters.LoRA(rank=2, targets=ALL)),
    "vit norms": ("vit", adapters.NormTuning()),
    "xlm_roberta": ("xlm_roberta", adapters.LoRA(rank=2, targets=ALL)),
    "bert last block": ("bert", adapters.LoRA(rank=2, targets="_1/.*(query|output)")),
    "bert pair bias": ("bert", adapters.LoRA(rank=2, targets=ALL, bias="pair")),
    "gpt2 pair bias": ("gpt2", adapters.LoRA(rank=2, bias="pair")),
    "bert lokr": ("bert", adapters.LoKr(rank=1, targets=ALL)),
    "bert ia3": ("bert", adapters.IA3()),
    "bert ia3 blocks": (
        "bert",
        adapters.IA3(
            targets="_1/feedforward|_0/.*query",
            feedforward=["transformer_layer_1/.*output_dense"],
        ),
    ),
    "gpt2 ia3": ("gpt2", adapters.IA3()),
    "llama ia3": ("llama", adapters.IA3()),
    "bert vera": ("bert", adapters.VeRA(rank=5, targets=ALL, seed=4)),
    "bert vera as in PEFT": ("bert", adapters.VeRA(rank=5, draw="peft")),
    "llama vera": ("llama", adapters.VeRA(rank=5, targets=ALL)),
    "bert norms": ("bert", adapters.NormTuning()),
    "bert some norms": ("bert", adapters.NormTuning(targets="_1/self_attention")),
    "gpt2 norms": ("gpt2", adapters.NormTuning()),
    "llama norms": ("llama", adapters.NormTuning()),
}
HEADS = ("albert", "bert", "distilbert", "roberta", "vit", "xlm_roberta")


@pytest.fixture(scope="module")
def torch():
    """Return torch, or skip the test unless all three packages are installed."""
    reason = "needs the extra: pip install keras_transfer[peft]"
    # torch imports triton if it is there, which crashes in a process with TensorFlow.
    sys.modules.setdefault("triton", None)
    for name in ("peft", "transformers"):
        pytest.importorskip(name, reason=reason)
    return pytest.importorskip("torch", reason=reason)


def disturb(model):
    """Give all trainable weights different values in each layer."""
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(size=variable.shape) * 0.1)


def in_pytorch(family, folder, kind, *, merged=False):
    """Return the outputs of the base model with the adapter in `folder`."""
    import peft
    import torch
    import transformers

    base = peft_models.GOLDEN / family / "base"
    with warnings.catch_warnings():
        # Loading the base model warns about each file.
        warnings.simplefilter("ignore")
        model = getattr(transformers, f"AutoModel{kind}").from_pretrained(base)
        # PEFT warns about missing and unexpected tensors.
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "Unsupported layer type")
        model = peft.PeftModel.from_pretrained(model, folder)
    model = model.merge_and_unload() if merged else model
    arrays = np.load(peft_models.GOLDEN / family / "outputs.npz")
    if "images" in arrays:
        inputs = {"pixel_values": torch.tensor(arrays["images"].transpose(0, 3, 1, 2))}
    else:
        names = {"input_ids": "token_ids", "attention_mask": "padding_mask"}
        inputs = {key: torch.tensor(arrays[name]) for key, name in names.items()}
    if family == "t5":
        inputs |= {f"decoder_{key}": value for key, value in inputs.items()}
    model.eval()
    with torch.no_grad():
        outputs = model(**inputs)
    return (outputs.logits if kind else outputs.last_hidden_state).numpy()


@pytest.mark.parametrize("case", CASES)
def test_pytorch_computes_the_same(torch, case, tmp_path):
    family, recipe = CASES[case]
    model = peft_models.backbone(family)
    base = peft_models.outputs_of(model, family)
    recipe.attach(model)
    disturb(model)
    save_peft(model, tmp_path)
    ours = peft_models.outputs_of(model, family)
    assert peft_models.difference(family, ours, base) > 0.01
    for merged in (False, True):
        theirs = in_pytorch(family, tmp_path, "", merged=merged)
        assert peft_models.difference(family, ours, theirs) < 1e-5


@pytest.mark.parametrize("family", ("bert", "gpt2", "llama"))
@pytest.mark.parametrize("prefix", (False, True))
def test_pytorch_computes_the_same_with_a_prompt(torch, family, prefix, tmp_path):
    kind, task = "ForCausalLM", "CAUSAL_LM"
    if family == "bert":
        kind, task, model = "", "FEATURE_EXTRACTION", peft_models.backbone(family)
    else:
        model = peft_models.causal_lm(family)
    shift = family != "llama"
    recipe = adapters.PromptTuning(2)
    recipe = adapters.PrefixTuning(2, shift_positions=shift) if prefix else recipe
    recipe.attach(model)
    disturb(model)
    save_peft(model, tmp_path, task_type=task)
    ours = peft_models.outputs_of(model, family)
    theirs = in_pytorch(family, tmp_path, kind)[:, -ours.shape[1] :]
    assert peft_models.difference(family, ours, theirs) < 2e-5


@pytest.mark.parametrize("family", HEADS)
def test_pytorch_computes_the_same_with_the_head(torch, family, tmp_path):
    model = peft_models.classifier(family)
    adapters.LoRA(rank=2).attach(model)
    disturb(model)
    of_images = family == "vit"
    save_peft(model, tmp_path, task_type=None if of_images else "SEQ_CLS")
    ours = peft_models.outputs_of(model, family)
    kind = "Image" if of_images else "Sequence"
    theirs = in_pytorch(family, tmp_path, f"For{kind}Classification")
    assert np.abs(ours - theirs).max() < 1e-5


@pytest.mark.parametrize("family", ["gemma", "gpt2", "llama", "mistral", "qwen3"])
def test_pytorch_computes_the_same_logits_of_words(torch, family, tmp_path):
    model = peft_models.causal_lm(family)
    adapters.LoRA(rank=2, targets=ALL).attach(model)
    disturb(model)
    save_peft(model, tmp_path, task_type="CAUSAL_LM")
    ours = peft_models.outputs_of(model, family)
    theirs = in_pytorch(family, tmp_path, "ForCausalLM")
    assert peft_models.difference(family, ours, theirs) < 1e-5


def test_an_adapter_saved_again_by_pytorch_can_be_loaded(torch, tmp_path):
    import peft
    import transformers

    model = peft_models.classifier("bert")
    adapters.LoRA(rank=2).attach(model)
    disturb(model)
    save_peft(model, tmp_path / "ours", task_type="SEQ_CLS")
    base = peft_models.GOLDEN / "bert" / "base"
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    theirs = peft.PeftModel.from_pretrained(
        theirs, tmp_path / "ours", is_trainable=True
    )
    theirs.save_pretrained(tmp_path / "theirs")
    again = peft_models.classifier("bert")
    load_peft(again, tmp_path / "theirs")
    for (_, _, a), (_, _, b) in zip(
        places(again, "default"), places(model, "default"), strict=True
    ):
        assert_close(a.named_weights, b.named_weights)
    outputs = peft_models.outputs_of(model, "bert")
    assert_close(peft_models.outputs_of(again, "bert"), outputs)
