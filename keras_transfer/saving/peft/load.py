"""load_peft: attach an adapter from a folder of Hugging Face PEFT."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.low_rank import EmbeddingPair
from keras_transfer.adapters.own_layer import own_name
from keras_transfer.adapters.own_layer import weights_below
from keras_transfer.adapters.plan import Plan
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.trained_layers import own_layer
from keras_transfer.adapters.trained_layers import ownable
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.match_huggingface import unmatched
from keras_transfer.quantization.packed_layers import FloatWeight
from keras_transfer.saving.peft.files import read
from keras_transfer.saving.peft.hub_mapping import hub_backbone
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.hub_mapping import mapping_of
from keras_transfer.saving.peft.hub_mapping import quantization_modes
from keras_transfer.saving.peft.layout import is_encoder
from keras_transfer.saving.peft.layout import Layout
from keras_transfer.saving.peft.layout import layout_of
from keras_transfer.saving.peft.layout import Origin
from keras_transfer.saving.peft.layout import origins
from keras_transfer.saving.peft.prompt_files import prompt_plan
from keras_transfer.saving.peft.recipes import recipe_of
from keras_transfer.saving.peft.recipes import values_of


def load_peft(
    model: keras.Model,
    path: str | pathlib.Path,
    *,
    name: str = "default",
    check_base: bool = True,
) -> str:
    """Attach an adapter that PEFT has saved.

    Supported are LoRA, RsLoRA, DoRA, LoHa, LoKr, IA3, VeRA, layer norm tuning, prompts
    and prefixes. The recipe gets the ranks, alphas, targets, dropout and rank
    stabilization of the config. Whole modules in the file (`modules_to_save`), such as
    the classifier of a `TextClassifier`, become the adapter's own layers, and the
    number of classes can differ from the model's. Trained biases and norms, and a
    classifier in a file with them, replace the model's own weights. The outputs of the
    model equal PEFT's outputs up to 1e-5. keras-hub's own converter of the model's
    weights determines where each number goes. For a fused projection, such as c_attn of
    GPT-2, one pair becomes three pairs, each with its own A. Prompts and prefixes are
    supported for BERT, GPT-2 and Llama, without a head. The whole file is checked
    before the model changes.

    Args:
        model: A keras-hub backbone with the weights that the adapter was trained on,
            or a model that contains such a backbone.
        path: Folder with adapter_config.json and adapter_model.safetensors.
        name: Name of the adapter. Defaults to `"default"`.
        check_base: Whether to refuse a quantized backbone, and a backbone that is known
            to compute other outputs than Hugging Face's. Defaults to True.

    Returns:
        A line to print about the loaded adapter.

    Example:
        ```python
        import tempfile

        import keras_hub
        import keras_transfer as kt
        from keras_transfer.saving.peft.load import load_peft
        from keras_transfer.saving.peft.save import save_peft

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
        ValueError: If the files are damaged, need an unsupported feature, or are for
            another model, if keras-hub's model computes other outputs than Hugging
            Face's model and was not matched, or if the adapter cannot be attached.

    Reference:
        Hugging Face PEFT, `PeftModel.from_pretrained`.
    """
    check_name(model, name)
    file = read(path)
    mapping = mapping_of(model)
    if check_base:
        _check_base(hub_backbone(model))
    if file.technique is None:
        plan, values = prompt_plan(model, file.config, file.tensors)
        plan.install(model, name, values)
        return _said(plan, model, name, path)
    mapping = mapping.renamed(file.tensors)
    layout = layout_of(file, mapping)
    values = _own_values(mapping, layout, _wrapped(layout))
    _check_head(file.config, mapping, layout)
    paths = {id(layer): path or layer.name for path, layer in located(model).items()}
    recipe = recipe_of(file, layout, mapping, paths)
    plan = recipe.plan(model, recipe.find(model))
    if not is_encoder(model, mapping):
        # In PEFT the output layer shares the matrix, but not the pair.
        for _, part in plan.pairs:
            if isinstance(part, EmbeddingPair):
                part.tied = False
    of_parts = values_of(recipe, layout, paths)
    if not plan.trained:
        plan, whole = _with_own_layers(model, plan, values)
        of_parts |= whole
        values = []
    plan.install(model, name, of_parts, values)
    dtypes = {key: tensor.dtype for key, tensor in file.tensors.items()}
    origin = Origin(
        file.text, file.config, layout.prefix, layout.names, dtypes, layout.ties
    )
    origins[attached(model)[name]] = origin
    return _said(plan, model, name, path)


def _check_base(backbone: keras.Model) -> None:
    if modes := quantization_modes(backbone):
        raise ValueError(
            f"The backbone is quantized ({', '.join(modes)}), and a PEFT folder does "
            "not say on which weights its adapter was trained. The outputs can differ "
            "from PEFT's by the error of the quantization. To load it anyway, pass "
            "check_base=False."
        )
    if problem := unmatched(backbone):
        raise ValueError(
            f"The backbone differs from the model that the adapter was trained on: "
            f"{problem}. First call kt.backbones.match_huggingface(backbone), with the "
            "folder of the Hugging Face model if you have it."
        )


def _said(plan: Plan, model: keras.Model, name: str, path: str | pathlib.Path) -> str:
    return (
        f"{plan.summary(model, name)}; loaded from the PEFT folder "
        f"{pathlib.Path(path).name!r}"
    )


def _wrapped(layout: Layout) -> set[str]:
    """Return the whole matrices in the file that belong to modules with a pair."""
    return {f"{module}.weight" for module in layout.pairs} & set(layout.plain)


def _own_values(
    mapping: HubMapping, layout: Layout, wrapped: set[str]
) -> list[tuple[keras.Variable, np.ndarray]]:
    """Return the new values of the model's own weights."""
    values = []
    for key, tensor in layout.plain.items():
        for share in mapping.shares[key]:
            if isinstance(share.variable, FloatWeight) and key in wrapped:
                continue  # a packed weight cannot be compared
            if isinstance(share.variable, FloatWeight):
                raise ValueError(
                    f"The file has the whole weight {key!r}, and the layer "
                    f"{share.layer.name!r} is quantized, so it cannot train in full. "
                    "Load the adapter into the float model."
                )
            last = key.rpartition(".")[0] in mapping.heads[-1:]
            value = share.read(tensor.astype("float32"), any_width=last)
            if key not in wrapped:
                same = np.array_equal(value, _keras.value(share.variable))
                if not (same and mapping.is_embedding(key)):
                    values.append((share.variable, value))
            elif not np.array_equal(value, _keras.value(share.variable)):
                # PEFT also saves the base model's word embedding if it has a pair.
                raise ValueError(
                    f"The file has the base model's {key!r}, which differs from this "
                    "model's, so the adapter was trained on another base. Load it into "
                    "the base that it was trained on."
                )
    return values


def _with_own_layers(
    model: keras.Layer, plan: Plan, values: list[tuple[keras.Variable, np.ndarray]]
) -> tuple[Plan, dict[str, dict[str, np.ndarray]]]:
    """Return the plan with the whole layers in the file, and their values.

    If the file has no head, the adapter's own head is a copy of the model's.

    Raises:
        ValueError: If the file has only some of the weights of a layer.
    """
    given = {id(variable): value for variable, value in values}
    by_default = {id(target.layer): part for target, part in plan.owned}
    owned, whole = [], {}
    for target in ownable(model):
        below = weights_below(target.layer)
        found = {key: given[id(v)] for key, v in below.items() if id(v) in given}
        if found and set(found) != set(below):
            raise ValueError(
                f"The file has the weights {sorted(found)} of the layer "
                f"{target.path!r}, but lacks {sorted(set(below) - set(found))}."
            )
        if found:
            part = own_layer(target.layer)
            if isinstance(target.layer, keras.layers.Dense):
                part.units = found["kernel"].shape[-1]
            whole[target.path] = {own_name(key): x for key, x in found.items()}
            owned.append((target, part))
        elif id(target.layer) in by_default:
            owned.append((target, by_default[id(target.layer)]))
    return dataclasses.replace(plan, owned=tuple(owned)), whole


def _check_head(config: dict, mapping: HubMapping, layout: Layout) -> None:
    whole = {key.rpartition(".")[0] for key in layout.plain}
    missing = [module for module in mapping.heads if module not in whole]
    if missing and config.get("task_type") == "SEQ_CLS":
        layers = [
            mapping.shares[f"{module}.weight"][0].layer.name for module in missing
        ]
        warnings.warn(
            f"The file lacks the modules {missing} of the head, so the layers {layers} "
            "keep their weights. In PEFT, name these modules in modules_to_save.",
            stacklevel=3,
        )
