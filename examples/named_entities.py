"""Named entities with a pretrained BERT: the head alone, LoRA and full fine-tuning.

Learned: how words with tags become the tokens of a BERT and come back as tagged words;
what LoRA gains over the head alone, measured by the F1 of whole entities, which a high
accuracy of words hides; how to serve raw strings. Data: two files with a word and its
tag in each line, such as those of WNUT-17 (3,394 sentences with rare names).
Time: 16 minutes of one CPU core for MiniLM and WNUT-17. Expect an F1 of 0.42 from
`full`, 0.37 from `LoRA`, 0.11 from the head alone and 0.06 from the most frequent tag,
as measured by benchmarks/named_entities.py with the same settings; only the short form
of this file was run: `--smoke`, a tiny, random BERT on generated sentences.

    python examples/named_entities.py --train wnut17_train.tsv --test wnut17_test.tsv
"""

import argparse
import pathlib
import tempfile
import time

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--preset", default="all_minilm_l6_v2_en", help="name or folder")
parser.add_argument("--train", help="file with a word and its tag in each line")
parser.add_argument("--test", help="file of the same form")
parser.add_argument("--rows", nargs="+", default=["head", "LoRA", "full"])
parser.add_argument("--length", type=int, default=160, help="most tokens per sentence")
parser.add_argument("--text", default="Is Kate Bush on tour in Italy?")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
# Learning rates that are usual for BERT. The head alone needs more epochs.
RATES = {"head": 1e-3, "LoRA": 1e-3, "full": 5e-5}
EPOCHS = {"head": 10, "LoRA": 3, "full": 3}


def make_smoke():
    """Write a tiny BERT and two files of tagged words, and set the options to them."""
    folder = pathlib.Path(tempfile.mkdtemp())
    names, others = (
        ["kate bush", "ada lovelace", "alan turing"],
        ["is", "on", "tour", "in", "a"],
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?"]
    vocabulary = [*special, *others, *" ".join(names).split()]
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=16,
    )
    tokenizer = keras_hub.models.BertTokenizer(vocabulary, lowercase=True)
    backbone.save_to_preset(folder / "bert")
    tokenizer.save_to_preset(folder / "bert")
    random = np.random.default_rng(0)
    for name in ("train", "test"):
        lines = []
        for _ in range(64):
            lines += [f"{word}\tO" for word in random.choice(others, 3)]
            first, last = random.choice(names).split()
            lines += [f"{first}\tB-person", f"{last}\tI-person", "?\tO", ""]
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    options.preset, options.train = str(folder / "bert"), folder / "train"
    options.test, options.length, options.rows = folder / "test", 16, ["head", "LoRA"]
    RATES.update(dict.fromkeys(RATES, 1e-2))


def build(row, tags):
    """Return a new model of which the head, a LoRA or everything trains."""
    backbone = keras_hub.models.Backbone.from_preset(options.preset)
    if row == "head":
        backbone = kt.backbones.FrozenBackbone(backbone)
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(options.preset)
    model = kt.models.TokenClassifier(
        backbone,
        tags,
        tokenizer=tokenizer,
        sequence_length=options.length,
        dropout=0.1,
    )
    if row == "LoRA":
        kt.adapters.LoRA(rank=8, alpha=16).attach(model)
    return model


def fit(row, model, train):
    """Train the model with linear warm-up and decay."""
    data = model.word_preprocessor.batches(train.sentences, train.tags, batch_size=16)
    epochs = EPOCHS[row]
    rate = kt.optimizers.LinearWarmupDecay(RATES[row], epochs * len(data))
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    model.compile(keras.optimizers.AdamW(rate), loss, weighted_metrics=["accuracy"])
    model.fit(data, epochs=epochs, shuffle=False, verbose=2)


def most_frequent(train, sentences):
    """Return the most frequent tag of each word of the training file, or "O"."""
    counts = {}
    for words, tags in zip(train.sentences, train.tags):
        for word, tag in zip(words, tags):
            counts.setdefault(word, []).append(tag)
    best = {word: max(set(tags), key=tags.count) for word, tags in counts.items()}
    return [[best.get(word, "O") for word in words] for words in sentences]


if options.smoke:
    make_smoke()
elif not (options.train and options.test):
    parser.error("pass --train and --test, or --smoke")
train = kt.data.from_conll(options.train)
test = kt.data.from_conll(options.test, names=train.names)
words = sum(map(len, test.sentences))
table = Table(
    f"{len(test.sentences)} test sentences", "F1", "accuracy of words", "CPU s"
)


def add(row, predicted, seconds):
    """Add a row of scores to the table."""
    pairs = zip(test.tags, predicted)
    right = sum(a == b for one, other in pairs for a, b in zip(one, other))
    f1 = kt.analysis.entity_scores(test.tags, predicted).f1
    table.add_row(row, f"{f1:.3f}", f"{right / words:.3f}", f"{seconds:.0f}")


add("most frequent tag", most_frequent(train, test.sentences), 0)
for row in options.rows:
    keras.utils.set_random_seed(0)
    model = build(row, train.names)
    began = time.process_time()
    fit(row, model, train)
    add(row, model.tag(test.sentences), time.process_time() - began)

folder = pathlib.Path(tempfile.mkdtemp())
served = kt.export_serving(model, folder / "entities", samples=[options.text])
serve = tf.saved_model.load(str(served)).signatures["serving_default"]
answer = serve(text=tf.constant([options.text]))
for word, label in zip(answer["words"].numpy()[0], answer["label"].numpy()[0]):
    print(f"{word.decode():12} {label.decode()}")
Console(width=90).print(table)
