"""BlockStates: the part of a backbone that leads to its hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer._arguments import different_names
from keras_transfer.backbones.block_outputs import block_outputs
from keras_transfer.backbones.output_of import BackbonePart
from keras_transfer.backbones.output_of import part_of
from keras_transfer.backbones.stitch import inputs_of


@keras.saving.register_keras_serializable(package="keras_transfer")
class BlockStates(BackbonePart):
    """A functional model from the inputs of a backbone to a list of its hidden states.

    It is saved as the config of the whole backbone, because single layers of
    keras-hub, such as Llama's and ViT's, cannot be loaded from their own configs. The
    trainable flags are saved too.

    Args:
        backbone: A functional or Sequential model.
        blocks: As in `kt.backbones.hidden_states`, or the positions of the blocks.
            The names of some backbones change when they are loaded.
        output: As in `kt.backbones.hidden_states`.
        name: Name of the model.
    """

    def __init__(
        self,
        backbone: keras.Model,
        blocks: Sequence[str | int] | None = None,
        output: str | None = None,
        name: str | None = None,
    ):
        network = backbone if output is None else part_of(backbone, output)
        states = block_outputs(network, repeated=True)
        names = list(states)
        if blocks is not None and not (blocks and isinstance(blocks[0], int)):
            why = "these are the blocks of the backbone"
            chosen = different_names("blocks", blocks, names, why)
            blocks = [names.index(each) for each in chosen]
        if blocks is not None:
            blocks = sorted(blocks)
            states = {names[each]: states[names[each]] for each in blocks}
        super().__init__(
            inputs=inputs_of(network), outputs=list(states.values()), name=name
        )
        self.blocks = list(states)
        # A lambda hides the backbone, whose other layers are not part of this model.
        self._made_of = lambda: (backbone, network, output, blocks)

    @property
    def network(self) -> keras.Model:
        """The backbone, or its part that leads to `output`."""
        return self._made_of()[1]

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        backbone, _, output, blocks = self._made_of()
        return {
            "backbone": keras.saving.serialize_keras_object(backbone),
            "blocks": blocks,
            "output": output,
            "name": self.name,
            "trainable_layers": list(_keras.flags(self)),
            "trainable_weights": [weight.trainable for weight in self.weights],
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> object:
        """Return the model from its config, with the same trainable flags."""
        config = dict(config)
        flags = [config.pop(f"trainable_{x}", None) for x in ("layers", "weights")]
        backbone = keras.saving.deserialize_keras_object(
            config.pop("backbone"), custom_objects
        )
        model = cls(backbone, **config)
        if None not in flags:  # with an adapter, its own config has the flags
            _keras.set_flags(model, *flags)
        return model
