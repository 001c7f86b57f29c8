"""stitch: join a backbone and a head that was trained on its cached features."""

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone


def stitch(backbone: keras.Model | FrozenBackbone, head: keras.Layer) -> keras.Model:
    """Return a model of a backbone and a head that was trained on cached features.

    In inference the model gives the outputs of the head on the features of
    `kt.backbones.cache_features`, except for rounding. The model contains the layers
    of the backbone and the head, not copies. The whole backbone is unfrozen and any
    `FrozenBackbone` is removed. You can then compile the model and train it with
    `kt.callbacks.GradualUnfreezing` or a plain `fit`. `kt.layer_groups` returns the
    groups of the backbone and, at the end, `head`.

    If a wrapper is removed, or if the head does not depend on some weights (such as
    BERT's pooler under a mean of the tokens), the model contains a new functional
    model in place of the backbone. It has the same name and the same layers, without
    the wrapper and these weights.

    The head gets the inputs that it was trained on. A head with a dictionary of inputs
    gets the features with these names, such as `"output"` and `"mask"`. A head with a
    single input gets the output without its Keras mask, because the cache contains no
    Keras mask.

    Args:
        backbone: The `keras.Model` or `FrozenBackbone` that was passed to
            `cache_features`. Its layers become trainable, also in all other models
            that contain them.
        head: The trained Keras layer or model.

    Returns:
        A functional `keras.Model` named `<backbone>_with_<head>`, not compiled.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        backbone = keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3)], name="stem"
        )
        backbone = kt.backbones.features(kt.backbones.FrozenBackbone(backbone))
        x, y = np.ones((6, 8, 8, 3), "float32"), np.ones((6, 1))
        cached = kt.backbones.cache_features(backbone, (x, y), verbose=0)
        head = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)], name="out")
        head.compile("adam", "mse")
        head.fit(cached.shuffle(6).batch(2), epochs=2, shuffle=False, verbose=0)
        model = kt.backbones.stitch(backbone, head)
        assert len(model.trainable_variables) == 4
        ```

    Raises:
        TypeError: If the backbone is not a model, or `head` is not a Keras layer.
        ValueError: If the backbone has no symbolic inputs, the head is not built or
            does not fit the features, or a `FrozenBackbone` is inside a subclassed
            layer, which `stitch` cannot change.

    Reference:
        Kumar et al., 2022, "Fine-Tuning can Distort Pretrained Features and
        Underperform Out-of-Distribution", arXiv 2202.10054: first train the head on
        fixed features, then the whole model.
    """
    network = unwrap(backbone)
    if not isinstance(head, keras.Layer):
        raise TypeError(
            f"The head is a {type(head).__name__}. Pass the Keras layer or model that "
            "was trained on the features."
        )
    if not head.built:
        raise ValueError(
            f"The head '{head.name}' is not built, so it was not trained. Train it on "
            "the dataset of cache_features first."
        )
    inputs = inputs_of(network)
    if inputs is None:
        raise ValueError(
            f"{type(network).__name__} '{network.name}' has no symbolic inputs. Call "
            "it on a keras.Input and make keras.Model(inputs, outputs) from the result."
        )
    outputs = with_masks(_inline(network, inputs))
    wanted = _pick(outputs, head)
    body = keras.Model(inputs, wanted, name=network.name)
    whole = wanted is outputs and len(body.weights) == len(network.weights)
    if whole and not _has_masks(outputs) and not _contains_frozen(network):
        body = network
    if _contains_frozen(body):
        raise ValueError(
            f"A FrozenBackbone is inside a layer of '{network.name}' that is not a "
            "functional or Sequential model, so it cannot be removed. Build the "
            "backbone without FrozenBackbone."
        )
    _unfreeze(body)
    name = f"{backbone.name}_with_{head.name}"
    inputs = inputs_of(body)
    return keras.Model(inputs, head(body(inputs)), name=name)


@keras.saving.register_keras_serializable(package="keras_transfer")
class MaskBeside(keras.layers.Layer):
    """Return a tensor without its Keras mask, and the mask as a second tensor.

    A Keras mask is an attribute of a tensor. A file or a tf.data.Dataset keeps the
    mask only as a separate tensor. Without a mask, only the tensor is returned.
    """

    def __init__(self, **kwargs: object):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def build(self, input_shape: object = None) -> None:
        """Build the layer, which has no weights."""
        self.built = True

    def call(self, inputs: object, mask: object = None) -> object:
        """Return `inputs`, or `(inputs, mask)`."""
        # The mask is an attribute of the tensor; a copy has no mask.
        copy = ops.copy(inputs)
        return copy if mask is None else (copy, mask)

    def compute_mask(self, inputs: object, previous_mask: object) -> None:
        """Return no mask."""
        return None


def with_masks(outputs: object) -> object:
    """Return outputs in the form of the cache: with Keras masks, if there are any.

    Args:
        outputs: A tensor, or a structure of tensors, symbolic or not.

    Returns:
        `outputs` if no tensor has a mask, or else a dictionary of `"output"` and
        `"mask"`. For a single tensor, `"mask"` is a tensor. For a structure, it is a
        dictionary of masks by the place of their tensor, such as `"hidden"` or `"0"`.
    """
    masks = {}
    plain = []
    for path, tensor in keras.tree.flatten_with_path(outputs):
        result = MaskBeside()(tensor)
        if isinstance(result, tuple | list):
            result, masks["/".join(map(str, path))] = result
        plain.append(result)
    if not masks:
        return outputs
    if not keras.tree.is_nested(outputs):
        masks = masks[""]
    return {"output": keras.tree.pack_sequence_as(outputs, plain), "mask": masks}


def inputs_of(network: keras.Model) -> object:
    """Return the structure of symbolic inputs of a model, or None without inputs."""
    if not getattr(network, "inputs", None):
        return None
    # `input` of a Sequential belongs to its last call, perhaps in another model.
    sequential = isinstance(network, keras.Sequential)
    return network.inputs[0] if sequential else network.input


def _has_masks(outputs: object) -> bool:
    return isinstance(outputs, dict) and set(outputs) == {"output", "mask"}


def _pick(outputs: object, head: keras.Layer) -> object:
    """Return the part of the outputs that the named inputs of a head need."""
    wanted = inputs_of(head)
    if wanted is None:
        return outputs
    if not keras.tree.is_nested(wanted) and _has_masks(outputs):
        outputs = outputs["output"]
    try:
        return _part(outputs, wanted)
    except KeyError as error:
        shown = keras.tree.map_structure(lambda x: str(tuple(x.shape)), outputs)
        raise ValueError(
            f"The head '{head.name}' does not fit the features {shown}, because its "
            f"inputs are {keras.tree.map_structure(lambda x: x.name, wanted)}. If it "
            "was trained on one of several outputs, pass keras.Model(backbone.input, "
            "backbone.output[name]) as the backbone, or give the head named inputs."
        ) from error


def _part(outputs: object, wanted: object) -> object:
    if isinstance(wanted, dict) and isinstance(outputs, dict):
        part = {key: _part(outputs[key], value) for key, value in wanted.items()}
        return outputs if all(part.get(k) is v for k, v in outputs.items()) else part
    if isinstance(wanted, list | tuple) and len(wanted) == 1:
        wanted = wanted[0]
    if keras.tree.is_nested(wanted) != keras.tree.is_nested(outputs):
        raise KeyError
    return outputs


def _contains_frozen(layer: keras.Layer) -> bool:
    return any(isinstance(x, FrozenBackbone) for x in _keras.flat_layers(layer))


def _unfreeze(network: keras.Model) -> None:
    for layer in _keras.flat_layers(network):
        # Keras ignores a flag that a layer already has, even if its children differ.
        layer.trainable = False
        layer.trainable = True


def _inline(layer: keras.Layer, inputs: object) -> object:
    """Call a layer on symbolic inputs, without any FrozenBackbone in the graph.

    A nested model with several outputs is called layer by layer, so the graph has only
    the layers that the outputs depend on.
    """
    if isinstance(layer, keras.Sequential):
        for child in layer.layers:
            inputs = _call(child, inputs)
        return inputs
    return keras.models.clone_model(
        layer,
        input_tensors=inputs,
        clone_function=lambda child: child,
        call_function=_call,
    ).output


def _call(layer: object, *args: object, **kwargs: object) -> object:
    while isinstance(layer, FrozenBackbone):
        layer = layer.layer
    graph = isinstance(layer, keras.Model) and getattr(layer, "inputs", None)
    if graph and len(args) == 1 and (len(layer.outputs) > 1 or _contains_frozen(layer)):
        return _inline(layer, args[0])
    return layer(*args, **kwargs)
