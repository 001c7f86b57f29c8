"""StateDistiller: distillation of outputs, hidden states and attention, cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_transfer import _keras
from keras_transfer.analysis.report.predictions import unchanged
from keras_transfer.data.examples import count_rows
from keras_transfer.losses.state_distillation import AttentionDistillation
from keras_transfer.losses.state_distillation import StateDistillation
from keras_transfer.models.inner_states import InnerStates
from keras_transfer.models.never_trained import NeverTrained

INPUTS, TEACHER = "inputs", "teacher"
MASK = "padding_mask"


@keras.saving.register_keras_serializable(package="keras_transfer")
class StateDistiller(NeverTrained, keras.distillation.Distiller):
    """Train a student on a teacher's outputs, hidden states and attention.

    `keras.distillation.Distiller` runs the teacher in every step, matches layers of one
    width at the top level of a model, and ignores sample weights. This subclass takes
    its losses of the outputs, and adds

    - `kt.losses.StateDistillation` and `kt.losses.AttentionDistillation` of blocks
      inside the backbones. If their widths differ, a projection of the student's states
      is learned, in `projections`, which are not part of the student.
    - `record`, which runs the teacher once: all epochs read its outputs.
    - inputs without labels, with `student_loss_weight=0`.

    The loss is, with the weight `a = student_loss_weight`,

    `a L(y, student) + (1 - a) sum_k w_k D_k`

    DistilBERT's three losses are soft targets (`LogitsDistillation`), the cosine of
    hidden states (`StateDistillation`) and masked words (`L`, with labels): pass a
    masked language model as teacher and student. `distiller.student` is the trained
    student.

    Args:
        teacher: The trained model. It is frozen.
        student: The model to train, with outputs of the same shape, such as a
            classifier on `kt.models.student(teacher.backbone, ...)`.
        distillation_losses: One or a list of `keras.distillation.DistillationLoss`.
            Give `LogitsDistillation` the argument `loss=keras.losses.KLDivergence()`:
            its default, the name "kl_divergence", is a function in Keras 3.15, to which
            it passes logits instead of probabilities. The default is refused.
        distillation_loss_weights: List of numbers, their weights. Defaults to None, 1
            for each.
        student_loss_weight: Number from 0 to 1, the weight of the labels. Defaults to
            0.5.
        name: Name of the model. Defaults to `"distiller"`.

    Input shape:
        The input shape of the student. For `fit`, a dictionary from `record`.

    Output shape:
        The output shape of the student. For inputs from `record`, a dictionary with
        `"output"`, `"states"` and `"attention"`.

    Raises:
        ValueError: If a block is unknown, a loss is the default of
            `LogitsDistillation`, or a number is out of range. In training, if the
            inputs are not from `record`, if labels are missing, or on several replicas.

    Example:
        ```python
        import keras
        import keras_hub
        import keras_transfer as kt
        import numpy as np

        sizes = dict(num_heads=2, hidden_dim=8, intermediate_dim=8)
        backbone = keras_hub.models.BertBackbone(16, 2, **sizes)
        teacher = kt.models.TransferClassifier(backbone, 2)
        small = kt.models.student(backbone, keep=[0])
        losses = [
            keras.distillation.LogitsDistillation(2.0, keras.losses.KLDivergence()),
            kt.losses.StateDistillation({"transformer_layer_1": "transformer_layer_0"}),
        ]
        distiller = kt.models.StateDistiller(
            teacher,
            kt.models.TransferClassifier(small, 2),
            losses,
            student_loss_weight=0.0,
        )
        distiller.compile("adam")
        x = {
            "token_ids": np.ones((4, 6), int),
            "segment_ids": np.zeros((4, 6), int),
            "padding_mask": np.ones((4, 6), int),
        }
        distiller.fit(distiller.record(x), verbose=0)
        ```

    Reference:
        Sanh et al. 2019, DistilBERT, a distilled version of BERT, arXiv:1910.01108.
        Jiao et al. 2019, TinyBERT, arXiv:1909.10351 (projection and attention).
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        distillation_losses: object,
        distillation_loss_weights: Sequence[float] | None = None,
        *,
        student_loss_weight: float = 0.5,
        name: str = "distiller",
    ):
        super().__init__(
            teacher,
            student,
            distillation_losses,
            distillation_loss_weights,
            student_loss_weight=student_loss_weight,
            name=name,
        )
        for each in self.distillation_losses:
            _check_loss(each)
        self.student_loss = None
        pairs = [
            self._pairs(kind) for kind in (StateDistillation, AttentionDistillation)
        ]
        inner = [
            InnerStates(network, *([pair[place] for pair in each] for each in pairs))
            for place, network in enumerate((teacher, student))
        ]
        # A lambda hides them from Keras, which tracks the teacher and the student.
        self._inner = lambda: inner
        self.projections = self._projections()
        self.built = student.built  # the distiller has no other weights to build

    def learned(self, variables: list[keras.Variable]) -> list[keras.Variable]:
        """Return the variables without those that the student does not use."""
        student = getattr(self, "student", None)
        idle = {id(each) for each in getattr(student, "idle_weights", list)()}
        return [each for each in variables if id(each) not in idle]

    def _pairs(self, kind: type) -> list[tuple[str, str]]:
        """Return the pairs of blocks of all losses of a kind, in order."""
        losses = [each for each in self.distillation_losses if isinstance(each, kind)]
        return [pair for each in losses for pair in each.blocks.items()]

    def record(self, x: Any, batch_size: int = 32) -> dict:
        """Return inputs with the teacher's outputs, states and attention, for `fit`.

        Args:
            x: The inputs as arrays.
            batch_size: Int, examples in each step. Defaults to 32.

        Returns:
            `{"inputs": x, "teacher": outputs}`.

        Raises:
            ValueError: If there are no examples.
        """
        count_rows(x, "x")
        teacher = self._inner()[0]
        with unchanged(teacher):
            found = teacher.predict(x, batch_size=batch_size, verbose=0)
        return {INPUTS: x, TEACHER: found}

    def compile(
        self,
        optimizer: object = "adam",
        loss: object = None,
        metrics: Sequence | None = None,
        **kwargs: object,
    ) -> None:
        """Compile; `loss` is the loss of the labels, or None without labels.

        Raises:
            ValueError: If `loss` is None, but `student_loss_weight` is above 0 or
                there are metrics.
        """
        if loss is None and self.student_loss_weight > 0:
            raise ValueError(
                f"student_loss_weight={self.student_loss_weight} needs the loss of the "
                "labels. Pass compile(loss=...), or student_loss_weight=0."
            )
        if loss is None and metrics:
            raise ValueError(
                f"metrics={metrics} compare with labels, but there is no loss of "
                "labels. Pass both, or neither."
            )
        self.student_loss = None if loss is None else keras.losses.get(loss)
        # The base class needs a loss. `compute_loss` below does not use it.
        super().compile(optimizer, loss=loss or "mse", metrics=metrics, **kwargs)

    def get_compile_config(self) -> dict | None:
        """Return the arguments of `compile`."""
        config = super().get_compile_config()
        if config:  # the base class does not keep the loss
            config["loss"] = keras.saving.serialize_keras_object(self.student_loss)
        return config

    def compile_from_config(self, config: dict) -> None:
        """Compile with the arguments of `get_compile_config`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def call(self, inputs: Any, training: bool | None = None, **kwargs: Any) -> object:
        """Return the student's output, or a dictionary for recorded inputs."""
        if _is_recorded(inputs):
            return self._inner()[1](inputs[INPUTS], training=training)
        return self.student(inputs, training=training, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> object:
        """Return the weighted sum of the losses. Plain inputs have that of labels."""
        recorded = _is_recorded(x)
        self._check_step(recorded, y, training)
        output = y_pred["output"] if recorded else y_pred
        student_loss = 0.0
        if y is not None and self.student_loss is not None:
            student_loss = ops.mean(
                self.student_loss(y, output)
                if sample_weight is None
                else self.student_loss(y, output, sample_weight)
            )
        self.student_loss_tracker.update_state(student_loss)
        if not recorded:
            return ops.convert_to_tensor(student_loss)
        teacher = x[TEACHER]
        projected = [
            state if layer is None else layer(ops.cast(state, "float32"))
            for state, layer in zip(y_pred["states"], self.projections, strict=True)
        ]
        theirs = {StateDistillation: [*teacher["states"]]}
        theirs[AttentionDistillation] = [*teacher["attention"]]
        ours = {StateDistillation: projected}
        ours[AttentionDistillation] = [*y_pred["attention"]]
        mask = x[INPUTS].get(MASK) if isinstance(x[INPUTS], dict) else None
        distilled = 0.0
        for loss, weight in zip(
            self.distillation_losses, self.distillation_loss_weights, strict=True
        ):
            kind = type(loss)
            if kind in theirs:
                count = len(loss.blocks)
                pair = theirs[kind][:count], ours[kind][:count]
                theirs[kind], ours[kind] = theirs[kind][count:], ours[kind][count:]
                found = loss.compute_loss(*pair, mask=mask)
            else:
                loss.validate_outputs(teacher["output"], output)
                found = loss.compute_loss(teacher["output"], output)
            distilled = distilled + weight * found
        self.distillation_loss_tracker.update_state(distilled)
        share = self.student_loss_weight
        total = share * student_loss + (1.0 - share) * distilled + sum(self.losses)
        self.total_loss_tracker.update_state(total)
        return total

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Return the metrics of the student's output."""
        if _is_recorded(x):
            x, y_pred = x[INPUTS], y_pred["output"]
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self) -> dict:
        """Return the arguments."""
        config = super().get_config()
        return {key: config[key] for key in config if key not in ("trainable", "dtype")}

    def _projections(self) -> list:
        """Return a layer for each pair of states of different widths, or None."""
        if not self._pairs(StateDistillation):
            return []
        widths = []
        for each in self._inner():
            found = each.compute_output_spec(each.network.input)["states"]
            widths.append([state.shape[-1] for state in found])
        made = []
        for place, (theirs, ours) in enumerate(zip(*widths, strict=True)):
            layer = None
            if theirs != ours:
                layer = keras.layers.Dense(
                    theirs, use_bias=False, dtype="float32", name=f"project_{place}"
                )
                layer.build((None, None, ours))
            made.append(layer)
        return made

    def _check_step(self, recorded: bool, y: Any, training: bool) -> None:
        if training and not recorded:
            raise ValueError(
                f"{self.name!r} trains on inputs with the teacher's outputs. Pass "
                "fit(distiller.record(x), y)."
            )
        if training and y is None and self.student_loss_weight > 0:
            raise ValueError(
                f"student_loss_weight={self.student_loss_weight} needs labels. Pass "
                "fit(distiller.record(x), y), or student_loss_weight=0."
            )
        if _keras.replicas_in_step() > 1:
            raise ValueError(
                "The losses of keras.distillation are not divided by the number of "
                "replicas, so the gradients would be too large. Train on one replica."
            )


def _is_recorded(inputs: Any) -> bool:
    return isinstance(inputs, dict) and set(inputs) == {INPUTS, TEACHER}


def _check_loss(loss: object) -> None:
    stock = keras.distillation.LogitsDistillation
    if isinstance(loss, stock) and keras.losses.kl_divergence in keras.tree.flatten(
        loss.loss
    ):
        raise ValueError(
            "LogitsDistillation has the loss 'kl_divergence', which Keras 3.15 applies "
            "to logits instead of probabilities. Pass "
            "loss=keras.losses.KLDivergence()."
        )
