"""Manifest: which variables of an export belong to which weights of an adapter file."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_transfer.adapters.matrix import kernel_shape
from keras_transfer.export.stacked_pairs import SUMS
from keras_transfer.saving.base_model import Fingerprint
from keras_transfer.saving.strict_json import parse_json

FILE = pathlib.Path("assets.extra", "keras_transfer_adapters.json")
FORMAT = 1
NAMES, LABELS = "names", "labels"  # variables of the names and of the class names
# The arguments that determine the shapes of a pair, and their attributes.
ARGUMENTS = {
    keras.layers.Dense: {"units": "units"},
    keras.layers.EinsumDense: {
        "equation": "equation",
        "output_shape": "partial_output_shape",
    },
    keras.layers.Conv2D: {
        "filters": "filters",
        "kernel_size": "kernel_size",
        "data_format": "data_format",
    },
    keras.layers.Embedding: {"input_dim": "input_dim", "output_dim": "output_dim"},
}


@dataclasses.dataclass(frozen=True)
class PairPlace:
    """A layer with stacked pairs.

    Args:
        place: Path of the layer in adapter files.
        prefix: Beginning of the names of its variables.
        host: Class, arguments, kernel and input channels of a layer of the same sizes.
    """

    place: str
    prefix: str
    host: Mapping[str, object]

    def layer(self) -> keras.Layer:
        """Return a layer with the sizes of the exported layer, without weights."""
        kinds = {kind.__name__: kind for kind in ARGUMENTS}
        layer = kinds[self.host["kind"]](**self.host["arguments"])
        # A pair needs only the sizes. Building would draw a kernel of full size.
        axes = {int(axis): size for axis, size in self.host["axes"].items()}
        layer.input_spec = keras.InputSpec(ndim=self.host["ndim"], axes=axes)
        if self.host["kernel"]:
            layer.original_kernel_shape = tuple(self.host["kernel"])
        return layer


@dataclasses.dataclass(frozen=True)
class OwnPlace:
    """A layer of which adapters have their own copy.

    Args:
        weights: Dict of a weight's name in adapter files to its variable.
        prefix: Beginning of the names of its other variables.
        units: Number of outputs of the model's own layer, or None for a layer that has
            the same number in all adapters.
        widest: Number of outputs of the graph, or None.
    """

    weights: Mapping[str, str]
    prefix: str
    units: int | None
    widest: int | None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `add_adapter` needs to know about an export.

    Args:
        base: Fingerprint of the base model.
        pairs: The layers with stacked pairs.
        own: The layers of which adapters have their own copy.
    """

    base: Fingerprint
    pairs: Sequence[PairPlace]
    own: Sequence[OwnPlace]

    def write(self, folder: pathlib.Path) -> None:
        """Write the manifest into the folder of a SavedModel."""
        path = folder / FILE
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT} | dataclasses.asdict(self)))


def read_manifest(folder: pathlib.Path) -> Manifest:
    """Return the manifest in the folder of a SavedModel.

    Raises:
        ValueError: If the folder has none, or it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(
            f"{str(folder)!r} has no {FILE.name}, so it is not an export with "
            "adapters of this version of keras_transfer. Export the model again with "
            "kt.export_serving(..., adapters=[...])."
        )
    try:
        said = parse_json(path.read_bytes())
        if said.pop("format") != FORMAT:
            raise ValueError("its format is that of another version.")
        return Manifest(
            Fingerprint(**said["base"]),
            [PairPlace(**each) for each in said["pairs"]],
            [OwnPlace(**each) for each in said["own"]],
        )
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise ValueError(f"{str(path)!r} cannot be used: {problem}") from problem


def host_config(host: keras.Layer) -> dict[str, object]:
    """Return what determines the shapes of the pair of a layer, as plain values."""
    kind = next(each for each in type(host).__mro__ if each in SUMS)
    axes = getattr(host.input_spec, "axes", None) or {}
    ndim = getattr(host.input_spec, "ndim", None)
    einsum = kind is keras.layers.EinsumDense
    return {
        "kind": kind.__name__,
        "arguments": {
            name: getattr(host, attribute)
            for name, attribute in ARGUMENTS[kind].items()
        },
        "axes": {str(axis): size for axis, size in axes.items()},
        "ndim": ndim,
        "kernel": list(kernel_shape(host)) if einsum else [],
    }
