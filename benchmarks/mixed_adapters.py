"""The cost of a batch in which each example has its own adapter.

Claims: `kt.export_serving(model, ..., adapters=[...])` serves 8 LoRA adapters of rank 8
on one MiniLM. A batch of mixed adapters costs at most 1.25 x a batch of one merged
model. The exported file is larger only by the adapters. The peers are 8 merged models,
which get the examples of one adapter each in 8 requests, and torch + PEFT, which also
accepts `adapter_names` (`pip install -e ".[peft]"`). The model is MiniLM in float32
with 32 x 64 tokens. The kinds alternate. The times are medians of wall time and
process CPU time.

    python benchmarks/mixed_adapters.py [batches [adapters [rank]]]
"""

import importlib.util
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import real_bert

LENGTH, SIZE = 64, 32


def model_of(names, rank):
    """Return MiniLM with a head and trained adapters."""
    import keras_hub

    import keras_transfer as kt

    backbone = keras_hub.models.BertBackbone.from_preset(real_bert.folder())
    model = kt.models.TransferClassifier(backbone, 2)
    rng = np.random.default_rng(0)
    for name in names:
        kt.adapters.LoRA(rank=rank).attach(model, name)
    for variable in model.variables:
        if "lora_b" in variable.path:
            variable.assign(rng.normal(0, 0.02, variable.shape))
    return model


def exported(folder, names, rank):
    """Return the signatures by name of kind, and the bytes of the variables."""
    import tensorflow as tf

    import keras_transfer as kt
    from keras_transfer.export import export_serving

    model = model_of(names, rank)
    export_serving(model, folder / "mixed", adapters=names)
    for name in names:
        kt.adapters.use(model, name)
        export_serving(model, folder / name)
    sizes, signatures = {}, {}
    for name in ("mixed", *names):
        path = folder / name / "1"
        loaded = tf.saved_model.load(str(path))
        signatures[name] = loaded, loaded.signatures["serving_default"]
        files = (path / "variables").glob("variables.data*")
        sizes[name] = sum(each.stat().st_size for each in files)
    adapters = sum(np.prod(v.shape) * 4 for v in model.variables if "lora_" in v.path)
    return signatures, sizes, adapters


def runs_of(signatures, names):
    """Return a function for each kind that answers one batch of all adapters."""
    import tensorflow as tf

    x, _ = real_bert.batches(1, SIZE, LENGTH)
    x = {name: tf.constant(array) for name, array in x.items()}
    who = [names[i % len(names)] for i in range(SIZE)]
    rows = {name: [i for i, each in enumerate(who) if each == name] for name in names}
    parts = {
        name: {key: tf.gather(each, rows[name]) for key, each in x.items()}
        for name in names
    }
    mixed, merged = signatures["mixed"][1], signatures[names[0]][1]
    order = np.argsort(np.concatenate(list(rows.values())))

    def separate():
        found = [signatures[name][1](**parts[name])["outputs"] for name in names]
        return np.concatenate([each.numpy() for each in found])[order]

    return {
        "one merged": lambda: merged(**x)["outputs"].numpy(),
        "mixed": lambda: mixed(**x, adapter=tf.constant(who))["outputs"].numpy(),
        f"{len(names)} separate": separate,
    }


def peft_runs(names, rank):
    """Return such a function for torch + PEFT."""
    import peft
    import torch
    import transformers

    x, _ = real_bert.batches(1, SIZE, LENGTH)
    batch = {
        "input_ids": torch.tensor(x["token_ids"]).long(),
        "attention_mask": torch.tensor(x["padding_mask"]).long(),
    }

    def base():
        return transformers.AutoModel.from_pretrained(real_bert.folder())

    config = peft.LoraConfig(
        r=rank,
        lora_alpha=16,
        target_modules=["query", "value"],
        init_lora_weights=False,
    )
    mixed = peft.get_peft_model(base(), config, names[0])
    for name in names[1:]:
        mixed.add_adapter(name, config)
    merged = peft.get_peft_model(base(), config).merge_and_unload()
    mixed.eval()
    merged.eval()
    who = [names[i % len(names)] for i in range(SIZE)]

    def run(model, **more):
        with torch.no_grad():
            return model(**batch, **more).last_hidden_state.mean(1).numpy()

    return {
        "PEFT, one merged": lambda: run(merged),
        "PEFT, mixed": lambda: run(mixed, adapter_names=who),
    }


def main(batches=30, adapters=8, rank=8):
    names = [f"adapter_{i}" for i in range(adapters)]
    with tempfile.TemporaryDirectory() as folder:
        signatures, sizes, own = exported(pathlib.Path(folder), names, rank)
        runs = runs_of(signatures, names)
        off = np.abs(runs["mixed"]() - runs[f"{adapters} separate"]()).max()
        if importlib.util.find_spec("peft"):
            runs |= peft_runs(names, rank)
        times = {kind: [] for kind in runs}
        for number in range(batches + 3):
            for kind, run in runs.items():
                wall, spent = time.perf_counter(), time.process_time()
                run()
                if number > 2:  # the first batches are warm-up
                    each = time.perf_counter() - wall, time.process_time() - spent
                    times[kind].append(each)
    print(f"mixed and separate differ by {off:.1e}; {adapters} adapters of rank {rank}")
    print("a batch of 32 x 64 tokens     wall ms   CPU ms   wall and CPU by one merged")
    for kind, spent in times.items():
        wall, cpu = (1e3 * statistics.median(each) for each in zip(*spent))
        first = "PEFT, one merged" if kind.startswith("PEFT") else "one merged"
        ratios = [
            statistics.median(a[i] / b[i] for a, b in zip(spent, times[first]))
            for i in range(2)
        ]
        print(f"{kind:26} {wall:9.1f} {cpu:8.1f} {ratios[0]:9.3f} {ratios[1]:8.3f}")
    more = sizes["mixed"] - sizes[names[0]]
    total = sum(sizes[name] for name in names)
    print(
        f"bytes: one merged {sizes[names[0]]:,}; mixed {more:,} more, the adapters are "
        f"{own:,}; separate {total:,}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
