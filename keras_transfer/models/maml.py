"""MAML: weights from which a few gradient steps learn a new task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import one_of
from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number
from keras_transfer.models.copied_model import copy_of
from keras_transfer.models.episode_batch import check_targets
from keras_transfer.models.episode_batch import has_targets
from keras_transfer.models.episode_batch import is_episode
from keras_transfer.models.episode_batch import sizes
from keras_transfer.models.episode_batch import TARGETS
from keras_transfer.models.episode_model import EpisodeModel
from keras_transfer.models.inner_loop import BATCH
from keras_transfer.models.inner_loop import FROZEN
from keras_transfer.models.inner_loop import InnerLoop
from keras_transfer.models.inner_loop import SUPPORT
from keras_transfer.models.support_set import check_shape
from keras_transfer.models.support_set import check_way
from keras_transfer.models.support_set import checked_support

AVERAGED = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


@keras.saving.register_keras_serializable(package="keras_transfer")
class MAML(EpisodeModel):
    """Learn weights from which a few gradient steps on a new task are enough.

    In an episode, the weights `w` of the model take `inner_steps` steps of gradient
    descent on the support set S,

    `w_0 = w`, `w_(k+1) = w_k - inner_rate * grad L_S(w_k)`,

    and the loss of the episode is `L_Q(w_K)`, that of the query set Q under the adapted
    weights. `fit` trains `w` with the compiled optimizer on the mean over the episodes
    of a batch. Its gradient goes through the steps, so it has second derivatives.
    `first_order=True` leaves them out (FOMAML): the gradients of the steps are
    constants, which takes less time and memory.

    `L` is the compiled loss, with what the layers add and the regularizers of weights.
    A step is thus a step of `keras.optimizers.SGD` in `fit` with the support set as one
    batch, with dropout if the model has it. Regularizers of weights count in `fit` for
    `w`.

    `fit`, `evaluate` and `predict` take episodes: the result of `kt.data.episodes`, or
    a dictionary with targets of the support set, as for a regression. The metrics are
    those of the query sets after the steps. Plain examples in `evaluate` and `predict`
    go to `w` itself, without a step. `adapt(support)` returns an ordinary model for one
    task. To evaluate with more steps than in `fit`, make and compile another `MAML` of
    the same model: it shares the weights.

    The updates of moving statistics and of other states of layers are dropped after
    each call, so nothing of an episode is left in the model. The policy of
    BatchNormalization is `batch_norm`:

    - `"batch"`: statistics of the support set in the steps, and of the whole query set
      in the answers. The paper's code does so. The answers then depend on the other
      queries of the episode (transductive), in `evaluate` and `predict` too.
    - `"support"`: statistics of the support set in the steps, and in the answers those
      of the support set under the adapted weights.
    - `"frozen"`: the moving statistics of the model, which do not change. For a
      pretrained model.

    The moving statistics of the model of `adapt` are those of the support set, for
    `"batch"` too, or with `"frozen"` those of the model. So only for `"batch"` and a
    model with BatchNormalization, its answers differ from those in the episode. A
    BatchNormalization with `trainable=False` always keeps its statistics.

    Args:
        model: A built Keras model with one output, such as a functional model. MAML
            trains this model, in place. Weights that are not trainable stay as they
            are, in the steps too.
        inner_rate: Positive float, the learning rate of the steps.
        inner_steps: Int of at least 1, the number of steps.
        first_order: Whether the gradients of the steps are constants. Defaults to
            False.
        batch_norm: `"batch"`, `"support"` or `"frozen"`. Defaults to `"batch"`.
        name: Name of the model.

    Input shape:
        The input shape of the model. In `fit`, a dict of `"support"`, `(episodes, way,
        shot, ...)`, and `"query"`, `(episodes, queries, ...)`. The classes of the
        support set are then 0 to `way - 1`. With targets, a dict of `"support"`,
        `(episodes, shots, ...)`, `"support_y"`, `(episodes, shots, ...)`, and
        `"query"`. The targets of `fit` are those of the queries, `(episodes, queries,
        ...)`.

    Output shape:
        The output shape of the model, or `(episodes, queries, ...)` for episodes.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the model is not built, has several outputs or no weight to
            train, or if another argument is out of range. In `fit`, if the data are
            plain examples, the episodes do not fit the model, or a trainable weight has
            no influence on the outputs.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        # Each task is a line with another slope.
        slopes = np.random.uniform(1, 3, (64, 1, 1))
        x = np.random.uniform(-1, 1, (64, 10, 1))
        episodes = {"support": x[:, :5], "query": x[:, 5:]}
        episodes["support_y"] = slopes * x[:, :5]
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        maml = kt.models.MAML(model, inner_rate=0.1, inner_steps=1)
        maml.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        maml.fit(episodes, slopes * x[:, 5:], batch_size=4, verbose=0)

        # A new task from three examples:
        x = np.array([[-1.0], [0.5], [1.0]])
        line = maml.adapt(x, 2 * x, steps=20)
        assert line.predict(x, verbose=0).shape == (3, 1)

        # Classes: the support set of an episode has its classes in order.
        x, y = np.random.rand(40, 4), np.repeat(np.arange(4), 10)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        maml = kt.models.MAML(model, inner_rate=0.1, inner_steps=2)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        maml.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        data = kt.data.episodes(x, y, way=2, shot=1, query=3, num_episodes=4)
        maml.fit(data, shuffle=False, verbose=0)
        episode, _ = next(iter(data))
        classifier = maml.adapt(episode["support"][0])
        assert classifier.predict(x, verbose=0).shape == (40, 2)
        ```

    Reference:
        Finn et al., 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep
        Networks", arXiv 1703.03400.
    """

    def __init__(
        self,
        model: keras.Model,
        inner_rate: float,
        inner_steps: int,
        *,
        first_order: bool = False,
        batch_norm: str = BATCH,
        name: str | None = None,
    ):
        inner_rate = positive("inner_rate", inner_rate)
        inner_steps = whole_number("inner_steps", inner_steps)
        one_of("first_order", first_order, (False, True))
        one_of("batch_norm", batch_norm, (BATCH, SUPPORT, FROZEN))
        super().__init__(model, name)
        _check_norms(model, batch_norm)
        self.inner_rate = inner_rate
        self.inner_steps = inner_steps
        self.first_order = bool(first_order)
        self.batch_norm = batch_norm

    def adapt(self, x: Any, y: Any = None, *, steps: int | None = None) -> keras.Model:
        """Return a copy of the model after the steps on a support set.

        The copy is an ordinary model, not compiled, with weights of its own. This model
        does not change.

        Args:
            x: The examples of the support set. Without `y`, those of an episode of
                `kt.data.episodes`, `(way, shot, ...)`, with the classes in order.
            y: Their targets. Defaults to None.
            steps: Int of at least 1. Defaults to None, the `inner_steps` of the model.

        Raises:
            ValueError: If the model is not compiled, the support set does not fit the
                model, has one class, or a class that the model has not, or if the
                adapted weights are not finite.
        """
        steps = whole_number("steps", self.inner_steps if steps is None else steps)
        self._check_compiled()
        x, y = checked_support(self, x, y)
        loop = self._inner_loop()
        state = loop.adapt(loop.start(), x, y, steps)
        found = [
            (variable, ops.convert_to_numpy(value))
            for variable, value in zip(
                [*loop.weights, *loop.statistics],
                [*state.weights, *state.statistics],
                strict=True,
            )
        ]
        if not all(np.isfinite(value).all() for _, value in found):
            raise ValueError(
                f"The weights are NaN or infinite after {steps} steps with "
                f"inner_rate={self.inner_rate}. The support set can have such values, "
                "the weights of the model, or the rate is too high. Nothing was "
                "changed."
            )
        values = {id(variable): value for variable, value in found}
        adapted = copy_of(self.model)
        for weight, copied in zip(self.model.weights, adapted.weights, strict=True):
            if id(weight) in values:
                copied.assign(values[id(weight)])
        return adapted

    def call(self, inputs: Any, training: bool | None = None) -> object:
        """Return the outputs of the model, or of the adapted models for episodes."""
        if not (is_episode(inputs) or has_targets(inputs)):
            if training:
                raise self._plain_examples()
            return self.model(inputs)
        self._check_compiled()
        return self._of_episodes(dict(inputs), bool(training))

    def _of_episodes(self, inputs: dict, training: bool) -> object:
        if has_targets(inputs):
            check_targets(inputs["support"], inputs[TARGETS], inputs["query"])
        else:
            way, shot, _ = sizes(inputs["support"], inputs["query"])
            check_way(self.model, way)
            inputs["support"], inputs[TARGETS] = _in_rows(inputs["support"], way, shot)
        check_shape(self.model, inputs["query"], batch_axes=2)
        count = ops.shape(inputs[TARGETS])[0]
        loop = self._inner_loop()

        def answer(episode: dict) -> dict:
            start = loop.start(episode["number"])
            state = loop.adapt(
                start, episode["support"], episode[TARGETS], self.inner_steps
            )
            call, state = loop.query(state, episode["query"], training=training)
            found = {"outputs": call.outputs, "added": call.added}
            found |= {f"seed_{i}": seed for i, seed in enumerate(state.seeds)}
            return found if call.mask is None else found | {"mask": call.mask}

        found = _for_each(answer, inputs | {"number": ops.arange(count)})
        self.add_loss(ops.mean(found["added"]))
        if training:
            for place, seed in enumerate(loop.seeds):
                seed.assign(found[f"seed_{place}"][0])
        return _keras.with_mask(found["outputs"], found.get("mask"))

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        return {
            **super().get_config(),
            "inner_rate": self.inner_rate,
            "inner_steps": self.inner_steps,
            "first_order": self.first_order,
            "batch_norm": self.batch_norm,
        }

    def _adapted(self) -> list[keras.Variable]:
        """Return the variables that the steps change."""
        return self.model.trainable_variables

    def _inner_loop(self) -> InnerLoop:
        return InnerLoop(
            self.model,
            self._adapted(),
            self._loss_of,
            rate=self.inner_rate,
            first_order=self.first_order,
            batch_norm=self.batch_norm,
        )

    def _loss_of(self, y: Any, outputs: Any) -> Any:
        """Return the compiled loss of a support set, which one replica has."""
        value = _keras.label_loss(self, y, outputs, None)
        mean = getattr(self.loss, "reduction", AVERAGED[0]) in AVERAGED
        # Keras divides a mean by the number of replicas.
        return _keras.unscaled(value) if mean else value


def _check_norms(model: keras.Model, batch_norm: str) -> None:
    """Check that the statistics of a BatchNormalization can be those of a batch."""
    for layer in _keras.batch_norms(model) if batch_norm != FROZEN else ():
        if layer.trainable and (layer.renorm or layer.synchronized):
            kind = "renorm" if layer.renorm else "synchronized"
            raise ValueError(
                f"{layer.name!r} has {kind}=True, so its statistics would be those of "
                'other batches than the support or query set. Pass batch_norm="frozen",'
                f" or set {kind}=False."
            )


def _in_rows(support: Any, way: int, shot: int) -> tuple[Any, Any]:
    """Return the support sets with one axis for the examples, and their classes."""
    rows = keras.tree.map_structure(
        lambda x: ops.reshape(x, (-1, way * shot, *ops.shape(x)[3:])), support
    )
    classes = ops.repeat(ops.arange(way, dtype="int32"), shot)
    count = ops.shape(keras.tree.flatten(rows)[0])[0]
    return rows, ops.broadcast_to(classes, (count, way * shot))


def _for_each(function: Callable[[dict], dict], episodes: dict) -> dict:
    """Return the results of a function for each episode of a batch."""
    tensors = keras.tree.map_structure(ops.convert_to_tensor, episodes)
    if all(x.shape[0] == 1 for x in keras.tree.flatten(tensors)):
        # A loop of one turn would only take time.
        one = keras.tree.map_structure(lambda x: x[0], tensors)
        return keras.tree.map_structure(lambda x: x[None], function(one))
    return ops.map(function, tensors)
