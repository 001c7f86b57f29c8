"""add_weighted: add an adapter that is the weighted sum of other adapters."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from keras_transfer._arguments import number
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.in_place import adapted_layer
from keras_transfer.adapters.in_place.compiled_model import activate
from keras_transfer.adapters.in_place.compiled_model import retrace
from keras_transfer.adapters.in_place.layer_state import all_or_nothing
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.in_place.layer_state import recipes_of
from keras_transfer.adapters.switching import check_known


def add_weighted(model: keras.Layer, name: str, weights: Mapping[str, float]) -> None:
    """Add an adapter that is a weighted sum of other adapters, and use it.

    The sum is exact. On each layer its rank is the sum of the adapters' ranks (PEFT's
    `combination_type="cat"`). You can train the new adapter further. For the adapters'
    own layers, such as heads, the changes from the model's layer are summed:
    `base + sum(weight * (own - base))`. With two weights of 0.5 this is the average of
    the own layers. This needs heads with the same number of outputs. (PEFT does not sum
    `modules_to_save`.)

    Args:
        model: A model with adapters of one technique, on the same layers.
        name: Name of the new adapter.
        weights: Dict from adapter name to finite weight, such as
            `{"first": 0.3, "second": 0.7}`.

    Raises:
        ValueError: If an adapter is unknown, the new name is taken, a weight is not
            finite, or the adapters cannot be summed.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        for each in ("first", "second"):
            kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, each)
        kt.adapters.add_weighted(model, "sum", {"first": 0.3, "second": 0.7})
        assert kt.adapters.active(model) == {"sum": 1.0}
        ```

    Reference:
        PEFT, `LoraModel.add_weighted_adapter`.
    """
    if not weights:
        raise ValueError(
            "weights is empty, so there is nothing to sum. Give a dict from adapter "
            "name to weight."
        )
    for summand, weight in weights.items():
        check_known(model, summand)
        number(f"The weight of {summand!r}", weight)
    recipes = recipes_of(model)
    kinds = {type(recipes[summand]) for summand in weights}
    if any(kind.parts is not next(iter(kinds)).parts for kind in kinds):
        names = sorted(kind.__name__ for kind in kinds)
        raise ValueError(
            f"The adapters {list(weights)} are of different techniques, {names}, so "
            "they cannot be summed. Give adapters of one technique."
        )
    check_name(model, name)
    by_host: dict[int, tuple[keras.Layer, list[tuple[Part, float]]]] = {}
    for host, part in all_parts(model):
        if part.name in weights:
            pair = by_host.setdefault(id(host), (host, []))
            pair[1].append((part, weights[part.name]))
    for host, summands in by_host.values():
        if len({part.replaces for part, _ in summands}) > 1:
            raise ValueError(
                f"Of the adapters {[p.name for p, _ in summands]}, one adds weights to "
                f"the layer {host.name!r}, and another owns a copy of the whole layer. "
                "No single layer is their sum. Train both adapters with the same "
                "`targets` and `train`."
            )
    pairs = [(host, ps[0][0].joined(host, ps, name)) for host, ps in by_host.values()]
    with all_or_nothing(model):
        adapted_layer.install(model, name, recipes[next(iter(weights))], pairs)
        activate(model, {name: 1.0})
        retrace(model)
