"""JAN: domain adaptation by the joint distribution of features and predictions."""

import keras

from keras_transfer.losses.joint_mmd import JointMMD
from keras_transfer.models.domain_adaptation import DomainAdaptation
from keras_transfer.models.two_streams import Domain


@keras.saving.register_keras_serializable(package="keras_transfer")
class JAN(DomainAdaptation):
    """Domain adaptation by the joint maximum mean discrepancy (JMMD).

    `DAN` compares features and outputs separately. `JAN` compares the joint
    distribution of features and predictions, so each class is aligned with the same
    class of the other domain. The loss multiplies a kernel of the features f by a
    kernel of the probabilities p. With s the strength:

        L = CE(source) + s JMMD^2((f_s, p_s), (f_t, p_t))

    `fit` logs `joint_mmd_loss` and `strength`.

    Args:
        feature_extractor: As in `DANN`.
        label_head: As in `DANN`, with at least two classes.
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
        model = kt.models.JAN(features, keras.layers.Dense(2), strength=0.3)
        ```
        Compile and fit the model as in `DANN`.

    Raises:
        TypeError: As in `DANN`.
        ValueError: As in `DANN`, and if the label head has one output.

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
