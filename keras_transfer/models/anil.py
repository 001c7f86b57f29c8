"""ANIL: meta-learning whose steps on a new task change only the head."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.models.inner_loop import BATCH
from keras_transfer.models.maml import MAML

HEAD = "head"


@keras.saving.register_keras_serializable(package="keras_transfer")
class ANIL(MAML):
    """MAML whose inner steps change only the head (Almost No Inner Loop).

    As in `kt.models.MAML`, but the steps on a support set change the weights of the
    head alone. `fit` still trains all weights, with the gradient through the steps of
    the head. The paper finds that MAML's steps hardly change the layers below, and
    that ANIL reaches its accuracy with less computation.

    Args:
        model: As in `MAML`.
        inner_rate: As in `MAML`.
        inner_steps: As in `MAML`.
        first_order: As in `MAML`. Defaults to False.
        batch_norm: As in `MAML`. Defaults to `"batch"`.
        head: Name of the layer that the steps change, with all layers in it. Defaults
            to None: the group `"head"` of `kt.layer_groups`, or without it the last
            layer with trainable weights.
        name: Name of the model.

    Input shape:
        As in `MAML`.

    Output shape:
        As in `MAML`.

    Raises:
        TypeError: As in `MAML`.
        ValueError: As in `MAML`, or if there is no such head, or it has no weight to
            train.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        x, y = np.random.rand(40, 4), np.repeat(np.arange(4), 10)
        layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        anil = kt.models.ANIL(model, inner_rate=0.1, inner_steps=3)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        anil.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        data = kt.data.episodes(x, y, way=2, shot=1, query=3, num_episodes=4)
        anil.fit(data, shuffle=False, verbose=0)
        episode, _ = next(iter(data))
        classifier = anil.adapt(episode["support"][0])
        before, after = layers[0].kernel, classifier.layers[0].kernel
        assert keras.ops.all(before == after)
        ```

    Reference:
        Raghu et al., 2020, "Rapid Learning or Feature Reuse?", arXiv 1909.09157.
    """

    def __init__(
        self,
        model: keras.Model,
        inner_rate: float,
        inner_steps: int,
        *,
        first_order: bool = False,
        batch_norm: str = BATCH,
        head: str | None = None,
        name: str | None = None,
    ):
        super().__init__(
            model,
            inner_rate,
            inner_steps,
            first_order=first_order,
            batch_norm=batch_norm,
            name=name,
        )
        self.head = head
        self._adapted()

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        return {**super().get_config(), "head": self.head}

    def _adapted(self) -> list[keras.Variable]:
        found = {id(each) for each in _head_variables(self.model, self.head)}
        adapted = [x for x in self.model.trainable_variables if id(x) in found]
        if not adapted:
            raise ValueError(
                f"The head of {self.model.name!r} has no weight to train, so the steps "
                "on a support set would change nothing. Set its trainable flag, or "
                "pass head=, the name of another layer."
            )
        return adapted


def _head_variables(model: keras.Model, head: str | None) -> list[keras.Variable]:
    layers = _keras.flat_layers(model)[1:]
    if head is not None:
        named = [layer for layer in layers if layer.name == head]
        if len(named) != 1:
            names = [layer.name for layer in layers if layer.trainable_variables]
            raise ValueError(
                f"head={head!r} is the name of {len(named)} layers of {model.name!r}. "
                f"The layers with trainable weights are {names}."
            )
        return named[0].trainable_variables
    groups = layer_groups(model)
    if HEAD in groups.names:
        return list(groups[HEAD].variables)
    last = [layer for layer in layers if _keras.learnable(layer) and layer.trainable]
    return _keras.learnable(last[-1]) if last else []
