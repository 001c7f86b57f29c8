"""L2SP: keep pretrained weights near their values, and a new head small."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer.backbones.groups import layer_groups
from keras_transfer.regularizers.attachments import Attached
from keras_transfer.regularizers.penalized import install
from keras_transfer.regularizers.penalty import able_weights
from keras_transfer.regularizers.penalty import check_model
from keras_transfer.regularizers.penalty import Penalty
from keras_transfer.regularizers.quadratic import Quadratic

HEAD = "head"


@keras.saving.register_keras_serializable(package="keras_transfer")
class L2SP(Penalty):
    """Penalize the distance of the weights from their pretrained values.

    Weight decay pulls the weights to 0, away from what pretraining has learned.
    L2-SP pulls them to their starting point (SP). It adds to the loss

    `alpha/2 ||w_S - w0_S||^2 + beta/2 ||w_H||^2`

    `w_S` are the weights that were pretrained, `w0_S` their values when the penalty was
    attached, and `w_H` the weights of the new head. Use it with an optimizer without
    weight decay. Statistics, such as those of BatchNorm, have no penalty.

    `attach` changes the model in place, and every `fit` of the model then adds the
    penalty to its loss, with any optimizer, on replicas, and in the phases of
    `GradualUnfreezing`: a weight counts while it trains, so the losses of different
    phases cannot be compared. The values `w0_S` are stored once and do not move with a
    later `fit`. They are saved in `.keras` and weight files, and `kt.resume`,
    `keras.saving.load_model` and BackupAndRestore continue with them. They take as much
    memory as the weights that can train, in float32.

    A regularizer that a layer already has is kept. Attach adapters first: then the
    weights of the adapter are anchored, and no memory is used for frozen weights. A
    copy that `keras.models.clone_model` makes of a functional or subclassed model
    raises an error in `fit`, because it has no anchors. Its copy of a Sequential is a
    plain model without a penalty. An exported model has no penalty.

    Args:
        alpha: Number of 0 or more, the strength for pretrained weights. Defaults to
            0.1.
        beta: Number of 0 or more, the strength for the head. Defaults to 0.01.

    Raises:
        ValueError: If `alpha` or `beta` is negative or not finite, or both are 0.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model = kt.models.TransferClassifier(backbone, num_classes=2)
        kt.regularizers.L2SP(alpha=0.1, beta=0.01).attach(model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)
        model.fit(np.ones((8, 4)), np.arange(8) % 2, verbose=0)
        ```

    Reference:
        Li, Grandvalet and Davoine 2018, Explicit Inductive Bias for Transfer Learning
        with Convolutional Networks, arXiv:1802.01483.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 0.01):
        self.alpha = number("alpha", alpha, 0)
        self.beta = number("beta", beta, 0)
        if self.alpha == self.beta == 0:
            raise ValueError(
                "alpha=0 and beta=0 penalize nothing. Pass a number above 0, or leave "
                "the penalty out."
            )

    def get_config(self) -> dict:
        """Return the arguments."""
        return {"alpha": self.alpha, "beta": self.beta}

    def attach(
        self,
        model: keras.Model,
        *,
        head: keras.Layer | Sequence[keras.Layer] | None = None,
        anchor: keras.Model | None = None,
    ) -> keras.Model:
        """Add the penalty to a model in place, with its present weights as anchors.

        Args:
            model: The built model that you fit. To distribute it, attach inside
                `strategy.scope()`.
            head: The layer, or list of layers, that is new. Defaults to None: the
                layers of the group `"head"` of `kt.layer_groups`.
            anchor: A model of the same layers with the pretrained weights, for a model
                that has trained already. Defaults to None: the model itself.

        Returns:
            The model.

        Raises:
            TypeError: If `model` or `anchor` is not a Keras model.
            ValueError: If the model is not built, has the penalty already, has no
                group `"head"`, or has no weight outside the head that can train, or if
                `head` or `anchor` does not fit the model.
        """
        check_model(model, self.name)
        new = _head_weights(model, head)
        able = able_weights(model)
        if all(id(variable) in new for variable in able.values()):
            raise ValueError(
                f"No weight of {model.name!r} outside its head can train, so there is "
                "nothing to keep near its start. Weights below an adapter and in a "
                "FrozenBackbone never train. Leave the penalty out."
            )
        values = dict(zip(able, able.values(), strict=True))
        if anchor is not None:
            _check_anchor(model, anchor)
            values = {place: anchor.weights[place] for place in able}
        penalties = {}
        with _keras.scope(model):
            for place, variable in able.items():
                anchored = id(variable) not in new
                factor = self.alpha if anchored else self.beta
                penalty = Quadratic(
                    factor, variable.shape, center=anchored, importance=False
                )
                if anchored:
                    penalty.assign(center=_keras.value(values[place]))
                penalties[place] = penalty
        install(model, self.name, Attached(self, penalties))
        return model

    def check_covers(self, model: keras.Model, covered: set[int]) -> None:
        """Check that all weights that train have the penalty.

        Raises:
            ValueError: If a weight was added after the penalty was attached.
        """
        missing = [x.path for x in model.trainable_variables if id(x) not in covered]
        if missing:
            raise ValueError(
                f"{len(missing)} weights of {model.name!r} train but have no {self!r}, "
                f"such as {missing[0]!r}. They were added after the penalty was "
                "attached. Call kt.regularizers.detach(model) and attach it again."
            )


def _head_weights(model: keras.Model, head: object) -> set[int]:
    if head is None:
        groups = layer_groups(model)
        if HEAD not in groups.names:
            raise ValueError(
                f"The layer groups of {model.name!r} are {groups.names}, without a "
                "head, so it is not clear which weights are new. Pass head=, the new "
                "layer or a list of layers, or head=[] if nothing is new."
            )
        return {id(variable) for variable in groups[HEAD].variables}
    layers = [head] if isinstance(head, keras.Layer) else head
    present = {id(layer) for layer in _keras.flat_layers(model)}
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(
            f"head={head!r} is not a layer or a list of layers. Pass the layer object, "
            "such as model.layers[-1]."
        )
    for layer in layers:
        if id(layer) not in present:
            raise ValueError(
                f"head has {getattr(layer, 'name', layer)!r}, which is not a layer of "
                f"{model.name!r}. Pass layers of this model."
            )
    return {id(variable) for layer in layers for variable in layer.weights}


def _check_anchor(model: keras.Model, anchor: object) -> None:
    if not isinstance(anchor, keras.Layer):
        raise TypeError(
            f"anchor is a {type(anchor).__name__}, not a Keras model. Pass a model of "
            "the same layers, with the pretrained weights."
        )
    ours = [(x.name, tuple(x.shape)) for x in model.weights]
    theirs = [(x.name, tuple(x.shape)) for x in anchor.weights]
    if ours != theirs:
        differing = [pair for pair in zip(ours, theirs) if pair[0] != pair[1]]
        what = f"{len(theirs)} weights instead of {len(ours)}"
        if differing:
            what = f"{differing[0][1]} where the model has {differing[0][0]}"
        raise ValueError(
            f"anchor={anchor.name!r} is another model than {model.name!r}: it has "
            f"{what}. Pass a model of the same layers in the same order."
        )
