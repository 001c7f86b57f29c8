"""Models between the start and the fine-tuned model (WiSE-FT), and soups of runs.

Question: what does a share of the fine-tuned weights keep on other data, and is a mean
of runs better than its parts? MiniLM learns the sentiment of movie sentences (SST-2):
first the head alone, which is the start, then all layers, once for each seed. The
models are tested on SST-2 and on reviews of books, which no run has seen. Half of each
test part chooses the weight and the soup, and the other half is printed.

    python benchmarks/interpolation.py [seeds] [labels]
"""

import sys
import time

import fine_tune
import keras
import keras_hub
import numpy as np
import outcomes_data
import real_bert

import keras_transfer as kt


def reviews(count=800):
    """Return tokens and labels of reviews of books."""
    texts, y = outcomes_data.raw_parts("books")[1]
    preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(
        real_bert.folder(), sequence_length=64
    )
    chosen = np.random.default_rng(0).permutation(len(y))[:count]
    x = preprocessor(list(np.asarray(texts)[chosen]))
    return keras.tree.map_structure(keras.ops.convert_to_numpy, x), y[chosen]


def split(data):
    """Return two halves of `(x, y)`, of even and of odd rows."""
    return [keras.tree.map_structure(lambda a, i=i: a[i::2], data) for i in (0, 1)]


def tuned(start, train, seed):
    """Return a model that was fine-tuned from the start."""
    keras.utils.set_random_seed(seed)
    model = real_bert.classifier()
    model.set_weights(start)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(5e-5, weight_decay=0.01)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    model.fit(*train, batch_size=16, epochs=3, verbose=0)
    return model


def accuracy(model, data):
    """Return the accuracy of a compiled model."""
    return model.evaluate(*data, batch_size=64, verbose=0)[1]


def main(seeds=3, labels=400):
    train, sst2 = fine_tune.load(labels, 0)
    books = reviews()
    (choose_sst2, sst2), (choose_books, books) = split(sst2), split(books)
    began = time.process_time()
    keras.utils.set_random_seed(0)
    model = real_bert.classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adamw", loss, metrics=["accuracy"], jit_compile=False)
    kt.fine_tune(model, train, strategy="probe", verbose=0)
    start = model.get_weights()
    rows = {"start (head alone)": model}
    models = [tuned(start, train, seed) for seed in range(seeds)]
    rows |= {f"fine-tuned, seed {seed}": each for seed, each in enumerate(models)}
    domains = {"sst2": choose_sst2, "books": choose_books}
    curve = kt.models.interpolation_curve(start, models[0], domains)
    print(curve, flush=True)
    for name in (None, "sst2"):
        best = curve.best(name)
        label = f"seed 0, weight {best:g}, best on {name or 'both'}"
        rows[label] = kt.models.interpolate(start, models[0], best)
    rows["uniform soup"] = kt.models.uniform_soup(models)
    soup = kt.models.greedy_soup(models, choose_sst2)
    rows[f"greedy soup of {len(soup.ingredients)}"] = soup.model
    print(f"{'':38}  SST-2   books")
    for name, each in rows.items():
        found = [accuracy(each, data) for data in (sst2, books)]
        print(f"{name:38}  {found[0]:.4f}  {found[1]:.4f}", flush=True)
    sizes = [len(np.asarray(data[1])) for data in (sst2, books)]
    print(
        f"{labels} labels, {sizes} test examples, {time.process_time() - began:.0f} s"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
