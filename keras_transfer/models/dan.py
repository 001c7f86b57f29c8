"""DAN: features and outputs that a kernel cannot distinguish by domain."""

import keras

from keras_transfer.losses.mmd import MMD
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.two_streams import Domain


@keras.saving.register_keras_serializable(package="keras_transfer")
class DAN(DomainAdaptation):
    """Learn features and outputs that a kernel cannot distinguish by domain.

    The maximum mean discrepancy (MMD) of both domains is added to the loss, once for
    the features f and once for the label head's outputs g, with s the strength:

        L = CE(source) + s (MMD^2(f_s, f_t) + MMD^2(g_s, g_t))

    `kt.losses.MMD` is the unbiased estimate with five Gaussian kernels, so that it may
    be a little below 0. `fit` logs `mmd_loss` and `strength`.

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
        It is compiled and fitted as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, without a domain head.

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
