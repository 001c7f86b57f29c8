"""A version with an added adapter gives the outputs of a new export with all."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.export.add_adapter import add_adapter
from keras_transfer.export.bundle_index import read_index
from keras_transfer.export.manifest import FILE as MANIFEST
from keras_transfer.export.warmup import FILE as WARMUP
from tests import tiny
from tests.export.files import everything
from tests.export.plain_tensorflow import serve

RNG = np.random.default_rng(1)
X = RNG.normal(size=(8, 6)).astype("float32")
DATA = "variables/variables.data-0000{}-of-00002"
# Each adapter has another rank, technique or set of layers, or no head of its own.
ADAPTERS = {
    "cat": (kt.adapters.LoRA(rank=2, targets="hidden_[01]"), 3),
    "dog": (kt.adapters.RsLoRA(rank=1, targets="hidden_0"), 2),
    "cow": (kt.adapters.LoHa(rank=2, targets="hidden_[01]"), 3),
    "owl": (kt.adapters.LoRA(rank=3, targets="hidden_1", init="pissa"), None),
}
LABELS = {"": list("abc"), "cat": list("def"), "dog": ["g", "h"], "cow": list("ijk")}
WHO = ["cat", "", "dog", "cow", "owl", "cat", "owl", "dog"]


def base_of(units=3, *, quantized=False, size=6):
    """Return a model with a body of two layers, with the same weights each time."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(size, "tanh", name=f"hidden_{i}") for i in range(2)]
    body = keras.Sequential([keras.Input((6,)), *layers], name="body")
    if quantized:
        kt.quantize(body, verbose=0)
    logits = keras.layers.Dense(units, "softmax", name="logits")
    return keras.Sequential([keras.Input((6,)), body, logits])


def saved(folder, name, recipe, units=3, **more):
    """Save an adapter that was trained on the base, with its own head."""
    head = {} if units else {"head": False}
    model = base_of(units or 3, **more)
    recipe.attach(model, name, verbose=0)
    rng = np.random.default_rng(len(name) + ord(name[0]))
    for _, part in all_parts(model):
        for variable in part.named_weights.values():
            variable.assign(rng.normal(0, 0.5, variable.shape))
    path = folder / f"{name}.safetensors"
    kt.save_adapter(model, path, name=name, verbose=0, **head)
    return path


def with_adapters(files, names, **more):
    model = base_of(**more)
    for name in names:
        kt.load_adapter(model, files[name], verbose=0)
    return model


def outputs(path, who=WHO, x=X):
    """Return the outputs in a process that has only TensorFlow."""
    request = {"inputs": x, "adapter": np.array([w.encode() for w in who], object)}
    return serve(path, [("serving_default", request)])[0]


def labels_of(names):
    return {name: LABELS.get(name, LABELS[""]) for name in ("", *names)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the adapter files by name."""
    folder = tmp_path_factory.mktemp("adapters")
    return {name: saved(folder, name, *each) for name, each in ADAPTERS.items()}


@pytest.fixture(scope="module")
def exported(files, tmp_path_factory):
    """Return the directory of an export of one adapter, which tests must not change."""
    folder = tmp_path_factory.mktemp("exports")
    kt.export_serving(
        with_adapters(files, ["cat"]),
        folder / "pets",
        samples=X[:2],
        adapters=["cat"],
        labels=labels_of(["cat"]),
    )
    return folder / "pets"


@pytest.fixture
def pets(exported, tmp_path):
    """Return the directory of a copy of this export."""
    shutil.copytree(exported, tmp_path / "pets")
    return tmp_path / "pets"


def test_the_outputs_equal_those_of_a_new_export(files, pets, tmp_path, capsys):
    before = outputs(pets / "1", ["cat", ""] * 4)
    for number, name in enumerate(["dog", "cow", "owl"], 2):
        path = add_adapter(pets, files[name], labels=labels_of([name])[name])
        assert path == pets / str(number)
    assert "LoRA 'owl' is the adapter 4 of" in capsys.readouterr().out
    new = kt.export_serving(
        with_adapters(files, ADAPTERS),
        tmp_path / "new",
        samples=X[:2],
        adapters=list(ADAPTERS),
        labels=labels_of(ADAPTERS),
    )
    found, wanted = outputs(path), outputs(new)
    np.testing.assert_allclose(found["outputs"], wanted["outputs"], atol=1e-6)
    for name in ("label", "label_id"):
        np.testing.assert_array_equal(found[name], wanted[name])
    assert (found["outputs"][2][2] == 0) and found["outputs"][2][:2].all()
    # The old versions do not change.
    after = outputs(pets / "1", ["cat", ""] * 4)
    np.testing.assert_array_equal(after["outputs"], before["outputs"])
    # Also in the graph loader of TensorFlow Serving.
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loader = tf.compat.v1.saved_model.loader
        graph = loader.load(session, ["serve"], str(path))
        signature = graph.signature_def["serving_default"]
        feed = {signature.inputs[k].name: v for k, v in zip(["inputs"], [X])}
        feed[signature.inputs["adapter"].name] = WHO
        again = session.run(signature.outputs["outputs"].name, feed)
    np.testing.assert_allclose(again, wanted["outputs"], atol=1e-6)


def test_all_but_the_adapters_are_links(files, pets, monkeypatch, capsys):
    path = add_adapter(pets, files["dog"], labels=["g", "h"])
    same = [DATA.format(0), "saved_model.pb", str(MANIFEST), str(WARMUP)]
    for name in same:
        assert os.path.samefile(pets / "1" / name, path / name)
    own = [DATA.format(1), "variables/variables.index", "fingerprint.pb"]
    for name in own:
        assert not os.path.samefile(pets / "1" / name, path / name)
    assert everything(path) == everything(pets / "1")
    assert "the base was linked" in capsys.readouterr().out
    digests = [
        tf.saved_model.experimental.read_fingerprint(str(pets / x)).checkpoint_hash
        for x in ("1", "2")
    ]
    assert digests[0] != digests[1]

    def refuse(*paths):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = add_adapter(pets, files["cow"], labels=list("ijk"))
    assert "the base was copied, because" in capsys.readouterr().out
    assert everything(path) == everything(pets / "1")
    found = outputs(path, ["cow", "dog"] * 4)["outputs"]
    model = with_adapters(files, ["cow"])
    np.testing.assert_allclose(found[::2], model(X).numpy()[::2], atol=1e-6)


@pytest.mark.slow
def test_a_quantized_base_and_its_signatures(files, tmp_path):
    more = {"quantized": True, "size": 64}
    recipe = kt.adapters.LoRA(rank=4, targets="hidden_1")
    trained = {x: saved(tmp_path, x, recipe, **more) for x in ("cat", "dog")}
    one = with_adapters(trained, ["cat"], **more)
    kt.export_serving(one, tmp_path / "pets", features=True, adapters=["cat"])
    path = add_adapter(tmp_path / "pets", trained["dog"], name="wolf")
    model = with_adapters(trained, ["dog"], **more)
    request = {"inputs": X, "adapter": np.array([b"wolf"] * 8, object)}
    names = ("serving_default", "features")
    found = serve(path, [(name, request) for name in names])
    wanted = model(X).numpy()
    np.testing.assert_allclose(found[0]["outputs"], wanted, atol=1e-5)
    wanted = model.layers[0](X)
    np.testing.assert_allclose(found[1]["features"], wanted, atol=1e-5)
    with pytest.raises(ValueError, match="other weights than the base.*quantizing"):
        add_adapter(tmp_path / "pets", saved(tmp_path, "owl", recipe, size=64))


@pytest.mark.slow
def test_projections_and_embeddings_of_a_bert_in_half_precision(tmp_path):
    targets = ["query", "token_embedding"]
    model = tiny.bert_classifier(num_layers=1)
    for seed, name in enumerate(("cat", "dog")):
        kt.adapters.LoRA(rank=2 + seed, targets=targets).attach(model, name, verbose=0)
    rng = np.random.default_rng(0)
    for _, part in all_parts(model):
        for variable in part.named_weights.values():
            variable.assign(rng.normal(0, 0.5, variable.shape).astype("float16"))
    path = tmp_path / "dog.safetensors"
    kt.save_adapter(model, path, name="dog", dtype="float16", verbose=0)
    kt.export_serving(model, tmp_path / "pets", adapters=["cat"])
    added = add_adapter(tmp_path / "pets", path, verbose=0)
    new = kt.export_serving(model, tmp_path / "new", adapters=["cat", "dog"])
    ids = rng.integers(5, 64, (4, 12)).astype("int32")
    x = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    x["adapter"] = np.array([b"cat", b"dog", b"", b"dog"], object)
    (found,), (wanted,) = (serve(p, [("serving_default", x)]) for p in (added, new))
    np.testing.assert_allclose(found["outputs"], wanted["outputs"], atol=1e-5)
    assert np.abs(found["outputs"][1] - found["outputs"][3]).max() > 1e-3


def test_unknown_names_can_get_the_model_itself(files, tmp_path):
    served = kt.export.ServedAdapters(["cat"], unknown="base")
    model = with_adapters(files, ["cat"])
    kt.export_serving(model, tmp_path / "pets", samples=X, adapters=served)
    path = add_adapter(tmp_path / "pets", files["dog"], verbose=0)
    who = ["cat", "lion", "", "dog"] * 2
    for folder, there in ((path.with_name("1"), [1, 0, 1, 0]), (path, [1, 0, 1, 1])):
        found = outputs(folder, who)
        np.testing.assert_array_equal(found["adapter_known"], np.array(there * 2, bool))
        wanted = base_of()(X).numpy()
        rows = [1, 2, 5, 6]
        np.testing.assert_allclose(found["outputs"][rows], wanted[rows], atol=1e-6)


def test_another_answer_to_unknown_names_is_refused():
    with pytest.raises(ValueError, match="unknown='guess'"):
        kt.export.ServedAdapters(["cat"], unknown="guess")


def refusals(files, folder):
    """Return the file, the arguments and the error of each refusal."""
    labels = {"labels": ["g", "h"]}
    lora = kt.adapters.LoRA
    pair = lora(rank=1, targets="logits|hidden_0")
    wide = lora(rank=1, targets="hidden_0")
    biased = lora(rank=1, targets="hidden_0", bias="lora_only")
    dora = kt.adapters.DoRA(rank=1, targets="hidden_0")
    return {
        "taken": (files["cat"], labels, "already has an adapter 'cat'"),
        "name": (files["dog"], {"name": "a dog", **labels}, "cannot name an adapter"),
        "labels": (files["dog"], {}, "'dog' has 2 classes"),
        "count": (files["dog"], {"labels": list("abc")}, "'dog' has 2 classes"),
        "network": (
            saved(folder, "net", wide, size=5),
            labels,
            "another network: a Sequential",
        ),
        "technique": (saved(folder, "dora", dora), labels, "DoRA 'dora'.*be stacked"),
        "biases": (saved(folder, "bias", biased), labels, "'hidden_0/bias'.*biases"),
        "places": (saved(folder, "pair", pair), labels, "'head:logits/lora_a'"),
        "classes": (saved(folder, "wide", wide, 4), labels, "outputs for 3"),
        "damaged": (__file__, labels, "not a valid safetensors file"),
    }


def test_what_does_not_fit_is_refused_and_nothing_is_written(files, pets, tmp_path):
    before = everything(pets)
    for name, (file, more, match) in refusals(files, tmp_path).items():
        with pytest.raises(ValueError, match=match):
            add_adapter(pets, file, **more)
        assert everything(pets) == before, name


def test_another_base_is_refused(files, pets, tmp_path):
    model = base_of()
    model.layers[0].layers[0].bias.assign([0.1] * 6)
    kt.adapters.LoRA(rank=1, targets="hidden_0").attach(model, "rat", verbose=0)
    kt.save_adapter(model, tmp_path / "rat.safetensors", verbose=0)
    with pytest.raises(ValueError, match="other weights than the base of"):
        add_adapter(pets, tmp_path / "rat.safetensors", labels=list("abc"))


def test_a_directory_without_such_an_export_is_refused(files, pets, tmp_path):
    kt.export_serving(tiny.mlp(), tmp_path / "plain")
    for folder, match in (
        (tmp_path / "nothing", "contains no version"),
        (pets / "1", "folder of one version. Pass .*pets"),
        (tmp_path / "plain", "is not an export with adapters"),
    ):
        with pytest.raises(ValueError, match=match):
            add_adapter(folder, files["dog"])
    manifest = pets / "1" / MANIFEST
    manifest.write_text(json.dumps({"format": 2}))
    with pytest.raises(ValueError, match="of another version"):
        add_adapter(pets, files["dog"])
    index = pets / "1/variables/variables.index"
    index.write_bytes(index.read_bytes()[:-70] + index.read_bytes()[-69:])
    with pytest.raises(ValueError, match="not an index of a checkpoint"):
        read_index(index)
    assert sorted(os.listdir(pets)) == ["1"]


def test_a_failure_while_writing_leaves_nothing(files, pets, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("keras_transfer.export.adapter_shard.write_index", fail)
    with pytest.raises(OSError, match="disk full"):
        add_adapter(pets, files["dog"], labels=["g", "h"])
    assert sorted(os.listdir(pets)) == ["1"]
