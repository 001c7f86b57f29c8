"""The candidates that a pilot compares: a strategy, a rate and a BatchNorm policy."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.switching import attached
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.rates import ADAPTER_SHARE
from keras_transfer.fine_tuning.rates import default_share
from keras_transfer.fine_tuning.strategies import RECIPE

HIGHER, LOWER = 1.5, 0.4  # factors of the default share
EARLIER_HIGHER = 2.0  # in runs of recipe 2
ADAPTER_SHARES = (ADAPTER_SHARE, 0.3, 0.03)


def candidates(
    model: keras.Model,
    strategy: str,
    batch_norm: str,
    *,
    own_rates: bool,
    recipe: int = RECIPE,
) -> list[Candidate]:
    """Return what a pilot compares, without the probe. The default one comes first.

    Args:
        model: The model.
        strategy: The strategy that is used without a pilot.
        batch_norm: "auto", "frozen" or "train", as passed to `fine_tune`.
        own_rates: Whether the user's optimizer has its own rates by group.
        recipe: The recipe with which the run began.
    """
    policy = "train" if batch_norm == "train" else "frozen"
    if attached(model):
        found = [Candidate("lora", share, policy) for share in ADAPTER_SHARES]
        return found[:1] if own_rates else found
    share = default_share(model, recipe)
    higher = HIGHER if recipe > 2 else EARLIER_HIGHER
    first = Candidate(strategy, share, policy)
    found = [
        first,
        first._replace(share=share * higher),
        Candidate("lora", ADAPTER_SHARES[0], policy),
        first._replace(share=share * LOWER),
        Candidate("full", share, policy),
        Candidate("gradual", share, policy),
        Candidate("lora", ADAPTER_SHARES[1], policy),
    ]
    if batch_norm == "auto" and any(
        isinstance(layer, keras.layers.BatchNormalization)
        for layer in _keras.flat_layers(model)
    ):
        found.insert(3, first._replace(batch_norm="train"))
    if strategy == "full":  # without a head
        found = [each for each in found if each.strategy != "gradual"]
    if own_rates:
        found = [each for each in found if each.share == first.share]
    if not _takes_lora(model):
        found = [each for each in found if each.strategy != "lora"]
    return list(dict.fromkeys(found))


def _takes_lora(model: keras.Model) -> bool:
    try:
        LoRA().plan(model)
    except (TypeError, ValueError):
        return False
    return True
