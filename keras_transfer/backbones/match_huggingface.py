"""match_huggingface: make a keras-hub backbone compute the same as Hugging Face's."""

from __future__ import annotations

import functools
import json
import pathlib

import keras
import numpy as np

from keras_transfer import _keras

# `hidden_act` in Hugging Face's own checkpoints of each family.
USUAL = {
    "BertBackbone": "gelu",
    "RobertaBackbone": "gelu",
    "XLMRobertaBackbone": "gelu",
    "DistilBertBackbone": "gelu",
    "AlbertBackbone": "gelu_new",
    "GPT2Backbone": "gelu_new",
}
TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
ACTIVATION_KEYS = ("hidden_act", "activation", "activation_function")
EPSILON_KEYS = ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps")
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"


def match_huggingface(
    backbone: keras.Model,
    folder: str | pathlib.Path | None = None,
    *,
    hidden_act: str | None = None,
) -> keras.Model:
    """Give a keras-hub backbone the settings of its Hugging Face model, in place.

    keras-hub reads the weights of a Hugging Face model, but not all of its settings:

    - BERT in keras-hub uses the tanh approximation of GELU. Hugging Face uses the
      exact `x Phi(x)`. The outputs differ by 1e-3 to 7e-3.
    - RoBERTa in keras-hub has no token type embedding. The outputs can differ by more
      than 1. This function adds RoBERTa's one token type row to each position row.
    - keras-hub ignores the epsilon of some normalization layers.

    An adapter or a head that is trained on one of the two models is slightly wrong on
    the other model. The settings are stored in `backbone.huggingface` and the config,
    so `.keras` files, adapters and `kt.adapters.merge` keep them. A process that loads
    such a file must import keras_transfer.

    Args:
        backbone: A keras-hub backbone. Call this function before you attach adapters,
            and before you run a model that contains the backbone.
        folder: String or path, the folder of the Hugging Face model, with config.json
            and, for RoBERTa, model.safetensors. Defaults to `None`, the usual settings
            of the family: for BERT exact GELU, and for RoBERTa also token types of
            zero, as in roberta-base.
        hidden_act: String, Hugging Face's name of the feed-forward activation. Pass it
            if you do not have the folder and the activation is unusual. Defaults to
            `None`.

    Returns:
        The same backbone.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=20,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=8,
        )
        kt.backbones.match_huggingface(backbone)
        assert backbone.huggingface["hidden_act"] == "gelu"
        ```

    Raises:
        TypeError: If `backbone` is not a keras-hub backbone.
        ValueError: If the backbone has adapters or was already matched to another
            model, if the activation is unknown, or if the family has no usual
            settings and `folder` is `None`.

    Reference:
        D. Hendrycks and K. Gimpel, 2016, "Gaussian Error Linear Units (GELUs)",
        arXiv:1606.08415; Hugging Face, `BertConfig.hidden_act`.
    """
    _check(backbone)
    settings = _settings(backbone, folder, hidden_act)
    earlier = getattr(backbone, "huggingface", None)
    if earlier == settings:
        return backbone
    if earlier is not None:
        raise ValueError(
            f"The backbone {backbone.name!r} was already matched to {earlier}, so it "
            f"cannot be matched to {settings}. Make a new backbone from the preset."
        )
    row = _token_types(folder) if settings.get("token_types") else None
    _apply(backbone, settings)
    if row is not None:
        positions = backbone.embeddings.position_embedding.position_embeddings
        positions.assign(_keras.value(positions) + row)
    return backbone


def unmatched(backbone: keras.Model) -> str | None:
    """Return the known difference between `backbone` and Hugging Face's model.

    Return None if the backbone was matched, or if no difference is known.
    """
    if getattr(backbone, "huggingface", None) is not None:
        return None
    family = _family(backbone)
    now = {_name_of(layer.activation) for layer in _feed_forward(backbone)}
    usual = USUAL.get(family)
    if usual is not None and now - {_same(usual)}:
        return (
            f"its feed-forward layers have the activation {sorted(now)}, but Hugging "
            f"Face's have {usual!r} (outputs differ by about 1e-3)"
        )
    if family == "RobertaBackbone":
        return (
            "it has no token type embedding, which Hugging Face's RoBERTa adds to each "
            "token; the embedding is zero in roberta-base, but not in every checkpoint"
        )
    return None


@keras.saving.register_keras_serializable("keras_transfer")
def gelu_tanh(x: object) -> object:
    """Return the tanh approximation of GELU, "gelu_new" in Hugging Face."""
    return keras.activations.gelu(x, approximate=True)


@keras.saving.register_keras_serializable("keras_transfer", name="Matched")
class Matched:
    """Base of the subclass that `match_huggingface` gives to a backbone.

    The subclass has the name of the backbone's class, because Keras finds weights in
    files by class name. It is saved under the name `keras_transfer>Matched`.
    """

    hub_class: type = object

    @property
    def huggingface(self) -> dict:
        """The settings, with Hugging Face's names."""
        return dict(self.__dict__["_huggingface"])

    def get_config(self) -> dict:
        """Return the config and the class of the backbone, and the settings."""
        name = keras.saving.get_registered_name(self.hub_class)
        own = {"huggingface": self.huggingface, "hub_class": name}
        return super().get_config() | own

    @classmethod
    def from_config(cls, config: dict) -> keras.Model:
        """Return the backbone from its config. RoBERTa's row is in the weights."""
        import keras_hub

        config = dict(config)
        settings, name = config.pop("huggingface"), config.pop("hub_class")
        kind = keras.saving.get_registered_object(name)
        if kind is None or not issubclass(kind, keras_hub.models.Backbone):
            raise ValueError(
                f"The saved backbone is a {name!r}, which keras-hub "
                f"{keras_hub.__version__} does not have. Install the version of "
                "keras-hub that saved it."
            )
        backbone = kind.from_config(config)
        _apply(backbone, settings)
        return backbone


@functools.cache
def _matched(kind: type) -> type:
    doc = f"{kind.__name__} with the settings of a Hugging Face model."
    new = type(kind.__name__, (Matched, kind), {"__doc__": doc, "hub_class": kind})
    new.__module__ = __name__
    _keras.save_as(new, Matched)
    return new


def _check(backbone: object) -> None:
    import keras_hub

    if not isinstance(backbone, keras_hub.models.Backbone):
        raise TypeError(
            f"match_huggingface takes a keras-hub backbone, not {backbone!r}. For a "
            "task, pass `task.backbone`."
        )
    if keras.saving.get_registered_name(type(backbone)) == "keras_transfer>Adapted":
        raise ValueError(
            f"The backbone {backbone.name!r} has adapters, which were made for other "
            "settings. Call match_huggingface before you attach adapters."
        )


def _family(backbone: keras.Model) -> str:
    names = [kind.__name__ for kind in type(backbone).__mro__]
    return next((name for name in names if name in USUAL), names[0])


def _settings(
    backbone: keras.Model, folder: str | pathlib.Path | None, hidden_act: str | None
) -> dict:
    """Return the settings to apply, as values that JSON can store."""
    config = {}
    if folder is not None:
        path = pathlib.Path(folder) / "config.json"
        if not path.is_file():
            raise ValueError(
                f"{str(path)!r} does not exist. Pass the folder of the Hugging Face "
                "model that the backbone was made from."
            )
        config = json.loads(path.read_text())
    activations = [config[key] for key in ACTIVATION_KEYS if key in config]
    family = _family(backbone)
    hidden_act = hidden_act or next(iter(activations), USUAL.get(family))
    settings: dict = {}
    if _feed_forward(backbone) and hidden_act is not None:
        _activation(hidden_act)
        settings["hidden_act"] = hidden_act
    for key in EPSILON_KEYS:
        if key in config and _norms(backbone):
            settings["layer_norm_epsilon"] = config[key]
    if family == "RobertaBackbone":
        settings["token_types"] = folder is not None
    if not settings:
        raise ValueError(
            f"No difference between a {type(backbone).__name__} and Hugging Face's "
            "model is known. Pass `folder`, the folder of the Hugging Face model, to "
            "read its settings."
        )
    return settings


def _apply(backbone: keras.Model, settings: dict) -> None:
    if "hidden_act" in settings:
        for layer in _feed_forward(backbone):
            layer.activation = _activation(settings["hidden_act"])
    if "layer_norm_epsilon" in settings:
        for layer in _norms(backbone):
            layer.epsilon = settings["layer_norm_epsilon"]
    backbone.__dict__["_huggingface"] = dict(settings)
    object.__setattr__(backbone, "__class__", _matched(type(backbone)))
    _keras.forget_traces(backbone)


def _feed_forward(backbone: keras.Model) -> list[keras.layers.Dense]:
    """Return the layers whose activation is Hugging Face's `hidden_act`."""
    return [
        layer
        for layer in _keras.flat_layers(backbone)
        if layer.name == "feedforward_intermediate_dense"
        and layer.activation is not keras.activations.linear
    ]


def _norms(backbone: keras.Model) -> list[keras.Layer]:
    return [
        layer
        for layer in _keras.flat_layers(backbone)
        if layer.name.endswith(("layer_norm", "layernorm", "_norm"))
        and hasattr(layer, "epsilon")
    ]


def _activation(name: str) -> object:
    if name in TANH:
        return gelu_tanh
    if name in ("gelu", "relu", "silu", "swish"):
        return keras.activations.get(name)
    raise ValueError(
        f"The activation {name!r} is not supported. Supported are 'gelu', 'relu', "
        f"'silu', 'swish', and these three, which are equal to 1e-7: {list(TANH)}."
    )


def _same(name: str) -> str:
    return "gelu_new" if name in TANH else name


def _name_of(activation: object) -> str:
    """Return Hugging Face's name of an activation, from the values it computes."""
    x = np.linspace(-3, 3, 61).astype("float32")
    y = np.asarray(activation(x))
    for name in ("gelu", "gelu_new", "relu", "silu"):
        if np.abs(y - np.asarray(_activation(name)(x))).max() < 1e-5:
            return name
    return getattr(activation, "__name__", str(activation))


def _token_types(folder: str | pathlib.Path) -> np.ndarray:
    """Return the token type row of a RoBERTa."""
    from safetensors import safe_open

    path = pathlib.Path(folder) / "model.safetensors"
    if not path.is_file():
        raise ValueError(
            f"{str(path)!r} does not exist, so RoBERTa's token types cannot be read. "
            "Pass a folder that contains this file."
        )
    with safe_open(path, framework="np") as file:
        keys = [key for key in file.keys() if key.endswith(TOKEN_TYPES)]  # noqa: SIM118
        rows = file.get_tensor(keys[0]) if len(keys) == 1 else np.zeros((0, 0))
    if len(rows) != 1:
        raise ValueError(
            f"{str(path)!r} has {len(rows)} token types, but the positions of a "
            "keras-hub backbone can contain only one. Pass a RoBERTa with one token "
            "type."
        )
    return rows[0].astype("float32")
