"""QLoRA on BERT: a backbone in 4 bits a weight, with LoRA in float on top.

Learned: how to quantize a pretrained backbone to NF4, train LoRA on it, save and reload
the small model, start from LoftQ or PiSSA, and return to float kernels. Data: 2,000
sentences of a TSV file with label and text, such as SST-2. Time: perhaps 10 minutes on
2 cores for MiniLM; only the short form, `--smoke`, was run. Expect 4.127 bits a weight
for the kernels. `--smoke` runs a tiny, random BERT.

    python examples/qlora_bert.py --preset FOLDER --data train.tsv --test dev.tsv
"""

import argparse
import pathlib
import tempfile

import keras
import keras_hub
import numpy as np

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--preset", help="name or folder of a keras-hub BERT")
parser.add_argument("--data", help="TSV file to train on")
parser.add_argument("--test", help="TSV file to test on")
parser.add_argument("--labels", type=int, default=2000, help="labels to train on")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--length", type=int, default=64, help="tokens per text")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
if not options.smoke and not (options.preset and options.data and options.test):
    parser.error("pass --preset, --data and --test, or --smoke")
BLOCK = 16 if options.smoke else 64  # weights with one constant


def load():
    """Return the inputs and labels to train on, and the same to test on."""
    if options.smoke:
        random = np.random.default_rng(0)
        ids = random.integers(1, 16, (60, 8))
        x = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
        return (x, ids[:, 0] % 2), (x, ids[:, 0] % 2)
    train = kt.data.from_tsv(options.data)
    test = kt.data.from_tsv(options.test, classes=train.classes)
    packer = keras_hub.models.TextClassifierPreprocessor.from_preset(
        options.preset, sequence_length=options.length
    )
    few = kt.data.few_labels(*train[:2], options.labels // 2, seed=0)
    return (packer(few[0]), few[1]), (packer(test[0]), test[1])


def build():
    """Return a pretrained backbone with a new head."""
    if not options.smoke:
        backbone = keras_hub.models.Backbone.from_preset(options.preset)
        return kt.models.TransferClassifier(backbone, 2)
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


def fit(model):
    """Train the adapter and its head, and return the test accuracy."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    model.fit(*train, batch_size=16, epochs=options.epochs, verbose=0)
    return model.evaluate(*test, verbose=0)[1]


train, test = load()
folder = pathlib.Path(tempfile.mkdtemp())

# 1. LoRA on float kernels, to compare.
model = build()
kt.adapters.LoRA(rank=8, alpha=16).attach(model)
scores = {"LoRA": fit(model)}
model.save(folder / "LoRA.keras")

# 2. QLoRA: first quantize, then attach. Only the pairs and the head train.
model = build()
kt.quantize(model, "nf4", block_size=BLOCK)
kt.adapters.LoRA(rank=8, alpha=16).attach(model)
scores["QLoRA"] = fit(model)

# 3. The file has the packed kernels, and a reloaded model computes the same.
model.save(folder / "QLoRA.keras")
again = keras.models.load_model(folder / "QLoRA.keras")
right = model.predict(test[0], verbose=0)
assert np.array_equal(again.predict(test[0], verbose=0), right)

# 4. LoftQ quantizes while it attaches: its pairs start with the lost part of a kernel.
loftq = build()
kt.adapters.LoRA(rank=8, alpha=16, init="loftq").attach(loftq)
scores["LoftQ"] = fit(loftq)
loftq.save(folder / "LoftQ.keras")

# 5. Float kernels again, for any tool. They keep the rounding error of NF4.
kt.adapters.merge(model, dequantize=True)
error = np.abs(model.predict(test[0], verbose=0) - right).max()
print(f"merging changed the outputs by {error:.1e} at most\n")
print("adapter  accuracy  MB of the file")
for name, accuracy in scores.items():
    size = (folder / f"{name}.keras").stat().st_size / 1e6
    print(f"{name:7}  {accuracy:8.3f}  {size:14.2f}")
