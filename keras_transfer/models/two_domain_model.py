"""TwoDomainModel: the base class of models that train on two domains in one `fit`.

To add a method, write one file with a subclass that is registered with Keras. A method
with a strength is a subclass of `DomainAdaptation`. The subclass defines

1. `compare`, which runs the layers that the method adds, on both domains,
2. `penalties`, which returns the losses of the method under the names in `logs`. Use
   Keras losses, because these give the correct sum over replicas.
3. `arguments`, the names of the constructor's arguments.

This base class does everything else.
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
    """A feature extractor and a label head that also train on a domain without labels.

    `fit` takes the data of `kt.data.domain_dataset`: `{"source": xs, "target": xt}` and
    the labels of the source. A call on plain input, `predict`, `evaluate` and `export`
    use only the feature extractor and the label head.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, as in
            `kt.backbones.features`. Its inputs are the inputs of this model.
        label_head: A layer or model that maps features `(batch, width)` to outputs
            `(batch, classes)`.
        name: Name of the model.
    """

    # Arguments of the constructor. The config has the attributes of these names.
    arguments = ("feature_extractor", "label_head", "name")
    logs = ()  # the names of the means that a method records
    least_classes = 1  # the smallest number of outputs of the label head

    def __init__(
        self,
        feature_extractor: keras.Model | FrozenBackbone,
        label_head: keras.Layer,
        *,
        name: str | None = None,
    ):
        if not isinstance(label_head, keras.Layer):
            raise TypeError(
                f"label_head is a {type(label_head).__name__}, not a layer. Pass a "
                "Keras layer or model, such as keras.layers.Dense(10)."
            )
        inputs, features, unused = connect(feature_extractor)
        if len(features.shape) != 2 or features.shape[-1] is None:
            raise ValueError(
                f"The features of '{feature_extractor.name}' have the shape "
                f"{tuple(features.shape)}, but the method needs one vector of known "
                "width per example. End the extractor with Flatten or a pooling layer."
            )
        if {leaf.name for leaf in keras.tree.flatten(inputs)} == set(STREAMS):
            raise ValueError(
                f"The inputs of '{feature_extractor.name}' are named 'source' and "
                "'target', like the two domains, so plain input cannot be "
                "distinguished from data of two domains. Rename the inputs."
            )
        outputs = label_head(features)
        if len(outputs.shape) != 2 or (outputs.shape[-1] or 0) < self.least_classes:
            raise ValueError(
                f"The label head '{label_head.name}' gives outputs of shape "
                f"{tuple(outputs.shape)}. {type(self).__name__} needs one output for "
                f"each class, {self.least_classes} or more. Use another label head."
            )
        super().__init__(inputs, outputs, unused, name)
        self.input_spec = None  # the spec of one input would reject two domains
        self.feature_extractor = feature_extractor
        self.label_head = label_head
        self._means = {name: keras.metrics.Mean(name) for name in self.logs}
        self._target_accuracy = keras.metrics.Mean("target_accuracy")
        # A lambda hides the network from Keras, which tracks its layers already.
        network = keras.Model(inputs, [features, outputs])
        self._network = lambda: network

    def compare(self, source: Domain, target: Domain, training: bool) -> dict:
        """Run the added layers, and return the arrays that `penalties` needs.

        Each array must have one row per example, so that `predict` can join batches.
        """
        return {}

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return a dict of a name in `logs` to a loss and its weight."""
        return {}

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> object:
        """Return the outputs of the label head, or a dictionary for two domains.

        The dictionary contains the outputs by domain, the `"features"` by domain, and
        the result of `compare` as `"compared"`.
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
        """Return the loss of the labels, plus the method's losses for two domains."""
        if training and not is_two_streams(x):
            raise ValueError(
                f"{type(self).__name__} trains on two domains, but `fit` got only one. "
                "Pass kt.data.domain_dataset(source, target, batch_size) or "
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
        """Return the loss of the labels. For two domains, it uses the source labels."""
        if not is_two_streams(x):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        labels, of_target = split_labels(y)
        if training and of_target is not None:
            raise ValueError(
                "The training data has labels of the target. They would leak into a "
                "training that must work without them. Pass the labels of the source "
                "only. Labels of the target are allowed in validation_data."
            )
        check_activation(self)
        return super().compute_loss(
            x["source"], labels, y_pred["source"], sample_weight, training
        )

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Return the metrics of the labels, and the updated metrics of the method."""
        # Means without an update would show as zeros.
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
        """Reset the metrics, and warn if the loss of the last epoch is not finite."""
        self._warn_if_diverged()
        super().reset_metrics()

    def fit(self, *args: object, **kwargs: object) -> keras.callbacks.History:
        """Train like any model, and warn at the end if the loss is not finite."""
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
        """Add a scalar to the mean `name`, weighted by the number of `rows`."""
        self._means[name].update_state(value, sample_weight=ops.shape(rows)[0])

    @property
    def from_logits(self) -> bool:
        """Whether the label head gives logits, from the loss or its activation."""
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
        """Return the `arguments` and the trainable flags."""
        config = {name: _plain(getattr(self, name)) for name in self.arguments}
        return config | self.flags_config()

    def _warn_if_diverged(self) -> None:
        losses = [metric for metric in self.metrics if metric.name == "loss"]
        if not all(np.isfinite(_keras.value(metric.result())) for metric in losses):
            warnings.warn(
                "The loss is not finite, because the training has diverged. Train "
                "again with a lower learning rate or strength. To stop `fit` at the "
                "first loss of NaN, use keras.callbacks.TerminateOnNaN().",
                RuntimeWarning,
                stacklevel=4,
            )


def _plain(value: object) -> object:
    """Return a value in a form that JSON can store."""
    if isinstance(value, keras.Layer):
        return keras.saving.serialize_keras_object(value)
    return list(value) if isinstance(value, tuple) else value
