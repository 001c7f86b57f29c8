"""Size and load time of a SavedModel, compared with Keras's `model.export`.

Claim: the file is at most 1.02 x the size of the weights, for token ids as input. With
strings as input, the vocabulary is added. Keras writes each weight twice. The model is
MiniLM with LoRA on queries and values, and a head for 2 classes. A new process with
plain TensorFlow loads the files alternately. The times are median CPU seconds of
`tf.saved_model.load`.

    python benchmarks/export_size.py [rounds: 5]
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

LOAD = """
import json, sys, time
import tensorflow as tf
began = time.process_time()
served = tf.saved_model.load(sys.argv[1])
print(json.dumps(time.process_time() - began))
"""


def size(folder):
    """Return the bytes of all files of a folder."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def main(rounds="5"):
    import keras
    import numpy as np
    import real_bert

    import keras_transfer as kt

    model = real_bert.classifier()
    kt.adapters.LoRA(rank=8, alpha=16).attach(model)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, _ = real_bert.batches(steps=1)
    model.predict(x, verbose=0)
    used = {id(v): v for v in model.weights if "lora" not in v.path}.values()
    weights = sum(int(np.prod(v.shape)) * 4 for v in used)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        few = keras.tree.map_structure(lambda array: array[:2], x)
        ours = kt.export_serving(model, folder / "ours", samples=few)
        stock = folder / "stock"
        model.export(stock, verbose=False)
        places = {"kt.export_serving": ours, "model.export": stock}
        seconds = {name: [] for name in places}
        for _ in range(int(rounds)):
            for name, place in places.items():
                done = subprocess.run(
                    [sys.executable, "-c", LOAD, str(place)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                seconds[name].append(json.loads(done.stdout.splitlines()[-1]))
        for name, place in places.items():
            print(
                f"{name:18} {size(place):12,} bytes, {size(place) / weights:.3f} x of "
                f"the weights, {statistics.median(seconds[name]):.2f} CPU s to load"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
