"""DistilBERT's way: half of the blocks of a BERT, taught by the whole one.

Learned: how to make a small student of a fine-tuned BERT with `kt.models.student`, and
how to train it with `kt.models.StateDistiller` on the teacher's outputs and hidden
states, which are recorded once. The same small network trained on the labels alone is
shown next to it. Data: two TSV files with label and text (`--train`, `--test`), such as
SST-2, and a BERT preset (`--preset`). Time: perhaps 10 minutes of CPU. Expect a table
of 3 rows. Only the short form of this file was run: `--smoke`, whose 48 generated texts
teach no model anything.

    python examples/distil_bert.py --preset FOLDER --train train.tsv --test test.tsv
"""

import argparse
import time

import keras
import keras_hub
import numpy as np

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--preset", help="a BERT of keras-hub, or a folder of one")
parser.add_argument("--train", help="TSV file")
parser.add_argument("--test", help="TSV file")
parser.add_argument("--labels", type=int, default=200, help="labels in all")
parser.add_argument("--unlabeled", type=int, default=400, help="texts without labels")
parser.add_argument("--tested", type=int, default=300, help="test texts")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--length", type=int, default=32, help="tokens per text")
parser.add_argument("--rate", type=float, default=1e-4)
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def load():
    """Return a BERT, labeled and unlabeled inputs, and a test part."""
    if options.smoke:
        sizes = dict(num_heads=2, hidden_dim=16, intermediate_dim=16)
        draw = np.random.default_rng(0)
        ids = draw.integers(1, 30, (96, 8)).astype("int32")
        x = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
        y = (ids[:, 1] > 15).astype("int64")
        cut = [
            {k: v[part] for k, v in x.items()} for part in (slice(48), slice(48, 96))
        ]
        return (
            keras_hub.models.BertBackbone(30, 2, **sizes),
            (cut[0], y[:48]),
            x,
            (cut[1], y[48:]),
        )
    backbone = keras_hub.models.BertBackbone.from_preset(options.preset)
    encode = keras_hub.models.TextClassifierPreprocessor.from_preset(
        options.preset, sequence_length=options.length
    )
    train = kt.data.from_tsv(options.train)
    test = kt.data.from_tsv(options.test, classes=train.classes)
    order = np.random.default_rng(0).permutation(len(train.texts))
    count = options.labels + options.unlabeled
    x = tokens(encode, train.texts[order[:count]])
    labeled = {name: rows[: options.labels] for name, rows in x.items()}
    rows = np.random.default_rng(1).permutation(len(test.texts))[: options.tested]
    return (
        backbone,
        (labeled, train.labels[order[: options.labels]]),
        x,
        (tokens(encode, test.texts[rows]), test.labels[rows]),
    )


def tokens(encode, texts):
    """Return the inputs of a BERT as arrays."""
    return {name: np.asarray(each) for name, each in encode(list(texts)).items()}


def compiled(model, loss=LOSS):
    """Return the compiled model."""
    metrics = ["accuracy"] if loss else None
    model.compile(keras.optimizers.Adam(options.rate), loss, metrics=metrics)
    return model


def classifier(backbone):
    """Return a new classifier on a backbone."""
    keras.utils.set_random_seed(0)
    return kt.models.TransferClassifier(backbone, 2, pooling="mean")


def row(name, model, seconds):
    """Print the accuracy, the size, and the time of a pass over the test texts."""
    x, y = test
    model.predict(x, verbose=0)
    start = time.perf_counter()
    found = np.mean(model.predict(x, verbose=0).argmax(1) == y)
    passed = time.perf_counter() - start
    size = model.count_params() / 1e6
    print(f"{name:20}  {found:8.3f}  {size:10.2f}  {passed:9.1f}  {seconds:8.0f}")


def timed(function):
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if not (options.smoke or (options.preset and options.train and options.test)):
    parser.error("pass --preset, --train and --test, or --smoke")
keras.utils.set_random_seed(0)
backbone, labeled, everything, test = load()
depth = backbone.num_layers
keep = list(range(0, depth, 2))
settings = dict(epochs=options.epochs, batch_size=16, verbose=0)
print("model                 accuracy  parameters  predict s  train s", flush=True)

teacher = compiled(classifier(backbone))
# The students start from the pretrained blocks, before the teacher is fine-tuned.
alone = compiled(classifier(kt.models.student(backbone, keep)))
row("teacher", teacher, timed(lambda: teacher.fit(*labeled, **settings)))
row("student, labels", alone, timed(lambda: alone.fit(*labeled, **settings)))

student = classifier(kt.models.student(backbone, keep))
blocks = kt.layer_groups(backbone).names[1:]
names = kt.layer_groups(student.backbone).names[1:]
pairs = {blocks[place]: name for place, name in zip(keep, names, strict=True)}
losses = [
    keras.distillation.LogitsDistillation(2.0, keras.losses.KLDivergence()),
    kt.losses.StateDistillation(pairs),
]
distiller = kt.models.StateDistiller(teacher, student, losses, student_loss_weight=0.0)
compiled(distiller, None)


def distil():
    """Record the teacher's outputs for all texts, and train the student on them."""
    distiller.fit(distiller.record(everything), **settings)


row("student, distilled", student, timed(distil))
