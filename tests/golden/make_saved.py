"""Make the golden files of tests/test_golden.py with the current version.

    python -m tests.golden.make_saved

The script writes the files that do not exist and prints their names. Run it only after
you add a kind of file to tests/golden/models.py, trainings.py, objects.py or this file,
and commit the new files. Never delete a file to create it again, because the test
checks that the files of earlier versions can be loaded. If the files of a kind change
on purpose, add a second case and keep the first.

Each `.keras` file is packed again with compression, because HDF5 has 70 kB of padding
in a model of 900 parameters. Each file has an `.npz` file with the values that the
test compares: inputs, outputs, paths of trainable weights, the optimizer's variables.
"""

import json
import pathlib
import shutil
import tempfile
import zipfile

import keras
import numpy as np

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer._keras import flat_layers
from tests.golden import bases
from tests.golden.models import disturb
from tests.golden.models import MODELS
from tests.golden.models import RECIPES
from tests.golden.objects import OBJECTS
from tests.golden.trainings import HALF
from tests.golden.trainings import TRAININGS

SAVED = pathlib.Path(__file__).parent / "saved"


class Killed(Exception):
    """Ends a run of fine_tune."""


def flat(name, structure):
    """Return the leaves of a structure as arrays, by their names in an `.npz` file."""
    if isinstance(structure, dict):
        return {f"{name}/{k}": np.asarray(v) for k, v in structure.items()}
    if isinstance(structure, list | tuple):
        return {f"{name}/{i}": np.asarray(v) for i, v in enumerate(structure)}
    return {name: np.asarray(structure)}


def joined(variables):
    """Return the values of all variables in one array."""
    values = [keras.ops.convert_to_numpy(v).ravel() for v in variables]
    return np.concatenate([np.float64(value) for value in values])


def strengths(model):
    """Return the strengths of all layers that have one; schedules are at step 3."""
    given = [getattr(layer, "strength", None) for layer in flat_layers(model)]
    now = [each(3) if callable(each) else each for each in given if each is not None]
    return np.array([float(keras.ops.convert_to_numpy(each)) for each in now])


def facts(model, inputs):
    """Return the values of a model that the test compares, by name."""
    named = flat("inputs", inputs)
    named |= flat("outputs", model(inputs, training=False))
    named["trainable"] = np.array([v.path for v in model.trainable_variables])
    named["strengths"] = strengths(model)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        named["slots"] = np.array([f"{v.path}{v.shape}" for v in optimizer.variables])
        named["slot_values"] = joined(optimizer.variables)
    return named


def write_arrays(path, arrays):
    """Write arrays next to `path`."""
    np.savez_compressed(path.with_suffix(".npz"), **arrays)


def pack(path):
    """Compress a `.keras` file without changing its members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def make_model(path):
    """Save a whole model, and the facts of the model that is loaded from the file."""
    model, inputs = MODELS[path.stem]()
    expected = model(inputs, training=False)
    count = len(model.trainable_variables)
    model.save(path)
    pack(path)
    keras.utils.clear_session()
    model = keras.models.load_model(path)
    if len(model.trainable_variables) != count:
        raise ValueError(f"{path.name} was loaded with other trainable variables.")
    named = facts(model, inputs)
    for key, value in flat("outputs", expected).items():
        np.testing.assert_array_equal(named[key], value)
    write_arrays(path, named)


def make_training(path):
    """Save a model in the middle of a training, and the weights at the end."""
    training = TRAININGS[path.stem]
    model = training.make()

    def save(epoch, logs=None):
        if epoch + 1 == HALF:
            model.save(path)

    save_half_way = keras.callbacks.LambdaCallback(on_epoch_end=save)
    history = training.fit(model, also=[save_half_way])
    pack(path)
    end = {"weights": joined(model.weights), "loss": history.history["loss"]}
    keras.utils.clear_session()
    inputs, _ = training.data()
    if isinstance(inputs, dict) and "source" in inputs:
        inputs = inputs["source"]
    write_arrays(path, end | facts(training.load(path), inputs))


def make_adapter(path):
    """Save an adapter of BERT."""
    model = bases.bert()
    RECIPES[path.stem].attach(model)
    kt.save_adapter(disturb(model), path)
    write_arrays(path, facts(model, bases.tokens()))


def make_half_adapter(path):
    """Save the second of two adapters in half precision, without the head."""
    model = bases.bert()
    adapters.LoRA(rank=1).attach(model, "first")
    adapters.LoRA(rank=2, targets="all-linear").attach(model, "second")
    disturb(model)
    kt.save_adapter(model, path, dtype="float16", head=False)
    model = kt.load_adapter(bases.bert(), path)
    write_arrays(path, facts(model, bases.tokens()))


def make_adapter_with_layers(path):
    """Save an adapter that has own layers and a head with two classes."""
    model = bases.bert(num_classes=2)
    recipe = adapters.LoRA(rank=2)
    recipe.attach(model, train=["feedforward_layer_norm$", "head"])
    kt.save_adapter(disturb(model), path)
    write_arrays(path, facts(kt.load_adapter(bases.bert(), path), bases.tokens()))


def make_peft(path):
    """Save a LoRA as a PEFT folder."""
    model = bases.distil_bert()
    adapters.LoRA(rank=2, alpha=3, targets="all-linear").attach(model)
    kt.save_adapter(disturb(model), path, format="peft")
    inputs = bases.tokens()
    del inputs["segment_ids"]
    write_arrays(path, facts(model, inputs))


def make_object(path):
    """Save the config of an object."""
    config = keras.saving.serialize_keras_object(OBJECTS[path.stem]())
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def make_run(path):
    """Save the folder of a run of fine_tune, and the final weights and losses."""
    kill_in, killed = path.name.rpartition("killed_in_epoch_")[2], None
    pilot = path.name.startswith("pilot")

    def kill(epoch, logs=None):
        if str(epoch) == kill_in:
            raise Killed

    model = bases.classifier_of_run()
    if path.name.startswith(("converged", "new_head", "pilot")):  # the head is new
        model.layers[-1].bias.assign(np.zeros(3))
    try:
        callback = keras.callbacks.LambdaCallback(on_epoch_begin=kill)
        bases.start_or_continue(model, path, [callback], pilot)
    except Killed as error:
        killed = error
    if (killed is None) != (path.name == "finished"):
        raise ValueError(f"{path.name} was not killed in this epoch.")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(path, folder, dirs_exist_ok=True)
        model = bases.classifier_of_run()
        history = bases.start_or_continue(model, folder, pilot=pilot).history
    named = {"weights": joined(model.weights), "val_loss": history["val_loss"]}
    write_arrays(path, named)


def make_features(path):
    """Save a cache of features."""
    rows = (bases.tokens(), bases.labels(4))
    cached = kt.backbones.cache_features(bases.pooled_bert(), rows, path, verbose=0)
    features, labels, weights = next(cached.batch(4).as_numpy_iterator())
    write_arrays(path, {"features": features, "labels": labels, "weights": weights})


def make_one_served(path):
    """Save a SavedModel of a model with a merged adapter."""
    model, inputs = bases.mlp(), bases.vectors(3)
    adapters.LoRA(rank=2, targets="dense_0").attach(model)
    outputs = disturb(model)(inputs)
    kt.export_serving(model, path, samples=inputs, labels=["cat", "dog", "cow"])
    labels = np.array(["cat", "dog", "cow"])[np.argmax(outputs, axis=1)]
    write_arrays(path, {"inputs": inputs, "outputs": outputs, "label": labels})


def make_many_served(path):
    """Save a SavedModel with two adapters, which each example can choose."""
    model, inputs = bases.mlp(), bases.vectors(3)
    outputs = {"": model(inputs)}
    for name in ("first", "second"):
        adapters.LoRA(rank=2, targets="dense_0").attach(model, name)
        outputs[name] = disturb(model)(inputs)
    kt.export_serving(model, path, samples=inputs, adapters=["first", "second"])
    names = ["second", "", "first"]
    outputs = np.stack([outputs[name][row] for row, name in enumerate(names)])
    named = {"inputs": inputs, "adapter": np.array(names), "outputs": outputs}
    write_arrays(path, named)


def make_growing(path):
    """Save a SavedModel with one adapter, and the file of another one to add."""
    model, inputs = bases.mlp(), bases.vectors(3)
    outputs = {"": model(inputs)}
    for rank, name in enumerate(("first", "second"), 1):
        adapters.LoRA(rank=rank, targets="dense_0").attach(model, name)
        outputs[name] = disturb(model)(inputs)
    kt.export_serving(model, path, adapters=["first"])
    kt.save_adapter(model, path / "second.safetensors", name="second")
    names = ["second", "", "first"]
    outputs = np.stack([outputs[name][row] for row, name in enumerate(names)])
    named = {"inputs": inputs, "adapter": np.array(names), "outputs": outputs}
    write_arrays(path, named)


def make_monitored(path):
    """Save a SavedModel with a reference, and the statistics of a later batch."""
    model, draw = bases.mlp(), np.random.default_rng(0)
    held_out, later = draw.normal(size=(2, 60, 6)).astype("float32")
    y = np.arange(60) % model.output_shape[-1]
    kt.export_serving(model, path, reference=(held_out, y))
    monitor = kt.ShiftMonitor.load(path)
    monitor.update(later)
    table = monitor.report().table
    statistics = np.array([row["statistic"] for row in table])
    write_arrays(path, {"inputs": later, "statistics": statistics})


MAKERS = {
    **{f"models/{name}.keras": make_model for name in MODELS},
    **{f"trainings/{name}.keras": make_training for name in TRAININGS},
    **{f"adapters/{name}.safetensors": make_adapter for name in RECIPES},
    "adapters_in_half/lora.safetensors": make_half_adapter,
    "adapters_with_layers/lora.safetensors": make_adapter_with_layers,
    "peft/lora": make_peft,
    **{f"objects/{name}.json": make_object for name in OBJECTS},
    "runs/finished": make_run,
    "runs/killed_in_epoch_1": make_run,
    "runs/killed_in_epoch_4": make_run,
    "runs/converged_killed_in_epoch_1": make_run,  # with an epoch for the head
    "runs/new_head_killed_in_epoch_1": make_run,
    "runs/pilot_killed_in_epoch_1": make_run,
    "features/pooled_bert": make_features,
    "served/one": make_one_served,
    "served/many": make_many_served,
    "growing/export": make_growing,
    "monitored/export": make_monitored,
}


def main():
    """Write all files that do not exist."""
    for name, make in MAKERS.items():
        path = SAVED / name
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        make(path)
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
