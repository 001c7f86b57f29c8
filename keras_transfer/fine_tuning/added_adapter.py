"""The adapter of the strategy "lora", attached for a run of fine_tune."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from keras_transfer import _keras
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.merge import detach
from keras_transfer.adapters.switching import attached
from keras_transfer.fine_tuning.candidate import Candidate
from keras_transfer.fine_tuning.run import Run


@contextlib.contextmanager
def adapter_for(arguments: tuple, candidate: Candidate) -> Iterator[None]:
    """Attach LoRA if the strategy needs it, and detach it if an error ends the block.

    An adapter that the model has already is used instead.

    Args:
        arguments: The first arguments of `Run.of`.
        candidate: What to do with the model.

    Raises:
        ValueError: If the model cannot have LoRA with its default targets.
    """
    model = arguments[0]
    if candidate.strategy != "lora" or attached(model):
        yield
        return
    run = Run.of(*arguments, candidate)  # raises all other errors first
    kept = _keras.CompiledOptimizer(model)
    with _keras.scope(model):
        try:
            LoRA().attach(model, verbose=min(1, run.verbose))
        except ValueError as error:
            raise ValueError(
                f"strategy='lora' does not fit the model {model.name!r}: {error}"
            ) from error
    try:
        yield
    except Exception:
        detach(model)
        kept.restore()
        raise
