"""stitch: a head that was trained on cached features, back on its backbone."""

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone


def stitch(backbone: keras.Model | FrozenBackbone, head: keras.Layer) -> keras.Model:
    """Return a model of the live backbone and a head trained on its cached features.

    The outputs at inference are those of the head on the features of
    `kt.backbones.cache_features`, to rounding. The model holds the very layers of
    the backbone and of the head, not copies. All of the backbone is thawed, with
    any `FrozenBackbone` taken away, so that `kt.callbacks.GradualUnfreezing` or a
    plain `fit` can train on; compile it first. `kt.layer_groups` shows the groups
    of the backbone and, last, `head`.

    Where a wrapper had to be taken away, or where some weights have no influence
    on the head (BERT's pooler under a mean of tokens), the model has in place of
    the backbone a functional model of the same name and the same layers without
    them.

    The head gets what it was trained on. A head with a dictionary of inputs gets
    the features of these names, such as `"output"` and `"mask"`; one with a single
    input gets the output, without its Keras mask, for the cache had none.

    Args:
        backbone: What was given to `cache_features`. Its layers train afterward,
            also for everybody else who holds them.
        head: The trained layer or model.

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
        TypeError: If the backbone is no model, or `head` is no Keras layer.
        ValueError: If the backbone has no symbolic inputs, the head is not built
            or does not fit the features, or a `FrozenBackbone` is inside a
            subclassed layer, from which it cannot be taken.

    Reference:
        Kumar et al., 2022, "Fine-Tuning can Distort Pretrained Features and
        Underperform Out-of-Distribution", arXiv 2202.10054: first the head on fixed
        features, then all.
    """
    network = unwrap(backbone)
    if not isinstance(head, keras.Layer):
        raise TypeError(
            f"The head is a {type(head).__name__}. Give the Keras layer or model that "
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
            "it on a keras.Input and make keras.Model(inputs, outputs) of it."
        )
    outputs = with_masks(_inlined(network, inputs))
    wanted = _pick(outputs, head)
    live = keras.Model(inputs, wanted, name=network.name)
    whole = wanted is outputs and len(live.weights) == len(network.weights)
    if whole and not _masked(outputs) and not _frozen(network):
        live = network
    if _frozen(live):
        raise ValueError(
            f"A FrozenBackbone is inside a layer of '{network.name}' that is no "
            "functional or Sequential model, so it cannot be taken away. Build the "
            "backbone without it."
        )
    _thaw(live)
    name = f"{backbone.name}_with_{head.name}"
    inputs = inputs_of(live)
    return keras.Model(inputs, head(live(inputs)), name=name)


@keras.saving.register_keras_serializable(package="keras_transfer")
class MaskBeside(keras.layers.Layer):
    """Return a tensor without its Keras mask, and the mask, if there is one, beside.

    A Keras mask is an attribute of a tensor. A file or a tf.data.Dataset loses it,
    unless it is a tensor of its own.
    """

    def __init__(self, **kwargs: object):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def build(self, input_shape: object = None) -> None:
        """Have no weights."""
        self.built = True

    def call(self, inputs: object, mask: object = None) -> object:
        """Return `inputs`, or `(inputs, mask)`."""
        # The mask is an attribute of this very tensor; a copy has none.
        copy = ops.copy(inputs)
        return copy if mask is None else (copy, mask)

    def compute_mask(self, inputs: object, previous_mask: object) -> None:
        """Return no mask."""
        return None


def with_masks(outputs: object) -> object:
    """Return outputs as they are cached: with their Keras masks, if any has one.

    Args:
        outputs: A tensor, or a structure of tensors, symbolic or not.

    Returns:
        `outputs`, if none has a mask; or else a dictionary of `"output"` and
        `"mask"`. The mask of a single tensor is a tensor; those of a structure are a
        dictionary by the place of their tensor in it, such as `"hidden"` or `"0"`.
    """
    found = {}
    plain = []
    for path, tensor in keras.tree.flatten_with_path(outputs):
        result = MaskBeside()(tensor)
        if isinstance(result, tuple | list):
            result, found["/".join(map(str, path))] = result
        plain.append(result)
    if not found:
        return outputs
    masks = found if keras.tree.is_nested(outputs) else found[""]
    return {"output": keras.tree.pack_sequence_as(outputs, plain), "mask": masks}


def inputs_of(network: keras.Model) -> object:
    """Return the structure of symbolic inputs of a model; None where it has none."""
    if not getattr(network, "inputs", None):
        return None
    # `input` of a Sequential is that of its last call, perhaps in another model.
    sequential = isinstance(network, keras.Sequential)
    return network.inputs[0] if sequential else network.input


def _masked(outputs: object) -> bool:
    return isinstance(outputs, dict) and set(outputs) == {"output", "mask"}


def _pick(outputs: object, head: keras.Layer) -> object:
    """Return the part of the outputs that a head with named inputs asks for."""
    wanted = inputs_of(head)
    if wanted is None:
        return outputs
    if not keras.tree.is_nested(wanted) and _masked(outputs):
        outputs = outputs["output"]
    try:
        return _part(outputs, wanted)
    except KeyError as error:
        shown = keras.tree.map_structure(lambda x: str(tuple(x.shape)), outputs)
        raise ValueError(
            f"The head '{head.name}' does not fit the features {shown}: it asks for "
            f"{keras.tree.map_structure(lambda x: x.name, wanted)}. If it was trained "
            "on one of several outputs, give keras.Model(backbone.input, "
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


def _frozen(layer: keras.Layer) -> bool:
    return any(isinstance(x, FrozenBackbone) for x in _keras.flat_layers(layer))


def _thaw(network: keras.Model) -> None:
    for layer in _keras.flat_layers(network):
        # Keras ignores a flag that a layer has already, even if those below differ.
        layer.trainable = False
        layer.trainable = True


def _inlined(layer: keras.Layer, inputs: object) -> object:
    """Call a layer on symbolic inputs, with nothing frozen in the graph.

    A model inside with several outputs is called layer by layer, so that the graph
    has only what the outputs depend on.
    """
    if isinstance(layer, keras.Sequential):
        for each in layer.layers:
            inputs = _called(each, inputs)
        return inputs
    return keras.models.clone_model(
        layer,
        input_tensors=inputs,
        clone_function=lambda each: each,
        call_function=_called,
    ).output


def _called(layer: object, *args: object, **kwargs: object) -> object:
    while isinstance(layer, FrozenBackbone):
        layer = layer.layer
    graph = isinstance(layer, keras.Model) and getattr(layer, "inputs", None)
    if graph and len(args) == 1 and (len(layer.outputs) > 1 or _frozen(layer)):
        return _inlined(layer, args[0])
    return layer(*args, **kwargs)
