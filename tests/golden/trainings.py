"""The trainings of the golden files, which are saved halfway and then continue."""

from collections.abc import Callable
from typing import NamedTuple

import keras

import keras_transfer as kt
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.golden import bases

EPOCHS, HALF = 4, 2  # epochs of each training, and epochs before the file is saved


class Training(NamedTuple):
    """A model, its data and callbacks, and the function that loads its file."""

    make: Callable
    data: Callable
    callbacks: Callable = lambda model: []
    load: Callable = keras.models.load_model

    def fit(self, model, *, initial_epoch=0, also=()):
        """Train to the last epoch, with examples in a fixed order."""
        return model.fit(
            *self.data(),
            batch_size=4,
            initial_epoch=initial_epoch,
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=[*self.callbacks(model), *also],
        )


def unfreezing(model):
    """Return the callback that unfreezes one more group in each epoch."""
    return [kt.callbacks.GradualUnfreezing(model)]


def unfreezing_by_loss(model):
    """Return the callback that can end a phase early, depending on the loss."""
    groups = kt.layer_groups(model)
    names = groups.names
    phases = [((names[-1],), 3), (tuple(names[-2:]), 3, 0.5), (tuple(names), 1)]
    return [
        kt.callbacks.GradualUnfreezing(
            groups, phases, monitor="loss", patience=1, mode="max"
        )
    ]


def mlp(optimizer, **rates):
    """Return a compiled stack of Dense layers with different learning rates."""
    model = bases.mlp()
    discriminative = kt.optimizers.discriminative(optimizer, model, **rates)
    model.compile(discriminative, bases.LOGITS, metrics=["accuracy"])
    return model


def bert():
    """Return a compiled BERT, whose optimizer the callback makes discriminative."""
    model = bases.bert()
    model.compile(keras.optimizers.Adam(0.01), bases.LOGITS)
    return model


def domain_model(kind):
    """Return a compiled model of two domains with Ganin's schedule of the strength."""
    model = kind(extractor(), free_head())
    optimizer = keras.optimizers.SGD(kt.optimizers.GaninDecay(0.05, 8), momentum=0.9)
    model.compile(optimizer, bases.LOGITS, metrics=["accuracy"])
    return model


def penalized():
    """Return a compiled model with both penalties, which weights have left."""
    model = bases.mlp()
    kt.regularizers.L2SP(0.5, 0.25).attach(model, head=model.layers[-1])
    recipe = kt.regularizers.EWC(2.0, gamma=0.5)
    recipe.attach(model, bases.vectors(), from_logits=True)
    for weight in model.weights:
        weight.assign(0.5 * weight)
    model.compile(keras.optimizers.Adam(0.01), bases.LOGITS)
    return model


def vectors():
    """Return rows of numbers and labels."""
    return bases.vectors(), bases.labels()


def tokens():
    """Return token ids and labels."""
    return bases.tokens(), bases.labels(4)


def domains():
    """Return both domains and the labels of the source."""
    source = bases.vectors()
    return {"source": source, "target": source * 2 + 0.5}, bases.labels()


TRAININGS = {
    "unfreezing_adamw": Training(
        lambda: mlp(
            keras.optimizers.AdamW(
                kt.optimizers.LinearWarmupDecay(0.05, 8), weight_decay=0.1
            ),
            rates={"dense_0": 0.25, ("dense_1", "kernel"): 0.5},
            no_weight_decay=True,
        ),
        vectors,
        unfreezing,
        kt.resume,
    ),
    "unfreezing_bert_by_loss": Training(bert, tokens, unfreezing_by_loss, kt.resume),
    "nadam_slanted": Training(
        lambda: mlp(
            keras.optimizers.Nadam(kt.optimizers.SlantedTriangular(0.05, 8)),
            layer_decay=0.5,
        ),
        vectors,
    ),
    "adafactor_warmup": Training(
        lambda: mlp(
            keras.optimizers.Adafactor(kt.optimizers.LinearWarmupDecay(0.05, 8)),
            layer_decay=0.5,
        ),
        vectors,
    ),
    "penalized": Training(penalized, vectors),
    "dann": Training(lambda: domain_model(kt.models.DANN), domains),
    "mcd": Training(lambda: domain_model(kt.models.MCD), domains),
}
