"""JAN: features and predictions of both domains alike together."""

import keras

from keras_transfer.losses.joint_mmd import JointMMD
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain_adaptation import DomainAdaptation


@keras.saving.register_keras_serializable(package="keras_transfer")
class JAN(DomainAdaptation):
    """Learn features that go together with the same predictions in both domains.

    Where `DAN` compares features and outputs each for itself, this compares their joint
    distribution, so that a class is drawn to the same class: a kernel of the features
    is multiplied by one of the probabilities p. With s the strength:

        L = CE(source) + s JMMD^2((f_s, p_s), (f_t, p_t))

    `fit` logs `joint_mmd_loss` and `strength`.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`, two classes or more.
        strength: Weight of the loss, 0 or more, without unit: a number, a
            `keras.Variable`, or a schedule over the optimizer's steps; None for Ganin's
            rise from 0 to 1 over the running fit, the default.
        total_steps: Updates over which a strength of None rises. Defaults to None:
            those of the running fit, which must know its number of batches.
        name: Name of the model.

    Input shape:
        That of the feature extractor; in `fit` a dictionary of two such inputs,
        `"source"` and `"target"`.

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
        model = kt.models.JAN(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, the label head has one output, or
            the strength is out of range; in `fit`, if the data has one domain only, or
            labels of the target.

    Reference:
        Long, Zhu, Wang and Jordan, 2017, "Deep Transfer Learning with Joint Adaptation
        Networks", arXiv 1605.06636.
    """

    logs = ("joint_mmd_loss",)
    least_classes = 2

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the joint discrepancy of features and probabilities."""
        pairs = [(x.features, self.probabilities(x.outputs)) for x in (source, target)]
        return {"joint_mmd_loss": (JointMMD()(*pairs), self.strength_now())}
