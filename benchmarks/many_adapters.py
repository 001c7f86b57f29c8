"""The cost of 64 adapters in one export, and of one more adapter.

Claims: a batch of 32 texts, each with another one of 64 LoRA adapters of rank 8, costs
at most 1.25 x the same batch with one adapter. `kt.export.add_adapter` writes only the
adapters, in at most a fifth of the CPU time of a new export. The model is a BERT with 6
layers of width 256 and random weights, because times do not need pretrained weights.
Each adapter has its own head. The kinds of batches alternate. The times are process
CPU times, and for batches their medians.

    python benchmarks/many_adapters.py [batches [adapters]]
"""

import os
import pathlib
import re
import statistics
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

LENGTH, SIZE, WORDS = 64, 32, 30522
FEW = 8
NONE = "1, but none in the batch"


def model_of(folder, count):
    """Return a BERT with a head and one adapter, and files of different adapters."""
    import keras_hub

    import keras_transfer as kt

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=WORDS,
        num_layers=6,
        num_heads=8,
        hidden_dim=256,
        intermediate_dim=1024,
        max_sequence_length=LENGTH,
    )
    model = kt.models.TransferClassifier(backbone, 2)
    kt.adapters.LoRA(rank=8).attach(model, "adapter_0", verbose=0)
    rng = np.random.default_rng(0)
    files = [folder / f"{number}.safetensors" for number in range(count)]
    for file in reversed(files):  # so the model ends with the weights of the first
        for variable in model.trainable_variables:
            variable.assign(rng.normal(0, 0.02, variable.shape))
        kt.save_adapter(model, file, verbose=0)
    return model, files


def size(folder, among=None):
    """Return the bytes of the files of a version that `among` does not have too."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(
        path.stat().st_size
        for path in files
        if among is None or not path.samefile(among / path.relative_to(folder))
    )


def timed(function, *arguments, **more):
    """Return the process CPU seconds of a call, and its result."""
    start = time.process_time()
    found = function(*arguments, **more)
    return time.process_time() - start, found


def exports(folder, names):
    """Return the version folder of each kind, and print what they cost."""
    import keras_transfer as kt

    model, files = model_of(folder, len(names))
    export, few = kt.export_serving, names[:FEW]
    spent, one = timed(export, model, folder / "added", adapters=names[:1])
    print(f"export of 1:        {spent:6.2f} CPU s, {size(one):12,} bytes")
    loads = [
        timed(kt.load_adapter, model, file, name=name, verbose=0)[0]
        for name, file in zip(few[1:], files[1:FEW], strict=True)
    ]
    spent, new = timed(export, model, folder / "new", adapters=few)
    print(f"export of {FEW}:        {spent:6.2f} CPU s, {size(new):12,} bytes, and")
    print(f"  loading adapters: {sum(loads):6.2f} CPU s, the last one {loads[-1]:.2f}")
    adds = []
    for name, file in zip(names[1:], files[1:], strict=True):
        spent, path = timed(
            kt.export.add_adapter, folder / "added", file, name=name, verbose=0
        )
        adds.append(spent)
        if len(adds) in (FEW - 1, len(names) - 1):
            written = size(path, path.with_name(str(len(adds))))
            print(
                f"add_adapter, to {len(adds):2}: {adds[-1]:6.2f} CPU s, {written:12,} "
                f"bytes written of {size(path):,}"
            )
    print(f"add_adapter, median: {statistics.median(adds):.2f} CPU s")
    return {
        NONE: one,
        "1 adapter": one,
        f"{FEW}, new export": new,
        f"{FEW}, added": folder / "added" / str(FEW),
        f"{len(names)}, added": path,
    }


def main(batches=15, adapters=64):
    import tensorflow as tf

    names = [f"adapter_{number}" for number in range(adapters)]
    rng = np.random.default_rng(1)
    ids = tf.constant(rng.integers(1, WORDS, (SIZE, LENGTH)), tf.int32)
    x = {
        "token_ids": ids,
        "segment_ids": tf.zeros_like(ids),
        "padding_mask": tf.ones_like(ids),
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for kind, path in exports(pathlib.Path(folder), names).items():
            known = [""] if kind == NONE else names[: int(re.match(r"\d+", kind)[0])]
            # 32 different adapters of 64, or each of 8 four times.
            spread = known[:: max(len(known) // SIZE, 1)]
            who = tf.constant([spread[i % len(spread)] for i in range(SIZE)])
            loaded = tf.saved_model.load(str(path))
            runs[kind] = loaded, loaded.signatures["serving_default"], who
        times, answers = {kind: [] for kind in runs}, {}
        for number in range(batches + 2):
            for kind, (_, run, who) in runs.items():
                spent, found = timed(run, **x, adapter=who)
                if number > 1:  # the first batches are warm-up
                    times[kind].append(spent)
                answers[kind] = found["outputs"].numpy()
    new, added = (answers[f"{FEW}, {how}"] for how in ("new export", "added"))
    error = np.abs(new - added).max()
    print(f"the outputs of both exports of {FEW} differ by {error:.1e}")
    print("a batch of 32 x 64 tokens  CPU ms   by 1 adapter")
    for kind, spent in times.items():
        pairs = zip(spent, times["1 adapter"], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        print(f"{kind:24} {1e3 * statistics.median(spent):8.1f} {ratio:11.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
