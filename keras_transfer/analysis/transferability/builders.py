"""Call the function of a user that builds a model, and check what it returns."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer.backbones.compiled_model import check_compiled

Build = Callable[[bool], keras.Model]

# With the seed of the pretraining, which is often 0, the new head could start with the
# values that the old one started with, and the features would fit it by accident.
FIRST_SEED = 1_000


def seeds_of_runs(count: int) -> range:
    """Return the seeds of the runs of a row."""
    return range(FIRST_SEED, FIRST_SEED + count)


class Builder:
    """Builds a new model for each run, with the random numbers of a seed.

    Args:
        build: Function from "is pretrained" to a compiled model.

    Raises:
        TypeError: If `build` cannot be called.
    """

    def __init__(self, build: Build) -> None:
        # A model can be called too, but with inputs.
        if not callable(build) or isinstance(build, keras.Layer):
            raise TypeError(
                f"build={build!r} is not a function. Pass a function of one argument, "
                "`pretrained`, that returns a new compiled model."
            )
        self.build = build
        # Without references, so a model does not stay in memory after its run.
        self._seen: list[weakref.ref] = []

    def __call__(self, pretrained: bool, seed: int) -> keras.Model:
        """Return a new model.

        Raises:
            TypeError: If the result is not a model.
            ValueError: If the model is not built and compiled, or has weights of an
                earlier model.
        """
        keras.utils.set_random_seed(seed)
        model = self.build(pretrained)
        check_compiled(model)
        alive = [ref for ref in self._seen if ref() is not None]
        known = {id(ref()) for ref in alive}
        shared = [weight.path for weight in model.weights if id(weight) in known]
        if shared:
            raise ValueError(
                f"build({pretrained}) returned {len(shared)} weights again that an "
                f"earlier call has returned, such as {shared[0]!r}, so a run would "
                "continue where another one ended. Load or create the whole model "
                "inside `build`."
            )
        self._seen = alive + [weakref.ref(weight) for weight in model.weights]
        return model

    def check(self, seed: int, *, scratch: bool) -> keras.Model:
        """Return a pretrained model, after a check of `build`.

        Args:
            seed: The seed of the models.
            scratch: Whether `build(False)` is needed too.

        Raises:
            ValueError: If `build` ignores `pretrained`.
        """
        if not scratch:
            return self(True, seed)
        new = [_keras.value(weight) for weight in self(False, seed).weights]
        model = self(True, seed)
        pairs = zip(new, map(_keras.value, model.weights), strict=False)
        if len(new) == len(model.weights) and all(np.array_equal(*p) for p in pairs):
            raise ValueError(
                "build(True) and build(False) return models with equal weights, so "
                "`build` seems to ignore `pretrained`. Load the pretrained weights "
                "only for build(True). Without the row 'scratch', kt.compare needs no "
                "build(False)."
            )
        return model
