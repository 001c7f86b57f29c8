"""export_serving: a versioned SavedModel, checked before it is there."""

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

from keras_transfer._arguments import whole_number
from keras_transfer._whole_file import new_path
from keras_transfer.export import comparison
from keras_transfer.export.foreign_operations import foreign_notice
from keras_transfer.export.graph import Folded
from keras_transfer.export.graph import forward
from keras_transfer.export.graph import signature
from keras_transfer.export.graph import write
from keras_transfer.export.image_bytes import ImageBytes
from keras_transfer.export.labels import with_labels
from keras_transfer.export.many_adapters import ManyAdapters
from keras_transfer.export.raw_text import RawText
from keras_transfer.export.request import Entry
from keras_transfer.export.samples import requests
from keras_transfer.export.samples import run
from keras_transfer.export.samples import tensors_of
from keras_transfer.export.signatures import entries_of
from keras_transfer.export.signatures import features_of
from keras_transfer.export.warmup import write_warmup


def export_serving(
    model: keras.Model,
    directory: str | os.PathLike,
    version: int = 1,
    *,
    samples: object = None,
    preprocessor: keras.Layer | RawText | ImageBytes | Callable | bool | None = None,
    labels: Sequence | Mapping[str, Sequence[str]] | bool | None = None,
    features: bool | str = False,
    adapters: Sequence[str] = (),
) -> pathlib.Path:
    """Write a SavedModel for TensorFlow Serving to `directory/version`.

    The folder needs neither Keras nor this package to run. Its signatures, all with
    named inputs and outputs and any batch size:

    - `serving_default` takes what `model.predict` takes: strings for a keras-hub Task
      of text, images with values of 0 to 255 for one of images, arrays for others.
    - `preprocessed`, where `serving_default` is raw: the model's own inputs.
    - `image_bytes`, for images: JPEG or PNG files.
    - `features`, on request: as `serving_default`, but out comes the pooled vector of
      the backbone.

    The tokenizers of keras-hub use operations of `tensorflow_text`. If the graph
    contains any, one printed line names these operations and the string inputs:
    `text`, or the names of a `kt.export.RawText`. A Python client must then run
    `import tensorflow_text` before `tf.saved_model.load`. TensorFlow Serving is built
    with TensorFlow Text, but an older release can lack some of the operations. A
    request to it fails with "Op type not registered" (tensorflow/serving#2267).

    An input that is no dictionary is named `inputs` (`inputs_0`, ... for a list), an
    output `outputs`. Half-precision outputs become float32.

    Every adapter that can be is folded into a copy of the weights; the model
    passed, its optimizer and its adapters stay as they are, also within `fit`. Each
    weight is written once, and only those that the call reads. The folder is written
    under a name that TensorFlow Serving passes over, loaded back, compared with the
    model on `samples`, and renamed last. If anything fails, nothing is left.

    Args:
        model: A functional, Sequential or subclassed model. Of a subclassed one the
            inputs are read off the samples.
        directory: Folder of the model, of which the name is the one it is served
            under. It is made if it is not there.
        version: A whole number, 0 or more. TensorFlow Serving takes the largest.
        samples: A few examples to compare on, as `serving_default` takes them; encoded
            images where there is an `image_bytes`. They are also written as warm-up
            requests, which TensorFlow Serving sends to itself as it loads the model.
            Without samples nothing is compared.
        preprocessor: What stands in front of the model in the graph: a text
            preprocessor, a `kt.export.RawText` or a `kt.export.ImageBytes`. Defaults
            to the own one of a keras-hub Task; False for none.
        labels: Names of the classes in the order of the logits. Each signature then
            also gives `label` (a string) and `label_id` (int64), the largest logit's;
            one for each token or pixel if the model has classes for each. Of several
            outputs, a dict by output or a list in their order, with None for one that
            has no classes; outputs are then `<output>_label` and `<output>_label_id`.
            With `adapters` also a dict by adapter, `""` for the model without one.
            Defaults to the names that the data of `fine_tune` had, where there is a
            logit for each, and no adapter with a head of its own; False for none.
        features: True, or a pooling of `kt.backbones.features`, for a signature
            `features`.
        adapters: Names of LoRA, RsLoRA or LoHa adapters of the model, to be chosen by
            example. Each signature then takes one more input `adapter`, a name an
            example, or `""` for the model without any; a batch may mix them, and an
            unknown name is an error. Each example gets the head of its adapter; scores
            of one with fewer classes than the widest are filled up with probabilities
            of 0, or logits of the least number of the dtype, -3.4e38. By default the
            adapters in use are folded.

    Returns:
        The folder of the version.

    Raises:
        FileExistsError: If the version is there already.
        TypeError: If `model` is no Keras model, or `version` no whole number.
        ValueError: If what is written differs from the model, or the inputs, the
            samples, the labels or the preprocessor do not fit the model.

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
        Warmup". Keras's `Model.export` writes weights twice (keras-team/keras#23553).
    """
    _check(model, version)
    target = pathlib.Path(directory) / str(version)
    with new_path(target) as partial:
        entries = entries_of(model, preprocessor, samples)
        plain = entries.get("preprocessed", entries["serving_default"])
        asked = {} if samples is None else requests(entries, samples)
        many = ManyAdapters(model, adapters) if len(adapters) else None
        trace = (
            many.forward if many else functools.partial(forward, folded=Folded(model))
        )
        if many:
            asked = many.requests(asked)
            entries = {name: many.entry(each) for name, each in entries.items()}
        compute = trace(model, plain, "outputs")
        if many and many.takes(labels):
            compute, finish = many.labeled(compute, labels), dict
        else:
            finish = with_labels(labels, model)
        functions = {
            name: signature(each, compute, finish) for name, each in entries.items()
        }
        networks = dict.fromkeys(entries, model)
        if features:
            networks["features"] = features_of(model, features)
            vector = trace(networks["features"], plain, "features")
            entries["features"] = entries["serving_default"]
            functions["features"] = signature(entries["features"], vector)
            if asked:
                asked["features"] = asked["serving_default"]
        write(functions, [x for e in entries.values() for x in e.resources], partial)
        if asked:
            allowed = comparison.tolerance(model)
            if many:
                networks = {k: many.reference(x, plain) for k, x in networks.items()}
            _compare(partial, networks, entries, asked, allowed)
            write_warmup(partial, target.absolute().parent.name, asked)
    notice = foreign_notice(functions, entries)
    if notice:
        print(f"export_serving: {target}. {notice}")
    return target


def _compare(
    folder: pathlib.Path,
    networks: Mapping[str, Callable],
    entries: Mapping[str, Entry],
    asked: Mapping[str, Mapping[str, np.ndarray]],
    allowed: float,
) -> None:
    """Load the folder and compare each signature with the model behind it."""
    loaded = tf.saved_model.load(str(folder))
    for name, request in asked.items():
        entry, network = entries[name], networks[name]
        single = "features" if name == "features" else "outputs"
        right = comparison.expected(network, run(entry, request), single)
        found = loaded.signatures[name](**tensors_of(entry, request))
        outputs = {key: each.numpy() for key, each in found.items()}
        comparison.compare(f"The signature {name!r}", outputs, right, allowed)


def _check(model: object, version: object) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"The model is a {type(model).__name__}. Pass a keras.Model; "
            "keras.Sequential makes one of a layer."
        )
    why = "TensorFlow Serving reads the folder's name as one"
    whole_number("version", version, 0, why=why, kind=TypeError)
