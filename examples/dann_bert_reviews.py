"""Reviews of one kind of product judge those of another: DANN on BERT, with LoRA.

Learned: two domains in one `fit`, adapters on the backbone, the references on either
side of a method, and how far apart the domains stay. Data: three TSV with label and
text: labeled reviews of the source; those of the target, whose labels serve the row
"trained on target" alone; and labeled ones of the target to test on. Time: some
10 minutes of CPU for MiniLM with `--examples 800 --epochs 2 --seeds 1`, electronics to
books. Expect then 0.755 from the source alone and from DANN, 0.798 from MCC and 0.830
from the target's own labels, each within 0.02. `--smoke` runs a random, tiny BERT.

    python examples/dann_bert_reviews.py --preset FOLDER --source electronics.tsv \\
        --target books_train.tsv --test books_test.tsv
"""

import argparse

import keras
import keras_hub
import numpy as np

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--preset", help="name or folder of a BERT of keras-hub")
parser.add_argument("--source", help="TSV of the source")
parser.add_argument("--target", help="TSV of the target to adapt to")
parser.add_argument("--test", help="TSV of the target to test on")
parser.add_argument("--examples", type=int, default=1500, help="reviews a domain")
parser.add_argument("--seeds", type=int, default=2)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--length", type=int, default=64, help="tokens of a text")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
paths = (options.preset, options.source, options.target, options.test)
if not options.smoke and not all(paths):
    parser.error("name --preset, --source, --target and --test, or --smoke")


def made_up(things, seed):
    """Return texts on some things, whose last word tells the label."""
    random = np.random.default_rng(seed)
    labels = np.arange(32) % 2
    tones = np.array([["bad", "dull"], ["good", "fine"]])
    last = tones[labels, random.integers(0, 2, 32)]
    things = random.choice(things, 32)
    return np.array([f"{a} is {b}" for a, b in zip(things, last)], object), labels


def load():
    """Return source, target and test as (texts, labels), and a preprocessor."""
    if options.smoke:
        words = ["book", "story", "radio", "phone", "is", "bad", "dull", "good", "fine"]
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer = keras_hub.models.BertTokenizer([*special, *words])
        packer = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, 8)
        goods, books = ["radio", "phone"], ["book", "story"]
        return made_up(goods, 0), made_up(books, 1), made_up(books, 2), packer
    source = kt.data.from_tsv(options.source)
    others = [
        kt.data.from_tsv(path, classes=source.classes)
        for path in (options.target, options.test)
    ]
    packer = keras_hub.models.TextClassifierPreprocessor.from_preset(
        options.preset, sequence_length=options.length
    )
    return source[:2], *(each[:2] for each in others), packer


def build():
    """Return a pretrained backbone with LoRA."""
    if not options.smoke:
        backbone = keras_hub.models.Backbone.from_preset(options.preset)
    else:
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=16,
            num_layers=2,
            num_heads=2,
            hidden_dim=16,
            intermediate_dim=32,
            max_sequence_length=8,
        )
    return kt.adapters.LoRA(rank=8, alpha=16).attach(backbone)


def fit(method, labeled, unlabeled, seed):
    """Return the trained model of a row."""
    keras.utils.set_random_seed(seed)
    model = method(build(), keras.layers.Dense(2, name="labels"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.01)
    model.compile(optimizer, loss, metrics=["accuracy"])
    data = kt.data.domain_dataset(labeled, unlabeled, 16, seed=seed)
    model.fit(data, epochs=options.epochs, shuffle=False, verbose=2)
    return model


def features(model, x):
    """Return what the label head of a model sees."""
    extractor = kt.backbones.features(model.feature_extractor)
    return extractor.predict(x, batch_size=64, verbose=0)


source, target, test, packer = load()
parts = []
for texts, labels in (source, target, test):
    order = np.random.default_rng(0).permutation(len(labels))[: options.examples]
    tokens = packer(texts[order])
    parts.append(
        (keras.tree.map_structure(keras.ops.convert_to_numpy, tokens), labels[order])
    )
source, target, test = parts

models = kt.models
rows = {
    "source only": (models.SourceOnly, source),
    "DANN": (models.DANN, source),
    "MCC": (models.MCC, source),
    "train on target": (models.SourceOnly, target),
}
results = {row: [] for row in rows}
for seed in range(1 if options.smoke else options.seeds):
    for row, (method, labeled) in rows.items():
        model = fit(method, labeled, target[0], seed)
        accuracy = model.evaluate(*test, batch_size=64, verbose=0)[1]
        results[row].append(accuracy)
        near = [features(model, x)[:400] for x, _ in (source, target)]
        distance = kt.analysis.proxy_a_distance(*near)
        print(f"{row}: accuracy {accuracy:.3f}, proxy A-distance {distance:.2f}")

low, high = results.pop("source only"), results.pop("train on target")
print(kt.analysis.AdaptationTable(results, source_only=low, on_target=high))
