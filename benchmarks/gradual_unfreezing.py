"""Gradual unfreezing end to end, with its retraces, compared with three peers.

Claim: unfreezing one group per epoch costs less than training all groups for the same
number of epochs. The other peers are Keras's MultiOptimizer with one rate per group,
which trains all groups in all epochs, and a plain script with one compile and fit per
phase, which loses moments between phases. The model is MiniLM with 16 x 64 tokens for 8
epochs. The times are process CPU times. The runs alternate.

    python benchmarks/gradual_unfreezing.py [rounds] [steps per epoch]
"""

import statistics
import sys
import time

import keras
import real_bert

import keras_transfer as kt

EPOCHS = 8


def compiled(optimizer_of):
    model = real_bert.classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer_of(model), loss)
    return model


def fit(model, x, y, **kwargs):
    model.fit(x, y, batch_size=16, verbose=0, **{"epochs": EPOCHS} | kwargs)


def gradual(x, y):
    model = compiled(lambda model: keras.optimizers.Adam(1e-5))
    callback = kt.callbacks.GradualUnfreezing(model)
    return lambda: fit(model, x, y, callbacks=[callback])


def full(x, y):
    model = compiled(lambda model: keras.optimizers.Adam(1e-5))
    return lambda: fit(model, x, y)


def multi_optimizer(x, y):
    def optimizer_of(model):
        groups = kt.layer_groups(model)
        adams = [keras.optimizers.Adam(1e-5 * 0.9**d) for d in range(len(groups))]
        return keras.optimizers.MultiOptimizer(
            lambda variable: adams[-1 - groups.position(variable)]
        )

    model = compiled(optimizer_of)
    return lambda: fit(model, x, y)


def one_fit_a_phase(x, y):
    model = compiled(lambda model: keras.optimizers.Adam(1e-5))
    groups = kt.layer_groups(model)

    def run():
        for layer in (layer for group in groups for layer in group.layers):
            layer.trainable = False
        for epoch in range(EPOCHS):
            for layer in groups[-1 - min(epoch, len(groups) - 1)].layers:
                layer.trainable = True
            model.compile(keras.optimizers.Adam(1e-5), model.loss)
            fit(model, x, y, epochs=1)

    return run


def main(rounds=3, steps=24):
    peers = [gradual, full, multi_optimizer, one_fit_a_phase]
    x, y = real_bert.batches(steps)
    times = {peer.__name__: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            keras.utils.clear_session()
            run = peer(x, y)
            start = time.process_time()
            run()
            times[peer.__name__].append(time.process_time() - start)
    reference = statistics.median(times["full"])
    for name, spent in times.items():
        median = statistics.median(spent)
        ratio = median / reference
        print(f"{name:16} {median:7.1f} CPU-s, {ratio:.2f} x of full fine-tuning")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
