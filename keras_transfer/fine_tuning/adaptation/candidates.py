"""The candidates of an adaptation, and the training of one of them."""

from __future__ import annotations

import time
import warnings
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.backbones.features import features as features_of
from keras_transfer.backbones.groups import LayerGroup
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.fine_tuning.adaptation.domains import Domains
from keras_transfer.fine_tuning.adaptation.parts import Parts
from keras_transfer.fine_tuning.rates import default_share
from keras_transfer.models.ada_bn import adapt_batch_norm
from keras_transfer.models.cdan import CDAN
from keras_transfer.models.dan import DAN
from keras_transfer.models.dann import DANN
from keras_transfer.models.deep_coral import DeepCORAL
from keras_transfer.models.mcc import MCC
from keras_transfer.models.mdd import MDD
from keras_transfer.models.source_only import SourceOnly
from keras_transfer.optimizers.discriminative import discriminative
from keras_transfer.optimizers.ganin_schedules import GaninDecay

SOURCE_ONLY = "source only"
ADA_BN = "AdaBN"
KINDS = {
    "DeepCORAL": DeepCORAL,
    "DAN": DAN,
    "DANN": DANN,
    "CDAN": CDAN,
    "MDD": MDD,
    "MCC": MCC,
}
METHODS = (ADA_BN, *KINDS)
# The rate of Adam for a new network. What was trained before has a share of it, as in
# fine_tune.
RATE = 1e-3
READ_AT_ONCE = 128
TRAINED, ADDED = "trained before", "added"  # groups with different rates


class Trial(NamedTuple):
    """What a candidate learned: its weights and its outputs as probabilities.

    If the training diverged, there are no outputs.
    """

    name: str
    weights: list[np.ndarray]
    on_source: np.ndarray | None
    on_target: np.ndarray | None
    seconds: float

    @property
    def finite(self) -> bool:
        """Whether the training has not diverged."""
        return self.on_target is not None


class Trainer:
    """Trains each candidate from the same weights.

    Args:
        parts: The copied model and its parts. Its weights are the start.
        domains: The data.
        loss: The compiled loss.
        epochs: Passes over the longer domain.
        batch_size: Examples of each domain in a batch.
        seed: Seed of the order, of new heads and of dropout.
        verbose: As in `fit`.
    """

    def __init__(
        self,
        parts: Parts,
        domains: Domains,
        loss: Any,
        epochs: int,
        batch_size: int,
        seed: int,
        verbose: int,
    ) -> None:
        self.parts, self.domains, self.loss = parts, domains, loss
        self.epochs, self.batch_size = epochs, batch_size
        self.seed, self.verbose = seed, verbose
        self._start = _keras.values(parts.model.weights)
        self._reader = SourceOnly(parts.feature_extractor, parts.label_head)
        self._reader.compile(loss=loss)

    def source_only(self) -> Trial:
        """Return the candidate without adaptation."""
        return self._trial(SOURCE_ONLY, 0.0)

    def train(self, name: str) -> Trial:
        """Train a candidate, and return what it learned."""
        keras.utils.set_random_seed(self.seed)
        self.parts.model.set_weights(self._start)
        began = time.perf_counter()
        if name == ADA_BN:
            adapt_batch_norm(self.parts.model, self.domains.target)
        else:
            self._fit(KINDS[name])
        return self._trial(name, time.perf_counter() - began)

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the start's features of the held-out source and of the target."""
        self.parts.model.set_weights(self._start)
        network = features_of(self.parts.feature_extractor)
        return tuple(
            network.predict(x, batch_size=READ_AT_ONCE, verbose=0)
            for x in (self.domains.held_out[0], self.domains.target)
        )

    def _fit(self, kind: type) -> None:
        parts = self.parts
        with _keras.scope(parts.model):
            model = kind(parts.feature_extractor, parts.label_head)
            model.dtype_policy = parts.model.dtype_policy  # scales losses in float16
            data = self.domains.dataset(self.batch_size, self.seed)
            schedule = GaninDecay(RATE, self.epochs * len(data))
            optimizer = _with_rates(keras.optimizers.Adam(schedule), model, parts.model)
            # Without the metrics of the user, whose state must not change.
            model.compile(optimizer, loss=self.loss)
        _keras.trace_once(model, data)
        with warnings.catch_warnings():
            # A candidate that diverges is named in the result.
            warnings.filterwarnings("ignore", "The loss is not finite", RuntimeWarning)
            model.fit(
                data,
                epochs=self.epochs,
                shuffle=False,
                callbacks=keras.callbacks.TerminateOnNaN(),
                verbose=self.verbose,
            )

    def _trial(self, name: str, seconds: float) -> Trial:
        # Weights that did not change need no memory of their own.
        weights = [
            start if np.array_equal(start, now) else now
            for start, now in zip(
                self._start, _keras.values(self.parts.model.weights), strict=True
            )
        ]
        outputs = [
            self._probabilities(x)
            for x in (self.domains.held_out[0], self.domains.target)
        ]
        if not all(np.isfinite(each).all() for each in outputs):
            outputs = [None, None]
        return Trial(name, weights, *outputs, seconds)

    def _probabilities(self, x: object) -> np.ndarray:
        found = self._reader.predict(x, batch_size=READ_AT_ONCE, verbose=0)
        found = found.astype("float64")
        if found.shape[1] == 1:
            if self._reader.from_logits:
                found = 1 / (1 + np.exp(-found))
            return np.concatenate([1 - found, found], axis=1)
        if self._reader.from_logits:
            found = np.exp(found - found.max(axis=1, keepdims=True))
        return found / found.sum(axis=1, keepdims=True)


def _with_rates(
    optimizer: keras.Optimizer, model: keras.Model, trained: keras.Model
) -> keras.Optimizer:
    """Return an optimizer with a lower rate for what was trained before.

    Layers that a method adds must follow the features, so they have the rate itself.
    """
    before = {id(weight) for weight in trained.weights}
    weights = [
        [weight for weight in model.weights if (id(weight) in before) is known]
        for known in (True, False)
    ]
    groups = [
        LayerGroup(name, (), each)
        for name, each in zip((TRAINED, ADDED), weights, strict=True)
        if each
    ]
    rates = {TRAINED: default_share(trained)}
    return discriminative(optimizer, LayerGroups(model, groups), rates=rates)
