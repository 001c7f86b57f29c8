"""save_peft: write an adapter to a folder of Hugging Face PEFT."""

from __future__ import annotations

import json
import pathlib
import warnings
from collections.abc import Iterable
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.ia3 import IA3
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.prefix_tuning import PrefixTuning
from keras_transfer.adapters.prompt_tuning import PromptTuning
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.switching import own_places
from keras_transfer.adapters.switching import places
from keras_transfer.adapters.vera import VeRA
from keras_transfer.backbones.match_huggingface import unmatched
from keras_transfer.saving.peft.expressions import Expressions
from keras_transfer.saving.peft.files import new_config
from keras_transfer.saving.peft.files import number_settings
from keras_transfer.saving.peft.files import techniques_of_peft
from keras_transfer.saving.peft.files import write
from keras_transfer.saving.peft.hub_mapping import hub_backbone
from keras_transfer.saving.peft.hub_mapping import HubMapping
from keras_transfer.saving.peft.hub_mapping import mapping_of
from keras_transfer.saving.peft.hub_mapping import quantization_modes
from keras_transfer.saving.peft.layout import check_tied
from keras_transfer.saving.peft.layout import name_of
from keras_transfer.saving.peft.layout import Origin
from keras_transfer.saving.peft.layout import origins
from keras_transfer.saving.peft.layout import ROOT
from keras_transfer.saving.peft.modules import Module
from keras_transfer.saving.peft.modules import modules_of
from keras_transfer.saving.peft.named_modules import feedforward_settings
from keras_transfer.saving.peft.named_modules import rank_and_alpha
from keras_transfer.saving.peft.named_modules import target_settings
from keras_transfer.saving.peft.projections import written
from keras_transfer.saving.peft.prompt_files import prompt_written
from keras_transfer.saving.peft.whole_weights import copied_keys
from keras_transfer.saving.peft.whole_weights import whole_keys
from keras_transfer.saving.peft.whole_weights import whole_tensor


def save_peft(
    model: keras.Model,
    path: str | pathlib.Path,
    *,
    name: str = "default",
    task_type: str | None = None,
) -> str:
    """Write an adapter in PEFT's format, for `PeftModel.from_pretrained`.

    Supported are LoRA, RsLoRA, DoRA, LoHa, LoKr, IA3, VeRA, NormTuning, PromptTuning
    and PrefixTuning. If `load_peft` loaded the adapter in this process, the folder gets
    the same config and the same names and dtypes of the tensors. Without training in
    between, the tensors are equal bit for bit. Other adapters are written for the bare
    model (`AutoModel`), or with a task type for the model with the head of this task.
    Three pairs with different A on a fused projection become one pair, whose rank is
    the sum of the three ranks. A prompt or a prefix of BERT, GPT-2 or Llama is written
    without a head, by default for `task_type="FEATURE_EXTRACTION"`.

    Args:
        model: The model that the adapter is attached to.
        path: Path of the folder, which is created if necessary.
        name: Name of the adapter. Defaults to `"default"`.
        task_type: `"SEQ_CLS"` for a keras-hub text classifier, whose head is saved
            too, `"CAUSAL_LM"` or `"FEATURE_EXTRACTION"`. Defaults to None, for the bare
            model.

    Returns:
        A line to print about the saved adapter.

    Example:
        ```python
        import tempfile

        import keras_hub
        import keras_transfer as kt
        from keras_transfer.saving.peft.save import save_peft

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
        ValueError: If PEFT's format does not support the adapter, a layer of the
            adapter has no counterpart in Hugging Face's model, or the file would lack
            the model's head.

    Reference:
        Hugging Face PEFT, `PeftModel.save_pretrained`.
    """
    recipe = attached(model).get(name)
    if isinstance(recipe, LoRA) and recipe.init != "default":
        raise ValueError(
            f"The adapter {name!r} was attached with init={recipe.init!r}, and its "
            "weights belong to kernels that PEFT's base model does not have. Save it "
            "with format='keras_transfer', or train an adapter with init='default'."
        )
    mapping = mapping_of(model)
    if isinstance(recipe, PromptTuning | PrefixTuning):
        text, tensors = prompt_written(model, name, recipe, task_type)
        return _saved(model, path, name, text, tensors)
    parts = list(places(model, name))
    origin = origins.get(recipe) if recipe is not None else None
    if origin and task_type not in (None, origin.config.get("task_type")):
        origin = None
    if origin:
        mapping = mapping.renamed(origin.dtypes)
    check_tied(model, mapping, parts)
    text, tensors = _written(model, name, mapping, task_type, origin)
    return _saved(model, path, name, text, tensors)


def _saved(
    model: keras.Model,
    path: str | pathlib.Path,
    name: str,
    text: bytes,
    tensors: Mapping[str, np.ndarray],
) -> str:
    """Write the files, and return the line to print."""
    if problem := unmatched(hub_backbone(model)):
        warnings.warn(
            f"Hugging Face's model will compute other outputs than this model: "
            f"{problem}. To avoid this, call kt.backbones.match_huggingface(backbone) "
            "before you attach an adapter.",
            stacklevel=3,
        )
    write(path, text, tensors)
    modes = quantization_modes(hub_backbone(model))
    base = f"; the base here is quantized ({', '.join(modes)})" if modes else ""
    return (
        f"{type(attached(model)[name]).__name__} {name!r} of {model.name!r} saved to "
        f"the PEFT folder {pathlib.Path(path).name!r}: {len(tensors)} tensors"
        f"{base}"
    )


def _written(
    model: keras.Model,
    name: str,
    mapping: HubMapping,
    task_type: str | None,
    origin: Origin | None,
) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return the text of adapter_config.json and the tensors of an adapter."""
    recipe = _recipe(model, name)
    copied = copied_keys(model, recipe, mapping)
    modules = modules_of(model, name, recipe, mapping)
    own = {
        id(variable): mine
        for _, host, part in own_places(model, name)
        for _, variable, mine in part.stands_for(host)
    }
    plain, prefix, wrapped = whole_keys(
        model, recipe, mapping, modules, task_type, origin, own
    )
    plain = sorted({*plain, *copied})
    modules = {k if k in mapping.heads else prefix + k: x for k, x in modules.items()}
    tensors = {
        f"{ROOT}{module}.{end}": array
        for module, part in modules.items()
        for end, array in part.tensors.items()
    }
    for key in plain:
        infix = recipe.peft.infix if key in copied else None
        infix = "base_layer" if key in wrapped else infix
        full = name_of(prefix, mapping, key, infix)
        full = origin.plain[key] if origin else full
        tensors[full] = whole_tensor(mapping, key, own)
    if origin:
        tensors |= {x: tensors[origin.plain[key]] for x, key in origin.ties.items()}
    if isinstance(recipe, VeRA):
        _add_matrices(recipe, modules, tensors)
    numbers = {module: (x.rank, x.alpha) for module, x in modules.items()}
    if origin is None:
        settings = _targets(recipe, mapping, prefix, modules, copied)
        config = new_config(recipe, numbers, settings, task_type)
        heads = list(dict.fromkeys(head.split(".")[0] for head in mapping.heads))
        whole = [
            prefix + key.rpartition(".")[0]
            for key in plain
            if key.rpartition(".")[0] not in mapping.heads
            and id(mapping.shares[key][0].variable) in own
        ]
        config["modules_to_save"] = [*heads, *dict.fromkeys(whole)] or None
        if recipe.peft.transposes:
            config["fan_in_fan_out"] = not all(x.rows_out for x in modules.values())
        return _text(config), tensors
    tensors = {k: v for k, v in tensors.items() if k in origin.dtypes}
    tensors = {k: v.astype(origin.dtypes[k]) for k, v in tensors.items()}
    expressions = Expressions()
    if all(
        rank_and_alpha(origin.config, recipe.peft, module, expressions) == both
        for module, both in numbers.items()
    ):
        return origin.text, tensors
    return _text({**origin.config, **number_settings(recipe.peft, numbers)}), tensors


def _targets(
    recipe: Adapter,
    mapping: HubMapping,
    prefix: str,
    modules: Mapping[str, Module],
    copied: Iterable[str],
) -> dict[str, object]:
    """Return the settings that name the modules of the adapter."""
    copies = dict.fromkeys(prefix + key.rpartition(".")[0] for key in copied)
    names = [*modules, *copies]
    known = [prefix + x for x in mapping.modules()]
    settings = target_settings(names, known, blocks=recipe.peft.blocks)
    if isinstance(recipe, IA3):
        of_inputs = [each for each, part in modules.items() if part.of_inputs]
        settings |= feedforward_settings(settings, names, of_inputs)
    return settings


def _add_matrices(
    recipe: VeRA, modules: Mapping[str, Module], tensors: dict[str, np.ndarray]
) -> None:
    """Add the matrices of a VeRA to `tensors`, and scale its vectors for them."""
    parts = {module: part.part for module, part in modules.items()}
    matrices, factors = written(recipe, parts)
    for module, factor in factors.items():
        tensors[f"{ROOT}{module}.vera_lambda_d"] *= factor
    tensors |= matrices


def _text(config: Mapping[str, object]) -> bytes:
    return json.dumps(config, indent=2, sort_keys=True).encode()


def _recipe(model: keras.Model, name: str) -> Adapter:
    recipe = attached(model).get(name)
    if recipe is None or recipe.peft is None:
        kinds = [kind.__name__ for kind in techniques_of_peft()]
        raise ValueError(
            f"The adapter {name!r} is {recipe!r}. PEFT's format is supported for "
            f"{', '.join(kinds)}, PrefixTuning and PromptTuning. The "
            f"adapters of the model are {list(attached(model))}."
        )
    return recipe
