"""Merge adapters into plain Keras layers, undo the merge, or remove the adapters."""

from __future__ import annotations

import dataclasses
import hashlib
import weakref
from collections.abc import Iterable
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import check_overrides
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.in_place import adapted_layer
from keras_transfer.adapters.in_place.compiled_model import renew_optimizers
from keras_transfer.adapters.in_place.compiled_model import retrace
from keras_transfer.adapters.in_place.forward import Hooked
from keras_transfer.adapters.in_place.layer_state import check_no_penalties
from keras_transfer.adapters.in_place.layer_state import first_state
from keras_transfer.adapters.in_place.layer_state import LayerState
from keras_transfer.adapters.in_place.layer_state import recipes_of
from keras_transfer.adapters.own_layer import weights_below
from keras_transfer.adapters.unserved import readers
from keras_transfer.backbones.layer_paths import weights_of
from keras_transfer.quantization.in_place import make_float
from keras_transfer.quantization.packed_layers import PackedLayer


@dataclasses.dataclass(frozen=True)
class Kept:
    """The state of a layer before the merge, and a digest of its weights after it."""

    state: LayerState
    values: dict[str, np.ndarray]
    optimizer: keras.Optimizer | None
    digest: str = ""


# Kept in this process only, and only until the layer is deleted.
_kept: weakref.WeakKeyDictionary[keras.Layer, Kept] = weakref.WeakKeyDictionary()


def merge(
    model: keras.Layer, *, dequantize: bool = False, verbose: int = 1
) -> keras.Layer:
    """Merge the adapters in use into the weights, and restore plain Keras layers.

    `W + scaling A B` replaces W, and the adapter's own head replaces the model's head.
    Each layer and model has its original class again. Inference costs the same as
    before attaching, and a `.keras` file loads without keras_transfer. The trainable
    flags are the same as before attaching, and a compiled model gets a new optimizer.
    This process keeps the adapters and the original weights outside the model, for
    `unmerge`.

    A model that `kt.quantize` has packed in NF4 returns to float kernels with
    `dequantize=True`. These are the decoded kernels, and not the pretrained ones: the
    error of NF4 stays in them, and it is the error with which the adapter was trained.
    So the outputs stay the same up to float rounding, but the model needs 4 bytes a
    weight again. Such a merge cannot be undone.

    Args:
        model: A model with adapters. Pass the outermost model.
        dequantize: Whether to decode all kernels in NF4. Defaults to False, which
            refuses to merge into a quantized kernel.
        verbose: 1 prints a line about decoded kernels, and 0 prints nothing. Defaults
            to 1.

    Returns:
        The model.

    Raises:
        ValueError: If the model has no adapters, an adapter cannot be merged, such as
            a head with another number of classes than the model's head, a kernel is
            quantized, or `dequantize` is True and no kernel is in NF4. In these cases
            the model does not change.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
        kt.adapters.merge(model)
        assert type(model) is keras.Sequential
        ```

    Reference:
        E. Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
        arXiv:2106.09685, section 4.1; PEFT, `PeftModel.merge_and_unload`.
    """
    check_any(model)
    packed = [x for x in _keras.flat_layers(model) if isinstance(x, PackedLayer)]
    if dequantize and not packed:
        raise ValueError(
            f"The model {model.name!r} has no kernels in NF4, so dequantize=True does "
            "nothing. Leave it out."
        )
    active = {
        layer: [part for part in parts_of(layer) if gate_value(part)]
        for layer in _keras.flat_layers(model)
    }
    folded = {
        layer: _fold(layer, parts, dequantize=dequantize)
        for layer, parts in active.items()
        if parts
    }
    _check_readers(model, [x for x in folded if not any(p.in_reads for p in active[x])])
    if dequantize:
        adapted_layer.restore(model)
        make_float(model)
        _assign(folded)
        renew_optimizers(model)
        if verbose:
            print(
                f"The adapters are merged into {len(packed)} decoded kernels of "
                f"{model.name!r}. The rounding error of NF4 stays in these kernels."
            )
        return model
    kept = {
        layer: _keep(layer, folded.get(layer, {}))
        for layer in _keras.flat_layers(model)
        if isinstance(layer, adapted_layer.Adapted | Hooked) or first_state(layer)
    }
    _assign(folded)
    adapted_layer.restore(model)
    renew_optimizers(model)
    for layer, each in kept.items():
        _kept[layer] = dataclasses.replace(each, digest=_digest(layer))
    return model


def unmerge(model: keras.Layer) -> keras.Layer:
    """Undo `merge`: restore the exact weights, the adapters, and the classes.

    Args:
        model: A model that was merged in this process.

    Returns:
        The model.

    Raises:
        ValueError: If the model was not merged, or its weights changed since the merge.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
        kt.adapters.merge(model)
        kt.adapters.unmerge(model)
        assert list(kt.adapters.attached(model)) == ["default"]
        ```

    Reference:
        PEFT, `PeftModel.unmerge_adapter`.
    """
    layers = [each for each in _keras.flat_layers(model) if each in _kept]
    if not layers:
        raise ValueError(
            f"Nothing was merged into the model {model.name!r} in this process. A "
            "merged model that was saved and reloaded contains only the sums. Attach "
            "the adapter to the base model instead."
        )
    new = list(recipes_of(model))
    if new:
        raise ValueError(
            f"The model {model.name!r} has new adapters {new}. Detach them before "
            "unmerge."
        )
    changed = [each.name for each in layers if _digest(each) != _kept[each].digest]
    if changed:
        raise ValueError(
            f"The weights of the layers {changed[:5]} have changed since the merge, by "
            "training or loading. unmerge would undo these changes. Load the base "
            "model and attach the adapter to it instead."
        )
    for layer in layers:
        kept = _kept.pop(layer)
        own = weights_below(layer)
        for name, value in kept.values.items():
            own[name].assign(value)
        kept.state.give_back()
        if kept.optimizer is not None:
            _keras.replace_optimizer(layer, _keras.inner_optimizer(kept.optimizer))
    retrace(model)
    return model


def detach(model: keras.Layer) -> keras.Layer:
    """Remove all adapters without merging them, and restore the original model.

    This also removes the adapters' own heads and other own layers.

    Args:
        model: A model with adapters. Pass the outermost model.

    Returns:
        The model.

    Raises:
        ValueError: If the model has no adapters.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
        kt.adapters.detach(model)
        assert type(model.layers[0]) is keras.layers.Dense
        ```

    Reference:
        PEFT, `PeftModel.unload`.
    """
    check_any(model)
    adapted_layer.restore(model)
    renew_optimizers(model)
    return model


def check_any(model: keras.Layer) -> None:
    """Check that `model` contains adapters.

    Raises:
        ValueError: If the model has no adapters.
    """
    if not recipes_of(model) and not any(True for _ in all_parts(model)):
        raise ValueError(
            f"The model {model.name!r} contains no adapters. Attach one, or pass the "
            "model that contains them."
        )
    check_no_penalties(model)


def _fold(
    layer: keras.Layer, active: list[Part], *, dequantize: bool = False
) -> dict[str, np.ndarray]:
    in_nf4 = isinstance(layer, PackedLayer)
    if layer.quantization_mode is not None and not (dequantize and in_nf4):
        how = ", or pass dequantize=True to get float kernels" if in_nf4 else ""
        raise ValueError(
            f"The layer {layer.name!r} is quantized ({layer.quantization_mode}). Its "
            "weight has few bits, so rounding would lose the trained update. Keep the "
            f"adapter{how}."
        )
    own = weights_below(layer)
    values = {name: _keras.value(v) for name, v in own.items()}
    if in_nf4:
        packed = {id(variable) for variable in layer.packed_variables().values()}
        values = {k: x for k, x in values.items() if id(own[k]) not in packed}
        values[layer.packed_weight] = layer.unpacked()
    before = {
        name: value if value.dtype == "float64" else value.astype("float32")
        for name, value in values.items()
    }
    after = dict(before)
    for part in active:
        check_overrides(part, "fold")
        part.fold(layer, after)
    return {name: after[name] for name in after if after[name] is not before[name]}


def _assign(folded: Mapping[keras.Layer, Mapping[str, np.ndarray]]) -> None:
    for layer, values in folded.items():
        own = weights_below(layer)
        for name, value in values.items():
            own[name].assign(value)


def _check_readers(model: keras.Layer, folded: Iterable[keras.Layer]) -> None:
    for layer, reader in readers(model, folded).items():
        raise ValueError(
            f"The adapter of {layer.name!r} cannot be merged: the {reader} also reads "
            "its weights, without the adapter. Merging would change these weights. "
            "Keep the adapter."
        )


def _keep(layer: keras.Layer, folded: dict[str, np.ndarray]) -> Kept:
    own = weights_below(layer)
    return Kept(
        state=LayerState.of(layer),
        values={name: _keras.value(own[name]).copy() for name in folded},
        optimizer=getattr(layer, "optimizer", None),
    )


def _digest(layer: keras.Layer) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for variable in weights_of(layer).values():
        digest.update(_keras.value(variable).tobytes())
    return digest.hexdigest()
