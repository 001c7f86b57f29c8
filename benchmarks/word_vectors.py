"""Static vectors and mixed hidden states, next to the last block of a transformer.

Question: on SST-2 with few and with all labels, what are static vectors (GloVe, 50
numbers for each word, `kt.backbones.word_vectors`) worth next to a frozen MiniLM, and
does ELMo's mix of all blocks (`kt.backbones.hidden_states`, `kt.layers.ScalarMix`)
know more than the last block? The test part is the development file. LR is
scikit-learn's logistic regression at its defaults. Rows with Adam hold out a fifth of
their labels, which decide when to stop. No setting was searched.

    python benchmarks/word_vectors.py [--seeds 3] [--train 6920] [--test 872]
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import efficientnet_lite0
import keras
import numpy as np
import outcomes_data
from keras import layers
from sklearn.linear_model import LogisticRegression

import keras_transfer as kt

CELLS = {"50": 25, "300": 150, "all": None}  # labels for each class
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def glove():
    """Return the 20,000 most frequent words of GloVe."""
    folder = efficientnet_lite0.data_folder()
    words = (folder / "glove_6b_50d_20k_words.txt").read_text(encoding="utf-8").split()
    with np.load(folder / "glove_6b_50d_20k.npz") as arrays:
        return kt.backbones.word_vectors((words, arrays["vectors"]))


def words_model(vectors, trainable):
    """Return a backbone from rows of the embedding to their vectors."""
    ids = keras.Input((None,), dtype="int32")
    return keras.Model(ids, vectors.embedding(trainable)(ids), name="glove")


def regression(x, y, x_test, seed):
    """Return the predictions of a logistic regression, and no notes."""
    found = LogisticRegression(max_iter=2000).fit(x, y)
    return found.predict(x_test), ""


def trained(model, x, y, x_test, seed):
    """Train a model with Adam until the loss on held-out labels grows."""
    order = np.random.default_rng(seed).permutation(len(y))
    held_out, kept = np.split(order, [len(y) // 5])

    def part(rows):
        return keras.tree.map_structure(lambda array: array[rows], x), y[rows]

    stop = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    model.compile(keras.optimizers.Adam(1e-2), LOSS, jit_compile=False)
    model.fit(
        *part(kept),
        validation_data=part(held_out),
        epochs=60,
        batch_size=32,
        callbacks=[stop],
        verbose=0,
    )
    return model.predict(x_test, batch_size=256, verbose=0).argmax(1)


def train_words(vectors, x, y, x_test, seed):
    """Train the vectors further, with a linear head on their mean."""
    model = kt.models.TransferClassifier(words_model(vectors, True), 2)
    return trained(model, x, y, x_test, seed), ""


def train_head(x, y, x_test, seed):
    """Train a linear head on one vector, the control of the mix."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layers.Dense(2)])
    return trained(model, x, y, x_test, seed), ""


def train_mix(x, y, x_test, seed):
    """Train a mix of all blocks and a linear head on the cached states."""
    inputs = [keras.Input(each.shape[1:]) for each in x]
    mix = kt.layers.ScalarMix()
    model = keras.Model(inputs, layers.Dense(2)(mix(inputs)))
    predicted = trained(model, list(x), y, list(x_test), seed)
    return predicted, " ".join(f"{each:.2f}" for each in mix.block_weights)


def states_of(texts):
    """Return the mean of each text in each block of MiniLM, and CPU seconds."""
    network = outcomes_data.NETWORKS["MiniLM"]
    backbone = kt.backbones.FrozenBackbone(network.backbone())
    states = kt.backbones.hidden_states(backbone, pooling="mean")
    inputs = network.prepare(texts)
    start = time.process_time()
    rows = (inputs, np.zeros(len(texts)))
    cached = kt.backbones.cache_features(states, rows, verbose=0)
    features, _, _ = next(cached.batch(len(texts)).as_numpy_iterator())
    return features, time.process_time() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=10**9)
    parser.add_argument("--test", type=int, default=10**9)
    options = parser.parse_args()
    folder = efficientnet_lite0.data_folder()
    train = kt.data.from_tsv(folder / "sst2_train.tsv")
    test = kt.data.from_tsv(folder / "sst2_dev.tsv", classes=train.classes)
    texts, y = train.texts[: options.train], train.labels[: options.train]
    texts_test, y_test = test.texts[: options.test], test.labels[: options.test]

    vectors = glove()
    print(vectors.coverage(texts_test))
    ids, ids_test = vectors.ids(texts), vectors.ids(texts_test)
    mean = kt.backbones.features(words_model(vectors, False))
    mean.predict(ids_test, batch_size=256, verbose=0)  # traces
    start = time.process_time()
    means_test = mean.predict(ids_test, batch_size=256, verbose=0)
    seconds = {"GloVe": time.process_time() - start}
    means = mean.predict(ids, batch_size=256, verbose=0)
    states, _ = states_of(texts)
    states_test, seconds["MiniLM"] = states_of(texts_test)
    for name, each in seconds.items():
        print(f"{name}: {1e6 * each / len(y_test):.0f} us of CPU for each text")

    def both(x, last):
        return np.concatenate([x, last], axis=1)

    rows = {
        "GloVe mean, LR": (regression, means, means_test),
        "GloVe trained further": (
            lambda *data: train_words(vectors, *data),
            ids,
            ids_test,
        ),
        "MiniLM last block, LR": (regression, states[-1], states_test[-1]),
        "MiniLM last block, Adam": (train_head, states[-1], states_test[-1]),
        "MiniLM mean of blocks, LR": (
            regression,
            np.mean(states, axis=0),
            np.mean(states_test, axis=0),
        ),
        "MiniLM ScalarMix, Adam": (train_mix, states, states_test),
        "GloVe and MiniLM, LR": (
            regression,
            both(means, states[-1]),
            both(means_test, states_test[-1]),
        ),
    }
    head = "  ".join(f"{name + ' labels':>13}" for name in CELLS)
    print(f"{'':27}{head}  weights of the mix")
    for name, (method, x, x_test) in rows.items():
        cells = []
        for per_class in CELLS.values():
            scores = []
            for seed in range(options.seeds if per_class else 1):
                keras.utils.set_random_seed(seed)
                chosen = np.arange(len(y))
                if per_class:
                    data = (np.arange(len(y)), y)
                    few = kt.data.few_labels(data, per_class, seed=seed).labeled
                    chosen = few[0]
                part = keras.tree.map_structure(lambda each, c=chosen: each[c], x)
                predicted, note = method(part, y[chosen], x_test, seed)
                scores.append(100 * np.mean(predicted == y_test))
            spread = f" ± {np.std(scores):3.1f}" if len(scores) > 1 else " " * 6
            cells.append(f"{np.mean(scores):6.1f}{spread}")
        print(f"{name:27}{'  '.join(f'{each:>13}' for each in cells)}  {note}".rstrip())


if __name__ == "__main__":
    main()
