"""Time of a training step and of tracing on JAX and on TensorFlow, on this CPU.

Claim: none. The figures tell what to expect of each backend on a CPU. They say nothing
about a GPU or a TPU. MiniLM trains with 16 x 64 tokens, with its head alone, with LoRA
and completely, and DANN trains a small network of convolutions on images.

Each round runs in a new process, and the rounds alternate between the backends. The
first step includes tracing and compiling, with XLA on JAX and without XLA on
TensorFlow, as Keras does by default on a CPU. A step is the median of the others.

    python benchmarks/backends.py [--rounds 3] [--steps 12]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BACKENDS = ("tensorflow", "jax")
LEARNS = ("head", "LoRA", "full")


def minilm(learns):
    """Return a compiled MiniLM of which the head, a LoRA or everything trains."""
    import keras
    import real_bert

    import keras_transfer as kt

    model = real_bert.classifier()
    if learns == "LoRA":
        kt.adapters.LoRA(rank=8, alpha=16).attach(model, verbose=0)
    elif learns == "head":
        model.backbone.trainable = False
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss)
    return model


def dann():
    """Return a compiled DANN on a small network of convolutions."""
    import keras

    import keras_transfer as kt

    layers = [keras.Input((32, 32, 3))]
    for filters in (32, 64, 128):
        layers.append(keras.layers.Conv2D(filters, 3, strides=2, activation="relu"))
    layers.append(keras.layers.GlobalAveragePooling2D())
    model = kt.models.DANN(
        keras.Sequential(layers), keras.layers.Dense(10), strength=0.5
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss)
    return model


def times(model, x, y):
    """Return the seconds of the first step, and wall and CPU seconds of the others."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.marks = [(time.perf_counter(), time.process_time())]

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # waits for the step
            self.marks.append((time.perf_counter(), time.process_time()))

    clock = Clock()
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[clock])
    steps = [
        (end[0] - start[0], end[1] - start[1])
        for start, end in zip(clock.marks, clock.marks[1:], strict=False)
    ]
    wall, cpu = zip(*steps[1:], strict=True)
    return steps[0][0], statistics.median(wall), statistics.median(cpu)


def one_round(steps):
    """Return the times of each training on the backend of this process."""
    import keras
    import numpy as np
    import real_bert

    found = {}
    x, y = real_bert.batches(steps)
    for learns in LEARNS:
        keras.backend.clear_session()
        found[f"MiniLM, {learns}"] = times(minilm(learns), x, y)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 16 * steps, 32, 32, 3)).astype("float32")
    x = dict(zip(("source", "target"), images, strict=True))
    found["DANN"] = times(dann(), x, rng.integers(0, 10, 16 * steps))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="steps of a training")
    parser.add_argument("--one", action="store_true", help="a round in this process")
    options = parser.parse_args()
    if options.one:
        print("round", json.dumps(one_round(options.steps)))
        return
    found = {backend: [] for backend in BACKENDS}
    command = [sys.executable, __file__, "--one", "--steps", str(options.steps)]
    for _ in range(options.rounds):
        for backend in BACKENDS:
            environment = os.environ | {"KERAS_BACKEND": backend}
            said = subprocess.check_output(command, text=True, env=environment)
            found[backend].append(json.loads(said.split("round ")[-1]))
    print(f"{'':16}{'backend':>12}{'first step':>12}{'step':>10}{'CPU of it':>11}")
    for name in found[BACKENDS[0]][0]:
        medians = {}
        for backend in BACKENDS:
            columns = zip(*(each[name] for each in found[backend]), strict=True)
            medians[backend] = first, wall, cpu = list(map(statistics.median, columns))
            print(
                f"{name:16}{backend:>12}{first:10.1f} s{1000 * wall:7.0f} ms"
                f"{1000 * cpu:8.0f} ms"
            )
        pairs = zip(medians["jax"], medians["tensorflow"], strict=True)
        first, wall, cpu = (jax / tensorflow for jax, tensorflow in pairs)
        print(f"{'':16}{'ratio':>12}{first:10.2f}  {wall:8.2f}  {cpu:9.2f}")


if __name__ == "__main__":
    main()
