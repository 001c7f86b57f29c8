"""The error, size, memory, step time and accuracy of QLoRA and LoRA.

Claims: NF4 with double quantization needs 4.127 bits a weight. Its error on MiniLM's
kernels is at most 1.05 x that of Keras's int4 with blocks of 64, which needs 4.708
bits, and below FP4's. A QLoRA step on BERT-base costs at most 1.35 x a LoRA step, and
needs less memory. Whether its accuracy with 2,000 labels of SST-2 is within the
standard error of LoRA's is what `quality` tells.

`error` needs no training: relative error sqrt(mean((w - q)^2) / mean(w^2)) of the
kernels of Dense and EinsumDense and of the word embeddings of MiniLM. `size` and `cost`
use the size of BERT-base (110 M random weights), 16 x 128 tokens, LoRA of rank 8 on
queries and values. The steps of both kinds alternate, and their times are process CPU
times. `memory` is the peak of a separate process after two such steps. `quality` trains
MiniLM as `lora_quality.py` does. It needs the folder of SST-2 in $KERAS_TRANSFER_DATA.

    python benchmarks/qlora.py error | size | cost [steps] | memory
    python benchmarks/qlora.py quality [seeds] [labels]
"""

import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import real_bert

import keras_transfer as kt
from keras_transfer.quantization.normal_float import pack
from keras_transfer.quantization.normal_float import unpack

LENGTH, SIZE = 128, 16
# bitsandbytes' FP4: 0, 0.0625, 2, 3, 4, 6, 8 and 12, with both signs, divided by 12.
FP4 = np.array([0, 0.0625, 2, 3, 4, 6, 8, 12], "float32") / 12
FP4 = np.array(sorted({*FP4, *-FP4}), "float32")
KINDS = ("LoRA", "LoRA bfloat16", "QLoRA")


def nearest(weight, levels, block_size=64):
    """Return `weight` rounded to levels times the largest value of each block."""
    blocks = weight.reshape(-1, block_size)
    constants = np.abs(blocks).max(axis=1, keepdims=True)
    middles = (levels[1:] + levels[:-1]) / 2
    return levels[np.searchsorted(middles, blocks / constants)] * constants


def keras_int4(weight, block_size):
    """Return a matrix as Keras rounds it with `quantize("int4")`."""
    layer = keras.layers.Dense(weight.shape[1], use_bias=False)
    layer.build((None, weight.shape[0]))
    layer.kernel.assign(weight)
    config = keras.quantizers.Int4QuantizationConfig(block_size=block_size)
    layer.quantize("int4", config=config)
    return keras.ops.convert_to_numpy(layer(np.eye(weight.shape[0], dtype="float32")))


def error():
    """Print the errors of NF4, FP4 and int4 on MiniLM's kernels."""
    import keras_hub

    backbone = keras_hub.models.BertBackbone.from_preset(real_bert.folder())
    kernels = {
        v.path: keras.ops.convert_to_numpy(v)
        for v in backbone.weights
        if v.name in ("kernel", "embeddings") and "position" not in v.path
    }
    ways = {
        "NF4, double quantization": lambda w: unpack(pack(w, 64)),
        "NF4": lambda w: unpack(pack(w, 64, False)),
        "FP4": lambda w: nearest(w, FP4),
        "Keras int4, blocks of 64": lambda w: keras_int4(w.reshape(len(w), -1), 64),
        "Keras int4, blocks of 128": lambda w: keras_int4(w.reshape(len(w), -1), 128),
    }
    print("relative error of              all kernels  words only  bits a weight")
    bits = {"NF4": 4.5, "FP4": 4.5, "NF4, double quantization": 4.127}
    bits |= {"Keras int4, blocks of 64": 4.708, "Keras int4, blocks of 128": 4.396}
    for name, rounded in ways.items():
        lost = total = 0.0
        for path, weight in kernels.items():
            if "embedding" not in path:
                lost += np.sum((rounded(weight).ravel() - weight.ravel()) ** 2.0)
                total += np.sum(weight**2.0)
        words = max(kernels.values(), key=np.size)
        of_words = math.nan
        if "int4" not in name:
            of_words = np.sum((rounded(words).ravel() - words.ravel()) ** 2.0)
            of_words = math.sqrt(of_words / np.sum(words**2.0))
        print(
            f"{name:30} {math.sqrt(lost / total):11.4f} {of_words:11.4f} "
            f"{bits[name]:11.3f}"
        )


def base(kind="LoRA"):
    """Return a classifier of the size of BERT-base, with random weights."""
    import keras_hub

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16" if "bfloat16" in kind else "float32")
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=30522,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        intermediate_dim=3072,
        max_sequence_length=512,
    )
    logits = keras.layers.Dense(2, dtype="float32")
    model = keras.Model(
        backbone.input, logits(backbone(backbone.input)["pooled_output"])
    )
    return model


def step_of(kind):
    """Return a function that makes one training step, and the model."""
    model = base(kind)
    if "QLoRA" in kind:
        kt.quantize(model, "nf4")
    kt.adapters.LoRA(rank=8).attach(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=False)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 30000, (SIZE, LENGTH))
    x = {
        "token_ids": ids,
        "segment_ids": np.zeros_like(ids),
        "padding_mask": np.ones_like(ids),
    }
    y = rng.integers(0, 2, SIZE)
    return lambda: model.train_on_batch(x, y), model


def size():
    """Print bits a weight and the bytes of a file, in float32 and in NF4."""
    with tempfile.TemporaryDirectory() as folder:
        model = base()
        path = os.path.join(folder, "model.keras")
        model.save(path)
        print(f"float32: {os.path.getsize(path) / 1e6:.1f} MB on disk")
        kt.quantize(model, "nf4")
        model.save(path)
        print(f"NF4:     {os.path.getsize(path) / 1e6:.1f} MB on disk")


def cost(steps=5):
    """Print the CPU time of a QLoRA step, divided by a LoRA step's."""
    made = {kind: step_of(kind) for kind in ("LoRA", "QLoRA")}
    times = {kind: [] for kind in made}
    for number in range(steps + 1):
        for kind, (step, _) in made.items():
            start = time.process_time()
            step()
            if number:  # the first step traces
                times[kind].append(time.process_time() - start)
                print(kind, f"{times[kind][-1]:.2f}", flush=True)
    medians = {kind: statistics.median(spent) for kind, spent in times.items()}
    ratio = medians["QLoRA"] / medians["LoRA"]
    print(f"CPU seconds a step: {medians}, QLoRA / LoRA {ratio:.3f}")


def peak(kind):
    """Print the peak memory of this process after two steps of one kind, in MB."""
    step, model = step_of(kind)

    def now(name):
        status = pathlib.Path("/proc/self/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+)", status)[1]) // 1024

    pathlib.Path("/proc/self/clear_refs").write_text("5")  # begin with the model
    print(f"before {now('VmRSS')}")
    start = time.process_time()
    for _ in range(2):
        step()
    print(f"CPU {(time.process_time() - start) / 2:.1f}")
    print("peak", now("VmHWM"))


def memory():
    """Print the peak memory of each kind."""
    for kind in KINDS:
        command = [sys.executable, __file__, "--peak", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        before, seconds, most = re.search(
            r"before (\d+)\nCPU ([\d.]+)\npeak (\d+)", done.stdout
        ).groups()
        print(
            f"{kind:14} {before:>6} MB before, peak {most:>6} MB, {seconds} CPU s",
            flush=True,
        )


def quality(seeds=1, labels=2000):
    """Print the accuracy of LoRA and QLoRA on SST-2."""
    import lora_quality
    from fine_tune import load

    found = {"LoRA": [], "QLoRA": []}
    for seed in range(seeds):
        train, test = load(labels, seed)
        for kind in found:
            keras.utils.set_random_seed(seed)
            random = np.random.default_rng(seed)
            epochs = range(lora_quality.EPOCHS)
            order = np.concatenate([random.permutation(labels) for _ in epochs])
            change = kt.quantize if kind == "QLoRA" else None
            accuracy = lora_quality.keras_run("LoRA", train, test, order, change)
            found[kind].append(accuracy)
            print(seed, kind, f"{accuracy:.4f}", flush=True)
    error = math.sqrt(0.84 * 0.16 / len(test[1]))
    print(f"standard error of each run {error:.4f}")
    for kind, values in found.items():
        print(kind, f"{np.mean(values):.4f}")


if __name__ == "__main__":
    if sys.argv[1] == "--peak":
        peak(sys.argv[2])
    else:
        runs = {x.__name__: x for x in (error, size, cost, memory, quality)}
        runs[sys.argv[1]](*map(int, sys.argv[2:]))
