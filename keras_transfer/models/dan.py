"""DAN: domain adaptation by the maximum mean discrepancy of features and outputs."""

import keras

from keras_transfer.losses.mmd import MMD
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.two_streams import Domain


@keras.saving.register_keras_serializable(package="keras_transfer")
class DAN(DomainAdaptation):
    """Domain adaptation by the maximum mean discrepancy (MMD) of the two domains.

    The MMD is a distance between the distributions of the domains. The loss contains it
    twice, for the features f and for the outputs g of the label head. With s the
    strength:

        L = CE(source) + s (MMD^2(f_s, f_t) + MMD^2(g_s, g_t))

    `kt.losses.MMD` is an unbiased estimate with five Gaussian kernels, so it can be
    slightly below 0. `fit` logs `mmd_loss` and `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`.
        strength: As in `DANN`, but the weight of the loss.
        total_steps: As in `DANN`.
        name: As in `DANN`.

    Input shape:
        As in `DANN`.

    Output shape:
        As in `DANN`.

    Example:
        ```python
        features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        model = kt.models.DAN(features, keras.layers.Dense(2), strength=0.3)
        ```
        Compile and fit the model as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, except for the domain head.

    Reference:
        Long, Cao, Wang and Jordan, 2015, "Learning Transferable Features with Deep
        Adaptation Networks", arXiv 1502.02791.
    """

    logs = ("mmd_loss",)

    def penalties(self, source: Domain, target: Domain, compared: dict) -> dict:
        """Return the sum of the discrepancies of features and outputs."""
        mmd = MMD()
        of_features = mmd(source.features, target.features)
        of_outputs = mmd(source.outputs, target.outputs)
        return {"mmd_loss": (of_features + of_outputs, self.strength_now())}
