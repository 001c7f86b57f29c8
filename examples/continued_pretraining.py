"""Continued pretraining: masked language modeling on target texts before fine-tuning.

Learned: how `kt.continue_pretraining` trains a BERT further on texts without labels,
and whether that helps: compared with no pretraining, and with as many words of other
texts, which shows what the domain itself gives. Data: files with a text in each line,
and a TSV file with labels, such as sentences of PubMed, and whether a sentence names a
chemical. Time: perhaps 60 minutes of one core; the whole was not run at once. Expect an
accuracy with 100 labels (`lp-ft`) of 0.81 after the target texts, 0.785 without
pretraining, and 0.78 after other texts, and with 300 labels of 0.88 to 0.885 for all.
`--smoke` runs a tiny, random BERT on generated sentences.

    python examples/continued_pretraining.py --preset FOLDER --target biomed.txt \\
        --general reviews.txt --train train.tsv --test test.tsv
"""

import argparse
import itertools
import pathlib
import tempfile

import keras
import keras_hub
import numpy as np
from rich.console import Console
from rich.table import Table

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--preset", default="all_minilm_l6_v2_en", help="name or folder")
parser.add_argument("--target", help="file with unlabeled target texts")
parser.add_argument("--general", help="file with other texts")
parser.add_argument("--train", help="TSV file of label and text")
parser.add_argument("--test", help="TSV file of label and text")
parser.add_argument("--words", type=int, default=150_000, help="of each kind of text")
parser.add_argument("--epochs", type=int, default=1, help="of pretraining")
parser.add_argument("--labels", type=int, nargs="+", default=[100, 300])
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--strategies", nargs="+", default=["probe", "lp-ft"])
parser.add_argument("--tested", type=int, default=1000, help="test texts")
parser.add_argument("--length", type=int, default=64, help="tokens per labeled text")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()


def make_smoke():
    """Write a tiny BERT and files of generated texts, and set the options to them."""
    folder = pathlib.Path(tempfile.mkdtemp())
    words, chemicals = (
        ["in", "the", "cell", "of", "a", "rat", "was", "seen"],
        ["zinc", "iron", "lead"],
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backbone = keras_hub.models.BertBackbone(16, 1, 2, 16, 32, max_sequence_length=16)
    backbone.save_to_preset(folder / "bert")
    tokenizer = keras_hub.models.BertTokenizer([*special, *words, *chemicals])
    tokenizer.save_to_preset(folder / "bert")
    random = np.random.default_rng(0)
    texts = [" ".join([*random.choice(words, 5), each]) for each in chemicals * 60]
    plain = [" ".join(random.choice(words, 6)) for _ in texts]
    (folder / "target.txt").write_text("\n".join(texts))
    (folder / "general.txt").write_text("\n".join(plain))
    lines = [f"1\t{a}\n0\t{b}" for a, b in zip(texts, plain)]
    for name in ("train.tsv", "test.tsv"):
        (folder / name).write_text("\n".join(lines))
        setattr(options, name.partition(".")[0], folder / name)
    options.strategies = ["probe"]
    options.preset, options.length = str(folder / "bert"), 16
    options.target, options.general = folder / "target.txt", folder / "general.txt"
    options.words, options.labels, options.seeds, options.tested = 900, [40], 1, 100


def read(path, words):
    """Return lines of a file in random order, with this number of words in all."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line.strip()]
    order = np.random.default_rng(0).permutation(len(lines))
    counts = np.cumsum([len(lines[number].split()) for number in order])
    return [lines[number] for number in order[: np.searchsorted(counts, words)]]


def pretrained(path):
    """Return the weights of the backbone after pretraining on a file, or before."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.Backbone.from_preset(options.preset)
    if path is None:
        return backbone.get_weights(), ""
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(options.preset)
    result = kt.continue_pretraining(
        backbone,
        read(path, options.words),
        tokenizer=tokenizer,
        epochs=options.epochs,
        verbose=2,
    )
    before, after = result.perplexity_before, result.perplexity_after
    return backbone.get_weights(), f"{before:.1f} to {after:.1f}"


def tokens(preprocessor, texts):
    """Return the inputs of the backbone as arrays."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, preprocessor(texts))


def accuracy(weights, data, test, strategy, seed):
    """Return the accuracy on the test texts after fine-tuning from these weights."""
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.Backbone.from_preset(options.preset)
    backbone.set_weights(weights)
    model = kt.models.TransferClassifier(backbone, 2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    settings = {"epochs": 4, "batch_size": 16, "verbose": 0}
    kt.fine_tune(model, data, strategy=strategy, **settings)
    return model.evaluate(*test, batch_size=64, verbose=0)[1]


if options.smoke:
    make_smoke()
texts, labels, classes = kt.data.from_tsv(options.train)
test_texts, test_labels, _ = kt.data.from_tsv(options.test, classes=classes)
preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(
    options.preset, sequence_length=options.length
)
chosen = np.random.default_rng(0).permutation(len(test_labels))[: options.tested]
test = tokens(preprocessor, test_texts[chosen]), test_labels[chosen]

kinds = {"none": None, "general": options.general, "target": options.target}
if options.smoke:
    del kinds["general"]
cells = list(itertools.product(options.labels, options.strategies))
table = Table("pretraining", "perplexity", *(f"{s}, {n} labels" for n, s in cells))
for kind, path in kinds.items():
    weights, perplexity = pretrained(path)
    row = []
    for count, strategy in cells:
        found = []
        for seed in range(options.seeds):
            few = kt.data.few_labels((texts, labels), count // 2, seed=seed).labeled
            data = tokens(preprocessor, few[0]), few[1]
            found.append(accuracy(weights, data, test, strategy, seed))
        row.append(f"{np.mean(found):.3f} ± {np.std(found):.3f}")
        print(f"{kind}, {strategy}, {count} labels: {np.round(found, 3)}", flush=True)
    table.add_row(kind, perplexity, *row)
Console(width=110).print(table)
