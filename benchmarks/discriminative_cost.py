"""What rates by group add to a step and to the optimizer's memory.

Claim: discriminative(AdamW) costs at most 1.02 x of the whole step of AdamW, and its
memory is the same but for two numbers a variable. MiniLM, 16 x 64 tokens, process
CPU time, both models in one process, step by step in turn.

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
            if turn >= 2:  # the first ones trace
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
