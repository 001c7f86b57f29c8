"""LoRA on BERT, compared with full fine-tuning: parameters, file size and cost.

Learned: how to attach LoRA, train as usual, save only the adapter, load it into a new
model, and merge it into the weights. Data: 2,000 sentences of a TSV file with label and
text, such as SST-2. Time: about 20 minutes on 2 cores for MiniLM, estimated from single
rows. Expect 0.846 on SST-2 from LoRA and 0.842 from full fine-tuning. These numbers are
from `benchmarks/lora_quality.py`, with one seed and without dropout and weight decay.
`--smoke` runs a tiny, random BERT.

    python examples/lora_bert.py --preset FOLDER --data train.tsv --test dev.tsv
"""

import argparse
import pathlib
import tempfile
import time

import keras
import keras_hub
import numpy as np
from rich.console import Console
from rich.table import Table

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--preset", help="name or folder of a keras-hub BERT")
parser.add_argument("--data", help="TSV file to train on")
parser.add_argument("--test", help="TSV file to test on")
parser.add_argument("--labels", type=int, default=2000, help="labels to train on")
parser.add_argument("--seeds", type=int, default=2)
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--length", type=int, default=64, help="tokens per text")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
if not options.smoke and not (options.preset and options.data and options.test):
    parser.error("pass --preset, --data and --test, or --smoke")

# Usual learning rates for LoRA and for BERT. LoRA allows a higher rate.
RATES = {"full": 5e-5, "LoRA": 1e-3, "LoRA+": 1e-3}
if options.smoke:
    del RATES["full"]


def made_up():
    """Return sentences whose last word shows the label."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    tones = np.array([["bad", "dull"], ["good", "fine"]])
    start = random.choice(["a film", "the plot", "this story"], 60)
    last = tones[labels, random.integers(0, 2, 60)]
    return np.array([f"{a} is {b}" for a, b in zip(start, last)], object), labels


def load():
    """Return (texts, labels) to train on, the same to test on, and a preprocessor."""
    if options.smoke:
        words = ["a", "film", "the", "plot", "this", "story", "is", "bad", "dull"]
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer = keras_hub.models.BertTokenizer([*special, *words, "good", "fine"])
        packer = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, 8)
        return made_up(), made_up(), packer
    train = kt.data.from_tsv(options.data)
    test = kt.data.from_tsv(options.test, classes=train.classes)
    packer = keras_hub.models.TextClassifierPreprocessor.from_preset(
        options.preset, sequence_length=options.length
    )
    return train[:2], test[:2], packer


def build():
    """Return a pretrained backbone with a new head."""
    if not options.smoke:
        backbone = keras_hub.models.Backbone.from_preset(options.preset)
        return kt.models.TransferClassifier(backbone, 2, dropout=0.1)
    keras.utils.set_random_seed(7)  # the same weights each time, as if pretrained
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=16,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=8,
    )
    return kt.models.TransferClassifier(backbone, 2)


def fit(row, train, seed):
    """Return the trained model for a row, and its process CPU seconds."""
    model = build()
    keras.utils.set_random_seed(seed)
    optimizer = keras.optimizers.AdamW(RATES[row], weight_decay=0.01)
    if row != "full":
        kt.adapters.LoRA(rank=8, alpha=16).attach(model)
    if row == "LoRA+":  # B has 16 times the rate of A: Hayou et al., arXiv:2402.12354
        groups = kt.layer_groups(model)
        inside = [
            g.name for g in groups if any("lora_b" in v.path for v in g.variables)
        ]
        rates = {(name, "lora_b"): 16.0 for name in inside}
        optimizer = kt.optimizers.discriminative(optimizer, groups, rates=rates)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    began = time.process_time()
    model.fit(*train, batch_size=16, epochs=options.epochs, verbose=2)
    return model, time.process_time() - began


train, test, packer = load()
tokens = keras.tree.map_structure(keras.ops.convert_to_numpy, packer(test[0]))
results = {row: [] for row in RATES}
for seed in range(1 if options.smoke else options.seeds):
    labels = min(options.labels, len(train[1])) // 2
    few = kt.data.few_labels(train, labels, seed=seed).labeled
    x = keras.tree.map_structure(keras.ops.convert_to_numpy, packer(few[0]))
    for row in RATES:
        model, seconds = fit(row, (x, few[1]), seed)
        accuracy = model.evaluate(tokens, test[1], batch_size=64, verbose=0)[1]
        trained = sum(np.prod(v.shape) for v in model.trainable_variables)
        results[row].append((accuracy, seconds, trained))

folder = pathlib.Path(tempfile.mkdtemp())
path = folder / "adapter.safetensors"
kt.save_adapter(model, path)
fresh = build()
kt.load_adapter(fresh, path)
outputs = model.predict(tokens, verbose=0)
loaded = np.abs(fresh.predict(tokens, verbose=0) - outputs).max()
kt.adapters.merge(model)  # plain Keras layers again
merged = np.abs(model.predict(tokens, verbose=0) - outputs).max()
print(f"size of the adapter file: {path.stat().st_size:,} bytes")
print(f"largest difference after loading it into a new model: {loaded:.1e}")
print(f"largest difference after merging it: {merged:.1e}")

table = Table("", "accuracy", "CPU seconds", "trainable parameters")
for row, runs in results.items():
    accuracy, seconds, trained = np.transpose(runs)
    score = f"{accuracy.mean():.3f} ± {accuracy.std():.3f}"
    table.add_row(row, score, f"{seconds.mean():.0f}", f"{int(trained[0]):,}")
Console(width=100).print(table)
