"""Few labels for a sentence encoder: contrastive fine-tuning next to other strategies.

Question: what do pairs of labels (SetFit's way) bring with 8, 16 and 64 labels for each
class? MiniLM learns SST-2, reviews of books, and whether a sentence of BC5CDR names a
chemical, with `kt.fine_tune` and AdamW(1e-3), whose rate below the head is 3e-4. All
strategies have 5 epochs, and "contrastive" its 8 passes in each. The score is the
accuracy on 400 examples of the test part.

    python benchmarks/few_labels.py [task,task] [labels,labels] [seeds] [rows]
"""

import statistics
import sys
import time

import keras
import keras_hub
import numpy as np
import outcomes_data
import real_bert

import keras_transfer as kt

LENGTH, TEST = 64, 400
ROWS = "probe,lp-ft,full,contrastive"


def tokens(texts):
    """Return token arrays."""
    preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(
        real_bert.folder(), sequence_length=LENGTH
    )
    x = preprocessor(list(texts))
    return keras.tree.map_structure(keras.ops.convert_to_numpy, x)


def parts(task, labels, seed):
    """Return training and test data: tokens and labels."""
    train, (texts, y) = outcomes_data.raw_parts(task)
    chosen = np.random.default_rng(0).permutation(len(y))[:TEST]
    test = [texts[i] for i in chosen], y[chosen]
    few = kt.data.few_labels(train, labels, seed=seed).labeled
    return [(tokens(x), y) for x, y in (few, test)]


def score(strategy, train, test, seed):
    """Return the accuracy of a new model, and the CPU seconds of its training."""
    keras.utils.set_random_seed(seed)
    model = real_bert.classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(1e-3)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    began = time.process_time()
    kt.fine_tune(model, train, strategy=strategy, batch_size=16, verbose=0)
    seconds = time.process_time() - began
    return model.evaluate(*test, batch_size=64, verbose=0)[1], seconds


def main(tasks="sst2,books,chem", labels="8,16,64", seeds="5", rows=ROWS):
    print("task          labels  strategy      mean   seeds", flush=True)
    for task in tasks.split(","):
        for count in map(int, labels.split(",")):
            for row in rows.split(","):
                found = []
                for seed in range(int(seeds)):
                    train, test = parts(task, count, seed)
                    found.append(score(row, train, test, seed))
                scores, seconds = zip(*found, strict=True)
                shown = " ".join(f"{each:.3f}" for each in scores)
                mean = statistics.mean(scores)
                spent = statistics.mean(seconds)
                print(
                    f"{task:12}  {count:6}  {row:12}  {mean:.3f}  {shown}  "
                    f"{spent:.0f} CPU s",
                    flush=True,
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
