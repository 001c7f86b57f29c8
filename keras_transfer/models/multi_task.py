"""MultiTask: one backbone with a head for each of several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.features import connect
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.models.backbone_model import BackboneModel
from keras_transfer.models.log_variances import LogVariances
from keras_transfer.models.task_heads import check_heads
from keras_transfer.models.task_losses import check_compiled
from keras_transfer.models.task_losses import check_filler
from keras_transfer.models.task_losses import check_shape
from keras_transfer.models.task_losses import filler
from keras_transfer.models.task_rows import check_data
from keras_transfer.models.task_rows import check_labeled
from keras_transfer.models.task_rows import TaskRows
from keras_transfer.models.task_weighting import FIXED
from keras_transfer.models.task_weighting import means_by_task
from keras_transfer.models.task_weighting import PCGRAD
from keras_transfer.models.task_weighting import UNCERTAINTY
from keras_transfer.models.task_weighting import weighted
from keras_transfer.models.task_weighting import WEIGHTINGS
from keras_transfer.models.task_weighting import with_projected_gradients


@keras.saving.register_keras_serializable(package="keras_transfer")
class MultiTask(BackboneModel):
    """One backbone with a head for each of several tasks, all trained at once.

    The model computes `outputs[name] = heads[name](dropout(pool(backbone(x))))` for all
    tasks, as a dict. `kt.data.task_mixture` makes its data: each row belongs to one
    task, and has the sample weight 0 for the others. The labels can also be a dict of
    arrays without sample weights, if each row has a label of each task.
    The mean of a task does not depend on its share of the rows, so this share changes
    how often its examples return, and `loss_weights` change how much they count.

    Pass `loss`, `loss_weights` and `metrics` to `compile` as dicts by the names of the
    heads. The loss `L_i` of task i is the mean over its own rows, weighted by their
    sample weights, of all replicas, and 0 for a batch without such rows. The logs
    contain it as `<name>_loss`. Metrics, such as `<name>_accuracy`, count the own rows
    of their task, too. Data for `evaluate` can have the labels of some tasks only.

    With `loss_weights` `w_i`, 1 by default, the tasks are combined by `weighting`:

    - `"fixed"`: the loss is the sum of all `w_i L_i`.
    - `"uncertainty"`: the weights are learned (Kendall et al., 2018). With a trainable
      log variance `s_i`, the loss is the sum of all `exp(-s_i) L_i + s_i / 2`, with
      `L_i / 2` instead of `L_i` for a loss of numbers, such as the squared error. A
      task without rows in a batch does not count. The loss can become negative.
    - `"pcgrad"`: the loss is that of `"fixed"`, but the gradients of the tasks for the
      backbone are made to agree (Yu et al., 2020). In a random order, the gradient of a
      task loses its part along each other gradient that it conflicts with. The heads
      get their own gradients. What layers add to the loss, such as regularizers, is
      not projected. A step runs the model forward twice, the second time for the
      gradients, and backward once for each task.

    For an adapter for each task on one frozen backbone, attach all of them first, under
    the names of the tasks and with their heads:
    `kt.adapters.LoRA().attach(model, name, train=[model.heads[name]])`. Then call
    `kt.adapters.use(model, name)` for each task, compile, and fit with the labels of
    this task alone. `kt.export_serving` writes a signature with the name of each task,
    which computes its head, with the adapter of this name if it is in `adapters`.

    Weights that the outputs do not use never train, and a saved model contains the
    trainable flags, as in `TransferClassifier`.

    Args:
        backbone: As in `TransferClassifier`.
        heads: Dict from the names of the tasks to Keras layers or models, each from a
            vector of features to the outputs of the task. Names consist of letters,
            digits and `_`.
        pooling: How the output becomes one vector, as in `kt.backbones.features`.
            Defaults to `"auto"`.
        dropout: Float in [0, 1), the dropout rate before the heads. Defaults to 0.0.
        weighting: `"fixed"`, `"uncertainty"` or `"pcgrad"`. Defaults to `"fixed"`.
        seed: Int, the seed of the orders of PCGrad. Defaults to 0.
        name: Name of the model.

    Input shape:
        The input shape of the backbone.

    Output shape:
        A dict from the names of the tasks to the output shapes of their heads.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        heads = {"kind": keras.layers.Dense(3), "price": keras.layers.Dense(1)}
        model = kt.models.MultiTask(backbone, heads)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", {"kind": loss, "price": "mse"})
        x = np.random.default_rng(0).normal(size=(16, 4))
        tasks = {"kind": (x, np.arange(16) % 3), "price": (x[:8], x[:8, 0])}
        model.fit(kt.data.task_mixture(tasks, batch_size=8), shuffle=False, verbose=0)
        assert model.predict(x, verbose=0)["kind"].shape == (16, 3)
        ```

    Raises:
        TypeError: If the backbone is not a model, or a head is not a layer.
        ValueError: If there is no head, a head or the name of its layer occurs twice, a
            name is not allowed, or another argument is out of range.

    Reference:
        Caruana, 1997, "Multitask Learning"; Kendall, Gal and Cipolla, 2018,
        "Multi-Task Learning Using Uncertainty to Weigh Losses", arXiv:1705.07115,
        equation 7; Yu et al., 2020, "Gradient Surgery for Multi-Task Learning",
        arXiv:2001.06782, algorithm 1.
    """

    def __init__(
        self,
        backbone: keras.Model | FrozenBackbone,
        heads: Mapping[str, keras.Layer],
        *,
        pooling: str | None = "auto",
        dropout: float = 0.0,
        weighting: str = FIXED,
        seed: int = 0,
        name: str | None = None,
    ):
        check_heads(heads)
        dropout_rate("dropout", dropout)
        one_of("weighting", weighting, WEIGHTINGS)
        seed = whole_number("seed", seed, 0)
        inputs, x, unused = connect(backbone, pooling)
        policy = unwrap(backbone).dtype_policy
        x = keras.layers.Dropout(dropout, dtype=policy, name="dropout")(x)
        outputs = {name: head(x) for name, head in heads.items()}
        super().__init__(inputs, outputs, unused, name)
        self.backbone = backbone
        self.pooling = pooling
        self.weighting = weighting
        self.seed = seed
        kept = dict(heads)
        self._heads = lambda: kept  # a lambda hides the layers, which Keras knows
        self._means = {name: keras.metrics.Mean(f"{name}_loss") for name in kept}
        if weighting == UNCERTAINTY:
            self.log_variances = LogVariances(len(kept), name="log_variances")
        if weighting == PCGRAD:
            self._orders = keras.random.SeedGenerator(seed)

    @property
    def heads(self) -> dict[str, keras.Layer]:
        """The heads by the names of their tasks."""
        return dict(self._heads())

    def compile(
        self,
        optimizer: object = "rmsprop",
        loss: Mapping[str, object] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        metrics: Mapping[str, object] | None = None,
        weighted_metrics: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        """Compile with dicts by the names of the heads.

        Args:
            optimizer: As in Keras.
            loss: Dict with a loss for each head.
            loss_weights: Dict of numbers. Heads without one have the weight 1.
            metrics: Dict of metrics or lists of metrics.
            weighted_metrics: The same as `metrics`, because all use sample weights.
            **kwargs: As in Keras.

        Raises:
            TypeError: If an argument is not a dict.
            ValueError: If a name is unknown, a head has no loss, a loss has another
                reduction than the mean, or the weights are learned and given.
        """
        if metrics and weighted_metrics:
            raise ValueError(
                "Both metrics and weighted_metrics are given. All metrics of a "
                "MultiTask use the sample weights. Pass all of them as metrics."
            )
        metrics = metrics or weighted_metrics
        check_compiled(
            self.heads, loss=loss, loss_weights=loss_weights, metrics=metrics
        )
        if loss_weights and self.weighting == UNCERTAINTY:
            raise ValueError(
                f"loss_weights={dict(loss_weights)!r} are given, but "
                "weighting='uncertainty' learns the weights. Leave loss_weights out."
            )
        # Keras passes the sample weights only to `weighted_metrics`.
        super().compile(
            optimizer, loss, loss_weights, weighted_metrics=metrics, **kwargs
        )

    def compile_from_config(self, config: dict) -> None:
        """Compile with the arguments of `get_compile_config`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> object:
        """Train like any model, after a check of the names and labels of the tasks.

        Raises:
            ValueError: If a head has no labels or labels have no head, or if labels are
                not in the label space of their head.
        """
        check_data(self, x, y, kwargs.get("validation_data"))
        return super().fit(x, y, *args, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> object:
        """Return the losses of all tasks, combined, and those that layers add."""
        if training:
            check_labeled(self, y)
        rows = TaskRows(self, y, sample_weight)
        for name, labels in rows.labels.items():
            check_shape(name, self.loss[name], labels, y_pred[name])
        added = _keras.added_loss(self)  # another call of the model would clear it
        losses = means_by_task(self, y_pred, rows)
        for name, loss in losses.items():
            self._means[name].update_state(
                _keras.unscaled(loss), sample_weight=rows.totals[name]
            )
        total = sum(weighted(self, losses, rows))
        if training and self.weighting == PCGRAD:
            total = with_projected_gradients(self, total, x, rows, self._orders)
        return total + added

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Return the metrics and losses of the tasks that have labels."""
        rows = TaskRows(self, y, sample_weight)
        labels, weights = dict(rows.labels), dict(rows.weights)
        for name in y_pred:
            if name not in labels:
                metrics = _keras.compile_arguments(self)["weighted_metrics"] or {}
                check_filler(name, self.loss[name], metrics.get(name))
                labels[name] = filler(self.loss[name], y_pred[name])
                weights[name] = ops.zeros_like(next(iter(rows.weights.values())))
        metrics = super().compute_metrics(x, labels, y_pred, weights)
        # A metric without an update would show as zero.
        return {
            key: value
            for key, value in metrics.items()
            if self._task_of(key) in (None, *rows.labels)
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> MultiTask:
        """Return the model from its config, with the same trainable flags."""
        heads = {
            name: keras.saving.deserialize_keras_object(head, custom_objects)
            for name, head in config["heads"]
        }
        return super().from_config({**config, "heads": heads}, custom_objects)

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        # Pairs keep their order in every file.
        heads = [
            [name, keras.saving.serialize_keras_object(head)]
            for name, head in self.heads.items()
        ]
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "heads": heads,
            "pooling": self.pooling,
            "dropout": self.get_layer("dropout").rate,
            "weighting": self.weighting,
            "seed": self.seed,
            "name": self.name,
            **self.flags_config(),
        }

    def _task_of(self, key: str) -> str | None:
        """Return the task that a key of the logs belongs to."""
        found = [name for name in self.heads if key.startswith(f"{name}_")]
        return max(found, key=len, default=None)
