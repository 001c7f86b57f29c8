"""Trainings from fixed weights, to compare the backends of Keras in two processes.

    KERAS_BACKEND=jax python -m tests.backends.trainings folder [names]

Each training writes its weights, its optimizer state and its losses to a file.
"""

import pathlib
import sys

import keras
import numpy as np

import keras_transfer as kt
from tests import tiny
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.golden import bases

SETTINGS = dict(epochs=5, batch_size=4, shuffle=False, verbose=0)


def blocks():
    """Return a stack of Dense layers, of which two have weights of equal shapes."""
    return bases.exact(tiny.mlp(widths=(6, 6, 6, 3)))


def fit(model, x, **settings):
    """Return what a training of 20 steps leaves."""
    rows = len(keras.tree.flatten(x)[0])
    y = bases.labels(rows)
    history = model.fit(x, y, **SETTINGS | settings)
    return state(model, history)


def state(model, history):
    variables = [*model.weights, *model.optimizer.variables]
    arrays = [np.asarray(keras.ops.convert_to_tensor(x)) for x in variables]
    return arrays + [np.array(history.history["loss"])]


def discriminative(optimizer):
    model = blocks()
    optimizer = kt.optimizers.discriminative(optimizer, model, layer_decay=0.5)
    model.compile(optimizer, bases.LOGITS)
    return model


def clipped(folder):
    adamw = keras.optimizers.AdamW(
        0.01, weight_decay=0.1, global_clipnorm=0.1, use_ema=True
    )
    return fit(discriminative(adamw), bases.vectors(16))


def accumulated(folder):
    nadam = keras.optimizers.Nadam(0.01, gradient_accumulation_steps=2, clipnorm=0.1)
    return fit(discriminative(nadam), bases.vectors(16))


def exchanged(folder):
    """Train two blocks of equal shapes one after the other, and then all."""
    model = discriminative(keras.optimizers.AdamW(0.01, use_ema=True))
    groups = kt.layer_groups(model)
    phases = [
        (("dense_1",), 2),
        (("dense_2",), 1),
        (("dense_1",), 1, 0.5),
        (groups.names, 1),
    ]
    unfreezing = kt.callbacks.GradualUnfreezing(groups, phases)
    return fit(model, bases.vectors(16), callbacks=[unfreezing])


def adapted(adapter):
    model = bases.bert()
    adapter.attach(model, verbose=0)
    bases.exact(model, 0.5)
    model.compile(keras.optimizers.Adam(0.01), bases.LOGITS)
    return fit(model, bases.tokens(16))


def lora(folder):
    return adapted(kt.adapters.LoRA(rank=2))


def bottleneck(folder):
    return adapted(kt.adapters.Bottleneck(size=2))


def fine_tuned(strategy):
    model = bases.exact(kt.models.TransferClassifier(tiny.mlp((6, 6, 6)), 3))
    model.layers[-1].bias.assign(np.zeros(3))  # a new head
    model.compile(keras.optimizers.AdamW(0.01), bases.LOGITS)
    keras.utils.set_random_seed(1)
    x, y = bases.vectors(48), bases.labels(48)
    settings = dict(epochs=3, batch_size=8, strategy=strategy, verbose=0)
    return state(model, kt.fine_tune(model, (x, y), **settings))


def gradual(folder):
    return fine_tuned("gradual")


def probe(folder):
    return fine_tuned("probe")


def auto(folder):
    return fine_tuned("auto")


def dann(folder):
    """Train on two domains, with a strength that stays the same."""
    model = kt.models.DANN(extractor(), free_head(), strength=0.5)
    optimizer = keras.optimizers.SGD(kt.optimizers.GaninDecay(0.05, 20), momentum=0.9)
    model.compile(optimizer, bases.LOGITS)
    bases.exact(model)
    source = bases.vectors(16)
    x = {"source": source, "target": source * 2 + 0.5}
    return state(model, model.fit(x, bases.labels(16), **SETTINGS))


def resumed(folder):
    """Save a training in the middle of its phases, and continue it."""
    model = discriminative(keras.optimizers.AdamW(0.01))
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    fit(model, bases.vectors(16), epochs=2, callbacks=[unfreezing])
    model.save(folder / "half.keras")
    return continued(folder)


def continued(folder):
    """Continue the training that `resumed` has saved, on this or another backend."""
    model = kt.resume(folder / "half.keras")
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    return fit(model, bases.vectors(16), initial_epoch=2, callbacks=[unfreezing])


TRAININGS = {
    each.__name__: each
    for each in (
        clipped,
        accumulated,
        exchanged,
        lora,
        bottleneck,
        gradual,
        probe,
        auto,
        dann,
        resumed,
    )
}


def main(folder, *names):
    """Run the trainings, and write an `.npz` file for each."""
    folder = pathlib.Path(folder)
    for name in names or TRAININGS:
        keras.utils.clear_session()
        train = TRAININGS.get(name, continued)
        np.savez(folder / f"{name}.npz", *train(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
