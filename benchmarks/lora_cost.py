"""The cost of a LoRA step, compared with Keras's LoRA, PEFT and head-only training.

Claims: a step of LoRA (queries and values, rank 8) costs at most 1.05 x two head-only
steps, which is the minimum for one forward pass and one backward pass through the
activations. It costs no more than Keras's `enable_lora`, and less than torch + PEFT. It
adds at most as much memory to a head-only run as torch + PEFT. After merging, inference
costs the same as for the base model. The model is MiniLM in float32 with 16 x 128
tokens. The steps of all kinds alternate. The times are process CPU times. Memory is
the peak of a separate process. The torch rows need `pip install -e ".[peft]"`.

    python benchmarks/lora_cost.py [steps]
"""

import importlib.util
import pathlib
import re
import statistics
import subprocess
import sys
import time

if importlib.util.find_spec("peft"):
    # With torch 2.13 and TensorFlow 2.21, torch crashes if it is loaded second.
    import torch

import real_bert

LENGTH, SIZE = 128, 16


def keras_step(kind):
    """Return a function that makes one training step, and the model."""
    import keras
    import keras_hub

    import keras_transfer as kt

    backbone = keras_hub.models.BertBackbone.from_preset(real_bert.folder())
    if kind == "enable_lora":
        backbone.enable_lora(8)
    elif kind == "head":
        backbone.trainable = False
    logits = keras.layers.Dense(2)(backbone(backbone.input)["pooled_output"])
    model = keras.Model(backbone.input, logits)
    if kind == "LoRA":
        start = time.perf_counter()
        kt.adapters.LoRA(rank=8).attach(model)
        print(f"attached in {time.perf_counter() - start:.2f} s")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=False)
    x, y = real_bert.batches(1, SIZE, LENGTH)
    return lambda: model.train_on_batch(x, y), model


def torch_step(kind):
    """Return a function that makes one training step with torch, and the model."""
    import peft
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        real_bert.folder(), num_labels=2
    )
    if kind == "PEFT LoRA":
        config = peft.LoraConfig(
            task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"]
        )
        model = peft.get_peft_model(model, config)
    elif kind == "torch head":
        for parameter in model.bert.parameters():
            parameter.requires_grad = False
    model.train()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4)
    x, y = real_bert.batches(1, SIZE, LENGTH)
    batch = {
        "input_ids": torch.tensor(x["token_ids"]).long(),
        "attention_mask": torch.tensor(x["padding_mask"]).long(),
        "labels": torch.tensor(y).long(),
    }

    def step():
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    return step, model


KINDS = {"full": keras_step, "head": keras_step, "enable_lora": keras_step}
KINDS["LoRA"] = keras_step
if importlib.util.find_spec("peft"):
    KINDS |= {"torch full": torch_step, "torch head": torch_step}
    KINDS["PEFT LoRA"] = torch_step


def peak(kind):
    """Print the peak memory of this process after some steps of one kind, in MB."""
    step, _ = KINDS[kind](kind)
    for _ in range(4):
        step()
    # Not with getrusage(), where a child process starts with the peak of its parent.
    status = pathlib.Path("/proc/self/status").read_text()
    print("peak", int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024)


def inference(base, adapted, steps):
    """Return the time of merged inference divided by the base model's time."""
    import keras_transfer as kt

    kt.adapters.merge(adapted)
    x, _ = real_bert.batches(1, SIZE, LENGTH)
    times = {id(base): [], id(adapted): []}
    for number in range(steps + 1):
        for model in (base, adapted):
            start = time.process_time()
            model.predict_on_batch(x)
            if number:  # the first step traces
                times[id(model)].append(time.process_time() - start)
    return statistics.median(times[id(adapted)]) / statistics.median(times[id(base)])


def main(steps=12):
    made = {kind: make(kind) for kind, make in KINDS.items()}
    times = {kind: [] for kind in made}
    for number in range(steps + 1):
        for kind, (step, _) in made.items():
            start = time.process_time()
            step()
            if number:  # the first step traces
                times[kind].append(time.process_time() - start)
    medians = {kind: statistics.median(spent) for kind, spent in times.items()}
    memory = {}
    for kind in made:
        command = [sys.executable, __file__, "--peak", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        memory[kind] = int(done.stdout.split("peak ")[1])
    print("median CPU seconds a step, by the full step, by two head-only steps; MB")
    for kind, seconds in medians.items():
        print(
            f"{kind:12} {seconds:6.3f} {seconds / medians['full']:6.3f} "
            f"{seconds / 2 / medians['head']:6.3f} {memory[kind]:6}"
        )
    ratio = inference(made["full"][1], made["LoRA"][1], steps)
    print(f"time of merged inference, divided by the base model's: {ratio:.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        peak(sys.argv[2])
    else:
        main(*map(int, sys.argv[1:]))
