"""What fine_tune does with a model: a strategy, a rate and a BatchNorm policy."""

from __future__ import annotations

from typing import NamedTuple

# The BatchNorm policy for each value of the argument, where a pilot does not choose it.
POLICIES = {"auto": "frozen", "frozen": "frozen", "train": "train"}


class Candidate(NamedTuple):
    """One way to fine-tune a model.

    Args:
        strategy: Name of the strategy.
        share: Share of the learning rate at which all groups train, but for a new head.
            Defaults to None, the share of the strategy.
        batch_norm: "frozen" or "train". Defaults to "frozen".
    """

    strategy: str
    share: float | None = None
    batch_norm: str = "frozen"

    def __str__(self) -> str:
        if self.strategy == "probe" or self.share is None:
            return self.strategy
        said = f"{self.strategy} at {self.share:g} of the rate"
        return said + ", BatchNorm trains" * (self.batch_norm == "train")
