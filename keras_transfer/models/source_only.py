"""SourceOnly: the baseline without adaptation, with the same interface as DANN."""

from typing import Any

import keras

from keras_transfer.models.two_domain_model import TwoDomainModel
from keras_transfer.models.two_streams import check_streams
from keras_transfer.models.two_streams import is_two_streams


@keras.saving.register_keras_serializable(package="keras_transfer")
class SourceOnly(TwoDomainModel):
    """Train on the labels of the source only, as a baseline for every method.

    The model trains on the data of `kt.data.domain_dataset` and ignores the target. It
    also trains on plain `(x, y)`. With labeled data of the target, it is the second
    baseline, training on the target. `kt.analysis.AdaptationTable` uses both baselines
    to show the gain of each method.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `DANN`. `fit` also accepts plain input.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.SourceOnly(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        model.fit(np.random.rand(32, 4), np.arange(32) % 2, verbose=0)
        ```

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, for the features and the label head.

    Reference:
        Ganin et al., 2016, "Domain-Adversarial Training of Neural Networks", arXiv
        1505.07818, section 5.2 ("source only" and "train on target").
    """

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> object:
        """Return the outputs. In training, these are the outputs of the source."""
        if not (training and is_two_streams(inputs)):
            return super().call(inputs, training=training, mask=mask)
        check_streams(self, inputs, training)
        # The target must not affect the statistics and activity losses of the network.
        features, outputs = self._network()(inputs["source"], training=True)
        return {"source": outputs, "features": {"source": features}}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> object:
        """Return the loss of the labels of the source or of plain data."""
        return self.label_loss(x, y, y_pred, sample_weight, training)
