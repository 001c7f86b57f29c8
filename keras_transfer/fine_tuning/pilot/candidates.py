"""The candidates that a pilot compares: a strategy, a rate and a BatchNorm policy."""

from __future__ import annotations

import math

import keras

from keras_transfer import _keras
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.switching import attached
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.rates import ADAPTER_SHARE
from keras_transfer.fine_tuning.rates import PRETRAINED_SHARE

# Other shares of the learning rate than the default one. Networks with more parameters
# than `LARGE` need low rates: the paper of BERT uses 2e-5 to 5e-5 for 110 million.
HIGH, LOW = 0.3, 0.03
LARGE = 60_000_000


def candidates(
    model: keras.Model, strategy: str, batch_norm: str, *, own_rates: bool
) -> list[Candidate]:
    """Return what a pilot compares, without the probe. The default one comes first.

    Args:
        model: The model.
        strategy: The strategy that is used without a pilot.
        batch_norm: "auto", "frozen" or "train", as passed to `fine_tune`.
        own_rates: Whether the user's optimizer has its own rates by group.
    """
    policy = "train" if batch_norm == "train" else "frozen"
    if attached(model):
        names = [("lora", ADAPTER_SHARE), ("lora", HIGH), ("lora", LOW)]
        found = [Candidate(*name, policy) for name in names]
        return found[:1] if own_rates else found
    first = Candidate(strategy, PRETRAINED_SHARE, policy)
    large = sum(math.prod(x.shape) for x in model.weights) > LARGE
    other, third = (LOW, HIGH) if large else (HIGH, LOW)
    found = [
        first,
        first._replace(share=other),
        Candidate("lora", ADAPTER_SHARE, policy),
        first._replace(share=third),
        Candidate("full", PRETRAINED_SHARE, policy),
        Candidate("gradual", PRETRAINED_SHARE, policy),
        Candidate("lora", HIGH, policy),
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
