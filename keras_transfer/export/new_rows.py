"""new_rows: the stacks of an export with the weights of one more adapter file."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from keras_transfer.adapters.adapter_part import check_overrides
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.targets import Target
from keras_transfer.backbones.layer_paths import joined
from keras_transfer.export.growing import appended
from keras_transfer.export.manifest import Manifest
from keras_transfer.export.manifest import OwnPlace
from keras_transfer.export.manifest import PairPlace
from keras_transfer.saving.adapter_header import Header
from keras_transfer.saving.base_model import Fingerprint
from keras_transfer.saving.tensor_file import TensorFile

AGAIN = "Export the model again, with this adapter among the adapters."


def new_rows(
    manifest: Manifest,
    before: Mapping[str, np.ndarray],
    file: TensorFile,
    header: Header,
    export: pathlib.Path,
) -> dict[str, np.ndarray]:
    """Return the values of all variables of the adapters, with one more adapter.

    Args:
        manifest: The manifest of the export.
        before: The values in the export, by name.
        file: The adapter file.
        header: The header of the file.
        export: Folder of the export, for errors.

    Raises:
        ValueError: If the adapter does not fit the export.
    """
    # Weights that no signature reads are not in the export.
    pairs = [each for each in manifest.pairs if f"{each.prefix}a" in before]
    own = [each for each in manifest.own if set(each.weights.values()) <= set(before)]
    there = {each.place: each for each in pairs}
    parts = _parts(there, file, header)
    of_pairs = {
        joined(place, weight)
        for place, part in parts.items()
        for weight in part.weight_specs(there[place].layer())
    }
    owned = [each for each in own if set(each.weights) & set(file.specs)]
    of_layers = {key for each in owned for key in each.weights}
    _check_base(header.base, manifest.base, export, values=False)
    _check_places(set(file.specs) - of_pairs - of_layers, file, header, export)
    _check_base(header.base, manifest.base, export, values=True)
    if not parts:
        raise ValueError(f"{str(file.path)!r} has no pairs of an adapter.")
    after = dict(before)
    for place in pairs:
        part = parts.get(place.place)
        factors = None if part is None else _factors(part, place, file)
        tied = part is not None and getattr(part, "tied", False)
        _append_pair(after, place.prefix, factors, tied=tied)
    for each in own:
        _append_layer(after, each, file if each in owned else None, export)
    return after


def _parts(
    there: Mapping[str, PairPlace], file: TensorFile, header: Header
) -> dict[str, Part]:
    """Return the part of the adapter at each layer of the export, without weights."""
    places = {key.rpartition("/")[0] for key in file.specs} & set(there)
    hosts = {place: Target(there[place].layer(), place) for place in sorted(places)}
    adapter = header.adapter({place: place for place in hosts})
    kind = type(adapter).__name__
    found = {}
    for place, target in hosts.items():
        try:
            part = header.changed(adapter.part(target), place)
            check_overrides(part, "low_rank_factors")
            if type(part).low_rank_factors is Part.low_rank_factors:
                part.low_rank_factors()  # raises an error that says why
        except ValueError as problem:
            raise ValueError(
                f"The {kind} {header.name!r} of {str(file.path)!r} cannot be stacked "
                f"with other adapters at {place!r}: {problem} Only low-rank pairs, "
                "such as the pairs of LoRA and LoHa, can be chosen by example. Load "
                "the adapter into the model and export it without adapters=."
            ) from problem
        found[place] = part
    return found


def _check_places(
    left: set[str], file: TensorFile, header: Header, export: pathlib.Path
) -> None:
    """Check that the graph of the export has a place for each tensor of the file."""
    if not left:
        return
    kind = header.technique.__name__
    shown = sorted(left)[:5]
    raise ValueError(
        f"The {kind} {header.name!r} of {str(file.path)!r} has {len(left)} weights for "
        f"which the graph of {str(export)!r} has no place, such as {shown}. A graph "
        "has a place for low-rank pairs on the layers where an exported adapter has "
        "pairs, and for the own heads and layers that an exported adapter has. It has "
        f"none for changed weights of the model itself, such as biases. {AGAIN} "
        "Without its head, save it with kt.save_adapter(..., head=False)."
    )


def _check_base(
    found: Fingerprint, wanted: Fingerprint, export: pathlib.Path, *, values: bool
) -> None:
    """Check that the adapter was trained on the exported base model."""
    if found.architecture != wanted.architecture:
        raise ValueError(
            f"The adapter was trained on another network: a {found.name} with "
            f"{found.parameters:,} parameters. The base of {str(export)!r} is a "
            f"{wanted.name} with {wanted.parameters:,} parameters, and its layers or "
            "settings differ. Add the adapter to an export of its own base."
        )
    if values and found.weights != wanted.weights:
        raise ValueError(
            f"The adapter was trained on other weights than the base of "
            f"{str(export)!r}, although the layers are the same: another pretrained "
            "model, or the same one after training, a cast, quantizing or merging. "
            "Add the adapter to an export of its own base."
        )


def _factors(
    part: Part, place: PairPlace, file: TensorFile
) -> tuple[np.ndarray, np.ndarray]:
    """Return A and B of the pair in a file, with its scaling."""
    host = place.layer()
    specs = part.weight_specs(host)
    names = {weight: joined(place.place, weight) for weight in specs}
    for weight, (shape, _) in specs.items():
        file.expect(names[weight], shape, "float32")
    values = file.read(names.values())
    part.create(host)
    for weight, key in names.items():
        part.named_weights[weight].assign(values[key])
    return part.low_rank_factors()


def _append_pair(
    after: dict[str, np.ndarray],
    prefix: str,
    factors: tuple[np.ndarray, np.ndarray] | None,
    *,
    tied: bool,
) -> None:
    """Append the pair of an adapter at one layer, or None."""
    a, b = f"{prefix}a", f"{prefix}b"
    row = len(after[a])
    for name, has in ((f"{prefix}rows", True), (f"{prefix}tied_rows", tied)):
        # A graph that does not compute logits does not read the rows of tied pairs.
        if name in after:
            new = row if has and factors is not None else -1
            after[name] = np.append(after[name], new)
    if factors is not None:
        after[a] = appended(after[a], factors[0], -1)
        after[b] = appended(after[b], factors[1], 0)


def _append_layer(
    after: dict[str, np.ndarray],
    place: OwnPlace,
    file: TensorFile | None,
    export: pathlib.Path,
) -> None:
    """Append the adapter's own copy of a layer, or none for a file without it."""
    rows, sizes = f"{place.prefix}rows", f"{place.prefix}sizes"
    count = len(after[next(iter(place.weights.values()))])
    after[rows] = np.append(after[rows], -1 if file is None else count)
    if file is None:
        return
    units = place.units
    for key, name in place.weights.items():
        stack = after[name]
        shape = stack.shape[1:]
        if units is not None and key in file.specs and file.specs[key].shape:
            units = file.specs[key].shape[-1]
            if units > place.widest:
                raise ValueError(
                    f"The head in {str(file.path)!r} has {units} classes, but the "
                    f"graph of {str(export)!r} has outputs for {place.widest}, the "
                    f"most classes of an exported adapter. {AGAIN}"
                )
            shape = (*shape[:-1], units)
        file.expect(key, shape, str(stack.dtype))
        after[name] = appended(stack, file.read([key])[key], -1)
    if sizes in after:
        after[sizes] = np.append(after[sizes], units)
