"""features: a model that returns one feature vector per example, for any backbone."""

import keras

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.output_of import choices
from keras_transfer.backbones.output_of import part_of
from keras_transfer.backbones.pool_output import fitting_pooling
from keras_transfer.backbones.pool_output import pooled_by
from keras_transfer.backbones.pool_output import POOLINGS
from keras_transfer.backbones.used_weights import Unused
from keras_transfer.backbones.used_weights import unused

SEQUENCES = ("sequence_output", "encoder_sequence_output")


def features(
    backbone: keras.Model | FrozenBackbone,
    pooling: str | None = "auto",
    *,
    output: str | None = None,
) -> keras.Model:
    """Return a model from the inputs of a backbone to one vector per example.

    The outputs of backbones differ: a sequence of tokens, an image grid, a vector, or
    a dictionary of these. The returned model always ends in a tensor
    `(batch, features)`, so heads, probes, caches and distances work on one shape. The
    model contains the backbone itself, not a copy, so training it trains the backbone.

    To fine-tune a backbone, use `kt.models.TransferClassifier`. It does not train the
    weights that the vector does not depend on, such as BERT's pooler under a mean of
    the tokens. Without it, Keras warns that these weights have no gradient.

    Padding never counts. The mask is the keras-hub input `padding_mask`
    (`encoder_padding_mask` if the output is that of an encoder), or else the Keras
    mask of the backbone's output. A row with only padding gives zeros, never NaN. For
    an encoder-decoder backbone, the features come from the encoder, but the model
    still needs all inputs.

    If a backbone has several outputs, such as CLIP, SigLIP and SAM, name one of them
    with `output`. The model then has only the inputs that this output depends on, for
    example only images. The model is again a backbone for `TransferClassifier`,
    `cache_features` and `stitch`.

    Args:
        backbone: Functional or built Sequential `keras.Model`, from keras-hub,
            keras-cv, keras.applications or your own code, or a `FrozenBackbone` of
            such a model.
        pooling: How the positions are reduced to one vector. Defaults to `"auto"`.

            - `"auto"`: `"mean"` over tokens, `"average"` over an image grid, and no
              pooling if the output is already a vector.
            - `"mean"`: mean over the tokens that are not padding.
            - `"first"`: the first token, such as `[CLS]` of BERT or the class token
              of ViT.
            - `"last"`: the last token that is not padding, for causal models.
            - `"concat"`: the last token, the maximum and the mean over the tokens,
              one after the other (`kt.layers.ConcatPooling`).
            - `"pooled"`: the backbone's own `pooled_output` (BERT, ALBERT,
              ELECTRA).
            - `"average"`: mean over the spatial axes, for any data format.
            - `None`: the unchanged output, which must be `(batch, features)`.
        output: String, the name of an output of the backbone, or of a layer whose
            output to use, such as `"vision_projection"` for the image vectors of
            CLIP. Defaults to `None`: the only output, or `"sequence_output"` or
            `"encoder_sequence_output"`.

    Returns:
        A functional `keras.Model` named `<backbone>_features`.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        backbone = keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3)], name="stem"
        )
        model = kt.backbones.features(backbone)
        assert model.predict(np.ones((2, 8, 8, 3)), verbose=0).shape == (2, 5)
        ```

    Raises:
        TypeError: If `backbone` is not a model, or is a Task that has a backbone.
        ValueError: If the backbone is not built, if `pooling` is unknown or does not
            fit the shape of the output, or if `output` is missing or is not the name
            of an output or a layer.

    Reference:
        Reimers and Gurevych, 2019, "Sentence-BERT", arXiv 1908.10084 (mean
        pooling of tokens against the first row); Lin, Chen and Yan, 2013,
        "Network in Network", arXiv 1312.4400 (global average pooling).
    """
    if output is not None:
        part = part_of(unwrap(backbone), output)
        frozen = isinstance(backbone, FrozenBackbone)
        backbone = FrozenBackbone(part, name=part.name) if frozen else part
    inputs, outputs, _ = connect(backbone, pooling)
    return keras.Model(inputs, outputs, name=f"{backbone.name}_features")


def connect(
    backbone: keras.Model | FrozenBackbone,
    pooling: str | None = "auto",
    dtype: object = None,
) -> tuple[object, keras.KerasTensor, Unused]:
    """Return the symbolic inputs of a backbone, its features, and its unused weights.

    Args:
        backbone: As in `features`.
        pooling: As in `features`.
        dtype: Policy of the pooling layer. Defaults to the policy of the backbone.

    Returns:
        The structure of input tensors, the tensor `(batch, features)`, and the
        weights of the backbone that the features do not depend on.

    Raises:
        TypeError: As in `features`.
        ValueError: As in `features`.
    """
    one_of("pooling", pooling, POOLINGS)
    network = unwrap(backbone)
    inputs = symbolic_inputs(network)
    outputs = backbone(inputs)
    key = chosen_output(outputs, pooling, network, backbone.name)
    left_out = unused(network, key)
    outputs = keras.tree.flatten(outputs if key is None else outputs[key])[0]
    mask = _padding_mask(inputs, key)
    dtype = network.dtype_policy if dtype is None else dtype
    pooling = fitting_pooling(pooling, outputs.shape, backbone.name)
    return inputs, pooled_by(outputs, mask, pooling, network, dtype=dtype), left_out


def features_of_outputs(
    network: keras.Model, outputs: dict[str, keras.KerasTensor]
) -> keras.Model:
    """Return a model from the inputs of a network to a vector for each tensor in it.

    Args:
        network: A functional or Sequential model.
        outputs: Dict from names to symbolic tensors of the network.

    Raises:
        ValueError: If a tensor has no positions or features to pool over.
    """
    inputs = symbolic_inputs(network)
    vectors = pooled(outputs, padding_mask(network, inputs), "auto", network)
    return keras.Model(inputs, vectors, name=f"{network.name}_features")


def pooled(
    outputs: dict[str, keras.KerasTensor],
    mask: keras.KerasTensor | None,
    pooling: str | None,
    network: keras.Model,
) -> dict[str, keras.KerasTensor]:
    """Return a vector for each tensor of a network, in a layer `<name>_pooling`.

    Args:
        outputs: Dict from names to symbolic tensors.
        mask: The padding mask, or None.
        pooling: As in `features`.
        network: The model that the tensors belong to.

    Raises:
        ValueError: If a tensor does not fit the pooling.
    """
    one_of("pooling", pooling, POOLINGS)
    vectors = {}
    for name, tensor in outputs.items():
        kind = fitting_pooling(pooling, tensor.shape, f"{network.name}, {name}")
        settings = {
            "dtype": network.dtype_policy,
            "name": f"{name.replace('/', '_')}_pooling",
        }
        vectors[name] = pooled_by(tensor, mask, kind, network, **settings)
    return vectors


def padding_mask(network: keras.Model, inputs: object) -> keras.KerasTensor | None:
    """Return the input that is the padding mask of a network's features, or None.

    Args:
        network: A functional or Sequential model.
        inputs: Symbolic inputs in the structure of the inputs of the network.
    """
    graph = _keras.functional(network)
    key = chosen_output(graph.output, "auto", network, network.name)
    return _padding_mask(inputs, key)


def unwrap(backbone: keras.Model | FrozenBackbone) -> keras.Model:
    """Return the model inside any `FrozenBackbone`, after a check of its type.

    Args:
        backbone: A model or a `FrozenBackbone` of a model.

    Returns:
        The model itself.

    Raises:
        TypeError: If the backbone is not a model, or is a Task.
    """
    network = backbone
    while isinstance(network, FrozenBackbone):
        network = network.layer
    if not isinstance(network, keras.Model):
        raise TypeError(
            f"The backbone is a {type(network).__name__}, but it must be a keras.Model "
            "with defined inputs. Wrap the layer in keras.Sequential with a "
            "keras.Input."
        )
    inner = getattr(network, "backbone", None)
    if isinstance(inner, keras.Layer):
        raise TypeError(
            f"{type(network).__name__} '{network.name}' already has a head on its "
            "backbone. Pass its `.backbone`."
        )
    return network


def symbolic_inputs(network: keras.Model) -> object:
    """Return the symbolic inputs of a network, or raise an error without any."""
    inputs = getattr(network, "inputs", None)
    if not inputs:
        raise ValueError(
            f"{type(network).__name__} '{network.name}' has no symbolic inputs, "
            "because it is not built or not functional. Start a Sequential with "
            "keras.Input(shape), or call a subclassed model on a keras.Input and "
            "make keras.Model(inputs, outputs) from the result."
        )
    # `input` of a Sequential belongs to its last call, perhaps in another model.
    return inputs[0] if isinstance(network, keras.Sequential) else network.input


def chosen_output(
    outputs: object, pooling: str | None, network: keras.Model, name: str
) -> str | None:
    """Return the key of the output to pool, or `None` for a single output."""
    wanted = ("pooled_output",) if pooling == "pooled" else SEQUENCES
    keys = list(outputs) if isinstance(outputs, dict) else []
    for key in wanted:
        if key in keys:
            return key
    if pooling == "pooled":
        raise ValueError(
            f"pooling='pooled' needs an output 'pooled_output', which '{name}' does "
            "not have. Use 'first' or 'mean'."
        )
    count = len(keras.tree.flatten(outputs))
    if count != 1 and keys:
        raise ValueError(
            f"'{name}' has {count} outputs, {sorted(keys)}, and none of them is in "
            f"{SEQUENCES}. Instead of the backbone, pass kt.backbones.features("
            f"backbone, output=...) with one of these names: {choices(network)}."
        )
    if count != 1:
        raise ValueError(
            f"'{name}' has {count} outputs without names, so `output` cannot select "
            "one. Make a keras.Model with only the output that you want."
        )
    return None


def _padding_mask(inputs: object, key: str | None) -> keras.KerasTensor | None:
    if not isinstance(inputs, dict):
        return None
    prefix = "encoder_" if key is not None and key.startswith("encoder_") else ""
    return inputs.get(f"{prefix}padding_mask")
