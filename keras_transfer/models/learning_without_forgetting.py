"""LearningWithoutForgetting: a new head, while the old head keeps its responses."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer._arguments import positive
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.backbones.used_weights import Unused
from keras_transfer.backbones.used_weights import unused
from keras_transfer.models.backbone_model import BackboneModel
from keras_transfer.models.old_head import arrays_for
from keras_transfer.models.old_head import head_of
from keras_transfer.models.old_head import log_of

INPUTS, RESPONSES = "inputs", "old_responses"


@keras.saving.register_keras_serializable(package="keras_transfer")
class LearningWithoutForgetting(BackboneModel):
    """Learn a new task without old data, by keeping the old outputs on new data (LwF).

    The layers below the last layer of the old model are shared. The new task gets a new
    head, and the old head stays. Before training, the old model's outputs (responses)
    for the new examples are recorded. Training then keeps the old head's outputs near
    these responses:

    `L = L_new + old_weight * H(softmax(r / T), softmax(z / T))`

    `L_new` is the compiled loss of the new head, `r` are the recorded logits, `z` are
    the old head's logits now, `T` is the temperature, and `H` is the cross entropy. No
    old data is needed, but the less the new inputs resemble the old ones, the less the
    responses say about the old task.

    Train in four steps, as in the example: compile, `record` the responses, `warm_up`
    the new head alone, and `fit` all on the recorded data. The old model shares its
    layers with this model, so `old_model.evaluate` measures what was kept. A call on
    plain inputs, `predict`, `evaluate` and `export` give the new head's logits.

    For a third task, pass this model as `old_model` of the next: then the responses of
    all its heads are kept.

    Args:
        old_model: A functional or Sequential classifier that ends in a Dense layer with
            two or more classes, without an activation or with a softmax, such as a
            `TransferClassifier`; or a `LearningWithoutForgetting`. It is changed by the
            training.
        num_classes: Int of at least 2, the number of new classes.
        old_weight: Number of 0 or more, the weight of the old responses. Defaults to
            1.0.
        temperature: Positive number `T`. Above 1, small probabilities count more.
            Defaults to 2.0.
        name: Name of the model.

    Input shape:
        The input shape of `old_model`. For `fit`, a dictionary from `record`.

    Output shape:
        `(batch, num_classes)`. For inputs from `record`, a dictionary with `"new"`, and
        `"old"`, a list with the logits of each old head.

    Raises:
        TypeError: If `old_model` is not a Keras model.
        ValueError: If `old_model` does not end in such a layer, or a number is out of
            range. In training, if the inputs are not from `record`.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        layers = [keras.layers.Dense(4, "relu"), keras.layers.Dense(3)]
        old_model = keras.Sequential([keras.Input((5,)), *layers])  # trained before
        x, y = np.random.rand(8, 5), np.arange(8) % 2
        model = kt.models.LearningWithoutForgetting(old_model, num_classes=2)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        recorded = model.record((x, y))
        model.warm_up((x, y), epochs=2)
        model.fit(*recorded, epochs=2, verbose=0)
        assert model.predict(x, verbose=0).shape == (8, 2)
        assert old_model.predict(x, verbose=0).shape == (8, 3)
        ```

    Reference:
        Li and Hoiem 2016, Learning without Forgetting, arXiv:1606.09282.
    """

    def __init__(
        self,
        old_model: keras.Model,
        num_classes: int,
        *,
        old_weight: float = 1.0,
        temperature: float = 2.0,
        name: str | None = None,
    ):
        whole_number("num_classes", num_classes, 2)
        old_weight = number("old_weight", old_weight, 0)
        temperature = positive("temperature", temperature)
        inputs, features, heads = _parts_of(old_model)
        name_of_head = f"new_{len(heads)}"  # unique if several tasks follow
        new_head = keras.layers.Dense(
            int(num_classes), dtype="float32", name=name_of_head
        )
        super().__init__(
            inputs,
            new_head(features),
            _idle_in(old_model),
            name,
        )
        self.input_spec = None  # the spec of one input would reject responses
        self.old_model = old_model
        self.num_classes = int(num_classes)
        self.old_weight = old_weight
        self.temperature = temperature
        self._old_loss = keras.metrics.Mean("old_loss")
        # Lambdas hide the networks from Keras, which tracks their layers already.
        old = keras.Model(inputs, heads)
        both = keras.Model(inputs, {"new": self.output, "old": heads})
        below = keras.Model(inputs, features)
        self._old, self._both, self._below = (
            (lambda: old),
            (lambda: both),
            lambda: below,
        )
        self._head = lambda: new_head

    def task_model(self, task: int) -> keras.Model:
        """Return a model with the output of one task, on the shared layers.

        Args:
            task: Int, the number of the task, from 0 for the oldest. The last is the
                new task.

        Returns:
            A functional model, which can be compiled and evaluated.

        Raises:
            ValueError: If there is no such task.
        """
        outputs = [*self._old().outputs, self.output]
        whole_number("task", task, 0, most=len(outputs) - 1)
        return keras.Model(self.input, outputs[task])

    def record(self, data: Any) -> tuple:
        """Return new data with the old model's responses, for `fit`.

        Args:
            data: The new examples, `(x, y)` or `(x, y, sample_weight)`, as arrays or a
                batched `tf.data.Dataset`. A dataset is read once, into memory.

        Returns:
            A tuple of the same length, whose x is
            `{"inputs": x, "old_responses": [logits of each old head]}`.

        Raises:
            TypeError: If the data can be read only once or is of an unknown kind.
            ValueError: If the model has trained already, so its responses are no longer
                those of the old model, or if the data is empty or has no labels.
        """
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and _keras.value(optimizer.iterations) > 0:
            raise ValueError(
                f"{self.name!r} has trained for {_keras.value(optimizer.iterations)} "
                "steps, so its old head no longer gives the old model's responses. "
                "Record them before `fit`, and keep them to continue a training."
            )
        x, y, *weight = arrays_for(self.old_model, data, self.num_classes)
        with unchanged(self._old()):
            found = self._old().predict(x, verbose=0)
        found = found if isinstance(found, list) else [found]
        return {INPUTS: x, RESPONSES: self._as_logits(found)}, y, *weight

    def warm_up(
        self,
        data: Any,
        epochs: int,
        *,
        optimizer: keras.Optimizer | None = None,
        batch_size: int = 32,
        verbose: int = 0,
    ) -> keras.callbacks.History:
        """Train only the new head, on the features of the fixed shared layers.

        A new head gives large gradients at first, which would change the shared layers.
        The features are computed once, so an epoch takes little time.

        Args:
            data: The new examples, as in `record`.
            epochs: Int, the number of epochs.
            optimizer: Optimizer of the head alone. Defaults to None: Adam at a rate of
                1e-3.
            batch_size: Int, examples in each step. Defaults to 32.
            verbose: As in `fit`. Defaults to 0.

        Returns:
            The history.

        Raises:
            ValueError: If the model is not compiled, or the data does not fit.
        """
        if not self.compiled:
            raise ValueError(
                f"{self.name!r} is not compiled, so the loss of the new head is not "
                "known. Call compile() first."
            )
        x, y, *weight = arrays_for(self.old_model, data, self.num_classes)
        with unchanged(self._below()):
            features = self._below().predict(x, verbose=0)
        with _keras.scope(self):
            inputs = keras.Input(features.shape[1:])
            head = keras.Model(inputs, self._head()(inputs))
            head.compile(optimizer or keras.optimizers.Adam(1e-3), self.loss)
        return head.fit(
            features,
            y,
            sample_weight=weight[0] if weight else None,
            epochs=epochs,
            batch_size=batch_size,
            verbose=verbose,
        )

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> object:
        """Return the new logits, or the logits of both heads for recorded inputs."""
        if _is_recorded(inputs):
            return self._both()(inputs[INPUTS], training=training)
        return super().call(inputs, training=training, mask=mask)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> object:
        """Return the loss of the new head, plus that of the old responses."""
        if not _is_recorded(x):
            if training:
                raise ValueError(
                    f"{self.name!r} trains on data with the old model's responses. "
                    "Pass fit(*model.record((x, y)))."
                )
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        loss = super().compute_loss(
            x[INPUTS], y, y_pred["new"], sample_weight, training
        )
        crossentropy = keras.losses.CategoricalCrossentropy(from_logits=True)
        old = 0.0
        pairs = zip(x[RESPONSES], self._as_logits(y_pred["old"]), strict=True)
        for then, now in pairs:
            old = old + crossentropy(
                ops.softmax(ops.cast(then, "float32") / self.temperature),
                ops.cast(now, "float32") / self.temperature,
                sample_weight=sample_weight,
            )
        rows = ops.shape(y_pred["new"])[0]
        self._old_loss.update_state(_keras.unscaled(old), sample_weight=rows)
        return loss + self.old_weight * ops.cast(old, loss.dtype)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Return the metrics of the new head, and the loss of the old responses."""
        recorded = _is_recorded(x)
        if recorded:
            x, y_pred = x[INPUTS], y_pred["new"]
        metrics = super().compute_metrics(x, y, y_pred, sample_weight)
        # A mean without an update would show as zero.
        return {k: v for k, v in metrics.items() if recorded or k != "old_loss"}

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        return {
            "old_model": keras.saving.serialize_keras_object(self.old_model),
            "num_classes": self.num_classes,
            "old_weight": self.old_weight,
            "temperature": self.temperature,
            "name": self.name,
            **self.flags_config(),
        }

    def _as_logits(self, outputs: list) -> list:
        """Return logits of the same softmax as the outputs of each old head."""
        # Only the first model can end in a softmax.
        first, *rest = outputs
        return [log_of(first) if self._is_softmax() else first, *rest]

    def _is_softmax(self) -> bool:
        if isinstance(self.old_model, LearningWithoutForgetting):
            return self.old_model._is_softmax()
        return head_of(self.old_model).activation is keras.activations.softmax


def _parts_of(old_model: object) -> tuple:
    """Return the symbolic inputs and features, and the outputs of the old heads."""
    if isinstance(old_model, LearningWithoutForgetting):
        heads = [*old_model._old().outputs, old_model.output]
        return old_model.input, old_model._below().output, heads
    head = head_of(old_model)
    # A Sequential has no structure of inputs.
    listed = isinstance(old_model, keras.Sequential)
    inputs = old_model.inputs[0] if listed else old_model.input
    return inputs, head.input, [head.output]


def _idle_in(old_model: keras.Model) -> Unused:
    """Return the weights that no output of the old model uses."""
    if isinstance(old_model, LearningWithoutForgetting):
        return Unused(old_model.idle_weights(), [])
    return unused(old_model, None)


def _is_recorded(inputs: Any) -> bool:
    return isinstance(inputs, dict) and set(inputs) == {INPUTS, RESPONSES}
