"""What is attached to a model with penalties, and the checks before each training."""

from __future__ import annotations

import dataclasses

import keras

from keras_transfer.adapters.in_place.layer_state import PENALTIES
from keras_transfer.regularizers.quadratic import Quadratic
from keras_transfer.regularizers.quadratic import WeightRegularizer


@dataclasses.dataclass
class Attached:
    """A recipe that is attached to a model, with the penalty of each weight.

    Args:
        recipe: `L2SP` or `EWC`.
        penalties: Dict from the position of a weight in `model.weights` to its penalty.
        loaded: Whether the penalties have their values. A model that is made from its
            config gets them with its weights.
    """

    recipe: object
    penalties: dict[int, Quadratic]
    loaded: bool = True


class Attachments:
    """What is attached to one model, by name. Keras does not look into it."""

    def __init__(self) -> None:
        self.by_name: dict[str, Attached] = {}
        self.were_read = False


def attached(model: keras.Model) -> dict[str, Attached]:
    """Return what is attached to `model`, by name."""
    state = vars(model).get(PENALTIES)
    return state.by_name if state else {}


def saved_weights(model: keras.Model, saved: dict[int, dict]) -> list:
    """Return the weights of a loaded model, which must have the saved shapes."""
    weights = model.weights if model.built else []
    wrong = [
        place
        for place, each in saved.items()
        if place >= len(weights) or list(weights[place].shape) != each["shape"]
    ]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(saved)} weights of {model.name!r} with a penalty "
            "have another shape than when they were saved, or are missing. Load the "
            "file with the class as it was. A subclassed model has to build its "
            "weights from its config (get_build_config)."
        )
    return weights


def check_copied(model: keras.Model) -> None:
    """Check that the model itself got its penalties, and not only its class.

    Raises:
        ValueError: If Keras has copied the model by its class.
    """
    if PENALTIES not in vars(model):
        raise ValueError(
            f"{model.name!r} is a copy of a model with penalties, as clone_model makes "
            "it, and has none itself. Clone the model before you attach a penalty."
        )


def check_attached(model: keras.Model) -> None:
    """Check that each penalty has its values and covers the weights that train.

    Raises:
        ValueError: If not.
    """
    check_copied(model)
    weights = model.weights
    for name, each in attached(model).items():
        if not each.loaded:
            raise ValueError(
                f"{model.name!r} was made from a config, so its {name} has no values "
                "yet. Load them with load_weights, or call "
                "kt.regularizers.detach(model) and attach it again."
            )
        lost = [
            place
            for place, penalty in each.penalties.items()
            if place >= len(weights)
            or not isinstance(weights[place].regularizer, WeightRegularizer)
            or weights[place].regularizer.penalties.get(name) is not penalty
        ]
        if lost:
            raise ValueError(
                f"{len(lost)} weights of {model.name!r} no longer have their {name}, "
                "because they or their regularizers were replaced. Call "
                "kt.regularizers.detach(model) and attach it again."
            )
        each.recipe.check_covers(model, {id(weights[x]) for x in each.penalties})
