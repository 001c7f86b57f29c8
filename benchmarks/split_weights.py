"""Memory of the weights on each of two devices: copied to both, and split over them.

Claim: with `kt.distribute.layout`, a device holds about half of the frozen weights, and
MiniLM with LoRA trains to the same loss. The devices are two halves of one CPU, so the
script shows where the arrays are, and says nothing about time.

    python benchmarks/split_weights.py
"""

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import keras
import real_bert

import keras_transfer as kt

STEPS = 4


def adapted():
    """Return a compiled MiniLM with LoRA."""
    keras.utils.set_random_seed(0)
    model = real_bert.classifier()
    kt.adapters.LoRA(rank=8, alpha=16).attach(model, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss)
    return model


def megabytes(model):
    """Return the memory of weights and optimizer on each device."""
    held = {}
    for variable in [*model.variables, *model.optimizer.variables]:
        for part in variable.value.addressable_shards:
            held[part.device] = held.get(part.device, 0) + part.data.nbytes
    return [round(count / 2**20, 1) for count in held.values()]


def main():
    x, y = real_bert.batches(STEPS)
    for row in ("copied", "split"):
        keras.distribution.set_distribution(None)
        if row == "copied":
            kt.distribute.connect()
        model = adapted()
        if row == "split":
            kt.distribute.layout(model)
        loss = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history["loss"]
        print(f"{row}: MB on each device {megabytes(model)}, loss {loss[0]:.5f}")


if __name__ == "__main__":
    main()
