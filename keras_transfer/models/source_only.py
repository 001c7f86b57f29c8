"""SourceOnly: the reference without adaptation, with the interface of the methods."""

import keras

from keras_transfer.models.domain_adaptation import DomainAdaptation


@keras.saving.register_keras_serializable(package="keras_transfer")
class SourceOnly(DomainAdaptation):
    """Learn from the labels of the source alone, as the reference of every method.

    It trains on the data of `kt.data.domain_dataset`, whose target it passes by, as
    well as on plain `(x, y)`: labelled data of the target makes it the other
    reference, of training on the target. Each method's gain is told by the two
    (`kt.analysis.AdaptationTable`).

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`.
        name: Name of the model.

    Input shape:
        That of the feature extractor, or a dictionary of two such inputs, `"source"`
        and `"target"`.

    Output shape:
        That of the label head, `(batch, classes)`.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        features = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8, activation="relu")]
        )
        model = kt.models.SourceOnly(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        model.fit(np.random.rand(32, 4), np.arange(32) % 2, verbose=0)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors.

    Reference:
        Ganin et al., 2016, "Domain-Adversarial Training of Neural Networks", arXiv
        1505.07818, section 5.2 ("source only" and "train on target").
    """

    adapts = False

    def __init__(
        self,
        feature_extractor: keras.Model,
        label_head: keras.Layer,
        *,
        name: str | None = None,
    ):
        super().__init__(feature_extractor, label_head, strength=0.0, name=name)

    def get_config(self) -> dict:
        """Return the arguments, and which layers and weights train."""
        config = super().get_config()
        del config["strength"], config["total_steps"]
        return config
