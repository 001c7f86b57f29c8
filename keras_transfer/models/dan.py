"""DAN: features and outputs of both domains alike in a kernel's eyes."""

import keras

from keras_transfer.losses.mmd import MMD
from keras_transfer.models.domain import Domain
from keras_transfer.models.domain_adaptation import DomainAdaptation


@keras.saving.register_keras_serializable(package="keras_transfer")
class DAN(DomainAdaptation):
    """Learn features and outputs whose distributions a kernel cannot tell apart.

    The maximum mean discrepancy (MMD) of both domains is added to the loss, once for
    the features f and once for the label head's outputs g, with s the strength:

        L = CE(source) + s (MMD^2(f_s, f_t) + MMD^2(g_s, g_t))

    `kt.losses.MMD` is the unbiased estimate with five Gaussian kernels, so that it may
    be a little below 0. `fit` logs `mmd_loss` and `strength`.

    Args:
        feature_extractor: A functional or built Sequential model, or a backbone, read
            as by `kt.backbones.features`. Its inputs are those of this model.
        label_head: A layer or model from features `(batch, width)` to outputs
            `(batch, classes)`.
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
        model = kt.models.DAN(features, keras.layers.Dense(2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        xs, ys, xt = np.random.rand(32, 4), np.arange(32) % 2, np.random.rand(24, 4)
        data = kt.data.domain_dataset((xs, ys), xt, batch_size=8)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        assert model.predict(xt, verbose=0).shape == (24, 2)
        ```

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If the features are no vectors, or the strength is out of range; in
            `fit`, if the data has one domain only, or labels of the target.

    Reference:
        Long, Cao, Wang and Jordan, 2015, "Learning Transferable Features with Deep
        Adaptation Networks", arXiv 1502.02791.
    """

    logs = ("mmd_loss",)

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the discrepancies of features and outputs, added up."""
        mmd = MMD()
        of_features = mmd(source.features, target.features)
        of_outputs = mmd(source.outputs, target.outputs)
        return {"mmd_loss": (of_features + of_outputs, self.strength_now())}
