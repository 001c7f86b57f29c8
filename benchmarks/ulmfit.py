"""ULMFiT end to end in small, with the ablations of tables 6 and 7 of its paper.

Claim: fine-tuning the language model, and each of gradual unfreezing ("freez"),
discriminative rates ("discr") and slanted triangular rates ("stlr"), lowers the error
of the classifier. A language model of 2 LSTMs is trained on reviews of electronics and
sentences of SST-2, without labels. It is fine-tuned on the texts of the book reviews,
also without labels. The classifier gets few labels of these reviews. The rates are the
paper's, and nothing is chosen by a result. The peer is a logistic regression on TF-IDF
of words and pairs of words, with the same labels. Errors are on the test file, and on
the rest of the training file, whose texts the language model has read without labels.
Next to them are the paper's errors on IMDb, where an LSTM of 24 M parameters reads
103 M words first.

Each line of the table is kept in FOLDER, so the script continues where it stopped. Use
another folder for other epochs.

    OMP_NUM_THREADS=1 python benchmarks/ulmfit.py FOLDER [--seeds 3] [--labels 500]
        [--epochs 15 4 8, of the general model, its fine-tuning, and the classifier]
"""

import argparse
import json
import os
import pathlib
import time

import keras
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import keras_transfer as kt

DATA = pathlib.Path(os.environ.get("KERAS_TRANSFER_DATA", "../shared/data"))
SIZE = {"embedding_dim": 100, "units": 200, "num_layers": 2, "dropout": 0.5}
STREAMS, LENGTH = 16, 64
MOST_WORDS = 8000
DECAY = 1 / 2.6
CUT = 150  # words of a review that the classifier reads
# name -> fine-tuning of the language model, steps of the classifier, paper's error
ROWS = {
    "classifier: from scratch": (None, "", 9.93),
    "classifier: full": ("full + discr + stlr", "full", 6.87),
    "classifier: full + discr": ("full + discr + stlr", "full discr", 5.57),
    "classifier: last": ("full + discr + stlr", "last", 6.49),
    "classifier: freez": ("full + discr + stlr", "freez", 6.37),
    "classifier: freez + discr": ("full + discr + stlr", "freez discr", 5.39),
    "classifier: freez + stlr": ("full + discr + stlr", "freez stlr", 5.04),
    "both: all three": ("full + discr + stlr", "freez discr stlr", 5.00),
    "language model: none": ("none", "freez discr stlr", 6.99),
    "language model: full": ("full", "freez discr stlr", 5.86),
    "language model: full + discr": ("full + discr", "freez discr stlr", 5.55),
}
PEER = "peer: TF-IDF, logistic regression"
# The rows that say most, in case the script is stopped.
FIRST = (PEER, "both: all three", "classifier: from scratch", "language model: none")


def texts_of(name):
    return kt.data.from_tsv(DATA / f"{name}.tsv")


def compiled(model, rate, steps, batches, loss=None, **settings):
    """Compile with the techniques named in `steps`."""
    if "stlr" in steps:
        rate = kt.optimizers.SlantedTriangular(rate, batches)
    optimizer = keras.optimizers.Adam(rate, beta_1=0.7, beta_2=0.99, global_clipnorm=1)
    if "discr" in steps:
        optimizer = kt.optimizers.discriminative(optimizer, model, layer_decay=DECAY)
    model.compile(optimizer, loss, **settings)
    return model


def train_language_model(model, texts, epochs, rate, steps):
    """Train on texts, and return the perplexity on unseen book reviews."""
    words = model.vocabulary
    batches = kt.data.language_model_batches(
        texts, words, STREAMS, sequence_length=LENGTH, seed=0
    )
    unseen = kt.data.language_model_batches(
        texts_of("amazon_books_test").texts, words, STREAMS, sequence_length=LENGTH
    )
    compiled(model, rate, steps, epochs * len(batches))
    model.fit(batches, epochs=epochs, shuffle=False, verbose=2)
    return model.evaluate(unseen, verbose=0, return_dict=True)["perplexity"]


def language_model(folder, steps):
    """Return the language model, trained now or by an earlier run."""
    path = folder / f"{steps.replace(' ', '')}.keras"
    if path.exists():
        return keras.models.load_model(path, compile=False)
    keras.utils.set_random_seed(0)
    books = texts_of("amazon_books_train").texts
    start = time.process_time()
    if steps == "general":
        texts = [texts_of(x).texts for x in ("amazon_electronics_train", "sst2_train")]
        texts = np.concatenate(texts)
        words = kt.data.word_vocabulary(texts, MOST_WORDS)
        model = kt.models.RecurrentLanguageModel(words, **SIZE, batch_size=STREAMS)
        perplexity = train_language_model(model, texts, GENERAL_EPOCHS, 4e-3, "stlr")
    else:
        words = kt.data.word_vocabulary(books, MOST_WORDS)
        general = language_model(folder, "general")
        model = general.with_vocabulary(words)
        shared = len(set(words) & set(general.vocabulary))
        print(f"{shared} of {len(words)} words are known", flush=True)
        epochs = 0 if steps == "none" else TARGET_EPOCHS
        perplexity = train_language_model(model, books, epochs, 4e-3, steps)
    spent = time.process_time() - start
    print(f"{steps}: perplexity {perplexity:.1f} on unseen book reviews, {spent:.0f} s")
    model.save(path)
    return language_model(folder, steps)  # without the optimizer


def split(seed, labels):
    """Return the labeled reviews, the rest of the file, and the test file."""
    train, test = texts_of("amazon_books_train"), texts_of("amazon_books_test")
    order = np.random.default_rng(seed).permutation(len(train.texts))
    parts = [order[:labels], order[labels:]]
    return *((train.texts[x], train.labels[x]) for x in parts), test[:2]


def classify(folder, tuning, steps, seed, labels):
    """Return the errors in percent on the test file and on the rest."""
    known, rest, test = split(seed, labels)
    if tuning is None:
        model = language_model(folder, "none")
        keras.utils.set_random_seed(seed)
        config = model.get_config()
        model = kt.models.RecurrentLanguageModel.from_config(config)
    else:
        model = language_model(folder, tuning)
        keras.utils.set_random_seed(seed)
    classifier = model.classifier(2)
    vectorizer = classifier.vectorizer(CUT)
    x, rest_x, test_x = (
        np.asarray(vectorizer(each[0])) for each in (known, rest, test)
    )
    callbacks = []
    if "freez" in steps:
        callbacks.append(kt.callbacks.GradualUnfreezing(classifier))
    if "last" in steps:
        classifier.encoder.trainable = False
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = 0.01 if "discr" in steps else 0.001
    batches = EPOCHS * -(-len(x) // 16)
    compiled(classifier, rate, steps, batches, loss, metrics=["accuracy"])
    settings = {"batch_size": 16, "epochs": EPOCHS, "verbose": 0}
    classifier.fit(x, known[1], callbacks=callbacks, **settings)
    return [
        100 * float(np.mean(classifier.predict(x, verbose=0).argmax(1) != y))
        for x, y in ((test_x, test[1]), (rest_x, rest[1]))
    ]


def peer(seed, labels):
    """Return the errors of a logistic regression on words and pairs of words."""
    known, *others = split(seed, labels)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
    model.fit(*known)
    test, rest = (100 * float(np.mean(model.predict(x) != y)) for x, y in others[::-1])
    return [test, rest]


def show(done, seeds):
    print(f"{'row':36} {'test':>12} {'rest':>12}  paper, IMDb")
    for name in [*ROWS, PEER]:
        found = np.array([done[name, seed] for seed in range(seeds)])
        means, spread = found.mean(0), found.std(0, ddof=1 if seeds > 1 else 0)
        cells = [f"{m:5.1f} ± {s:4.1f}" for m, s in zip(means, spread, strict=True)]
        paper = f"{ROWS[name][2]:.2f}" if name in ROWS else "-"
        print(f"{name:36} {cells[0]:>12} {cells[1]:>12}  {paper}")
    both = "both: all three"
    for table in ("classifier", "language model"):
        rows = [name for name in ROWS if name.startswith(table) or name == both]
        means = {row: np.mean([done[row, x][1] for x in range(seeds)]) for row in rows}
        papers = {row: ROWS[row][2] for row in rows}
        for place, errors in (("here, rest", means), ("paper, IMDb", papers)):
            order = [row.partition(": ")[2] for row in sorted(rows, key=errors.get)]
            print(f"{table}, best first, {place}: {' < '.join(order)}")


def main(folder, seeds, labels):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"errors_{labels}.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    done = {(x["row"], x["seed"]): x["errors"] for x in map(json.loads, lines)}
    for seed in range(seeds):
        for name in [*FIRST, *(row for row in ROWS if row not in FIRST)]:
            if (name, seed) in done:
                continue
            keras.utils.clear_session()
            start = time.process_time()
            if name == PEER:
                errors = peer(seed, labels)
            else:
                errors = classify(folder, *ROWS[name][:2], seed, labels)
            done[name, seed] = errors
            with file.open("a") as opened:
                print(
                    json.dumps({"row": name, "seed": seed, "errors": errors}),
                    file=opened,
                )
            spent = time.process_time() - start
            print(f"{name}, seed {seed}: {errors}, {spent:.0f} CPU-s", flush=True)
    show(done, seeds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=500)
    parser.add_argument("--epochs", type=int, nargs=3, default=[15, 4, 8])
    options = parser.parse_args()
    GENERAL_EPOCHS, TARGET_EPOCHS, EPOCHS = options.epochs
    main(options.folder, options.seeds, options.labels)
