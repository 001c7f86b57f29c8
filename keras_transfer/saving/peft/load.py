"""load_peft: attach an adapter that Hugging Face PEFT has saved."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import warnings
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.low_rank import EmbeddingPair
from keras_transfer.adapters.own_layer import own_name
from keras_transfer.adapters.own_layer import weights_below
from keras_transfer.adapters.plan import Plan
from keras_transfer.adapters.trained_layers import own_layer
from keras_transfer.adapters.trained_layers import ownable
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.match_huggingface import unmatched
from keras_transfer.saving.peft.files import PeftFile
from keras_transfer.saving.peft.files import read
from keras_transfer.saving.peft.hub_mapping import hub_backbone
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.hub_mapping import mapping_of
from keras_transfer.saving.peft.layout import is_encoder
from keras_transfer.saving.peft.layout import Layout
from keras_transfer.saving.peft.layout import layout_of
from keras_transfer.saving.peft.layout import Origin
from keras_transfer.saving.peft.layout import origins


def load_peft(
    model: keras.Model, path: str | pathlib.Path, *, name: str = "default"
) -> str:
    """Attach a LoRA, RsLoRA, DoRA or LoHa that Hugging Face PEFT has saved.

    Ranks, alphas, targets, dropout and rank stabilization become the recipe. What the
    file has whole, `modules_to_save` such as the classifier of a `TextClassifier`, is
    the adapter's own, also with another number of classes; trained biases, and a
    classifier next to them, become the model's own. The model's outputs are those of
    PEFT to 1e-5. Where each number goes is asked of keras-hub's own converter of the
    model's weights. In a fused projection, GPT-2's c_attn, one pair becomes three, with
    an A each. All is verified before anything changes.

    Args:
        model: A keras-hub backbone with the weights that the adapter was trained on,
            or a model that contains one.
        path: Folder with adapter_config.json and adapter_model.safetensors.
        name: Name of the adapter. Default `"default"`.

    Returns:
        A line about what was attached.

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
        ValueError: If the files are damaged, ask for what is not supported, or are for
            another model; if keras-hub's model computes something else than Hugging
            Face's and was not matched; or if the adapter cannot be attached.

    Reference:
        Hugging Face PEFT, `PeftModel.from_pretrained`.
    """
    check_name(model, name)
    file = read(path)
    mapping = mapping_of(model)
    if problem := unmatched(hub_backbone(model)):
        raise ValueError(
            f"The backbone is not what the adapter was trained on: {problem}. Call "
            "kt.backbones.match_huggingface(backbone) first, with the folder of the "
            "Hugging Face model where you have it."
        )
    layout = layout_of(file, mapping)
    values = _own_values(mapping, layout, _wrapped(layout))
    _check_head(file.config, mapping, layout)
    paths = {id(layer): path or layer.name for path, layer in located(model).items()}
    recipe = _recipe(file, layout, paths)
    plan = recipe.plan(model, recipe.find(model))
    if not is_encoder(model, mapping):
        # PEFT leaves the output layer, which shares the matrix, without the pair.
        for _, part in plan.pairs:
            if isinstance(part, EmbeddingPair):
                part.tied = False
    of_parts = {
        paths[id(factors.layer)]: pair.values(factors)
        for pair in layout.pairs.values()
        for factors in pair.factors
    }
    if not plan.trained:
        plan, whole = _with_own_layers(model, plan, values)
        of_parts |= whole
        values = []
    plan.install(model, name, of_parts, values)
    dtypes = {key: tensor.dtype for key, tensor in file.tensors.items()}
    origin = Origin(file.text, file.config, layout.prefix, layout.names, dtypes)
    origins[plan.pairs[0][1]] = origin
    return (
        f"{plan.summary(model, name)}; from PEFT's folder {pathlib.Path(path).name!r}"
    )


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
            last = key.rpartition(".")[0] in mapping.heads[-1:]
            value = share.read(tensor.astype("float32"), any_width=last)
            if key not in wrapped:
                values.append((share.variable, value))
            elif not np.array_equal(value, _keras.value(share.variable)):
                # PEFT writes a targeted embedding of words along as it is.
                raise ValueError(
                    f"The file has the base model's {key!r}, which is not what the "
                    "model has. The adapter was trained on another base."
                )
    return values


def _with_own_layers(
    model: keras.Layer, plan: Plan, values: list[tuple[keras.Variable, np.ndarray]]
) -> tuple[Plan, dict[str, dict[str, np.ndarray]]]:
    """Return the plan with the layers that the file has whole, and their values.

    A head that the file lacks is the adapter's own too, as it is in the model.

    Raises:
        ValueError: If the file has some weights of a layer, but not all.
    """
    given = {id(variable): value for variable, value in values}
    by_default = {id(target.layer): part for target, part in plan.owned}
    owned, whole = [], {}
    for target in ownable(model):
        below = weights_below(target.layer)
        found = {key: given[id(v)] for key, v in below.items() if id(v) in given}
        if found and set(found) != set(below):
            raise ValueError(
                f"The file has {sorted(found)} of the layer {target.path!r} whole, but "
                f"not {sorted(set(below) - set(found))}."
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
            f"The file lacks the head's {missing}; the layers {layers} keep the "
            "weights they have. In PEFT name them in modules_to_save.",
            stacklevel=3,
        )


def _recipe(file: PeftFile, layout: Layout, paths: Mapping[int, str]) -> Adapter:
    """Return the recipe; what differs by module is keyed by the path in Keras."""
    peft = file.technique.peft
    rank, alpha = peft.rank_and_alpha(file.config)
    ranks, alphas, layers = {}, {}, []
    for pair in layout.pairs.values():
        for factors in pair.factors:
            layers.append(factors.layer)
            path = re.escape(paths[id(factors.layer)])
            if pair.rank != rank:
                ranks[path] = pair.rank
            if pair.alpha != alpha:
                alphas[path] = pair.alpha
    arguments = {
        name: file.config[key]
        for name, key in peft.arguments.items()
        if key in file.config
    }
    recipe = file.technique(
        **arguments, targets=layers, rank_pattern=ranks, alpha_pattern=alphas
    )
    return recipe.of_file()
