"""The strategy of a run, for what the head and the layer groups of a model allow."""

from __future__ import annotations

from keras_transfer import _keras
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.callbacks.phases import able_groups
from keras_transfer.callbacks.phases import to_config
from keras_transfer.fine_tuning.kept_frozen import KeptFrozen
from keras_transfer.fine_tuning.new_head import head_state
from keras_transfer.fine_tuning.new_head import NEW
from keras_transfer.fine_tuning.new_head import NONE
from keras_transfer.fine_tuning.new_head import TRAINED
from keras_transfer.fine_tuning.strategies import choose_strategy
from keras_transfer.fine_tuning.strategies import Strategy


def model_strategy(
    name: str,
    groups: LayerGroups,
    batch_norm: str,
    kept: KeptFrozen,
    epochs: int,
    examples: int,
    began: list[dict] | None,
    **recipe: int,
) -> Strategy:
    """Return the strategy with this name for the layer groups of a model.

    Args:
        name: One of the strategies of `fine_tune`.
        groups: The layer groups of the model.
        batch_norm: "frozen" or "train".
        kept: What stays frozen.
        epochs: Epochs of all phases together.
        examples: Number of labeled examples.
        began: The phases of the run that continues, or None.
        recipe: Further arguments of `choose_strategy`.

    Raises:
        ValueError: If nothing can train, or the strategy does not fit the model.
    """
    names = able_groups(groups, batch_norm, kept.ids)
    if not names:
        raise ValueError(
            f"The whole model {groups.model.name!r} is frozen "
            f"({'; '.join(kept.said)}), so nothing can train. Set `trainable = True` "
            "on the layers that must train, and compile again."
        )
    head, frozen = model_head(groups, names), None
    if any(isinstance(x, FrozenBackbone) for x in _keras.flat_layers(groups.model)):
        frozen = "wrapped"
    elif len(names) == 1 and len(able_groups(groups, batch_norm, ())) > 1:
        frozen = "flags"
    # In a run that continues, the head may have been new at the start.
    states = [head] if began is None or head == NONE else [head, NEW, TRAINED]
    choices = [
        choose_strategy(
            name, names, epochs, examples, frozen=frozen, head=state, **recipe
        )
        for state in states
    ]
    same = [choice for choice in choices if to_config(choice.phases) == began]
    return [*same, *choices][0]


def model_head(groups: LayerGroups, names: list[str]) -> str:
    """Return the `head_state` of a model of which the groups `names` can train."""
    kept = names[-1:] != groups.names[-1:]
    return NONE if kept else head_state(groups)
