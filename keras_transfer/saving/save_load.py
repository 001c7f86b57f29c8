"""save_adapter and load_adapter: save an adapter to a small file, and load it."""

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

    The file is a safetensors file. It contains the weights of the adapter under their
    paths relative to the backbone, such as
    `transformer_layer_0/self_attention_layer/query/lora_a`. Its metadata contains a
    recipe in JSON: the technique, its arguments, its layers, the fingerprint of the
    base model, and versions. The file needs 4 bytes for each parameter and about 130
    bytes for each tensor. For example, a LoRA of rank 8 on query and value of a BERT
    with 6 blocks needs 298 kB. The file contains no code, and loading it runs no code.
    An existing file is replaced in one step. If the process is killed, either the old
    or the new file is complete.

    The file also contains the adapter's own layers: its head and the layers that were
    passed to `attach` as `train`. The weights of these layers have the paths of the
    model's weights that they replace. In Hugging Face PEFT these layers are
    `modules_to_save`. The model's own layers above the backbone are saved too if they
    train or have a pair.

    With `format="peft"` two files of Hugging Face PEFT are written, for
    `PeftModel.from_pretrained`. This works for LoRA, RsLoRA, DoRA, LoHa, LoKr, IA3,
    VeRA, NormTuning, PromptTuning and PrefixTuning on ALBERT, BERT, DistilBERT, Gemma,
    GPT-2, Llama, Mistral, Qwen3, RoBERTa, T5, ViT and XLM-R (prompts and prefixes on
    BERT, GPT-2 and Llama). What the format cannot contain is refused by its name.

    Args:
        model: A model with adapters: a backbone, or a model with a backbone, such as a
            Task or a `TransferClassifier`.
        path: Path of the file, which must end in ".safetensors". With `format="peft"`,
            path of a folder.
        name: Name of the adapter. Defaults to None, for the model's only adapter or
            the active adapter.
        dtype: `"float32"`, or `"float16"`, which halves the size and keeps three
            digits. Defaults to `"float32"`.
        head: Whether to save the head. Defaults to True.
        format: `"keras_transfer"`, or `"peft"` for the two files of Hugging Face PEFT.
            Defaults to `"keras_transfer"`.
        task_type: With `format="peft"`, PEFT's name of the task of a model with a head,
            such as `"SEQ_CLS"`. Defaults to None, for the bare model.
        verbose: 1 prints a line about the saved adapter, and 0 prints nothing. Defaults
            to 1.

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If the model has no such adapter, an argument is invalid, or a
            weight is NaN, infinite or too large for `dtype`.
        OSError: If the file cannot be written. An old file does not change.

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
                "dtype and head are only for format='keras_transfer'. Leave them out "
                "with format='peft'."
            )
        said = save_peft(model, path, name=name, task_type=task_type)
        if verbose:
            print(said)
        return
    if task_type is not None:
        raise ValueError(
            f"task_type={task_type!r} is only for format='peft'. A file of "
            "keras_transfer fits every model with the same backbone. Leave task_type "
            "out."
        )
    if path.suffix != SUFFIX:
        raise ValueError(
            f"The path {str(path)!r} does not end in {SUFFIX!r}. Add this suffix. For "
            "a folder of Hugging Face PEFT, pass format='peft'."
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
    """Attach an adapter from a file, with the saved values of its weights.

    The model must contain the backbone that the adapter was trained on. The model can
    be the backbone alone or any model with the backbone, and it can have other
    adapters. The head in the file becomes the adapter's own head. This head replaces
    the model's head while the adapter is active, and can have another number of
    classes. A bare backbone has no head, so the head in the file is ignored, and the
    printed line says so. The whole file is checked before the model changes.

    A folder of Hugging Face PEFT is loaded for the same techniques as `save_adapter`
    writes. Its norms, and trained biases, replace the model's own. A setting that
    cannot be loaded is refused by its name.

    As after `attach`, the adapter is active and trains together with its head, and all
    other weights are frozen. Load the adapter into the outermost model, before or after
    `compile`. For distributed training, load it inside `strategy.scope()`.

    Args:
        model: A built model or backbone.
        path: Path of a file of `save_adapter`, or of a folder of Hugging Face PEFT
            with `adapter_config.json`.
        name: Name of the adapter in the model. Defaults to None, for the name in the
            file, or `"default"` for a folder of PEFT, which contains no name.
        head: Whether to load the head. If False, the adapter's head begins as a copy
            of the model's head. Defaults to True.
        check_base: Whether to refuse a base model that differs in layers, shapes,
            activations or values from the base that the adapter was trained on, for
            example a merged model. For a folder of PEFT, whether to refuse a quantized
            backbone and one that `kt.backbones.match_huggingface` has to change first.
            Defaults to True.
        verbose: 1 prints a line about the attached adapter, and 0 prints nothing.
            Defaults to 1.

    Returns:
        The model.

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If the file is missing or damaged, its technique is unknown, its
            base, a layer, a shape or the head does not fit the model, the name is
            already in use, or the model does not allow adapters. The model does not
            change in these cases.

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
                f"The folder {str(path)!r} has no {PEFT_CONFIG}, so it is not a folder "
                "of Hugging Face PEFT. Pass such a folder, or a file of save_adapter, "
                f"which ends in {SUFFIX!r}."
            )
        if not head:
            raise ValueError(
                "head is only for files of keras_transfer. Leave it out for a folder "
                "of PEFT."
            )
        said = load_peft(model, path, name=name or DEFAULT, check_base=check_base)
    else:
        said = load_file(model, path, name, head=head, check_base=check_base)
    if verbose:
        print(said)
    return model


def _check_model(model: object) -> None:
    if not isinstance(model, keras.Layer):
        raise TypeError(f"The model is {model!r}. Pass a Keras model instead.")


def _chosen(model: keras.Layer, name: str | None) -> str:
    """Return the name of the adapter to save."""
    names = list(attached(model))
    if not names:
        raise ValueError(
            f"The model {model.name!r} has no adapters. If its adapters were merged "
            "into the weights, first call kt.adapters.unmerge(model)."
        )
    if name is None:
        used = list(active(model))
        if len(names) > 1 and len(used) != 1:
            raise ValueError(
                f"The model {model.name!r} has the adapters {names}, of which {used} "
                "are active. Pass the name of the adapter to save."
            )
        return names[0] if len(names) == 1 else used[0]
    check_known(model, name)
    return name
