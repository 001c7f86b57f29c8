"""Map Keras weights to Hugging Face tensors with keras-hub's own converters.

Only this file uses private code of keras-hub. A test covers each use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer.backbones.layer_paths import located
from keras_transfer.backbones.layer_paths import weights_of
from keras_transfer.quantization.packed_layers import FloatWeight
from keras_transfer.quantization.packed_layers import places_of_weights
from keras_transfer.saving.peft import t5_names
from keras_transfer.saving.peft.factors import aligned
from keras_transfer.saving.peft.factors import Factors
from keras_transfer.saving.peft.factors import MATRICES
from keras_transfer.saving.peft.factors import Share
from keras_transfer.saving.peft.factors import sizes_of

# Name of the bare model inside a model with a head, if the converter leaves it out.
PREFIXES = {
    "bert": "bert",
    "gpt2": "transformer",
    "qwen3": "model",
    "xlm_roberta": "roberta",
}
# Families with a head for images, for which PEFT has no task.
IMAGES = ("vit",)
# Backbones that have the weights of another backbone, whose converter fits.
SAME_WEIGHTS = {"LlamaBackbone": "Llama3Backbone"}
# Names in transformers 5 of modules with other names in its files.
RENAMED = {
    "vit": (
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    )
}
# Modules of Hugging Face's ...ForSequenceClassification for the Dense layers of a
# keras-hub text classifier, in order. keras-hub has no converter for these modules.
HEADS = {
    "albert": ("classifier",),
    "bert": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "vit": ("classifier",),
    "xlm_roberta": ("classifier.dense", "classifier.out_proj"),
}


POSITIONS = "position_embeddings.weight"
TOKEN_TYPES = "token_type_embeddings.weight"


@dataclasses.dataclass(frozen=True)
class HubMapping:
    """The tensors of a Hugging Face model, by their names in the bare model.

    `family` is the model type, `prefix` the name of the bare model inside a model with
    a head, if any, `shares` the Keras weights by tensor, and `heads` the modules of the
    head. Modules have their names in transformers 5.
    """

    family: str
    prefix: str
    shares: Mapping[str, list[Share]]
    heads: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """The prefix with a dot, or an empty string without a prefix."""
        return f"{self.prefix}." if self.prefix else ""

    def renamed(self, names: Iterable[str]) -> HubMapping:
        """Return this mapping with the names of transformers 4, if `names` has them."""
        pairs = RENAMED.get(self.family, ())
        if not any(old in name for name in names for old, _ in pairs[:1]):
            return self
        shares = {_replaced(k, pairs, back=True): x for k, x in self.shares.items()}
        return dataclasses.replace(self, shares=shares)

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor, which is a matrix for pairs, or a vector."""
        shares = self.shares[key]
        if shares[0].variable.name not in MATRICES:
            return (sum(int(np.prod(each.variable.shape)) for each in shares),)
        factors = self.factors(key.removesuffix(".weight"))
        sizes = sizes_of(factors)
        axes = ("outputs", "inputs") if factors[0].rows_out else ("inputs", "outputs")
        return sizes[axes[0]], sizes[axes[1]]

    def is_embedding(self, key: str) -> bool:
        """Return whether a tensor has a vector for each word."""
        shares = self.shares.get(key, ())
        return any(isinstance(each.layer, keras.layers.Embedding) for each in shares)

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
        return aligned(module, self.shares[f"{module}.weight"])


def mapping_of(model: keras.Model) -> HubMapping:
    """Return the mapping of a model that is or contains a keras-hub backbone."""
    import keras_hub

    backbone = hub_backbone(model)
    mapping = read_mapping(backbone)
    kinds = keras_hub.models.TextClassifier, keras_hub.models.ImageClassifier
    if isinstance(model, kinds):
        mapping = with_head(mapping, model, backbone)
    return mapping


def read_mapping(backbone: keras.Model) -> HubMapping:
    """Return the mapping of a keras-hub backbone.

    Raises:
        ValueError: If keras-hub has no converter, or none that gives a mapping.
    """
    converter = _converter(backbone)
    family = converter.__name__.rsplit(".", 1)[1]
    family = family.removeprefix("convert_").removesuffix("_names")
    recorder = _Recorder()
    try:
        with places_of_weights():
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
        if isinstance(variable, FloatWeight):
            owners[id(variable)] = variable.layer
        if id(variable) in owners and not (recorder.added and key.endswith(POSITIONS)):
            bare = key.removeprefix(f"{prefix}.")
            bare = _replaced(bare, RENAMED.get(family, ()))
            share = Share(owners[id(variable)], variable, hook)
            shares.setdefault(bare, []).append(share)
    return HubMapping(family, prefix, shares)


def with_head(
    mapping: HubMapping, model: keras.Model, backbone: keras.Model
) -> HubMapping:
    """Return `mapping` with the head of a keras-hub classifier."""
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


def quantization_modes(backbone: keras.Model) -> list[str]:
    """Return the quantization modes of the layers of a backbone."""
    layers = located(backbone).values()
    modes = {getattr(each, "quantization_mode", None) for each in layers}
    return sorted(modes - {None})


class _Recorder:
    """Replaces keras-hub's loader of weights, and records what it would load."""

    def __init__(self) -> None:
        self.found: list[tuple[keras.Variable, str, Callable | None]] = []
        self.added = False  # whether other weights are added to those of the positions

    def port_weight(
        self,
        keras_variable: keras.Variable,
        hf_weight_key: str,
        hook_fn: Callable | None = None,
    ) -> None:
        self.found.append((keras_variable, hf_weight_key, hook_fn))

    def get_tensor(self, hf_weight_key: str) -> np.ndarray:
        if hf_weight_key.endswith(TOKEN_TYPES):
            self.added = True
            return np.zeros((1, 1), "float32")  # XLM-R adds a row to its positions
        raise KeyError(f"it reads the values of {hf_weight_key}")


class _Config:
    """Replaces config.json: has the few sizes that converters of weights read."""

    names = {"n_embd": "hidden_dim", "hidden_size": "hidden_dim"}

    @property
    def model_type(self) -> str:
        """The version of Gemma, the only family for which a converter asks."""
        return "gemma2" if self.backbone.use_post_ffw_norm else "gemma"

    def __init__(self, backbone: keras.Model) -> None:
        self.backbone = backbone

    def __getitem__(self, key: str) -> object:
        if key == "model_type" and hasattr(self.backbone, "use_post_ffw_norm"):
            return self.model_type
        if key not in self.names:
            raise KeyError(f"it reads {key} of config.json")
        return getattr(self.backbone, self.names[key])


def _replaced(name: str, pairs: Iterable[tuple[str, str]], back: bool = False) -> str:
    for old, new in pairs:
        name = name.replace(new, old) if back else name.replace(old, new)
    return name


def _transposed(tensor: np.ndarray, shape: list[int]) -> np.ndarray:
    return np.transpose(tensor)


def _common(keys: list[str]) -> str:
    """Return the first part of the tensors' names if all tensors share it, else ""."""
    names = {key.split(".")[0] for key in keys if not key.startswith("lm_head")}
    return names.pop() if len(names) == 1 else ""


def _converter(backbone: keras.Model) -> object:
    from keras_hub.src.utils.transformers import preset_loader

    modules = [m for name, m in vars(preset_loader).items() if "convert_" in name]
    known = {m.backbone_cls.__name__: m for m in modules if hasattr(m, "backbone_cls")}
    known["T5Backbone"] = t5_names
    for kind in type(backbone).__mro__:
        name = SAME_WEIGHTS.get(kind.__name__, kind.__name__)
        if kind.__module__.startswith("keras_hub.") and name in known:
            return known[name]
    raise ValueError(
        f"keras-hub has no converter from Hugging Face's format for a "
        f"{type(backbone).__name__}, so the module of each layer is unknown."
    )
