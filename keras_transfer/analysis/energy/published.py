"""The energy of pretraining, where a paper has published it."""

from __future__ import annotations

from typing import NamedTuple

from keras_transfer._arguments import one_of

STRUBELL = "Strubell et al. 2019, arXiv:1906.02243, table 3"
OVERHEAD = "a power of GPUs, processors and memory, times 1.58 for the data center"


class Published(NamedTuple):
    """The published energy of one pretraining.

    Args:
        name: Name of the model.
        kwh: The energy in kWh.
        covers: What the figure contains.
        source: The paper and the place in it.
    """

    name: str
    kwh: float
    covers: str
    source: str


FIGURES = {
    each.name: each
    for each in (
        Published("BERT-base", 1507.0, OVERHEAD, STRUBELL),
        Published("ELMo", 275.0, OVERHEAD, STRUBELL),
    )
}


def published(name: str) -> Published:
    """Return the published energy of a pretraining.

    Raises:
        ValueError: If no figure of this model is known here.
    """
    one_of("pretrained", name, tuple(FIGURES))
    return FIGURES[name]
