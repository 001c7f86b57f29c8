"""TransferClassifier: a new classification head on any backbone."""

import warnings

import keras

from keras_transfer._arguments import dropout_rate
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.class_scores import warning_of_scores
from keras_transfer.backbones.features import connect
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone
from keras_transfer.models.backbone_model import BackboneModel


@keras.saving.register_keras_serializable(package="keras_transfer")
class TransferClassifier(BackboneModel):
    """A classifier: a backbone, pooling, dropout and a Dense layer for the logits.

    The model computes `logits = W dropout(pool(backbone(x))) + b`. keras-hub has Tasks
    such as `BertTextClassifier` for many backbones. Use `TransferClassifier` for other
    backbones: keras.applications, keras-cv, keras-hub backbones without a classifier,
    your own functional and Sequential models, and a `FrozenBackbone` of any of these.
    It is an ordinary functional model. You compile and fit it as usual, and it has
    layer groups. Its last layer is named `logits`.

    Weights that the logits do not use are not in `trainable_variables`, even if their
    flag is True. Examples are BERT's pooler if the tokens are averaged, and T5's
    decoder. Otherwise Keras would warn that these weights have no gradient, and the
    optimizer would keep slots for them.

    A saved model contains the trainable flags of its layers. keras-hub backbones lose
    these flags in a `.keras` file, and then the optimizer loses its state. Inside a
    `TransferClassifier`, flags and optimizer state are restored.

    Args:
        backbone: A functional or built Sequential model, or a `FrozenBackbone` of such
            a model. Its inputs are the inputs of this model, such as a dictionary for
            keras-hub text backbones. For a backbone with several outputs, such as CLIP,
            pass `kt.backbones.features(backbone, output=...)`. A backbone that ends in
            class scores (`include_top=True`) causes a warning.
        num_classes: Int of at least 1, the number of logits.
        pooling: How the output becomes one vector, as in `kt.backbones.features`.
            Defaults to `"auto"`.
        dropout: Float in [0, 1), the dropout rate before the last layer. Defaults to
            0.0.
        activation: Activation of the last layer. Defaults to None: logits, for a loss
            with `from_logits=True`.
        dtype: Dtype policy of pooling and dropout. Defaults to None, the policy of the
            backbone. The logits are always float32.
        name: Name of the model.

    Input shape:
        The input shape of the backbone.

    Output shape:
        `(batch, num_classes)`.

    Example:
        ```python
        import keras
        import numpy as np
        import keras_transfer as kt

        backbone = keras.applications.MobileNetV2(
            input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None
        )
        model = kt.models.TransferClassifier(backbone, num_classes=5, dropout=0.1)
        assert model(np.ones((2, 32, 32, 3))).shape == (2, 5)
        ```

    Raises:
        TypeError: If the backbone is not a model, or is a Task that already has a head.
        ValueError: If the backbone is not built, if the pooling does not match its
            output, or if `num_classes` or `dropout` is out of range.

    Reference:
        Donahue et al., 2014, "DeCAF: A Deep Convolutional Activation Feature
        for Generic Visual Recognition", arXiv 1310.1531.
    """

    def __init__(
        self,
        backbone: keras.Model | FrozenBackbone,
        num_classes: int,
        *,
        pooling: str | None = "auto",
        dropout: float = 0.0,
        activation: object = None,
        dtype: object = None,
        name: str | None = None,
    ):
        whole_number("num_classes", num_classes, why="it is the number of logits")
        dropout_rate("dropout", dropout)
        inputs, x, unused = connect(backbone, pooling, dtype)
        network = unwrap(backbone)
        scores = warning_of_scores(network)
        if scores:
            warnings.warn(scores, stacklevel=2)
        if dtype is None:
            dtype = network.dtype_policy
        x = keras.layers.Dropout(dropout, dtype=dtype, name="dropout")(x)
        logits = keras.layers.Dense(
            int(num_classes), activation, dtype="float32", name="logits"
        )
        super().__init__(inputs, logits(x), unused, name)
        self.backbone = backbone
        self.num_classes = int(num_classes)
        self.pooling = pooling

    def get_config(self) -> dict:
        """Return the arguments and the trainable flags."""
        dropout = self.get_layer("dropout")
        activation = self.get_layer("logits").activation
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "num_classes": self.num_classes,
            "pooling": self.pooling,
            "dropout": dropout.rate,
            "activation": keras.activations.serialize(activation),
            "dtype": keras.dtype_policies.serialize(dropout.dtype_policy),
            "name": self.name,
            **self.flags_config(),
        }
