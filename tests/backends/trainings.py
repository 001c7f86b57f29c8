"""Trainings from fixed weights, to compare the backends of Keras in two processes.

    KERAS_BACKEND=jax python -m tests.backends.trainings folder [names]

Each training writes its weights, its optimizer state and its losses to a file.
"""

import inspect
import pathlib
import sys

import keras
import numpy as np

import keras_transfer as kt
from keras_transfer import _keras
from tests import tiny
from tests.backbones.family_table import techniques
from tests.contracts.compute import ON_TENSORFLOW
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.export import files
from tests.golden import bases

SETTINGS = dict(epochs=5, batch_size=4, shuffle=False, verbose=0)
# What is compiled on JAX stays a graph on TensorFlow, where XLA takes time.
JIT = dict(jit_compile=False if ON_TENSORFLOW else "auto")
# LoRA is in `quantized`. RsLoRA and PfeifferBottleneck change a number and a place, and
# the others add no computation.
SIMPLE = {"LoRA", "RsLoRA", "PfeifferBottleneck", "BitFit", "NormTuning"}


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


def discriminative(optimizer, **settings):
    model = blocks()
    optimizer = kt.optimizers.discriminative(optimizer, model, layer_decay=0.5)
    model.compile(optimizer, bases.LOGITS, **JIT | settings)
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
    x, y = bases.vectors(16), bases.labels(16)
    settings = SETTINGS | dict(validation_data=(x, y), callbacks=[unfreezing])
    history = model.fit(x, y, **settings)
    found = np.array(history.history["val_loss"])
    return [model.predict(x, verbose=0), found, *state(model, history)]


def adapted(adapter):
    model = bases.bert()
    adapter.attach(model, verbose=0)
    bases.exact(model, 0.5)
    model.compile(keras.optimizers.Adam(0.01), bases.LOGITS, **JIT)
    callbacks = []
    if isinstance(adapter, kt.adapters.AdaLoRA):
        callbacks = [kt.callbacks.RankBudget(interval=2, verbose=0)]
    return fit(model, bases.tokens(16), callbacks=callbacks)


def quantized(folder):
    """Train LoRA on a BERT in NF4, and load it."""
    model = kt.quantize(bases.bert(), "nf4", block_size=4, verbose=0)
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    model.compile(keras.optimizers.Adam(0.01), bases.LOGITS, **JIT)
    for number, weight in enumerate(model.trainable_weights):
        values = (5 * np.arange(np.prod(weight.shape)) + number) % 23 - 11
        weight.assign(values.reshape(weight.shape) / 64)
    found = fit(model, bases.tokens(16))
    model.save(folder / "quantized.keras")
    again = keras.models.load_model(folder / "quantized.keras")
    x = bases.tokens()
    outputs = [each.predict(x, verbose=0) for each in (model, again)]
    np.testing.assert_array_equal(*outputs)
    return [outputs[0], *found]


def adapters(folder):
    """Train each technique with a computation of its own on a BERT."""
    found = []
    for kind in techniques().values():
        if kind.__name__ in SIMPLE:
            continue
        small = inspect.signature(kind).parameters.keys() & {"rank", "size", "tokens"}
        found += adapted(kind(**dict.fromkeys(small, 2)))
    return found


def fine_tuned(strategy):
    model = bases.exact(kt.models.TransferClassifier(tiny.mlp((6, 6, 6)), 3))
    model.layers[-1].bias.assign(np.zeros(3))  # a new head
    model.compile(keras.optimizers.AdamW(0.01), bases.LOGITS, **JIT)
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


def texts(folder):
    """Fine-tune a Task of keras-hub on strings, with names of classes as labels."""
    import keras_hub

    backbone = tiny.bert(num_layers=1, dropout=0.0)
    task = keras_hub.models.BertTextClassifier(
        backbone, 3, preprocessor=files.text_preprocessor(), dropout=0.0
    )
    bases.exact(task, 0.5)
    task.compile(keras.optimizers.AdamW(0.01), bases.LOGITS, **JIT)
    keras.utils.set_random_seed(1)
    x, y = files.TEXTS * 8, ["ant", "bee", "cow"] * 8
    history = kt.fine_tune(
        task, (x, y), strategy="full", epochs=3, batch_size=6, verbose=0
    )
    return state(task, history)


def adapting(kind, *, optimizer=None, **settings):
    """Return what a training on two domains leaves, with the strengths in the logs."""
    model = kind(extractor(), free_head(), **settings)
    rate = kt.optimizers.GaninDecay(0.05, 20)
    optimizer = optimizer or keras.optimizers.SGD(rate, momentum=0.9)
    model.compile(optimizer, bases.LOGITS, **JIT)
    bases.exact(model)
    if isinstance(getattr(model, "strength", None), keras.Variable):
        model.strength.assign(0.1)
    source = bases.vectors(16)
    x, y = {"source": source, "target": source * 2 + 0.5}, bases.labels(16)
    history = model.fit(x, y, validation_data=(x, y), **SETTINGS)
    found = model.get_weights()
    model.fit(x, y, **SETTINGS | {"epochs": 1})  # the strength rises again
    # The random steps of VADA differ between the backends.
    names = sorted(name for name in history.history if "smoothness" not in name)
    logs = [np.array(history.history[name]) for name in names]
    return [*found, *logs, *state(model, history)]


def dann_rising(folder):
    return adapting(kt.models.DANN)


def other_methods(folder):
    """Train with methods that add more than a loss, and with one that adds a loss."""
    models = kt.models
    kinds = models.CDAN, models.MCD, models.JAN, models.ImportanceWeighting
    return sum((adapting(kind) for kind in kinds), [])


def coral_accumulated(folder):
    """Let the strength rise with the updates, each from two batches."""
    sgd = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    return adapting(kt.models.DeepCORAL, optimizer=sgd)


def mdd_scheduled(folder):
    return adapting(kt.models.MDD, strength=kt.optimizers.GaninRampUp(20, end=0.2))


def afn_variable(folder):
    return adapting(kt.models.AFN, strength=keras.Variable(0.0))


def validated(folder):
    """Let the validation on a target run on phases with equal shapes."""
    model = discriminative(keras.optimizers.AdamW(0.01))
    phases = [(("dense_1",), 2), (("dense_2",), 2)]
    unfreezing = kt.callbacks.GradualUnfreezing(kt.layer_groups(model), phases)
    x, names = bases.vectors(16), ("source_accuracy", "information_maximization")
    source = x, bases.labels(16)
    validation = kt.callbacks.TargetValidation(source, x * 2, validators=names)
    settings = SETTINGS | dict(epochs=4, callbacks=[unfreezing, validation])
    history = model.fit(x, bases.labels(16), **settings)
    return [*(np.array(history.history[f"val_{name}"]) for name in names)]


def many_tasks(folder):
    """Train two tasks on mixed batches, with two ways to combine them."""
    x, found = bases.vectors(16), []
    y = {"kind": bases.labels(16), "price": x[:, 0]}
    own = (np.arange(16) % 3 > 0).astype("float32")  # the rows of the first task
    weights = {"kind": own, "price": 1 - own}
    for weighting in ("uncertainty", "pcgrad"):
        heads = {
            "kind": keras.layers.Dense(3, name="kind"),
            "price": keras.layers.Dense(1, name="price"),
        }
        below = bases.exact(tiny.mlp())
        model = kt.models.MultiTask(below, heads, weighting=weighting)
        bases.exact(model)
        metrics = {"kind": ["accuracy"], "price": ["mae"]}
        losses = {"kind": bases.LOGITS, "price": "mse"}
        model.compile(keras.optimizers.Adam(0.01), losses, metrics=metrics, **JIT)
        history = model.fit(x, y, sample_weight=weights, **SETTINGS)
        found += [np.array(history.history[name]) for name in sorted(history.history)]
        found += state(model, history)
    return found


def meta_learned(folder):
    """Train through the steps on support sets, and adapt to the last of them."""
    found = []
    for kind, policy in ((kt.models.MAML, "batch"), (kt.models.ANIL, "support")):
        norm = keras.layers.BatchNormalization()
        dense = keras.layers.Dense(4, "tanh")
        layers = [keras.Input((6,)), dense, norm]
        model = bases.exact(keras.Sequential([*layers, keras.layers.Dense(2)]))
        norm.moving_variance.assign(np.ones(4))
        learner = kind(model, 0.1, 2, batch_norm=policy)
        learner.compile(keras.optimizers.SGD(0.1), bases.LOGITS, **JIT)
        support = np.random.default_rng(0).normal(0, 1, (4, 2, 2, 6))
        x = {"support": support, "query": support.reshape(4, 4, 6) + 0.25}
        y = np.tile([0, 0, 1, 1], (4, 1))
        history = learner.fit(x, y, **SETTINGS | {"batch_size": 2})
        adapted = learner.adapt(support[-1], steps=3)
        found += [learner.predict(x, verbose=0), *adapted.get_weights()]
        found += state(learner, history)
    return found


def batch_norm(folder):
    """Replace the statistics of BatchNormalization by those of a target."""
    norm = keras.layers.BatchNormalization()
    layers = [keras.Input((6,)), norm, keras.layers.Dense(3)]
    model = bases.exact(keras.Sequential(layers))
    x = bases.vectors(16)
    kt.models.adapt_batch_norm(model, x * 2 + 0.5, batch_size=8)
    outputs = model.predict(x, verbose=0)
    return [*model.get_weights(), outputs]


def batch_by_batch(folder):
    """Train with `train_on_batch`, where a loaded optimizer has counted already."""
    model = kt.models.DANN(extractor(), free_head(), total_steps=20)
    model.compile(keras.optimizers.SGD(0.05), bases.LOGITS, **JIT)
    bases.exact(model)
    source = bases.vectors(16)
    x, y = {"source": source, "target": source * 2 + 0.5}, bases.labels(16)
    losses = [model.train_on_batch(x, y) for _ in range(5)]
    model.save(folder / "batches.keras")
    model = keras.models.load_model(folder / "batches.keras")
    losses += [model.train_on_batch(x, y) for _ in range(5)]
    return [*model.get_weights(), np.array(losses)]


def vada(folder):
    """Train with random steps that have the weight 0, since backends differ in them."""
    return adapting(kt.models.VADA, strength=0.1, smoothing=(0.0, 0.0))


def worst_step(folder):
    """Return a gradient inside a model, and the statistics that its pass changes."""
    norm = keras.layers.BatchNormalization()
    layers = [keras.Input((6,)), norm, keras.layers.Dense(4, "tanh")]
    model = bases.exact(keras.Sequential(layers))
    x = keras.ops.convert_to_tensor(bases.vectors(8))

    def loss(x):
        return keras.ops.sum(model(x, training=True) ** 2)

    slope = keras.ops.convert_to_numpy(_keras.gradient(loss, x))
    return [slope, *model.get_weights(), np.array([0.0, np.abs(slope).max()])]


def found_rate(folder):
    """Return the losses of a learning rate range test, and the model after it."""
    model = discriminative(keras.optimizers.AdamW(0.01))
    data = bases.vectors(16), bases.labels(16)
    curve = kt.find_learning_rate(model, data, steps=20, batch_size=4)
    found = [curve.rates, np.array(curve.suggestion or 0.0)]
    return [*found, *model.get_weights(), np.array(curve.losses)]


def broken_numbers(folder):
    """Return whether weights that are not finite are refused on finite data."""
    model, x = bases.mlp(), bases.vectors(8)
    found = [_keras.is_finite_for(model, x)]
    model.layers[-1].kernel.assign(model.layers[-1].kernel * np.inf)
    return [np.array([*found, _keras.is_finite_for(model, x)], "float32")]


def resumed(folder):
    """Save a training in the middle of its phases, and continue it."""
    model = discriminative(keras.optimizers.AdamW(0.01), jit_compile="auto")
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
        adapters,
        quantized,
        gradual,
        probe,
        auto,
        texts,
        dann_rising,
        other_methods,
        coral_accumulated,
        mdd_scheduled,
        afn_variable,
        many_tasks,
        meta_learned,
        batch_norm,
        batch_by_batch,
        validated,
        vada,
        worst_step,
        found_rate,
        broken_numbers,
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
