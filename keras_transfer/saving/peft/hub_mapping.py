"""Map Keras weights to Hugging Face tensors with keras-hub's own converters.

Only this file uses private code of keras-hub. A test covers each use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer.adapters import matrix
from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.layer_paths import weights_of

# Name of the bare model inside a model with a head, if the converter leaves it out.
PREFIXES = {"bert": "bert", "gpt2": "transformer"}
# Names of the weights that a low-rank pair can be added to.
MATRICES = ("kernel", "embeddings")
MATRIX_LAYERS = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding)
# Modules of Hugging Face's ...ForSequenceClassification for the Dense layers of a
# keras-hub text classifier, in order. keras-hub has no converter for these modules.
HEADS = {
    "albert": ("classifier",),
    "bert": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
}


@dataclasses.dataclass(frozen=True)
class Share:
    """A Keras weight that keras-hub makes from a Hugging Face tensor or its slice."""

    layer: keras.Layer
    variable: keras.Variable
    hook: Callable | None = None

    def read(self, tensor: np.ndarray, *, any_width: bool = False) -> np.ndarray:
        """Return keras-hub's weight of `tensor`, in any shape if `any_width` is set."""
        shape = list(self.variable.shape)
        found = np.asarray(self.hook(tensor, shape) if self.hook else tensor)
        if list(found.shape) != shape and not any_width:
            raise ValueError(f"{tensor.shape} becomes {found.shape}, not {shape}.")
        return found


@dataclasses.dataclass(frozen=True)
class Factors:
    """Where the pair of one Keras layer is in the A and B of a Hugging Face module.

    `A_keras = A.T[inputs]` and `B_keras = B.T[:, outputs]`. `rows_out` says whether
    the module's weight has a row for each output, as in a Linear.
    """

    layer: keras.Layer
    inputs: np.ndarray
    outputs: np.ndarray
    rows_out: bool


@dataclasses.dataclass(frozen=True)
class HubMapping:
    """The tensors of a Hugging Face model, by their names in the bare model.

    `family` is the model type, `prefix` the name of the bare model inside a model with
    a head, `shares` the Keras weights by tensor, and `heads` the modules of the head.
    """

    family: str
    prefix: str
    shares: Mapping[str, list[Share]]
    heads: tuple[str, ...] = ()

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor, which is a matrix for pairs, or a vector."""
        shares = self.shares[key]
        if shares[0].variable.name not in MATRICES:
            return (sum(int(np.prod(each.variable.shape)) for each in shares),)
        factors = self.factors(key.removesuffix(".weight"))
        sizes = sizes_of(factors)
        axes = ("outputs", "inputs") if factors[0].rows_out else ("inputs", "outputs")
        return sizes[axes[0]], sizes[axes[1]]

    def module_of(self) -> dict[int, str]:
        """Return the Hugging Face module of each Keras layer with a matrix, by id."""
        return {
            id(share.layer): key.removesuffix(".weight")
            for key, shares in self.shares.items()
            for share in shares
            if key.endswith(".weight") and share.variable.name in MATRICES
        }

    def modules(self) -> list[str]:
        """Return all Hugging Face modules that have weights, in order."""
        return list(dict.fromkeys(key.rpartition(".")[0] for key in self.shares))

    def factors(self, module: str) -> list[Factors]:
        """Return where the pairs of a module's Keras layers are in its A and B.

        The converter gets the row or column number of each entry instead of the
        values. So its result says which entry becomes each entry of a Keras kernel.
        """
        shares = self.shares[f"{module}.weight"]
        for share in shares:
            named = share.variable.name in MATRICES
            if not named or not isinstance(share.layer, MATRIX_LAYERS):
                raise ValueError(
                    f"The module {module!r} is the weight {share.variable.name!r} of "
                    f"the {type(share.layer).__name__} {share.layer.name!r} in Keras, "
                    "which cannot have a low-rank pair. Leave it out of the targets."
                )
        frames = [_frame(share) for share in shares]
        size_in = frames[0].size_in
        size_out = sum(frame.size_out for frame in frames)
        # A Linear has a row for each output. A Conv1D of GPT-2 and an embedding have a
        # row for each input. For a square matrix only one of the two gives a pair.
        for rows_out in (True, False):
            shape = (size_out, size_in) if rows_out else (size_in, size_out)
            rows, columns = np.indices(shape)
            into, out = (columns, rows) if rows_out else (rows, columns)
            found = [
                _aligned(share, frame, into, out, rows_out)
                for share, frame in zip(shares, frames, strict=True)
            ]
            if all(each is not None for each in found):
                return found
        raise ValueError(
            f"keras-hub mixes the inputs and outputs of {module!r} when it makes the "
            f"weights of {[x.layer.name for x in shares]}, so a low-rank pair cannot "
            "be converted. Leave this module out of the targets."
        )


def sizes_of(factors: list[Factors]) -> dict[str, int]:
    """Return the numbers of inputs and outputs of a module."""
    size_out = sum(len(each.outputs) for each in factors)
    return {"inputs": len(factors[0].inputs), "outputs": size_out}


def mapping_of(model: keras.Model) -> HubMapping:
    """Return the mapping of a model that is or contains a keras-hub backbone."""
    import keras_hub

    backbone = hub_backbone(model)
    mapping = read_mapping(backbone)
    if isinstance(model, keras_hub.models.TextClassifier):
        mapping = with_head(mapping, model, backbone)
    return mapping


def read_mapping(backbone: keras.Model) -> HubMapping:
    """Return the mapping of a keras-hub backbone.

    Raises:
        ValueError: If keras-hub has no converter, or none that gives a mapping.
    """
    converter = _converter(backbone)
    family = converter.__name__.rsplit(".convert_", 1)[1]
    recorder = _Recorder()
    try:
        converter.convert_weights(backbone, recorder, _Config(backbone))
    except (AttributeError, KeyError) as problem:
        raise ValueError(
            f"keras-hub's converter for {family!r} does more than name the tensor of "
            f"each weight ({problem}), so the mapping cannot be derived from it."
        ) from problem
    owners = {
        id(variable): layer
        for layer in located(backbone).values()
        for variable in weights_of(layer).values()
    }
    keys = [key for _, key, _ in recorder.found]
    prefix = PREFIXES.get(family) or _common(keys)
    shares: dict[str, list[Share]] = {}
    for variable, key, hook in recorder.found:
        if id(variable) in owners:
            bare = key.removeprefix(f"{prefix}.")
            share = Share(owners[id(variable)], variable, hook)
            shares.setdefault(bare, []).append(share)
    return HubMapping(family, prefix, shares)


def with_head(
    mapping: HubMapping, model: keras.Model, backbone: keras.Model
) -> HubMapping:
    """Return `mapping` with the head of a keras-hub text classifier."""
    below = {id(each) for each in located(backbone).values()}
    dense = [
        layer
        for layer in located(model).values()
        if isinstance(layer, keras.layers.Dense) and id(layer) not in below
    ]
    names = HEADS.get(mapping.family, ())
    if len(names) != len(dense):
        raise ValueError(
            f"The head of {model.name!r} has the layers {[x.name for x in dense]}, but "
            f"Hugging Face's has {list(names)} for {mapping.family!r}. Pass the "
            "backbone instead."
        )
    shares = dict(mapping.shares)
    for name, layer in zip(names, dense, strict=True):
        own = weights_of(layer)
        shares[f"{name}.weight"] = [Share(layer, own["kernel"], _transposed)]
        if "bias" in own:
            shares[f"{name}.bias"] = [Share(layer, own["bias"])]
    return dataclasses.replace(mapping, shares=shares, heads=names)


def hub_backbone(model: keras.Model) -> keras.Model:
    """Return the one keras-hub backbone that `model` is or contains.

    Raises:
        ValueError: If the model does not contain exactly one keras-hub backbone.
    """
    import keras_hub

    layers = located(model).values()
    found = [each for each in layers if isinstance(each, keras_hub.models.Backbone)]
    if len(found) != 1:
        raise ValueError(
            f"The model {model.name!r} contains {len(found)} keras-hub backbones. "
            "PEFT's format is supported for models with exactly one, such as a "
            "keras_hub.models.BertBackbone or a task with it."
        )
    return found[0]


class _Recorder:
    """Replaces keras-hub's loader of weights, and records what it would load."""

    def __init__(self) -> None:
        self.found: list[tuple[keras.Variable, str, Callable | None]] = []

    def port_weight(
        self,
        keras_variable: keras.Variable,
        hf_weight_key: str,
        hook_fn: Callable | None = None,
    ) -> None:
        self.found.append((keras_variable, hf_weight_key, hook_fn))

    def get_tensor(self, hf_weight_key: str) -> np.ndarray:
        raise KeyError(f"it reads the values of {hf_weight_key}")


class _Config:
    """Replaces config.json: has the few sizes that converters of weights read."""

    names = {"n_embd": "hidden_dim", "hidden_size": "hidden_dim"}

    def __init__(self, backbone: keras.Model) -> None:
        self.backbone = backbone

    def __getitem__(self, key: str) -> object:
        if key not in self.names:
            raise KeyError(f"it reads {key} of config.json")
        return getattr(self.backbone, self.names[key])


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The row and column of each entry of a kernel in its matrix of two axes."""

    size_in: int
    size_out: int
    at_in: np.ndarray
    at_out: np.ndarray


def _frame(share: Share) -> _Frame:
    layer, shape = share.layer, tuple(share.variable.shape)
    if isinstance(layer, keras.layers.Embedding):
        return _Frame(*shape, *np.indices(shape))
    sizes = matrix.sizes(layer)
    at_in, at_out = (matrix.as_kernel(layer, at) for at in np.indices(sizes))
    return _Frame(*sizes, at_in, at_out)


def _aligned(
    share: Share, frame: _Frame, into: np.ndarray, out: np.ndarray, rows_out: bool
) -> Factors | None:
    try:
        into, out = share.read(into), share.read(out)
    except ValueError:  # this orientation has the wrong shape
        return None
    inputs = _table(frame.at_in, into, frame.size_in)
    outputs = _table(frame.at_out, out, frame.size_out)
    fits = inputs is not None and outputs is not None
    return Factors(share.layer, inputs, outputs, rows_out) if fits else None


def _table(at: np.ndarray, values: np.ndarray, size: int) -> np.ndarray | None:
    """Return t so that t[at] == values, or None if no such table exists."""
    table = np.full(size, -1)
    table[at.ravel()] = values.ravel()
    return table if np.array_equal(table[at], values) else None


def _transposed(tensor: np.ndarray, shape: list[int]) -> np.ndarray:
    return np.transpose(tensor)


def _common(keys: list[str]) -> str:
    """Return the first part of the tensors' names if all tensors share it, else ""."""
    names = {key.split(".")[0] for key in keys if not key.startswith("lm_head")}
    return names.pop() if len(names) == 1 else ""


def _converter(backbone: keras.Model) -> object:
    from keras_hub.src.utils.transformers import preset_loader

    modules = [m for name, m in vars(preset_loader).items() if "convert_" in name]
    known = {m.backbone_cls: m for m in modules if hasattr(m, "backbone_cls")}
    for kind in type(backbone).__mro__:
        if kind in known:
            return known[kind]
    raise ValueError(
        f"keras-hub has no converter from Hugging Face's format for a "
        f"{type(backbone).__name__}, so the module of each layer is unknown."
    )
