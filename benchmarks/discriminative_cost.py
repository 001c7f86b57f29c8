"""The cost of rates by group, in time per step and in optimizer memory.

Claim: a step with discriminative(AdamW) costs at most 1.02 x a step with AdamW, and the
optimizer needs only two more numbers per variable. The model is MiniLM with 16 x 64
tokens. The times are process CPU times. Both models run in one process, and their
steps alternate.

    python benchmarks/discriminative_cost.py [rounds]
"""

import statistics
import sys
import time

import keras
import numpy as np
import real_bert

import keras_transfer as kt


def memory(optimizer):
    """Return the bytes of all variables of an optimizer."""
    return sum(
        int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in optimizer.variables
    )


def main(rounds=30):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    models = {}
    for name in ("AdamW", "discriminative(AdamW)"):
        model = real_bert.classifier()
        optimizer = keras.optimizers.AdamW(1e-5)
        if name != "AdamW":
            optimizer = kt.optimizers.discriminative(optimizer, model)
        model.compile(optimizer, loss)
        models[name] = model
    x, y = real_bert.batches(steps=1)
    times = {name: [] for name in models}
    for turn in range(rounds + 2):
        order = list(models) if turn % 2 else list(models)[::-1]
        for name in order:
            start = time.process_time()
            models[name].train_on_batch(x, y)
            if turn >= 2:  # the first steps trace
                times[name].append(time.process_time() - start)
    for name, spent in times.items():
        print(
            f"{name:22} {1e3 * statistics.median(spent):6.0f} CPU-ms a step, "
            f"{memory(models[name].optimizer):,} bytes of optimizer"
        )
    plain, ours = times.values()
    ratios = [b / a for a, b in zip(plain, ours, strict=True)]
    print(f"ratio of the step: {statistics.median(ratios):.3f} (median of {rounds})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
