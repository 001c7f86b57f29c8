"""Domain: what one domain is in a step, and how two of them travel as outputs."""

from typing import Any
from typing import NamedTuple


class Domain(NamedTuple):
    """One domain in a step: what went in, its features, the label head's outputs."""

    inputs: Any
    features: Any
    outputs: Any


def by_domain(*domains: Domain) -> dict:
    """Return outputs and features of the source and the target, for `y_pred`."""
    named = dict(zip(("source", "target"), domains))
    outputs = {name: domain.outputs for name, domain in named.items()}
    features = {name: domain.features for name, domain in named.items()}
    return {**outputs, "features": features}


def read_domains(x: dict, y_pred: dict) -> tuple[Domain, Domain]:
    """Return the source and the target from what went in and what `by_domain` gave."""
    source, target = (
        Domain(x[each], y_pred["features"][each], y_pred[each])
        for each in ("source", "target")
    )
    return source, target
