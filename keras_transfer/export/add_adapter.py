"""add_adapter: add an adapter to an export without the base model."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from keras_transfer._whole_file import new_path
from keras_transfer.adapters.in_place.layer_state import NAME
from keras_transfer.export.adapter_shard import AdapterShard
from keras_transfer.export.manifest import LABELS
from keras_transfer.export.manifest import Manifest
from keras_transfer.export.manifest import NAMES
from keras_transfer.export.manifest import read_manifest
from keras_transfer.export.new_rows import new_rows
from keras_transfer.saving.adapter_header import read_header
from keras_transfer.saving.tensor_file import TensorFile

GRAPH = "saved_model.pb"


def add_adapter(
    directory: str | os.PathLike,
    adapter_file: str | os.PathLike,
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    verbose: int = 1,
) -> pathlib.Path:
    """Write the next version of an export, with one more adapter.

    Neither the model nor its class is needed, and nothing is traced: the graph that
    `kt.export_serving(..., adapters=[...])` wrote leaves the number of adapters and
    their rank open, and the checkpoint has the adapters in a data file of their own.
    This function writes a new data file with all adapters, and an index. All other
    files, such as the weights of the base model, are hard links to the files of the
    newest version, so they need no space on the disk. If the file system has no hard
    links, they are copied, and the printed line says so. Files that are shared in this
    way must not be edited in place. Removing an old version is safe. TensorFlow Serving
    loads the new version by itself, and then unloads the old one.

    The new version has the signatures, the warm-up requests and the class names of the
    old one. It gives the outputs of a new export with all adapters. Adapters can have
    different ranks and techniques: LoRA, RsLoRA, PiSSA and LoHa, also on a base in NF4.
    Each layer of the adapter must have a pair of an exported adapter. If the file
    contains a head, an exported adapter must have its own head too, with at least as
    many classes. For other adapters, export the model again.

    Args:
        directory: Folder of the model, as in `kt.export_serving`. The newest version in
            it gets the adapter.
        adapter_file: File of `kt.save_adapter`.
        name: Name of the adapter in requests. Defaults to None, for the name in the
            file.
        labels: Names of the adapter's classes, if the model was exported with a dict
            of labels by adapter. Defaults to None.
        verbose: 1 prints a line about the new version, and 0 prints nothing. Defaults
            to 1.

    Returns:
        The path of the folder of the new version.

    Raises:
        FileExistsError: If another process has written this version meanwhile.
        TypeError: If `labels` are not a list of strings.
        ValueError: If the folder is not such an export, if the adapter was trained on
            another base model, if its name is taken, or if its technique, a layer or
            its head does not fit the graph. Nothing is written in these cases.

    Example:
        ```python
        import pathlib
        import tempfile

        import keras
        import tensorflow as tf
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="a")])
        with tempfile.TemporaryDirectory() as folder:
            for name, rank in [("cats", 1), ("dogs", 2)]:
                kt.adapters.LoRA(rank=rank, targets="a").attach(model, name)
            file = pathlib.Path(folder, "dogs.safetensors")
            kt.save_adapter(model, file, name="dogs")
            kt.export_serving(model, pathlib.Path(folder, "pets"), adapters=["cats"])
            path = kt.export.add_adapter(pathlib.Path(folder, "pets"), file)
            assert path.name == "2"
            serve = tf.saved_model.load(str(path)).signatures["serving_default"]
            serve(inputs=tf.ones((2, 4)), adapter=tf.constant(["cats", "dogs"]))
        ```

    Reference:
        Y. Sheng et al., 2023, "S-LoRA: Serving Thousands of Concurrent LoRA Adapters",
        arXiv:2311.03285, which adds adapters to a running server; TensorFlow, the
        checkpoint format, tensorflow/core/util/tensor_bundle.
    """
    newest = _newest(pathlib.Path(directory))
    manifest = read_manifest(newest)
    shard = AdapterShard(newest)
    before = shard.values()
    file = TensorFile(adapter_file)
    header = read_header(file)
    name = header.name if name is None else name
    _check_name(name, before[NAMES], newest)
    after = new_rows(manifest, before, file, header, newest)
    after[NAMES] = np.append(before[NAMES], np.array([name.encode()], object))
    if LABELS in before or labels is not None:
        after[LABELS] = _labels(labels, before, after, manifest, name, newest)
    target = newest.with_name(str(int(newest.name) + 1))
    with new_path(target) as partial:
        copied = shard.link_others(partial)
        written = shard.write(partial, after)
    if verbose:
        why = "copied, because the file system has no hard links"
        how = why if copied else "linked"
        print(
            f"add_adapter: {header.technique.__name__} {name!r} is the adapter "
            f"{len(after[NAMES]) - 1} of {target}; {written:,} bytes written, the base "
            f"was {how}"
        )
    return target


def _newest(directory: pathlib.Path) -> pathlib.Path:
    """Return the folder of the largest version."""
    if (directory / GRAPH).is_file():
        raise ValueError(
            f"{str(directory)!r} is the folder of one version. Pass the folder that "
            f"contains the versions, {str(directory.absolute().parent)!r}."
        )
    there = list(directory.iterdir()) if directory.is_dir() else []
    versions = [x for x in there if x.name.isdecimal() and (x / GRAPH).is_file()]
    if not versions:
        raise ValueError(
            f"{str(directory)!r} contains no version of an exported model, such as "
            "the folder '1'. Pass the directory of kt.export_serving."
        )
    return max(versions, key=lambda each: int(each.name))


def _check_name(name: str, taken: np.ndarray, newest: pathlib.Path) -> None:
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueError(
            f"The name {name!r} cannot name an adapter. Use letters, digits, '_' and "
            "'-', and start with a letter or a digit."
        )
    if name.encode() in taken:
        raise ValueError(
            f"{str(newest)!r} already has an adapter {name!r}, and a client would get "
            "the outputs of only one of them. Pass another name."
        )


def _labels(
    labels: Sequence[str] | None,
    before: dict[str, np.ndarray],
    after: dict[str, np.ndarray],
    manifest: Manifest,
    name: str,
    newest: pathlib.Path,
) -> np.ndarray:
    """Return the table of the class names with a row for the new adapter."""
    if LABELS not in before:
        raise ValueError(
            f"labels is {labels!r}, but {str(newest)!r} has no labels by adapter: all "
            "adapters have the same labels, or none. Leave labels out."
        )
    if isinstance(labels, str) or not all(isinstance(x, str) for x in labels or ()):
        raise TypeError(f"labels is {labels!r}. Pass a list of strings.")
    table = before[LABELS]
    classes = table.shape[1]
    for each in manifest.own:
        if each.units is not None:
            new = after[f"{each.prefix}rows"][-1]
            classes = each.units if new < 0 else after[f"{each.prefix}sizes"][new]
    if labels is None or len(set(labels)) < len(labels) or len(labels) != classes:
        raise ValueError(
            f"labels is {labels!r}, but the export has labels by adapter, and {name!r} "
            f"has {classes} classes. Pass the name of each class once, in the order "
            "of the logits."
        )
    row = [each.encode() for each in labels] + [b""] * (table.shape[1] - len(labels))
    return np.concatenate([table, np.array([row], object)])
