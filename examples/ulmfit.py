"""ULMFiT: a language model of your own, fine-tuned on a task with few labels.

Learned: how to train a language model on texts without labels, how to fine-tune it on
the texts of a task with its own words, and how its encoder becomes a classifier that is
thawed group by group with discriminative, slanted triangular rates. Data: TSV files
with label and text; the labels of the general texts are not used. Time: perhaps
8 minutes of CPU. Expect a test error of about 0.40 of the classifier, and of 0.21 of a
logistic regression on TF-IDF with the same 200 labels, as benchmarks/ulmfit.py measured
with one seed: half a million words are few for a language model. Bring more text. Only
the short form of this file was run: `--smoke`, on generated sentences.

    python examples/ulmfit.py --general a.tsv b.tsv --task train.tsv --test test.tsv
"""

import argparse
import pathlib
import random
import tempfile

import keras
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--general", nargs="+", help="TSV files with general texts")
parser.add_argument("--task", help="TSV file of the task")
parser.add_argument("--test", help="TSV file to test on")
parser.add_argument("--labels", type=int, default=200, help="labels to train on")
parser.add_argument("--length", type=int, default=150, help="words per text")
parser.add_argument("--epochs", type=int, nargs=3, default=[5, 3, 15])
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
size = {"embedding_dim": 100, "units": 200, "num_layers": 2, "dropout": 0.5}
streams = {"batch_size": 16, "sequence_length": 64}


def make_smoke():
    """Write three TSV files of generated sentences, and set the options to them."""
    folder, draw = pathlib.Path(tempfile.mkdtemp()), random.Random(0)
    tones = (("bad", "dull", "weak"), ("good", "fine", "fun"))
    for name, noun in (("general", "film"), ("task", "book"), ("test", "book")):
        lines = []
        for place in range(60):
            tone = tones[place % 2]
            text = f"the {noun} is {draw.choice(tone)} and {draw.choice(tone)}"
            lines.append(f"{place % 2}\t{text}\n")
        (folder / f"{name}.tsv").write_text("".join(lines))
    options.general = [folder / "general.tsv"]
    options.task, options.test = folder / "task.tsv", folder / "test.tsv"
    options.labels, options.length, options.epochs = 20, 8, [1, 1, 4]
    size.update(embedding_dim=6, units=8)
    streams.update(batch_size=4, sequence_length=8)


def fit_language_model(model, texts, epochs):
    """Train with the schedule and the rates of the paper, and return the perplexity."""
    batches = kt.data.language_model_batches(texts, model.vocabulary, **streams, seed=0)
    schedule = kt.optimizers.SlantedTriangular(0.004, epochs * len(batches))
    adam = keras.optimizers.Adam(schedule, 0.7, 0.99, global_clipnorm=1.0)
    model.compile(kt.optimizers.discriminative(adam, model, layer_decay=1 / 2.6))
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    return perplexity(model)


def perplexity(model):
    """Return the perplexity on the test texts."""
    batches = kt.data.language_model_batches(test.texts, model.vocabulary, **streams)
    return model.evaluate(batches, verbose=0, return_dict=True)["perplexity"]


if options.smoke:
    make_smoke()
elif not (options.general and options.task and options.test):
    parser.error("pass --general, --task and --test, or --smoke")
keras.utils.set_random_seed(0)
general = np.concatenate([kt.data.from_tsv(each).texts for each in options.general])
task = kt.data.from_tsv(options.task)
test = kt.data.from_tsv(options.test, classes=task.classes)

print("1. A language model of general texts", flush=True)
words = kt.data.word_vocabulary(general, 8000)
rows = streams["batch_size"]
language_model = kt.models.RecurrentLanguageModel(words, **size, batch_size=rows)
first = fit_language_model(language_model, general, options.epochs[0])

print("2. The same on the texts of the task, with its words", flush=True)
language_model = language_model.with_vocabulary(
    kt.data.word_vocabulary(task.texts, 8000)
)
language_model.compile()
before = perplexity(language_model)
after = fit_language_model(language_model, task.texts, options.epochs[1])

print("3. A classifier on its encoder", flush=True)
chosen = np.random.default_rng(0).permutation(len(task.texts))[: options.labels]
classifier = language_model.classifier(len(task.classes))
vectorizer = classifier.vectorizer(options.length)
x, test_x = (np.asarray(vectorizer(each)) for each in (task.texts[chosen], test.texts))
epochs = options.epochs[2]
steps = epochs * -(-len(x) // 16)
adam = keras.optimizers.Adam(kt.optimizers.SlantedTriangular(0.01, steps), 0.7, 0.99)
classifier.compile(
    kt.optimizers.discriminative(adam, classifier, layer_decay=1 / 2.6),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
thaw = kt.callbacks.GradualUnfreezing(classifier)
print(thaw.phases)
classifier.fit(
    x, task.labels[chosen], batch_size=16, epochs=epochs, callbacks=[thaw], verbose=0
)

peer = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10.0))
peer.fit(task.texts[chosen], task.labels[chosen])
wrong = np.mean(classifier.predict(test_x, verbose=0).argmax(-1) != test.labels)
peer_wrong = np.mean(peer.predict(test.texts) != test.labels)
print("value                                       result")
print(f"perplexity of the general model, its words  {first:.0f}")
print(f"perplexity with the words of the task       {before:.0f}")
print(f"perplexity after fine-tuning                {after:.0f}")
print(f"test error of the classifier                {wrong:.3f}")
print(f"test error of TF-IDF with the same labels   {peer_wrong:.3f}")
