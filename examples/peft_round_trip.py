"""Hugging Face PEFT's files both ways: a LoRA from Keras to PyTorch and back.

Learned: save an adapter as PEFT does, load a folder of PEFT into a keras-hub backbone,
write it back byte for byte, and what `match_huggingface` is for. Data: a few sentences;
with --preset the weights of a Hugging Face folder of a BERT. Time: 1 minute. Expect a
difference below 1e-5 between Keras and PyTorch, if torch and peft are installed
(`pip install ".[peft]"`). `--smoke` does without PyTorch, on a random, tiny BERT.

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
parser.add_argument("--adapter", help="folder that PEFT has written")
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
if not options.preset and not options.smoke:
    parser.error("name --preset, or --smoke")
work = pathlib.Path(tempfile.mkdtemp())


def build():
    """Return the backbone, with the activation that Hugging Face's BERT has."""
    if options.smoke:
        keras.utils.set_random_seed(7)  # stands for pretrained weights: always the same
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
    """Teach a LoRA something, so that its B is not zero."""
    kt.adapters.LoRA(rank=4, alpha=8).attach(backbone)
    pooled = backbone(backbone.input)["pooled_output"]
    model = keras.Model(backbone.input, keras.layers.Dense(2)(pooled))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(tokens, np.arange(4) % 2, epochs=3, verbose=0)


def run(backbone):
    """Return the rows of the last layer."""
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
    ("what the adapter changes in the outputs", np.abs(adapted - base).max()),
    (
        "saved as PEFT's, loaded into a fresh backbone",
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
told = f"bytes that differ in the file written again, of {len(first):,}"
table.add_row(told, str(differ))
Console(width=100).print(table)
