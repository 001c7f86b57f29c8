"""The tiny Hugging Face models of tests/golden, loaded with keras-hub."""

import functools
import json
import pathlib

import keras
import numpy as np
from safetensors.numpy import load_file

from keras_transfer.backbones.match_huggingface import gelu_tanh
from keras_transfer.backbones.match_huggingface import match_huggingface
from keras_transfer.saving.peft.hub_mapping import read_mapping

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "peft"
CASES = sorted(
    f"{path.parent.parent.name}/{path.parent.name}"
    for path in GOLDEN.glob("*/*/adapter_config.json")
)
FAMILIES = (
    *("albert", "bert", "distilbert", "gpt2", "llama", "roberta"),
    *("gemma", "mistral", "qwen3", "t5", "vit", "xlm_roberta"),
)
# keras-hub's backbones differ from Hugging Face's.
MATCHED = ("bert", "qwen3", "roberta", "xlm_roberta")


def backbone(family, *, matched=True):
    """Return the base model of a family, loaded with keras-hub."""
    import keras_hub

    folder = GOLDEN / family / "base"
    if family == "t5":
        return t5(folder)
    model = keras_hub.models.Backbone.from_preset(str(folder))
    return match_huggingface(model, folder) if matched and family in MATCHED else model


def t5(folder):
    """Return a T5, which keras-hub does not load from Hugging Face's format."""
    import keras_hub

    config = json.loads((folder / "config.json").read_text())
    model = keras_hub.models.T5Backbone(
        vocabulary_size=config["vocab_size"],
        num_layers=config["num_layers"],
        num_heads=config["num_heads"],
        hidden_dim=config["d_model"],
        intermediate_dim=config["d_ff"],
        key_value_dim=config["d_kv"],
        activation=gelu_tanh,
        dropout=0.0,
    )
    tensors = load_file(folder / "model.safetensors")
    for key, shares in read_mapping(model).shares.items():
        for share in shares:
            share.variable.assign(share.read(tensors[key]))
    return model


def classifier(family):
    """Return a classifier of three classes around the base model."""
    import keras_hub

    kinds = {
        "vit": keras_hub.models.ViTImageClassifier,
        "xlm_roberta": keras_hub.models.XLMRobertaTextClassifier,
        "albert": keras_hub.models.AlbertTextClassifier,
        "bert": keras_hub.models.BertTextClassifier,
        "distilbert": keras_hub.models.DistilBertTextClassifier,
        "roberta": keras_hub.models.RobertaTextClassifier,
    }
    return kinds[family](backbone=backbone(family), num_classes=3, preprocessor=None)


def causal_lm(family):
    """Return the language model around the base model."""
    import keras_hub

    kinds = {
        "gemma": keras_hub.models.GemmaCausalLM,
        "mistral": keras_hub.models.MistralCausalLM,
        "qwen3": keras_hub.models.Qwen3CausalLM,
        "gpt2": keras_hub.models.GPT2CausalLM,
        "llama": keras_hub.models.Llama3CausalLM,
    }
    return kinds[family](backbone=backbone(family), preprocessor=None)


def maker_of(case):
    """Return the function that makes the Keras model for the adapter of a case."""
    family, name = case.split("/")
    if name.endswith(("seq_cls", "classifier")):
        return classifier
    if name.endswith("causal_lm") or family != "bert" and name == "embeddings":
        return causal_lm
    return backbone


def model_of(case):
    """Return the Keras model for the adapter of a case, and the folder of the case."""
    return maker_of(case)(case.split("/")[0]), GOLDEN / case


@functools.cache
def shared(make, family):
    """Return the one model of `make` and `family`, which a test must not change."""
    return make(family)


def inputs_of(model, family):
    """Return the inputs in a family's outputs.npz in the form for `model`."""
    arrays = np.load(GOLDEN / family / "outputs.npz")
    if "images" in arrays:
        return arrays["images"]
    inputs = {key: arrays[key].astype("int32") for key in ("token_ids", "padding_mask")}
    if family == "t5":
        stacks = ("encoder", "decoder")
        return {f"{x}_{key}": value for x in stacks for key, value in inputs.items()}
    if any(
        each.name.startswith("segment_ids") for each in keras.tree.flatten(model.input)
    ):
        inputs["segment_ids"] = np.zeros_like(inputs["token_ids"])
    return inputs


def outputs_of(model, family):
    """Return the outputs of `model` for these inputs, features or logits."""
    outputs = model(inputs_of(model, family), training=False)
    if isinstance(outputs, dict):
        name = "decoder_sequence_output" if family == "t5" else "sequence_output"
        outputs = outputs[name]
    return keras.ops.convert_to_numpy(outputs)


def expected(family, name):
    """Return PyTorch's outputs for a case, or for the name "base"."""
    return np.load(GOLDEN / family / "outputs.npz")[name]


def difference(family, actual, wanted):
    """Return the largest difference of two outputs, without padding."""
    found = np.abs(actual - wanted)
    if found.ndim == 3 and family != "vit":
        mask = np.load(GOLDEN / family / "outputs.npz")["padding_mask"]
        found = found[mask.astype(bool)]
    return found.max()
