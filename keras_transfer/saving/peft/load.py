"""load_peft and save_peft: adapters in the files of Hugging Face PEFT, both ways."""

from __future__ import annotations

import pathlib
import re
import warnings
import weakref
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter import check_name
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.dora import DoRA
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.lora import RsLoRA
from keras_transfer.adapters.low_rank import EmbeddingPair
from keras_transfer.adapters.switching import places
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.match_huggingface import unmatched
from keras_transfer.saving.peft import files
from keras_transfer.saving.peft.hub_mapping import hub_backbone
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.hub_mapping import read_mapping
from keras_transfer.saving.peft.hub_mapping import with_head
from keras_transfer.saving.peft.layout import Layout
from keras_transfer.saving.peft.layout import layout_of
from keras_transfer.saving.peft.save import Origin
from keras_transfer.saving.peft.save import written

# Backbones whose embedding gives no logits, alone or in a text classifier.
ENCODERS = ("albert", "bert", "distilbert", "roberta")

# What an adapter was loaded from, by its first part; in this process.
_origins: weakref.WeakKeyDictionary[Part, Origin] = weakref.WeakKeyDictionary()


def load_peft(
    model: keras.Model, path: str | pathlib.Path, *, name: str = "default"
) -> keras.Model:
    """Attach a LoRA adapter that Hugging Face PEFT has saved.

    Ranks, alphas, targets, dropout and rank stabilisation become the recipe; trained
    biases, and the classifier of a `TextClassifier`, become the model's own. The
    model's outputs are those of PEFT to 1e-5. Where each number goes is asked of
    keras-hub's own converter of the model's weights. In a fused projection, GPT-2's
    c_attn, one pair becomes three, with an A each. All is verified before anything
    changes.

    Args:
        model: A keras-hub backbone with the weights that the adapter was trained on,
            or a model that contains one.
        path: Folder with adapter_config.json and adapter_model.safetensors.
        name: Name of the adapter. Default `"default"`.

    Returns:
        The model.

    Example:
        ```python
        import tempfile

        import keras_hub
        import keras_transfer as kt
        from keras_transfer.saving.peft.load import load_peft
        from keras_transfer.saving.peft.load import save_peft

        backbone = keras_hub.models.DistilBertBackbone(
            vocabulary_size=20,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=8,
        )
        kt.adapters.LoRA(rank=2).attach(backbone)
        with tempfile.TemporaryDirectory() as folder:
            save_peft(backbone, folder)
            kt.adapters.detach(backbone)
            load_peft(backbone, folder)
        ```

    Raises:
        FileNotFoundError: If the folder lacks one of the two files.
        ValueError: If the files are damaged, ask for what is not supported, or are for
            another model; if keras-hub's model computes something else than Hugging
            Face's and was not matched; or if the adapter cannot be attached.

    Reference:
        Hugging Face PEFT, `PeftModel.from_pretrained`.
    """
    check_name(model, name)
    file = files.read(path)
    mapping = _mapping(model)
    if problem := _difference(model):
        raise ValueError(
            f"The backbone is not what the adapter was trained on: {problem}. Call "
            "kt.backbones.match_huggingface(backbone) first, with the folder of the "
            "Hugging Face model where you have it."
        )
    layout = layout_of(file, mapping)
    values = _own_values(mapping, layout, _wrapped(layout))
    _check_head(file.config, mapping, layout)
    paths = {id(layer): path or layer.name for path, layer in located(model).items()}
    plan = _recipe(file.config, layout, paths).plan(model)
    if not _is_encoder(model, mapping):
        # PEFT leaves the output layer, which shares the matrix, without the pair.
        for _, part in plan.pairs:
            if isinstance(part, EmbeddingPair):
                part.tied = False
    plan.install(model, name, _part_values(layout, paths), values)
    print(plan.summary(model, name))
    dtypes = {key: tensor.dtype for key, tensor in file.tensors.items()}
    origin = Origin(file.text, file.config, layout.prefix, layout.names, dtypes)
    _origins[next(places(model, name))[2]] = origin
    return model


def save_peft(
    model: keras.Model,
    path: str | pathlib.Path,
    *,
    name: str = "default",
    task_type: str | None = None,
) -> None:
    """Write an adapter as Hugging Face PEFT does, for `PeftModel.from_pretrained`.

    One that was loaded by `load_peft` in this process goes back as it came, with its
    config, the names and the types of its tensors; untrained, bit for bit. Another is
    written for the bare model (`AutoModel`), or, with a task type, for the model with
    that head. Three pairs with different A on a fused projection become one of the sum
    of their ranks.

    Args:
        model: The model that the adapter is attached to.
        path: Folder to write to; it is made.
        name: Name of the adapter. Default `"default"`.
        task_type: `"SEQ_CLS"` for a keras-hub text classifier, whose head goes along;
            `"CAUSAL_LM"` or `"FEATURE_EXTRACTION"`. Default None, the bare model.

    Example:
        ```python
        import tempfile

        import keras_hub
        import keras_transfer as kt
        from keras_transfer.saving.peft.load import save_peft

        backbone = keras_hub.models.DistilBertBackbone(
            vocabulary_size=20,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=8,
        )
        kt.adapters.LoRA(rank=2, alpha=4).attach(backbone)
        with tempfile.TemporaryDirectory() as folder:
            save_peft(backbone, folder)
        ```

    Raises:
        ValueError: If the adapter is no LoRA, a layer of it has no counterpart in
            Hugging Face's model, or the model has a head that would be lost.

    Reference:
        Hugging Face PEFT, `PeftModel.save_pretrained`.
    """
    mapping = _mapping(model)
    parts = list(places(model, name))
    origin = _origins.get(parts[0][2]) if parts else None
    if origin and task_type not in (None, origin.config.get("task_type")):
        origin = None
    _check_tied(model, mapping, parts)
    text, tensors = written(model, name, mapping, task_type, origin)
    if problem := _difference(model):
        warnings.warn(
            f"Hugging Face's model will compute something else than this one: "
            f"{problem}. kt.backbones.match_huggingface(backbone), before attaching, "
            "makes them the same.",
            stacklevel=2,
        )
    files.write(path, text, tensors)


def _mapping(model: keras.Model) -> HubMapping:
    import keras_hub

    backbone = hub_backbone(model)
    mapping = read_mapping(backbone)
    if isinstance(model, keras_hub.models.TextClassifier):
        mapping = with_head(mapping, model, backbone)
    return mapping


def _difference(model: keras.Model) -> str | None:
    return unmatched(hub_backbone(model))


def _wrapped(layout: Layout) -> set[str]:
    """Return the matrices in the file that belong to modules with a pair."""
    return {f"{module}.weight" for module in layout.pairs} & set(layout.plain)


def _own_values(
    mapping: HubMapping, layout: Layout, wrapped: set[str]
) -> list[tuple[keras.Variable, np.ndarray]]:
    """Return what the model's own weights are to become."""
    values = []
    for key, tensor in layout.plain.items():
        for share in mapping.shares[key]:
            value = share.read(tensor.astype("float32"))
            if key not in wrapped:
                values.append((share.variable, value))
            elif not np.array_equal(value, _keras.value(share.variable)):
                # PEFT writes a targeted embedding of words along as it is.
                raise ValueError(
                    f"The file has the base model's {key!r}, which is not what the "
                    "model has. The adapter was trained on another base."
                )
    return values


def _check_head(config: dict, mapping: HubMapping, layout: Layout) -> None:
    there = {key.rpartition(".")[0] for key in layout.plain}
    missing = [each for each in mapping.heads if each not in there]
    if missing and config.get("task_type") == "SEQ_CLS":
        layers = [mapping.shares[f"{each}.weight"][0].layer.name for each in missing]
        warnings.warn(
            f"The file lacks the head's {missing}; the layers {layers} keep the "
            "weights they have. In PEFT name them in modules_to_save.",
            stacklevel=3,
        )


def _recipe(config: dict, layout: Layout, paths: Mapping[int, str]) -> LoRA:
    """Return the recipe; what differs by module is keyed by the path in Keras."""
    ranks, alphas, layers = {}, {}, []
    for pair in layout.pairs.values():
        for factors in pair.factors:
            layers.append(factors.layer)
            path = re.escape(paths[id(factors.layer)])
            if len(pair.a) != config["r"]:
                ranks[path] = len(pair.a)
            if pair.alpha != config["lora_alpha"]:
                alphas[path] = pair.alpha
    kind = RsLoRA if config.get("use_rslora") else LoRA
    if config.get("use_dora"):
        if kind is RsLoRA:
            raise ValueError("use_dora and use_rslora together are not supported here.")
        kind = DoRA
    return kind(
        config["r"],
        config["lora_alpha"],
        targets=layers,
        dropout=config.get("lora_dropout", 0.0),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        bias=config.get("bias", "none"),
    )


def _part_values(
    layout: Layout, paths: Mapping[int, str]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the values of each layer's pair by the layer's path."""
    values = {}
    for pair in layout.pairs.values():
        for factors in pair.factors:
            own = {
                "lora_a": pair.a.T[factors.inputs].astype("float32"),
                "lora_b": pair.b.T[:, factors.outputs].astype("float32"),
            }
            if pair.magnitude is not None:
                own["magnitude"] = pair.magnitude[factors.outputs].astype("float32")
            values[paths[id(factors.layer)]] = own
    return values


def _is_encoder(model: keras.Model, mapping: HubMapping) -> bool:
    import keras_hub

    kinds = (keras_hub.models.Backbone, keras_hub.models.TextClassifier)
    return mapping.family in ENCODERS and isinstance(model, kinds)


def _check_tied(model: keras.Model, mapping: HubMapping, parts: list) -> None:
    for path, host, part in parts:
        tied = isinstance(part, EmbeddingPair) and part.tied
        if (
            tied
            and getattr(host, "tie_weights", False)
            and not _is_encoder(model, mapping)
        ):
            raise ValueError(
                f"The pair on {path!r} counts in the logits too, since the model's "
                "output shares the matrix. In PEFT it would not. Leave the embedding "
                "out of the targets, or train it from a file of PEFT's."
            )
