"""Many tasks at once: one MiniLM for reviews, sentences and papers, against one each.

Learned: how to train one backbone with a head for each task on mixed batches, with
fixed or learned weights or with PCGrad; how to train an adapter for each task on one
frozen backbone, and serve all of them in one SavedModel. Data: files with a label and a
text in each line (`--data folder`), here of four tasks: Amazon reviews of books and of
electronics, SST-2, and whether a sentence of BC5CDR names a chemical. Time: 12 minutes
of one CPU core for three of the five rows. Expect a mean accuracy of 0.738 for each
alone, 0.761 together and 0.645 by adapters, from one seed. The other two rows were only
run in the short form: `--smoke`, a tiny, random BERT on generated sentences.

    python examples/many_tasks.py --data folder
"""

import argparse
import pathlib
import tempfile
import time

import keras
import keras_hub
import numpy as np
import tensorflow as tf

import keras_transfer as kt

FILES = {"books": "amazon_books", "electronics": "amazon_electronics"}
FILES |= {"sst2": "sst2", "chemical": "bc5cdr_has_chemical"}
parser = argparse.ArgumentParser()
parser.add_argument("--preset", default="all_minilm_l6_v2_en", help="name or folder")
parser.add_argument("--data", type=pathlib.Path, help="folder of <task>_train.tsv etc.")
ROWS = ("each alone", "together", "uncertainty", "pcgrad", "adapters")
parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS)
parser.add_argument("--labels", type=int, default=200, help="labels of each task")
parser.add_argument("--length", type=int, default=32, help="most tokens of a text")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--rate", type=float, default=1e-4, help="LoRA has 10 times it")
parser.add_argument("--blocks", type=int, default=2, help="last blocks that train")
parser.add_argument("--seeds", type=int, nargs="+", default=[1])
parser.add_argument("--scored", type=int, default=400, help="most texts to score")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_smoke():
    """Write a tiny BERT and files of generated sentences, and set the options."""
    folder, draw = pathlib.Path(tempfile.mkdtemp()), np.random.default_rng(0)
    words = ["good", "bad", "film", "book", "phone", "acid", "with", "the", "of"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    sizes = len(special + words), 1, 2, 16, 32  # one block, two heads, width 16
    keras_hub.models.BertBackbone(*sizes).save_to_preset(folder / "bert")
    tokenizer = keras_hub.models.BertTokenizer(special + words, lowercase=True)
    tokenizer.save_to_preset(folder / "bert")
    for name in FILES.values():
        for part, count in (("train", 48), ("test", 16)):
            texts = [" ".join(draw.choice(words, 5)) for _ in range(count)]
            word = "acid" if "chemical" in name else "good"
            rows = "\n".join(f"{int(word in text)}\t{text}" for text in texts)
            (folder / f"{name}_{part}.tsv").write_text(rows)
    options.preset, options.data, options.length = str(folder / "bert"), folder, 8
    options.labels, options.epochs, options.rate, options.scored = 16, 1, 1e-2, 16
    options.rows = ("pcgrad", "adapters")
    del FILES["books"], FILES["electronics"]


def load(seed):
    """Return two dicts from tasks to tokens and labels: to train on, and to score."""
    parts = {"train": {}, "test": {}}
    sizes = {"train": (seed, options.labels), "test": (0, options.scored)}
    for task, file in FILES.items():
        for part, (draw, count) in sizes.items():
            texts, labels, _ = kt.data.from_tsv(options.data / f"{file}_{part}.tsv")
            rows = np.random.default_rng(draw).permutation(len(texts))[:count]
            x = preprocessor(texts[rows])
            x = keras.tree.map_structure(keras.ops.convert_to_numpy, x)
            parts[part][task] = x, labels[rows]
    return parts.values()


def build(tasks, weighting="fixed"):
    backbone = keras_hub.models.Backbone.from_preset(options.preset)
    heads = {task: keras.layers.Dense(2, name=f"{task}_head") for task in tasks}
    model = kt.models.MultiTask(backbone, heads, dropout=0.1, weighting=weighting)
    groups = [x for x in kt.layer_groups(model) if x.name not in ("head", "unused")]
    for layer in sum((x.layers for x in groups[: -options.blocks]), ()):
        layer.trainable = False
    return model


def fit(model, tasks, rate, seed):
    """Train on all tasks, or with its adapter on one, with linear decay."""
    data = kt.data.task_mixture(tasks, temperature=2.0, batch_size=16, seed=seed)
    schedule = kt.optimizers.LinearWarmupDecay(rate, options.epochs * len(data))
    model.compile(keras.optimizers.AdamW(schedule), dict.fromkeys(model.heads, LOSS))
    model.fit(data, epochs=options.epochs, shuffle=False, verbose=0)


def accuracy(model, task, score):
    x, y = score[task]
    return np.mean(model.predict(x, verbose=0)[task].argmax(1) == y)


def run(row, train, score, seed):
    """Return the accuracy of each task, and the last model."""
    keras.utils.set_random_seed(seed)
    if row == "each alone":
        found = {}
        for task in train:
            model = build([task])
            fit(model, {task: train[task]}, options.rate, seed)
            found[task] = accuracy(model, task, score)
        return found, model
    if row != "adapters":
        model = build(train, "fixed" if row == "together" else row)
        fit(model, train, options.rate, seed)
        return {task: accuracy(model, task, score) for task in train}, model
    model, found, lora = build(train), {}, kt.adapters.LoRA(rank=8, alpha=16)
    for task in train:
        lora.attach(model, task, train=[model.heads[task]], verbose=0)
    for task in train:
        kt.adapters.use(model, task)
        fit(model, {task: train[task]}, 10 * options.rate, seed)
        found[task] = accuracy(model, task, score)
    return found, model


if options.smoke:
    make_smoke()
elif options.data is None:
    parser.error("pass --data, or --smoke")
kind = keras_hub.models.TextClassifierPreprocessor
preprocessor = kind.from_preset(options.preset, sequence_length=options.length)
lines = [("tasks", *FILES, "mean", "CPU s")]
for row in options.rows:
    scores, began = [], time.process_time()
    for seed in options.seeds:
        found, model = run(row, *load(seed), seed)
        scores.append([*found.values(), np.mean([*found.values()])])
    seconds = (time.process_time() - began) / len(options.seeds)
    means = [f"{each:.3f}" for each in np.mean(scores, axis=0)]
    lines.append((row, *means, f"{seconds:.0f}"))
    print(*lines[-1], sep="  ", flush=True)
with tempfile.TemporaryDirectory() as folder:
    tuned = list(kt.adapters.attached(model))
    path = kt.export_serving(model, folder, preprocessor=preprocessor, adapters=tuned)
    serve = tf.saved_model.load(str(path)).signatures["chemical"]
    print(serve(text=tf.constant(["a tablet of aspirin"])))
for line in lines:
    print(line[0].ljust(12), *(cell.rjust(11) for cell in line[1:]), sep="  ")
