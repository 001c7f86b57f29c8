"""export_serving: a versioned SavedModel that is checked before it is published."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer._whole_file import new_path
from keras_transfer.export import comparison
from keras_transfer.export.foreign_operations import foreign_notice
from keras_transfer.export.graph import Folded
from keras_transfer.export.graph import forward
from keras_transfer.export.graph import INSTEAD
from keras_transfer.export.graph import signature
from keras_transfer.export.graph import write
from keras_transfer.export.image_bytes import ImageBytes
from keras_transfer.export.labels import with_labels
from keras_transfer.export.many_adapters import ManyAdapters
from keras_transfer.export.raw_text import RawText
from keras_transfer.export.reference_data import check_reference
from keras_transfer.export.reference_data import monitored_features
from keras_transfer.export.reference_data import write_reference
from keras_transfer.export.request import Entry
from keras_transfer.export.samples import requests
from keras_transfer.export.samples import run
from keras_transfer.export.samples import tensors_of
from keras_transfer.export.served_adapters import ServedAdapters
from keras_transfer.export.served_model import MONITORED
from keras_transfer.export.signatures import entries_of
from keras_transfer.export.signatures import features_of
from keras_transfer.export.task_signatures import finish_task
from keras_transfer.export.task_signatures import head_of
from keras_transfer.export.task_signatures import task_entry
from keras_transfer.export.task_signatures import tasks_of
from keras_transfer.export.warmup import write_warmup

FEATURES = "features"  # signature, and its only output


def export_serving(
    model: keras.Model,
    directory: str | os.PathLike,
    version: int = 1,
    *,
    samples: object = None,
    preprocessor: keras.Layer | RawText | ImageBytes | Callable | bool | None = None,
    labels: Sequence | Mapping[str, Sequence[str]] | bool | None = None,
    features: bool | str = False,
    adapters: Sequence[str] | ServedAdapters = (),
    reference: object = None,
) -> pathlib.Path:
    """Write a SavedModel for TensorFlow Serving to `directory/version`.

    The SavedModel needs neither Keras nor this package to run. Its signatures have
    named inputs and outputs and accept any batch size:

    - `serving_default` takes what `model.predict` takes: strings for a text Task of
      keras-hub, images with values from 0 to 255 for an image Task, and the model's
      own inputs for other models. With a `kt.export.RawText` it takes strings, and for
      a `kt.models.AudioClassifier` waveforms: `waveform`, float32 from -1 to 1, at
      16,000 samples per second, with zeros after the end of shorter sounds.
    - `preprocessed` takes the model's own inputs. It exists if `serving_default` runs
      a preprocessor.
    - `image_bytes` takes JPEG or PNG files. It exists for an image Task of keras-hub
      and with a `kt.export.ImageBytes`.
    - `features` takes what `serving_default` takes, and returns the pooled vector of
      the backbone. It exists if `features` is set.
    - A `kt.models.MultiTask` has a signature with the name of each task. It returns the
      output of its head alone, with the adapter of the same name if it is exported.
    - `monitoring` takes what `serving_default` takes, and returns its outputs and
      `features`. It exists if `reference` is set. The log of a server whose clients
      ask for this signature is enough for `kt.ShiftMonitor`.

    The tokenizers of keras-hub use operations of `tensorflow_text`. If the graph
    contains any, one printed line names these operations and the string inputs:
    `text`, or the names of a `kt.export.RawText`. A Python client must then run
    `import tensorflow_text` before `tf.saved_model.load`. TensorFlow Serving is built
    with TensorFlow Text, but an older release can lack some of the operations, so test
    the model with the release that you deploy. If an operation is missing, requests
    fail with "Op type not registered" (tensorflow/serving#2267).

    A single input is named `inputs`, and a list of inputs `inputs_0`, `inputs_1`, ....
    Outputs are named `outputs` in the same way. A dictionary keeps its keys.
    Half-precision outputs are converted to float32.

    On JAX, the network is one operation of the graph, XlaCallModule, for CPUs and for
    GPUs of CUDA. TensorFlow compiles it at the first request of each shape. A request
    has at least one example, and integers and floats of 32 bits. Inputs whose unknown
    axes the model combines, such as tokens and their mask, have equal axes. Images of
    TensorFlow Serving for GPUs have lacked the compiler (tensorflow/serving#2214). For
    these, and for `adapters`, export in a process with KERAS_BACKEND=tensorflow.

    Adapters are merged into a copy of the weights where possible. The model, its
    optimizer and its adapters do not change, so the export can also run inside `fit`.
    The file contains each weight once, and only the weights that the signatures read.
    The SavedModel is first written to a temporary folder, which TensorFlow Serving
    ignores. Then it is loaded, compared with the model on `samples`, and renamed. If
    anything fails, the temporary folder is deleted.

    Args:
        model: A functional, Sequential or subclassed model. A subclassed model needs
            `samples`, from which its inputs are inferred.
        directory: Path of the folder of the model. TensorFlow Serving uses the name of
            this folder as the name of the model. The folder is created if necessary.
        version: Whole number, 0 or more. TensorFlow Serving serves the largest
            version. Defaults to 1.
        samples: A few examples, as `serving_default` takes them, or encoded images if
            there is an `image_bytes` signature. The outputs of the SavedModel are
            compared with the outputs of the model on these examples. TensorFlow
            Serving also uses them as warm-up requests when it loads the model.
            Defaults to None, which skips the comparison and the warm-up requests.
        preprocessor: The preprocessing to put in front of the model: a text
            preprocessor, a `kt.export.RawText` or a `kt.export.ImageBytes`. Defaults
            to None, which uses the preprocessor of a keras-hub Task. False exports the
            model without a preprocessor.
        labels: Names of the classes in the order of the logits. Each signature then
            also returns the class of the largest logit as `label` (string) and
            `label_id` (int64). If the model has logits for each token or pixel, these
            outputs have a value for each token or pixel. For several outputs, pass a
            dict by output name or a list in the order of the outputs, with None for an
            output without classes. The new outputs are then `<output>_label` and
            `<output>_label_id`. With `adapters`, a dict by adapter name is also
            possible, with the key `""` for the model without an adapter. Defaults to
            None, which uses the class names of the data of `fine_tune` if their number
            fits the logits and no adapter has its own head. False adds no labels.
        features: True, or a pooling of `kt.backbones.features`, adds the signature
            `features`. Defaults to False.
        adapters: Names of LoRA, RsLoRA or LoHa adapters of the model. Each signature
            then has one more input, `adapter`: the name of an adapter for each
            example, or `""` for the model without an adapter. A batch can mix
            adapters. An unknown name makes the whole request fail, or with a
            `kt.export.ServedAdapters` the model without an adapter answers its row.
            `kt.export.add_adapter` adds an adapter to the exported files. Each example
            uses the head of its adapter. If a head has fewer classes than the widest
            head, its missing probabilities are 0, and its missing logits are the lowest
            number of the dtype (-3.4e38 for float32). Defaults to `()`, which merges
            the active adapters.
        reference: Held-out examples, `x` or `(x, y)` with `x` as `serving_default`
            takes it, or a `tf.data.Dataset` of batches. `kt.ShiftMonitor` compares
            later examples with them. The folder `assets.extra` then gets the class
            scores of up to 1,000 of these examples, and up to 32 principal components
            of their features, but no inputs. Scores and components are still numbers
            about single examples, so do not publish the folder if these are private.
            The features are those of `features`, or of the backbone, or the inputs of
            the last Dense layer. Labels `y` are needed for corrected class shares. Of
            more than 5,000 examples in arrays, a random part is used. Defaults to None.

    Returns:
        The path of the folder of the version.

    Raises:
        FileExistsError: If the version exists already.
        NotImplementedError: If `adapters` are passed on JAX.
        TypeError: If `model` is not a Keras model, or `version` is not a whole number.
        ValueError: If the SavedModel gives other outputs than the model, or if the
            inputs, samples, labels or preprocessor do not fit the model. On JAX, if
            the model cannot be traced for inputs of unknown size.

    Example:
        ```python
        import pathlib
        import tempfile

        import keras
        import numpy as np
        import tensorflow as tf
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        with tempfile.TemporaryDirectory() as folder:
            path = kt.export_serving(
                model,
                pathlib.Path(folder, "animals"),
                samples=np.ones((3, 4)),
                labels=["cat", "dog"],
            )
            serve = tf.saved_model.load(str(path)).signatures["serving_default"]
            assert set(serve.structured_outputs) == {"outputs", "label", "label_id"}
        ```

    Reference:
        TensorFlow, "Using the SavedModel format"; TensorFlow Serving, "SavedModel
        Warmup". `Model.export` of Keras writes each weight twice
        (keras-team/keras#23553).
    """
    _check(model, version)
    served = isinstance(adapters, ServedAdapters) or len(adapters)
    if reference is not None:
        check_reference(reference, served)
    if served:
        what = "kt.export_serving with adapters="
        _keras.check_backend("tensorflow", what, INSTEAD)
    target = pathlib.Path(directory) / str(version)
    with new_path(target) as partial:
        entries = entries_of(model, preprocessor, samples)
        plain = entries.get("preprocessed", entries["serving_default"])
        asked = {} if samples is None else requests(entries, samples)
        many = ManyAdapters(model, adapters) if served else None
        names = many.names if many else None
        tasks = tasks_of(model, {*entries, FEATURES, MONITORED}, names)
        of_tasks = {x: task_entry(entries["serving_default"], x, names) for x in tasks}
        there = "serving_default" in asked  # not for samples that are files of images
        of_samples = dict.fromkeys(tasks, asked["serving_default"]) if there else {}
        trace = (
            many.forward if many else functools.partial(forward, folded=Folded(model))
        )
        if many:
            asked = many.requests(asked)
            entries = {name: many.entry(each) for name, each in entries.items()}
        compute = trace(model, plain, "outputs")
        if many and many.takes(labels) and not tasks:
            compute, finish = many.labeled(compute, labels), dict
        else:
            finish = with_labels(labels, model)
        functions = {
            name: signature(each, compute, finish) for name, each in entries.items()
        }
        networks = dict.fromkeys(entries, model)
        for task, entry in of_tasks.items():
            functions[task] = signature(entry, compute, finish_task(task, finish))
            networks[task] = head_of(model, task)
        entries |= of_tasks
        asked |= of_samples
        if features:
            networks[FEATURES] = features_of(model, features)
            vector = trace(networks[FEATURES], plain, FEATURES)
            entries[FEATURES] = entries["serving_default"]
            functions[FEATURES] = signature(entries[FEATURES], vector)
            if asked:
                asked[FEATURES] = asked["serving_default"]
        if reference is not None:
            watched = monitored_features(model, features)
            entries[MONITORED] = entries["serving_default"]
            both = _joined(finish, compute, watched and trace(watched, plain, FEATURES))
            functions[MONITORED] = signature(entries[MONITORED], both)
            networks[MONITORED] = model
            if asked:
                asked[MONITORED] = asked["serving_default"]
        resources = [x for each in entries.values() for x in each.resources]
        write(functions, resources, partial, many.variables() if many else None)
        if many:
            many.manifest().write(partial)
        if asked:
            allowed = comparison.tolerance(model)
            if many:
                networks = {k: many.reference(x, plain) for k, x in networks.items()}
            _compare(partial, networks, entries, asked, allowed)
            write_warmup(partial, target.absolute().parent.name, asked)
        if reference is not None:
            write_reference(partial, model, reference, labels)
    notice = foreign_notice(functions, entries)
    if notice:
        print(f"export_serving: {target}. {notice}")
    return target


def _joined(
    finish: Callable, compute: Callable, vector: Callable | None
) -> Callable[[object], dict[str, tf.Tensor]]:
    """Return a function that returns the outputs of the model, and its features."""

    def both(inputs: object) -> dict[str, tf.Tensor]:
        found = finish(compute(inputs))
        return {**found, **vector(inputs)} if vector else found

    return both


def _compare(
    folder: pathlib.Path,
    networks: Mapping[str, Callable],
    entries: Mapping[str, Entry],
    asked: Mapping[str, Mapping[str, np.ndarray]],
    allowed: float,
) -> None:
    """Load the SavedModel and compare each signature with its model."""
    loaded = tf.saved_model.load(str(folder))
    for name, request in asked.items():
        entry, network = entries[name], networks[name]
        single = FEATURES if name == FEATURES else "outputs"
        right = comparison.expected(network, run(entry, request), single)
        found = loaded.signatures[name](**tensors_of(entry, request))
        outputs = {key: each.numpy() for key, each in found.items()}
        comparison.compare(f"The signature {name!r}", outputs, right, allowed)


def _check(model: object, version: object) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"The model is a {type(model).__name__}, not a keras.Model. To export a "
            "layer, wrap it in keras.Sequential."
        )
    why = "TensorFlow Serving reads the name of the folder as a number"
    whole_number("version", version, 0, why=why, kind=TypeError)
