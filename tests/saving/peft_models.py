"""The tiny Hugging Face models of tests/golden, loaded with keras-hub."""

import pathlib

import keras
import numpy as np

from keras_transfer.backbones.match_huggingface import match_huggingface

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "peft"
CASES = sorted(
    f"{path.parent.parent.name}/{path.parent.name}"
    for path in GOLDEN.glob("*/*/adapter_config.json")
)
FAMILIES = ("albert", "bert", "distilbert", "gpt2", "llama", "roberta")
MATCHED = ("bert", "roberta")  # keras-hub's backbones differ from Hugging Face's


def backbone(family, *, matched=True):
    """Return the base model of a family, loaded with keras-hub."""
    import keras_hub

    folder = GOLDEN / family / "base"
    model = keras_hub.models.Backbone.from_preset(str(folder))
    return match_huggingface(model, folder) if matched and family in MATCHED else model


def classifier(family):
    """Return a text classifier of three classes around the base model."""
    import keras_hub

    kinds = {
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
        "gpt2": keras_hub.models.GPT2CausalLM,
        "llama": keras_hub.models.Llama3CausalLM,
    }
    return kinds[family](backbone=backbone(family), preprocessor=None)


def model_of(case):
    """Return the Keras model for the adapter of a case, and the folder of the case."""
    family, name = case.split("/")
    folder = GOLDEN / case
    if name.endswith("seq_cls"):
        return classifier(family), folder
    if name.endswith("causal_lm") or family != "bert" and name == "embeddings":
        return causal_lm(family), folder
    return backbone(family), folder


def inputs_of(model, family):
    """Return the inputs in a family's outputs.npz in the form for `model`."""
    arrays = np.load(GOLDEN / family / "outputs.npz")
    inputs = {key: arrays[key].astype("int32") for key in ("token_ids", "padding_mask")}
    if any(
        each.name.startswith("segment_ids") for each in keras.tree.flatten(model.input)
    ):
        inputs["segment_ids"] = np.zeros_like(inputs["token_ids"])
    return inputs


def outputs_of(model, family):
    """Return the outputs of `model` for these inputs, features or logits."""
    outputs = model(inputs_of(model, family), training=False)
    if isinstance(outputs, dict):
        outputs = outputs["sequence_output"]
    return keras.ops.convert_to_numpy(outputs)


def expected(family, name):
    """Return PyTorch's outputs for a case, or for the name "base"."""
    return np.load(GOLDEN / family / "outputs.npz")[name]


def difference(family, actual, wanted):
    """Return the largest difference of two outputs, without padding."""
    found = np.abs(actual - wanted)
    if found.ndim == 3:
        mask = np.load(GOLDEN / family / "outputs.npz")["padding_mask"]
        found = found[mask.astype(bool)]
    return found.max()
