"""Files of Hugging Face PEFT: move a LoRA adapter from Keras to PyTorch and back.

Learned: how to save an adapter in PEFT's format, load a PEFT folder into a keras-hub
backbone, and save it again byte for byte; what `match_huggingface` does. Data: a few
random token ids and, with --preset, the weights of a BERT in a Hugging Face folder.
Time: 1 minute. Expect a difference below 1e-5 between Keras and PyTorch, if torch and
peft are installed (`pip install ".[peft]"`). `--smoke` runs a tiny, random BERT without
PyTorch.

    python examples/peft_round_trip.py --preset FOLDER [--adapter PEFT_FOLDER]
"""

import argparse
import importlib.util
import pathlib
import tempfile

import keras
import keras_hub
import numpy as np
from rich.console import Console
from rich.table import Table

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--preset", help="Hugging Face folder of a BERT")
parser.add_argument("--adapter", help="folder of an adapter that PEFT saved")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
if not options.preset and not options.smoke:
    parser.error("pass --preset or --smoke")
work = pathlib.Path(tempfile.mkdtemp())


def build():
    """Return the backbone, with the activation of Hugging Face's BERT."""
    if options.smoke:
        keras.utils.set_random_seed(7)  # the same weights each time, as if pretrained
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=40,
            num_layers=2,
            num_heads=2,
            hidden_dim=16,
            intermediate_dim=32,
            max_sequence_length=16,
        )
        return kt.backbones.match_huggingface(backbone, hidden_act="gelu")
    backbone = keras_hub.models.Backbone.from_preset(options.preset)
    return kt.backbones.match_huggingface(backbone, options.preset)


def train(backbone):
    """Train a LoRA adapter, so that its matrix B is not zero."""
    kt.adapters.LoRA(rank=4, alpha=8).attach(backbone)
    pooled = backbone(backbone.input)["pooled_output"]
    model = keras.Model(backbone.input, keras.layers.Dense(2)(pooled))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(tokens, np.arange(4) % 2, epochs=3, verbose=0)


def run(backbone):
    """Return the outputs of the last layer."""
    return backbone.predict(tokens, verbose=0)["sequence_output"]


ids = np.random.default_rng(0).integers(5, 40, (4, 12)).astype("int32")
tokens = {
    "token_ids": ids,
    "segment_ids": np.zeros_like(ids),
    "padding_mask": np.ones_like(ids),
}
backbone = build()
base = run(backbone)
if options.adapter:
    kt.load_adapter(backbone, options.adapter)
else:
    train(backbone)
adapted = run(backbone)
kt.save_adapter(backbone, work / "first", format="peft")

again = build()
kt.load_adapter(again, work / "first")
kt.save_adapter(again, work / "second", format="peft")
weights = [(work / name / "adapter_model.safetensors") for name in ("first", "second")]
first, second = [np.frombuffer(path.read_bytes(), "uint8") for path in weights]
same_size = len(first) == len(second)
differ = np.sum(first != second) if same_size else len(first)

rows = [
    ("outputs with and without the adapter", np.abs(adapted - base).max()),
    (
        "saved in PEFT's format, loaded into a new backbone",
        np.abs(run(again) - adapted).max(),
    ),
]
if options.preset and importlib.util.find_spec("peft"):
    import peft
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(options.preset).eval()
    model = peft.PeftModel.from_pretrained(model, work / "first").eval()
    with torch.no_grad():
        found = model(torch.tensor(ids).long()).last_hidden_state.numpy()
    rows.append(("the same folder in PyTorch", np.abs(found - adapted).max()))

table = Table("largest difference", "")
for name, value in rows:
    table.add_row(name, f"{value:.1e}")
table.add_row(f"different bytes after saving again, of {len(first):,}", str(differ))
Console(width=100).print(table)
