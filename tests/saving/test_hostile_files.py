"""Damaged or malicious adapter files are refused, and nothing changes."""

import json
import os

import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from tests.adapters import models
from tests.saving import files
from tests.saving.files import assert_equal
from tests.saving.files import outputs
from tests.saving.files import small
from tests.saving.files import trained
from tests.saving.files import X


def changed_tensor(name, **entries):
    def change(header, data):
        header[name] |= entries
        return header, data

    return change


def added(name, shape=(2,)):
    def change(header, data):
        size = 4 * int(np.prod(shape))
        offsets = [len(data), len(data) + size]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        return counted(header, 1), data + bytes(size)

    return change


def without_last(header, data):
    name = max(
        (k for k in header if k != "__metadata__"),
        key=lambda k: header[k]["data_offsets"],
    )
    begin, _ = header.pop(name)["data_offsets"]
    return counted(header, -1), data[:begin]


def counted(header, more):
    said = json.loads(header["__metadata__"]["keras_transfer"])
    said["num_tensors"] += more
    header["__metadata__"]["keras_transfer"] = json.dumps(said)
    return header


def head_alone(header, data):
    names = [name for name in header if name.startswith("head:")]
    size = sum(np.diff(header[name]["data_offsets"])[0] for name in names)
    kept, at = {"__metadata__": header["__metadata__"]}, 0
    for name in names:
        begin, end = header[name]["data_offsets"]
        kept[name] = header[name] | {"data_offsets": [at, at + end - begin]}
        at += end - begin
    return counted(kept, len(names) - len(header) + 1), data[:size]


def with_value(value):
    def change(header, data):
        return header, data[:-4] + np.float32(value).tobytes()

    return change


def renamed(old, new):
    def change(header, data):
        return {(new if k == old else k): v for k, v in header.items()}, data

    return change


def said(**changes):
    def change(header, data):
        recipe = json.loads(header["__metadata__"]["keras_transfer"]) | changes
        header["__metadata__"]["keras_transfer"] = json.dumps(recipe)
        return header, data

    return change


def text(value):
    def change(header, data):
        header["__metadata__"]["keras_transfer"] = value
        return header, data

    return change


def config(**changes):
    def change(header, data):
        own = json.loads(header["__metadata__"]["keras_transfer"])["config"]
        return said(config=own | changes)(header, data)

    return change


HOSTILE = {
    "truncated": (lambda h, d: (h, d[:-1]), "not a valid safetensors"),
    "trailing bytes": (lambda h, d: (h, d + b"x"), "not a valid safetensors"),
    "overlap": (
        changed_tensor("wide/lora_b", data_offsets=[0, 40]),
        "the tensor before it",
    ),
    "out of range": (
        changed_tensor("wide/lora_b", data_offsets=[10**6, 10**6 + 40]),
        "the tensor before it",
    ),
    "absolute": (renamed("wide/lora_a", "/wide/lora_a"), "not a path of layers"),
    "parent folder": (renamed("wide/lora_a", "../wide/lora_a"), "not a path of layers"),
    "no recipe": (lambda h, d: (h | {"__metadata__": {}}, d), "has no recipe"),
    "recipe no JSON": (text("{"), "not valid JSON"),
    "recipe twice": (text('{"format": 1, "format": 1}'), "'format' twice"),
    "recipe NaN": (text('{"format": NaN}'), "the number 'NaN'"),
    "recipe a list": (text("[]"), "not a dict"),
    "nothing": (text('{"format": 1}'), "'name' is missing"),
    "format": (said(format=2), "its format is 2"),
    "no format": (said(format=None), "its format is None"),
    "technique": (said(technique="keras_transfer>NoLoRA"), "the technique"),
    "Lambda": (said(technique="keras>Lambda"), "the technique"),
    "layer of ours": (said(technique="keras_transfer>FrozenBackbone"), "the technique"),
    "part of ours": (said(technique="keras_transfer>DensePair"), "the technique"),
    "module": (said(technique="os>system"), "the technique"),
    "technique list": (said(technique=["keras_transfer>LoRA"]), "'technique' is"),
    "count": (said(num_tensors=7), "counts 7 tensors"),
    "base": (said(base={}), "cannot be used"),
    "base kind": (
        said(base=dict.fromkeys(("name", "architecture", "weights"), 1)),
        "cannot be used",
    ),
    "config unknown": (config(more=1), "cannot be used|not valid for LoRA"),
    "config object": (
        config(bias={"module": "os", "class_name": "function", "config": "system"}),
        "not a plain value",
    ),
    "config rank": (config(rank=0), "rank=0"),
    "config huge rank": (config(rank=10**12), "has the shape"),
    "config other rank": (config(rank=3), "has the shape"),
    "config expression": (config(targets="(a+)+$"), "its targets are"),
    "config pattern": (config(rank_pattern={"(a+)+$": 2}), "not a plain value"),
    "config pattern value": (config(rank_pattern={"wide": "2"}), "not a plain value"),
    "config bias": (config(bias="all"), "lacks|weights .* of the model's own"),
    "changes": (said(changes={"wide": {"rank": 10**12}}), "has the shape"),
    "changes place": (said(changes={"none": {"rank": 2}}), "has no tensors"),
    "changes key": (said(changes={"wide": {"more": 2}}), "does not accept"),
    "changes kind": (said(changes={"wide": {"rank": 2.5}}), "does not accept"),
    "changes text": (said(changes={"wide": {"scaling": "2"}}), "not all numbers"),
    "changes rate": (said(changes={"wide": {"dropout": 2.0}}), "rate"),
    "changes bool": (said(changes={"wide": {"rank": True}}), "does not accept"),
    "missing": (without_last, "lacks the tensor"),
    "head alone": (head_alone, "has no weights of an adapter"),
    "surplus": (added("wide/lora_c"), "no weights for"),
    "surplus layer": (added("none/lora_a"), "'none', which .* does not have"),
    "surplus head": (added("head:none/kernel"), "'head:none', which"),
    "base kernel": (
        added("wide/kernel", (6, 5)),
        "on other weights|of the model's own",
    ),
    "shape": (changed_tensor("wide/lora_a", shape=[2, 6]), "has the shape"),
    "axes": (changed_tensor("wide/lora_a", shape=[12]), "has the shape"),
    "dtype": (changed_tensor("wide/lora_a", dtype="I32"), "has the dtype I32"),
    "head shape": (changed_tensor("head:logits/kernel", shape=[3, 4]), "head=False"),
    "head dtype": (changed_tensor("head:logits/kernel", dtype="I32"), "head=False"),
    "NaN": (with_value(np.nan), "NaN or infinite"),
    "inf": (with_value(np.inf), "NaN or infinite"),
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Return a valid file, and a compiled model for it that has made predictions.

    All refused files share the model, which they must not change.
    """
    path = tmp_path_factory.mktemp("hostile") / "valid.safetensors"
    model, other = small(), small("other")
    other.set_weights(model.get_weights())
    trained(model, adapters.LoRA(rank=2, targets="wide|narrow"))
    kt.save_adapter(model, path)
    models.compiled(other)
    other.optimizer.build(other.trainable_variables)
    other.predict(X, verbose=0)
    return path, other, files.state(other), outputs(other, X)


class TestHostileFiles:
    @pytest.mark.parametrize("case", HOSTILE)
    def test_is_refused_and_nothing_changes(self, ready, path, case, capsys):
        valid, other, before, predictions = ready
        change, message = HOSTILE[case]
        files.join(path, *change(*files.split(valid)))
        capsys.readouterr()
        with pytest.raises(ValueError, match=message):
            kt.load_adapter(other, path)
        assert files.state(other) == before
        assert_equal(outputs(other, X), predictions)
        assert capsys.readouterr().out == ""

    def test_the_file_is_valid_without_the_change(self, saved, path):
        model, other = saved
        files.join(path, *files.split(path))
        kt.load_adapter(other, path)
        assert_equal(outputs(other, X), outputs(model, X))

    @pytest.mark.parametrize("case", ["base kernel", "NaN", "missing", "shape"])
    def test_is_refused_without_a_check_of_the_base(self, saved, path, case):
        _, other = saved
        before = files.state(other)
        change, message = HOSTILE[case]
        files.join(path, *change(*files.split(path)))
        with pytest.raises(ValueError, match=message):
            kt.load_adapter(other, path, check_base=False)
        assert files.state(other) == before

    def test_a_truncated_file_of_any_length_is_refused(self, saved, path):
        _, other = saved
        content = path.read_bytes()
        before = files.state(other)
        for length in (*range(0, 64, 7), *range(64, len(content), 97)):
            path.write_bytes(content[:length])
            with pytest.raises(ValueError):
                kt.load_adapter(other, path)
        assert files.state(other) == before

    def test_any_byte_can_be_wrong(self, saved, path):
        _, other = saved
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        before, rng = files.state(other), np.random.default_rng(0)
        for place in rng.choice(end, 80, replace=False):
            changed = bytearray(content)
            changed[place] ^= 1 << rng.integers(8)
            path.write_bytes(changed)
            try:
                kt.load_adapter(other, path)
            except ValueError:
                assert files.state(other) == before
            else:  # the byte has no effect, such as a digit of a version
                adapters.detach(other)
                before = files.state(other)

    def test_a_pickle_or_a_keras_file_is_refused(self, saved, path):
        model, other = saved
        model.save(path.with_suffix(".keras"))
        os.replace(path.with_suffix(".keras"), path)
        with pytest.raises(ValueError, match="not a valid safetensors"):
            kt.load_adapter(other, path)
