"""save_adapter and load_adapter: what was learned next to a frozen model, as a file."""

from __future__ import annotations

import os
import pathlib

import keras

from keras_transfer._arguments import one_of
from keras_transfer.adapters.switching import active
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.switching import check_known
from keras_transfer.saving.adapter_file import save_file
from keras_transfer.saving.load_file import load_file
from keras_transfer.saving.peft.load import load_peft
from keras_transfer.saving.peft.save import save_peft

FORMATS = ("keras_transfer", "peft")
DTYPES = ("float32", "float16")
SUFFIX = ".safetensors"
PEFT_CONFIG = "adapter_config.json"
DEFAULT = "default"  # PEFT's folders have no name


def save_adapter(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    name: str | None = None,
    dtype: str = "float32",
    head: bool = True,
    format: str = "keras_transfer",
    task_type: str | None = None,
    verbose: int = 1,
) -> None:
    """Save one adapter of a model to a small file, without the model.

    The file is a safetensors file: the adapter's weights under their paths below the
    backbone, such as `transformer_layer_0/self_attention_layer/query/lora_a`, and in
    its metadata a recipe in JSON: technique, numbers, where it goes, the fingerprint
    of the base model, versions. It takes 4 bytes a parameter and about 130 for each
    tensor: a LoRA of rank 8 on query and value of a BERT of 6 blocks 298 kB. No code
    is in it, nor is any run on loading. The old file of this name, if there is one, is
    replaced in one step, so that a kill leaves either it or the new one.

    The head of the adapter goes along, and what else it has for itself (`train` of
    `attach`), each weight under the path of the model's own; in Hugging Face PEFT these
    are `modules_to_save`. So do layers above the backbone that train themselves, or
    carry a pair.

    Args:
        model: A model with adapters: a backbone, or a Task, `TransferClassifier` or
            other model with one in it.
        path: The file, `"*.safetensors"`; with `format="peft"` a folder.
        name: Name of the adapter. Default None, for the only one or the one in use.
        dtype: `"float32"`, the default, or `"float16"`, of half the size and three
            digits.
        head: Whether the head goes along. Default True.
        format: `"keras_transfer"`, the default, or `"peft"` for the two files of
            Hugging Face PEFT.
        task_type: With `format="peft"` PEFT's name of the model with a head, such as
            `"SEQ_CLS"`. Default None, for the bare model.
        verbose: 0 prints nothing, 1 a line about what was saved. Defaults to 1.

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If the model has no such adapter, an argument is not one of those
            named, or a weight is NaN, infinite or too large for `dtype`.
        OSError: If the file cannot be written. The old one is there then.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="a")])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
        kt.save_adapter(model, "adapter.safetensors")
        kt.adapters.detach(model)
        kt.load_adapter(model, "adapter.safetensors")
        ```

    Reference:
        PEFT, `PeftModel.save_pretrained`; the safetensors format,
        https://github.com/huggingface/safetensors.
    """
    _check_model(model)
    one_of("format", format, FORMATS)
    one_of("dtype", dtype, DTYPES)
    name = _chosen(model, name)
    path = pathlib.Path(path)
    if format == "peft":
        if dtype != "float32" or not head:
            raise ValueError(
                "dtype and head are for files of keras_transfer. Leave them out with "
                "format='peft'."
            )
        said = save_peft(model, path, name=name, task_type=task_type)
        if verbose:
            print(said)
        return
    if task_type is not None:
        raise ValueError(
            f"task_type={task_type!r} is for format='peft'. A file of keras_transfer "
            "fits any model of the same backbone. Leave it out."
        )
    if path.suffix != SUFFIX:
        raise ValueError(
            f"The path {str(path)!r} does not end in {SUFFIX!r}, by which an adapter "
            "file is known. For a folder of Hugging Face PEFT pass format='peft'."
        )
    said = save_file(model, path, name, dtype=dtype, head=head)
    if verbose:
        print(said)


def load_adapter(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    name: str | None = None,
    head: bool = True,
    check_base: bool = True,
    verbose: int = 1,
) -> keras.Model:
    """Attach an adapter that was saved to a file, with the values it had.

    The model has to be the base that the adapter was trained on: the same backbone,
    alone or in any model, fresh or with other adapters. The head in the file becomes
    one of the adapter's own, in place of the model's while the adapter is in use; it
    may have another number of classes. A bare backbone has no place for it, and the
    printed line says that it was left out. All of the file is checked before anything
    of the model is changed.

    As after `attach`, the adapter is the one in use, and trains with the head, while
    the rest is frozen. Load before or after `compile`, but inside `strategy.scope()`
    where the model is to be distributed, and into the outermost model.

    Args:
        model: A built model or backbone.
        path: A file of `save_adapter`, or a folder of Hugging Face PEFT with
            `adapter_config.json`.
        name: Name of the adapter in the model. Default None, for that in the file;
            PEFT's folders have none, and there it is `"default"`.
        head: Whether to load the head; if not, the adapter begins with a copy of the
            model's. Default True.
        check_base: Whether to refuse a base with another fingerprint: other layers,
            shapes, activations or values than the one that the adapter was trained
            on, such as a merged model. Default True.
        verbose: 0 prints nothing, 1 a line about what was attached. Defaults to 1.

    Returns:
        The model.

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If the file is missing, damaged, or not what it says; the base is
            another; a layer, tensor or shape does not fit; the head is another; the
            technique is unknown; the name is taken; or the model cannot be attached
            to. Nothing is changed then.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="a")])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
        kt.save_adapter(model, "adapter.safetensors")
        kt.adapters.detach(model)
        kt.load_adapter(model, "adapter.safetensors", name="again")
        assert list(kt.adapters.attached(model)) == ["again"]
        ```

    Reference:
        PEFT, `PeftModel.from_pretrained`.
    """
    _check_model(model)
    path = pathlib.Path(path)
    if path.is_dir():
        if not (path / PEFT_CONFIG).is_file():
            raise ValueError(
                f"The folder {str(path)!r} has no {PEFT_CONFIG}, so it is none of "
                f"Hugging Face PEFT. A file of keras_transfer ends in {SUFFIX!r}."
            )
        if not head or not check_base:
            raise ValueError(
                "head and check_base are for files of keras_transfer. Leave them out "
                "with a folder of PEFT."
            )
        said = load_peft(model, path, name=name or DEFAULT)
    else:
        said = load_file(model, path, name, head=head, check_base=check_base)
    if verbose:
        print(said)
    return model


def _check_model(model: object) -> None:
    if not isinstance(model, keras.Layer):
        raise TypeError(f"An adapter belongs to a Keras model, not to {model!r}.")


def _chosen(model: keras.Layer, name: str | None) -> str:
    """Return the name of the adapter to save."""
    names = list(attached(model))
    if not names:
        raise ValueError(
            f"The model {model.name!r} has no adapters. If they were merged, call "
            "kt.adapters.unmerge(model) first: a merged model holds sums alone."
        )
    if name is None:
        used = list(active(model))
        if len(names) > 1 and len(used) != 1:
            raise ValueError(
                f"The model {model.name!r} has the adapters {names}, of which {used} "
                "are in use. Name the one to save."
            )
        return names[0] if len(names) == 1 else used[0]
    check_known(model, name)
    return name
