"""features: one feature tensor out of any backbone."""

import keras

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.output_of import choices
from keras_transfer.backbones.output_of import part_of
from keras_transfer.backbones.pooling import LastToken
from keras_transfer.backbones.pooling import MaskedMean
from keras_transfer.backbones.used_weights import Unused
from keras_transfer.backbones.used_weights import unused

POOLINGS = ("auto", "mean", "first", "last", "pooled", "average", None)
SEQUENCES = ("sequence_output", "encoder_sequence_output")


def features(
    backbone: keras.Model | FrozenBackbone,
    pooling: str | None = "auto",
    *,
    output: str | None = None,
) -> keras.Model:
    """Return a model from the inputs of a backbone to one vector per example.

    Backbones end in many ways: token rows, an image grid, a dictionary of
    both, a vector. The model that is returned ends in a tensor
    `(batch, features)` for all of them, so that heads, probes, caches and
    distances need to know one shape only. It holds the backbone itself, not a
    copy: training one trains the other.

    To train a backbone on, use `kt.models.TransferClassifier`, which knows the
    weights that the vector does not depend on, such as BERT's pooler under a
    mean of tokens; Keras warns of those that they have no gradient.

    Padding never counts. The mask is the input `padding_mask` of keras-hub
    (`encoder_padding_mask` where the encoder of two is read), or else the
    Keras mask that the backbone's output carries. A row of nothing but
    padding gives zeros, never NaN. Encoder-decoder backbones are read at the
    encoder; they still ask for all their inputs.

    Where a backbone has several outputs that are of one rank, as CLIP, SigLIP and
    SAM, name the one you want with `output`. The model then asks for those inputs
    only that it depends on: images where you take what is seen. It is a backbone
    like any other, for `TransferClassifier`, `cache_features` and `stitch` too.

    Args:
        backbone: A functional or built Sequential model, be it from keras-hub,
            keras-cv, keras.applications or your own, or a `FrozenBackbone` of
            one.
        pooling: How positions become one vector:

            - `"auto"`: `"mean"` over tokens, `"average"` over an image grid,
              nothing where the output is a vector already. The default.
            - `"mean"`: mean over the tokens that are no padding.
            - `"first"`: the first token's row: BERT's `[CLS]`, ViT's class
              token.
            - `"last"`: the last token that is no padding, for causal models.
            - `"pooled"`: the backbone's own `pooled_output` (BERT, ALBERT,
              ELECTRA).
            - `"average"`: mean over the spatial axes, whichever data format.
            - `None`: the output as it is, which must be `(batch, features)`.
        output: Name of the output to read, or of a layer of the backbone: what
            it returns is read then, as `"vision_projection"` for the vectors of
            CLIP's images. Defaults to the only output, or a known one of text.

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
        TypeError: If `backbone` is no model, or a Task that has a backbone.
        ValueError: If it is not built, `pooling` is unknown or does not fit the
            shape of its output, or `output` has to be named, or is neither an
            output nor a layer.

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
    """Return the symbolic inputs of a backbone, its features, what is unused.

    Args:
        backbone: As in `features`.
        pooling: As in `features`.
        dtype: Policy of the pooling layer. Defaults to that of the backbone.

    Returns:
        The structure of input tensors, the tensor `(batch, features)`, and the
        weights of the backbone on which the features do not depend.

    Raises:
        TypeError: As in `features`.
        ValueError: As in `features`.
    """
    one_of("pooling", pooling, POOLINGS)
    network = unwrap(backbone)
    inputs = _symbolic_inputs(network)
    outputs = backbone(inputs)
    key = _choose(outputs, pooling, network, backbone.name)
    left_out = unused(network, key)
    outputs = keras.tree.flatten(outputs if key is None else outputs[key])[0]
    mask = _padding_mask(inputs, key)
    pooling = _resolve(pooling, outputs.shape, backbone.name)
    dtype = network.dtype_policy if dtype is None else dtype
    if pooling == "mean":
        outputs = MaskedMean(name="pooling", dtype=dtype)(outputs, mask=mask)
    elif pooling == "last":
        outputs = LastToken(name="pooling", dtype=dtype)(outputs, mask=mask)
    elif pooling == "first":
        outputs = outputs[:, 0]
    elif pooling == "average":
        rank = len(outputs.shape)
        kind = {
            4: keras.layers.GlobalAveragePooling2D,
            5: keras.layers.GlobalAveragePooling3D,
        }[rank]
        data_format = _data_format(network, keras.config.image_data_format())
        outputs = kind(data_format=data_format, name="pooling", dtype=dtype)(outputs)
    return inputs, outputs, left_out


def unwrap(backbone: keras.Model | FrozenBackbone) -> keras.Model:
    """Return the model inside any `FrozenBackbone`, checked to be a backbone.

    Args:
        backbone: A model or a `FrozenBackbone` of one.

    Returns:
        The model itself.

    Raises:
        TypeError: If there is no model inside, or it is a Task.
    """
    network = backbone
    while isinstance(network, FrozenBackbone):
        network = network.layer
    if not isinstance(network, keras.Model):
        raise TypeError(
            f"The backbone is a {type(network).__name__}, but only a keras.Model "
            "knows its own inputs. Wrap the layer in keras.Sequential with a "
            "keras.Input."
        )
    inner = getattr(network, "backbone", None)
    if isinstance(inner, keras.Layer):
        raise TypeError(
            f"{type(network).__name__} '{network.name}' is a backbone with a head "
            "already. Pass its `.backbone`."
        )
    return network


def _symbolic_inputs(network: keras.Model) -> object:
    inputs = getattr(network, "inputs", None)
    if not inputs:
        raise ValueError(
            f"{type(network).__name__} '{network.name}' has no symbolic inputs: it "
            "is not built, or not functional. Start a Sequential with "
            "keras.Input(shape), or call a subclassed model on a keras.Input and "
            "make keras.Model(inputs, outputs) of it."
        )
    # `input` of a Sequential is that of its last call, perhaps in another model.
    return inputs[0] if isinstance(network, keras.Sequential) else network.input


def _choose(
    outputs: object, pooling: str | None, network: keras.Model, name: str
) -> str | None:
    """Return the key of the output to pool; `None` where there is one only."""
    wanted = ("pooled_output",) if pooling == "pooled" else SEQUENCES
    keys = list(outputs) if isinstance(outputs, dict) else []
    for key in wanted:
        if key in keys:
            return key
    if pooling == "pooled":
        raise ValueError(
            f"pooling='pooled' asks for an output 'pooled_output', which '{name}' "
            "does not have. Use 'first' or 'mean'."
        )
    count = len(keras.tree.flatten(outputs))
    if count != 1 and keys:
        raise ValueError(
            f"'{name}' has {count} outputs, {sorted(keys)}, none of them in "
            f"{SEQUENCES}. Pass kt.backbones.features(backbone, output=...) with the "
            f"name of one of {choices(network)}, instead of the backbone."
        )
    if count != 1:
        raise ValueError(
            f"'{name}' has {count} outputs without names. Make a keras.Model that ends "
            "in the one you want."
        )
    return None


def _padding_mask(inputs: object, key: str | None) -> keras.KerasTensor | None:
    if not isinstance(inputs, dict):
        return None
    prefix = "encoder_" if key is not None and key.startswith("encoder_") else ""
    return inputs.get(f"{prefix}padding_mask")


def _resolve(pooling: str | None, shape: tuple, name: str) -> str | None:
    """Return the pooling that serves, or refuse one that does not fit."""
    rank = len(shape)
    served = {2: None, 3: "mean", 4: "average", 5: "average"}
    fits = {
        "auto": tuple(served),
        "mean": (3,),
        "first": (3,),
        "last": (3,),
        "pooled": (2,),
        "average": (4, 5),
        None: (2,),
    }
    if rank not in fits[pooling]:
        able = [p for p in POOLINGS if rank in fits[p] and p != "pooled"]
        raise ValueError(
            f"pooling={pooling!r} does not fit the output {shape} of '{name}'. "
            f"For {rank} axes there is {able}."
        )
    if pooling == "auto":
        return served[rank]
    return pooling


def _data_format(layer: keras.Layer, data_format: str) -> str:
    """Return the data format of the last layer inside that has one."""
    for child in _keras.sublayers(layer):
        data_format = _data_format(child, getattr(child, "data_format", data_format))
    return data_format
