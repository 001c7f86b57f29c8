"""DomainAdaptation: the base of models that learn from two domains in one `fit`.

To add a method write one file with a subclass that is registered with Keras and has

1. `compare`, which runs the layers that the method adds, on both domains, and
2. `penalties`, which makes losses of it: by keras losses, since these add up rightly
   over replicas; their names are those of `logs`,

and whose `get_config` adds the arguments of its own. All else is here.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import _keras
from keras_transfer.backbones.features import connect
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.layers.gradient_reversal import check_strength
from keras_transfer.losses.compiled_loss import check_exclusive
from keras_transfer.losses.compiled_loss import says_logits
from keras_transfer.models.backbone_model import AroundBackbone
from keras_transfer.models.backbone_model import flags_config
from keras_transfer.models.backbone_model import restore_flags
from keras_transfer.models.domain import by_domain
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain import read_domains
from keras_transfer.models.run_progress import RunProgress
from keras_transfer.models.strength import Strength
from keras_transfer.models.strength import strength_at
from keras_transfer.models.strength import strength_config
from keras_transfer.models.strength import take_strength
from keras_transfer.models.two_streams import check_activation
from keras_transfer.models.two_streams import check_streams
from keras_transfer.models.two_streams import gives_logits
from keras_transfer.models.two_streams import is_two_streams
from keras_transfer.models.two_streams import right
from keras_transfer.models.two_streams import split_labels
from keras_transfer.models.two_streams import STREAMS

SLOPE = 10.0  # gamma of Ganin et al., of a strength of None


@keras.saving.register_keras_serializable(package="keras_transfer")
class DomainAdaptation(AroundBackbone):
    """A feature extractor and a label head that also see a domain without labels.

    `fit` takes what `kt.data.domain_dataset` gives: `{"source": xs, "target": xt}` and
    the labels of the source. A call on plain input, and so `predict`, `evaluate` and
    `export`, know the label branch alone.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, as in
            `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`.
        strength: How strongly the domains are drawn together: a number, variable or
            schedule; None for Ganin's rise from 0 to `full_strength` over the steps of
            the running fit.
        total_steps: Updates over which a strength of None rises; None for those of the
            running fit.
        name: Name of the model.
    """

    full_strength = 1.0  # where a strength of None ends
    logs = ()  # the names of the means that a method records
    adapts = True  # whether training needs the target
    least_classes = 1  # how many outputs of the label head a method needs

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        strength: Strength = None,
        *,
        total_steps: int | None = None,
        name: str | None = None,
    ):
        strength = take_strength(strength, total_steps)
        if not isinstance(label_head, keras.Layer):
            raise TypeError(
                f"label_head is a {type(label_head).__name__}. Pass a Keras layer or "
                "model, such as keras.layers.Dense(10)."
            )
        inputs, features, unused = connect(feature_extractor)
        if len(features.shape) != 2 or features.shape[-1] is None:
            raise ValueError(
                f"The features of '{feature_extractor.name}' have the shape "
                f"{tuple(features.shape)}. Domains are compared by one vector of known "
                "width an example: end with Flatten or a pooling layer."
            )
        if {each.name for each in keras.tree.flatten(inputs)} == STREAMS:
            raise ValueError(
                f"The inputs of '{feature_extractor.name}' are named 'source' and "
                "'target', as the two domains are: plain input could not be told from "
                "both domains. Give the inputs other names."
            )
        outputs = label_head(features)
        if len(outputs.shape) != 2 or (outputs.shape[-1] or 0) < self.least_classes:
            raise ValueError(
                f"The label head '{label_head.name}' gives outputs of shape "
                f"{tuple(outputs.shape)}. {type(self).__name__} needs one output for "
                f"each class, {self.least_classes} or more."
            )
        super().__init__(inputs, outputs, unused, name)
        self.input_spec = None  # that of one input would refuse two streams
        self.feature_extractor = feature_extractor
        self.label_head = label_head
        self.strength = strength
        self._means = {each: keras.metrics.Mean(each) for each in self.logs}
        self._target_accuracy = keras.metrics.Mean("target_accuracy")
        # Out of Keras's sight: these layers are the model's own already, and what the
        # running fit says is not to be saved.
        network = keras.Model(inputs, [features, outputs])
        progress = RunProgress(total_steps)
        self._network, self._progress = lambda: network, lambda: progress

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return what `penalties` needs beside both domains; run added layers here.

        Arrays of one example a row, or the rows of a `predict` could not be joined.
        """
        return {}

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return by name (of `logs`) a loss, and the factor that it counts with."""
        return {}

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> object:
        """Return the label head's outputs; of two streams a dictionary.

        It holds the outputs by domain, `"features"` by domain, and what the method
        compares. Where a method does not adapt, training leaves the target out.
        """
        if not is_two_streams(inputs):
            return super().call(inputs, training=training, mask=mask)
        if training and self.strength is None and self.adapts:
            self._progress().check_known(self)
        count = check_streams(self, inputs, training)
        source, target = inputs["source"], inputs["target"]
        if training and not self.adapts:
            # Statistics and activity losses of the network would be the target's too.
            return by_domain(Domain(source, *self._network()(source, training=True)))
        both = keras.tree.map_structure(lambda *x: ops.concatenate(x), source, target)
        features, outputs = self._network()(both, training=training)
        domains = (
            Domain(source, features[:count], outputs[:count]),
            Domain(target, features[count:], outputs[count:]),
        )
        compared = self.compare(*domains, training)
        return {**by_domain(*domains), "compared": compared}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> object:
        """Return the loss of the labels, and of two streams that of the method."""
        if not is_two_streams(x):
            if training and self.adapts:
                raise ValueError(
                    f"{type(self).__name__} learns from two domains, but `fit` was "
                    "given one. Pass kt.data.domain_dataset(source, target, "
                    'batch_size) or x={"source": ..., "target": ...}.'
                )
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        labels, of_target = split_labels(y)
        if training and of_target is not None:
            raise ValueError(
                "Labels of the target were given for training, where they would leak "
                "into what is to be learnt without them. Pass those of the source "
                "alone; those of the target may be in validation_data."
            )
        check_activation(self, self.label_head)
        loss = super().compute_loss(
            x["source"], labels, y_pred["source"], sample_weight, training
        )
        if not self.adapts:
            return loss
        domains = read_domains(x, y_pred)
        for name, (value, factor) in self.penalties(
            *domains, y_pred["compared"]
        ).items():
            self.record(name, _keras.unscaled(value), y_pred["source"])
            loss = loss + ops.cast(factor, value.dtype) * value
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Return the metrics of the labels, and those of the method that were met."""
        if not is_two_streams(x):
            found = super().compute_metrics(x, y, y_pred, sample_weight)
            return self._without(found, [*self._means, "target_accuracy"])
        labels, of_target = split_labels(y)
        if of_target is not None:
            check_exclusive(self, y_pred["target"])
            logits = self.classes == 1 and says_logits(self)
            hits = right(of_target, y_pred["target"], logits)
            self._target_accuracy.update_state(hits)
        found = super().compute_metrics(
            x["source"], labels, y_pred["source"], sample_weight
        )
        if of_target is None:
            found = self._without(found, ["target_accuracy"])
        if self.adapts:
            found["strength"] = self.strength_now()
        return found

    def reset_metrics(self) -> None:
        """Reset the metrics; `fit` does so before each epoch, whose number is noted.

        A loss that was no number is told of here, and at the end of `fit`.
        """
        self._warn_if_diverged()
        super().reset_metrics()
        if self.strength is None:
            self._progress().start_epoch(self)
        else:
            check_strength(float(_keras.value(self.strength_now())))

    def fit(self, *args: object, **kwargs: object) -> keras.callbacks.History:
        """Train as any model does, and tell of a loss that was no number at the end."""
        history = super().fit(*args, **kwargs)
        self._warn_if_diverged()
        return history

    def strength_now(self) -> object:
        """Return the strength of the present step, a float32 scalar of the graph."""
        optimizer = getattr(self, "optimizer", None)
        if self.strength is not None:
            return strength_at(self.strength, optimizer)
        p = self._progress().value(optimizer)
        # 2 / (1 + exp(-slope p)) - 1, without losing the digits of a small p.
        return self.full_strength * ops.tanh(0.5 * SLOPE * p)

    @property
    def width(self) -> int:
        """The number of features."""
        return self._network().outputs[0].shape[-1]

    @property
    def classes(self) -> int:
        """The number of outputs of the label head."""
        return self.outputs[0].shape[-1]

    def record(self, name: str, value: object, rows: object) -> None:
        """Add a scalar of this step to the mean shown as `name`, by number of rows."""
        self._means[name].update_state(value, sample_weight=ops.shape(rows)[0])

    @property
    def from_logits(self) -> bool:
        """Whether the label head gives logits, as its loss says, or how it ends."""
        return gives_logits(self, self.label_head)

    def probabilities(self, outputs: object) -> object:
        """Return the outputs of the label head as float32 probabilities."""
        outputs = ops.cast(outputs, "float32")
        return ops.softmax(outputs) if self.from_logits else outputs

    def logits(self, outputs: object) -> object:
        """Return the outputs of the label head as float32 logits."""
        outputs = ops.cast(outputs, "float32")
        if self.from_logits:
            return outputs
        return ops.log(ops.maximum(outputs, keras.config.epsilon()))

    def get_config(self) -> dict:
        """Return the arguments, and which layers and weights train."""
        parts = (self.feature_extractor, self.label_head)
        extractor, head = map(keras.saving.serialize_keras_object, parts)
        return {
            "feature_extractor": extractor,
            "label_head": head,
            "strength": strength_config(self.strength),
            "total_steps": self._progress().total_steps,
            "name": self.name,
            **flags_config(self),
        }

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> DomainAdaptation:
        """Return the model of `get_config`, with the same trainable set."""
        config = {
            key: keras.saving.deserialize_keras_object(value, custom_objects)
            if isinstance(value, dict) and "class_name" in value
            else value
            for key, value in config.items()
        }
        flags = [config.pop(f"trainable_{x}", None) for x in ("layers", "weights")]
        model = cls(**config)
        restore_flags(model, *flags)
        return model

    def _warn_if_diverged(self) -> None:
        losses = [each for each in self.metrics if each.name == "loss"]
        if not all(np.isfinite(_keras.value(each.result())) for each in losses):
            warnings.warn(
                "The loss is not finite any more: the training has diverged. Begin "
                "again with a lower learning rate or strength; "
                "keras.callbacks.TerminateOnNaN() ends `fit` at the first such step.",
                RuntimeWarning,
                stacklevel=4,
            )

    def _without(self, found: dict, names: list) -> dict:
        # Means that this kind of step does not touch would read as zeros.
        return {key: value for key, value in found.items() if key not in names}
