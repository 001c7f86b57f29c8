"""Prompt tuning and prefix tuning, compared with LoRA with as many parameters.

Question: how much accuracy does a small model lose with a prompt or a prefix? MiniLM
trains on SST-2 with texts of 64 tokens, 4 epochs, batches of 16, and AdamW without
weight decay. The rate is constant: 1e-3 for LoRA and the head alone, as in
lora_quality.py, and 1e-2 for prompts and prefixes, which was not tuned. The folder of
SST-2 is in $KERAS_TRANSFER_DATA.

    python benchmarks/prompts.py [seeds] [labels]
"""

import math
import statistics
import sys
import time

import keras
import numpy as np
import real_bert
from fine_tune import load

import keras_transfer as kt

SIZE, EPOCHS = 16, 4
# For each row: the recipe, and its learning rate.
ROWS = {
    "head only": (None, 1e-3),
    "PromptTuning(20)": (lambda: kt.adapters.PromptTuning(20), 1e-2),
    "LoRA(rank=1)": (lambda: kt.adapters.LoRA(rank=1, alpha=2), 1e-3),
    "PrefixTuning(16)": (lambda: kt.adapters.PrefixTuning(16), 1e-2),
    "LoRA(rank=8)": (lambda: kt.adapters.LoRA(rank=8, alpha=16), 1e-3),
}


def trained(recipe, rate, train, seed):
    """Return a trained model, and the number of parameters without the head."""
    model = real_bert.classifier()
    if recipe is None:
        model.backbone.trainable = False
    else:
        recipe().attach(model, verbose=0)
    count = sum(math.prod(v.shape) for v in model.trainable_variables) - 2 * 385
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.0)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    random, (x, y) = np.random.default_rng(seed), train
    order = np.concatenate([random.permutation(len(y)) for _ in range(EPOCHS)])
    x, y = keras.tree.map_structure(lambda array: array[order], (x, y))
    model.fit(x, y, batch_size=SIZE, shuffle=False, verbose=0)
    return model, count


def main(seeds=1, labels=400):
    scores, counts = {}, {}
    for seed in range(seeds):
        train, test = load(labels, seed)
        for name, (recipe, rate) in ROWS.items():
            keras.utils.set_random_seed(seed)
            start = time.process_time()
            model, counts[name] = trained(recipe, rate, train, seed)
            spent = time.process_time() - start
            found = model.evaluate(*test, batch_size=64, verbose=0)[1]
            scores.setdefault(name, []).append(found)
            print(
                f"seed {seed} {name}: {counts[name]:,} parameters, accuracy "
                f"{found:.4f}, {spent:.0f} CPU seconds",
                flush=True,
            )
    error = math.sqrt(0.8 * 0.2 / len(test[1]))
    print(f"{labels} labels; accuracy, standard error of each run {error:.4f}")
    for name, found in scores.items():
        print(f"{name:18} {counts[name]:7,} {statistics.mean(found):.4f}  {found}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
