"""hidden_states: the outputs of all blocks of a backbone, for any backbone."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer.backbones.block_states import BlockStates
from keras_transfer.backbones.features import padding_mask
from keras_transfer.backbones.features import pooled
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.marked_state import MarkedState
from keras_transfer.backbones.stitch import inputs_of


def hidden_states(
    backbone: keras.Model | FrozenBackbone,
    blocks: Sequence[str] | None = None,
    *,
    pooling: str | None = None,
    output: str | None = None,
) -> keras.Model:
    """Return a model from the inputs of a backbone to the states of all its blocks.

    The outputs are a list with the last tensor of each layer group of
    `kt.layer_groups`, from the stem to the last block. The stem is what enters the
    first block: the embeddings of a transformer, which ELMo mixes too. The last state
    is the output of the backbone, with its last normalization. Shared layers, as in
    ALBERT, give one state for each time that they run, named `group_0/1`,
    `group_0/2`. Of a backbone with an encoder and a decoder, the states are those of
    the encoder. `output_names` of the model has the names of the blocks, each with
    the ending `_state`, or `_pooling` with `pooling`.

    The model contains the layers of the backbone, not copies. Blocks inside a layer,
    as in the encoder of a ViT, are visible too. Blocks of a transformer have states of
    one shape, which `kt.layers.ScalarMix` adds. Blocks of a convolutional network
    differ in shape: choose some with `blocks`, or pool them. States of sequences have
    the Keras mask of the input `padding_mask`, or the mask of the backbone.

    A mix of the states is again a backbone, for `kt.models.TransferClassifier`,
    `kt.backbones.features` and `kt.fine_tune`:

        states = kt.backbones.hidden_states(backbone)
        mixed = kt.layers.ScalarMix()(states.outputs)
        model = kt.models.TransferClassifier(keras.Model(states.input, mixed), 2)

    With a frozen backbone, the states never change, so run it once: pass the states
    with `pooling="auto"` to `kt.backbones.cache_features`, train a head that starts
    with a `ScalarMix` on them, and join both with `kt.backbones.stitch`. The mean of a
    mix is the mix of the means.

    Args:
        backbone: Functional or built Sequential `keras.Model`, from keras-hub,
            keras-cv, keras.applications or your own code, or a `FrozenBackbone` of
            such a model.
        blocks: Names of the states to return, in any order; the outputs keep the
            order of the network. Defaults to `None`, all of them.
        pooling: How each state is reduced to a vector, as in `kt.backbones.features`:
            `"auto"`, `"mean"`, `"first"`, `"last"` or `"average"`. Defaults to `None`:
            no pooling.
        output: String, the output of a backbone with several outputs to which the
            states lead, as in `kt.backbones.features`. Defaults to `None`: the only
            output, or `"sequence_output"` or `"encoder_sequence_output"`.

    Returns:
        A functional `keras.Model` named `<backbone>_states`. It returns a list, or a
        tensor if there is only one state; its `outputs` are always a list.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        layers = [keras.layers.Dense(4, name=f"block_{n}") for n in range(3)]
        backbone = keras.Sequential([keras.Input((5,)), *layers], name="mlp")
        states = kt.backbones.hidden_states(backbone)
        assert states.output_names[0] == "block_0_state"
        first, second, third = states(np.ones((2, 5)))
        np.testing.assert_array_equal(third, backbone(np.ones((2, 5))))
        ```

    Raises:
        TypeError: If `backbone` is not a model, or is a Task that has a backbone.
        ValueError: If the backbone is not functional, if `blocks` has an unknown
            name, if a state does not fit `pooling`, or if `output` is missing or is
            not the name of an output or a layer.

    Reference:
        Peters et al., 2018, "Deep contextualized word representations", arXiv
        1802.05365. Hugging Face's `output_hidden_states=True` returns the same
        states.
    """
    network = unwrap(backbone)
    part = BlockStates(network, blocks, output, name=network.name)
    network, blocks = part.network, part.blocks
    inputs = keras.tree.map_structure(_input_like, inputs_of(network))
    frozen = isinstance(backbone, FrozenBackbone)
    run = FrozenBackbone(part, name=backbone.name) if frozen else part
    states = dict(zip(blocks, keras.tree.flatten(run(inputs)), strict=True))
    mask = padding_mask(network, inputs)
    if pooling is None:
        outputs = _marked(states, mask)
    else:
        outputs = list(pooled(states, mask, pooling, network).values())
    return keras.Model(inputs, outputs, name=f"{backbone.name}_states")


def _marked(
    states: dict[str, keras.KerasTensor], mask: keras.KerasTensor | None
) -> list[keras.KerasTensor]:
    """Return the states with the mask of the padding, each in a layer of its name."""
    marked = []
    for block, state in states.items():
        layer = MarkedState(name=f"{block.replace('/', '_')}_state")
        # A mask fits only sequences: `(batch, positions, features)`.
        fits = mask is not None and len(state.shape) == 3
        marked.append(layer([state, mask] if fits else state))
    return marked


def _input_like(tensor: keras.KerasTensor) -> keras.KerasTensor:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
