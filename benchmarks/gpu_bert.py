"""Examples per second of BERT on a GPU, the share of its limit, and torch + PEFT.

NOT RUN ON A GPU, because no GPU was available. The script was run on a CPU with
`--tiny` alone, Keras and torch, which shows that it runs and nothing about speed. Keras
runs on TensorFlow, and on JAX if `jax` is installed.

It compares full fine-tuning, LoRA (rank 8, queries and values) and a frozen backbone
with torch + PEFT and torch.compile, in bfloat16 with XLA. It also measures the share of
the chip's dense bfloat16 limit. MiniLM and BERT-base have random weights, because the
speed does not depend on the weights, so nothing is downloaded. All steps use the same
batch.

    python benchmarks/gpu_bert.py [--batch 128] [--length 128] [--peak TFLOPS] [--tiny]

FLOPs are counted from the model. The forward pass has two FLOPs for each multiplication
in a matrix product. The backward pass has twice as many FLOPs as the forward pass if
all weights train (gradients of activations and of weights), the same number with LoRA
(gradients of activations only), and none for a frozen backbone. Each row runs in a
separate process. Keras runs `fit` and copies the batch to the device in each step.
torch runs a plain loop over a batch that is on the device. The result is the median of
the rounds without the first round, which compiles. The torch rows need
`pip install -e ".[peft]"`.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Dense bfloat16 limit in FLOPs per second, by a part of the name. The first match wins.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
}
# Blocks, width, heads, width of the feed-forward layer.
NETWORKS = {"MiniLM": (6, 384, 12, 1536), "BERT-base": (12, 768, 12, 3072)}
TINY = {"tiny": (2, 64, 2, 128)}
PASSES = {"full": 3, "LoRA": 2, "frozen": 1}  # in units of a forward pass
# Each with the module that it needs.
LIBRARIES = {"TensorFlow": "tensorflow", "JAX": "jax", "torch + PEFT": "peft"}
VOCABULARY, CLASSES, RATE = 30522, 2, 1e-4

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=128, help="examples per step")
parser.add_argument("--length", type=int, default=128, help="tokens per example")
parser.add_argument("--steps", type=int, default=50, help="steps per round")
parser.add_argument("--rounds", type=int, default=4, help="the first is not counted")
parser.add_argument("--peak", type=float, help="TFLOPs per second of the chip")
parser.add_argument("--tiny", action="store_true", help="check that it runs")
parser.add_argument("--row", nargs=3, help="library, network and what trains")


def forward_flops(network, length):
    """Return the FLOPs of matrices and attention in one example's forward pass."""
    blocks, width, _, inner = network
    weights = 4 * width**2 + 2 * width * inner  # q, k, v, output; in, out
    return blocks * length * (2 * weights + 4 * length * width)


def keras_rounds(network, kind, options):
    """Return the name of the device and the seconds of each round."""
    import keras
    import keras_hub
    import tensorflow as tf

    import keras_transfer as kt

    keras.config.set_dtype_policy("mixed_bfloat16")
    blocks, width, heads, inner = network
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=blocks,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=inner,
        max_sequence_length=512,
    )
    if kind == "frozen":
        backbone = kt.backbones.FrozenBackbone(backbone)
    model = kt.models.TransferClassifier(backbone, CLASSES)
    if kind == "LoRA":
        kt.adapters.LoRA(rank=8, alpha=16).attach(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(RATE), loss, jit_compile=True)
    ids, labels = batch(options)
    x = {
        "token_ids": ids,
        "segment_ids": np.zeros_like(ids),
        "padding_mask": np.ones_like(ids),
    }
    data = tf.data.Dataset.from_tensors((x, labels)).repeat(options.steps).prefetch(2)
    seconds = []
    for _ in range(options.rounds):
        began = time.perf_counter()
        model.fit(data, shuffle=False, verbose=0)  # ends with the loss on the host
        seconds.append(time.perf_counter() - began)
    return keras_device(), seconds


def keras_device():
    """Return the name of the device that Keras uses."""
    if keras_backend() == "jax":
        import jax

        device = jax.devices()[0]
        return "CPU" if device.platform == "cpu" else device.device_kind
    import tensorflow as tf

    chips = tf.config.list_physical_devices("GPU")
    if not chips:
        return "CPU"
    details = tf.config.experimental.get_device_details(chips[0])
    return details.get("device_name", "GPU")


def keras_backend():
    """Return the backend of Keras."""
    import keras

    return keras.backend.backend()


def torch_rounds(network, kind, options):
    """Return the name of the device and the seconds for torch, with PEFT's LoRA."""
    import peft
    import torch
    import transformers

    blocks, width, heads, inner = network
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=blocks,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bert = transformers.BertModel(config, add_pooling_layer=False)
    if kind == "LoRA":
        targets = ["query", "value"]
        lora = peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets)
        bert = peft.get_peft_model(bert, lora)
    bert.train(kind != "frozen")
    for name, parameter in bert.named_parameters():
        parameter.requires_grad_(kind == "full" or "lora_" in name)
    head = torch.nn.Linear(width, CLASSES)
    bert, head = bert.to(device), head.to(device)
    trained = [each for each in bert.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW([*trained, *head.parameters()], RATE, fused=True)
    ids, labels = (torch.tensor(each).long().to(device) for each in batch(options))
    mask = torch.ones_like(ids)

    @torch.compile
    def loss_of(ids, mask, labels):
        with torch.autocast(device, torch.bfloat16):
            hidden = bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return torch.nn.functional.cross_entropy(head(hidden.float().mean(1)), labels)

    seconds = []
    for _ in range(options.rounds):
        began = time.perf_counter()
        for _ in range(options.steps):
            optimizer.zero_grad()
            loss = loss_of(ids, mask, labels)
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the device
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return name, seconds


def batch(options):
    """Return token ids and labels of one batch, without padding."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, VOCABULARY, (options.batch, options.length))
    return ids.astype("int32"), rng.integers(0, CLASSES, options.batch)


def main(options):
    networks = TINY if options.tiny else NETWORKS
    if options.tiny:
        options.batch, options.length, options.steps, options.rounds = 8, 16, 3, 2
    if options.row:
        library, network, kind = options.row
        rounds = torch_rounds if library == "torch + PEFT" else keras_rounds
        name, seconds = rounds(networks[network], kind, options)
        print("row", json.dumps([name, seconds]))
        return
    print(f"{options.batch} x {options.length} tokens a step, bfloat16")
    print(f"{'':36}{'examples/s':>11}{'TFLOP/s':>9}{'of the limit':>14}  device")
    for network in networks:
        for kind, passes in PASSES.items():
            for library, module in LIBRARIES.items():
                if not importlib.util.find_spec(module):
                    continue
                command = [sys.executable, *sys.argv, "--row", library, network, kind]
                backend = "jax" if library == "JAX" else "tensorflow"
                environment = os.environ | {"KERAS_BACKEND": backend}
                done = subprocess.run(
                    command, stdout=subprocess.PIPE, text=True, env=environment
                )
                if done.returncode:
                    raise SystemExit(f"{library}, {network}, {kind} failed: see above")
                name, seconds = json.loads(done.stdout.split("row ")[-1])
                second = statistics.median(seconds[1:]) / options.steps
                rate = options.batch / second
                flops = rate * passes * forward_flops(networks[network], options.length)
                known = [peak for part, peak in PEAKS.items() if part in name]
                peak = options.peak * 1e12 if options.peak else next(iter(known), None)
                share = f"{flops / peak:.1%}" if peak else "unknown"
                row = f"{network}, {kind}, {library}"
                print(f"{row:36}{rate:11.0f}{flops / 1e12:9.2f}{share:>14}  {name}")


if __name__ == "__main__":
    main(parser.parse_args())
