"""TwoDomainModel: the base of models that see two domains in one `fit`.

To add a method write one file with a subclass, of `DomainAdaptation` where it has a
strength, that is registered with Keras and has

1. `compare`, which runs the layers that the method adds, on both domains, and
2. `penalties`, which makes losses of it: by keras losses, since these add up rightly
   over replicas; their names are those of `logs`,

and whose `arguments` name what its constructor takes. All else is here.
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
from keras_transfer.losses.compiled_loss import check_exclusive
from keras_transfer.losses.compiled_loss import says_logits
from keras_transfer.models.backbone_model import BackboneModel
from keras_transfer.models.label_heads import check_activation
from keras_transfer.models.label_heads import correct_rows
from keras_transfer.models.label_heads import gives_logits
from keras_transfer.models.two_streams import check_streams
from keras_transfer.models.two_streams import Domain
from keras_transfer.models.two_streams import is_two_streams
from keras_transfer.models.two_streams import join
from keras_transfer.models.two_streams import read_domains
from keras_transfer.models.two_streams import split
from keras_transfer.models.two_streams import split_labels
from keras_transfer.models.two_streams import STREAMS


@keras.saving.register_keras_serializable(package="keras_transfer")
class TwoDomainModel(BackboneModel):
    """A feature extractor and a label head that also see a domain without labels.

    `fit` takes what `kt.data.domain_dataset` gives: `{"source": xs, "target": xt}` and
    the labels of the source. A call on plain input, and so `predict`, `evaluate` and
    `export`, know the label branch alone.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, as in
            `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`.
        name: Name of the model.
    """

    # What the constructor takes: attributes of these names make the config.
    arguments = ("feature_extractor", "label_head", "name")
    logs = ()  # the names of the means that a method records
    least_classes = 1  # how many outputs of the label head a method needs

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        name: str | None = None,
    ):
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
        if {leaf.name for leaf in keras.tree.flatten(inputs)} == set(STREAMS):
            raise ValueError(
                f"The inputs of '{feature_extractor.name}' are named 'source' and "
                "'target', as the two domains are: plain input could not be "
                "distinguished from both domains. Give the inputs other names."
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
        self._means = {name: keras.metrics.Mean(name) for name in self.logs}
        self._target_accuracy = keras.metrics.Mean("target_accuracy")
        # Out of Keras's sight: its layers are the model's own already.
        network = keras.Model(inputs, [features, outputs])
        self._network = lambda: network

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Return what `penalties` needs besides both domains; run added layers here.

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
        compares.
        """
        if not is_two_streams(inputs):
            return super().call(inputs, training=training, mask=mask)
        count = check_streams(self, inputs, training)
        both = join(inputs["source"], inputs["target"])
        features, outputs = self._network()(both, training=training)
        results = {**split(outputs, count), "features": split(features, count)}
        compared = self.compare(*read_domains(inputs, results), training)
        return {**results, "compared": compared}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> object:
        """Return the loss of the labels, and of two streams that of the method."""
        if training and not is_two_streams(x):
            raise ValueError(
                f"{type(self).__name__} learns from two domains, but `fit` was given "
                "one. Pass kt.data.domain_dataset(source, target, batch_size) or "
                'x={"source": ..., "target": ...}.'
            )
        loss = self.label_loss(x, y, y_pred, sample_weight, training)
        if not is_two_streams(x):
            return loss
        penalties = self.penalties(*read_domains(x, y_pred), y_pred["compared"])
        for name, (value, factor) in penalties.items():
            self.record(name, _keras.unscaled(value), y_pred["source"])
            loss = loss + ops.cast(factor, value.dtype) * value
        return loss

    def label_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> object:
        """Return the loss of the labels; of two streams these are the source's."""
        if not is_two_streams(x):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        labels, of_target = split_labels(y)
        if training and of_target is not None:
            raise ValueError(
                "Labels of the target were given for training, where they would leak "
                "into what is to be learned without them. Pass those of the source "
                "alone; those of the target may be in validation_data."
            )
        check_activation(self)
        return super().compute_loss(
            x["source"], labels, y_pred["source"], sample_weight, training
        )

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Return the metrics of the labels, and those of the method that were met."""
        # Means that a step does not touch would read as zeros.
        untouched = {"target_accuracy"}
        if is_two_streams(x):
            y, of_target = split_labels(y)
            if of_target is not None:
                self._score_target(of_target, y_pred["target"])
                untouched.clear()
            x, y_pred = x["source"], y_pred["source"]
        else:
            untouched.update(self._means)
        metrics = super().compute_metrics(x, y, y_pred, sample_weight)
        return {key: metrics[key] for key in metrics if key not in untouched}

    def _score_target(self, labels: object, outputs: object) -> None:
        check_exclusive(self, outputs)
        from_logits = self.classes == 1 and says_logits(self)
        self._target_accuracy.update_state(correct_rows(labels, outputs, from_logits))

    def reset_metrics(self) -> None:
        """Reset the metrics; warn of a loss of the last epoch that is not finite."""
        self._warn_if_diverged()
        super().reset_metrics()

    def fit(self, *args: object, **kwargs: object) -> keras.callbacks.History:
        """Train as any model does, and warn at the end of a loss that is not finite."""
        history = super().fit(*args, **kwargs)
        self._warn_if_diverged()
        return history

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
        return gives_logits(self)

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
        """Return the `arguments`, and which layers and weights train."""
        config = {name: _plain(getattr(self, name)) for name in self.arguments}
        return config | self.flags_config()

    def _warn_if_diverged(self) -> None:
        losses = [metric for metric in self.metrics if metric.name == "loss"]
        if not all(np.isfinite(_keras.value(metric.result())) for metric in losses):
            warnings.warn(
                "The loss is not finite any more: the training has diverged. Begin "
                "again with a lower learning rate or strength; "
                "keras.callbacks.TerminateOnNaN() ends `fit` at the first such step.",
                RuntimeWarning,
                stacklevel=4,
            )


def _plain(value: object) -> object:
    """Return a value as JSON can hold it."""
    if isinstance(value, keras.Layer):
        return keras.saving.serialize_keras_object(value)
    return list(value) if isinstance(value, tuple) else value
