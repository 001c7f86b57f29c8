"""compare: equal runs, paired differences, resuming, and bad input."""

import gc
import json
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_transfer as kt
from keras_transfer.analysis.transferability.builders import FIRST_SEED
from keras_transfer.fine_tuning.comparison import one_run as module

RNG = np.random.default_rng(0)
DIRECTIONS = RNG.normal(size=(12, 4)).astype("float32")
X = RNG.normal(size=(200, 12)).astype("float32")
Y = (X @ DIRECTIONS).argmax(1)  # few labels cannot find these directions
TRAIN, TEST = (X[:40], Y[:40]), (X[40:], Y[40:])


def build(pretrained, rate=1e-2, weights=DIRECTIONS, metrics=("accuracy",)):
    backbone = keras.Sequential([keras.Input((12,)), layers.Dense(4, name="low")])
    if pretrained:
        backbone.layers[0].set_weights([weights, np.zeros(4)])
    model = kt.models.TransferClassifier(backbone, num_classes=4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.AdamW(rate), loss, metrics=list(metrics), jit_compile=False
    )
    return model


def zero_shot(x):
    return x @ DIRECTIONS


def compare(function=build, data=TRAIN, test=TEST, **kwargs):
    settings = dict(strategies=("scratch", "probe"), seeds=2, epochs=3, verbose=0)
    return kt.compare(function, data, test=test, **settings | kwargs)


@pytest.fixture(scope="module")
def verdict():
    return compare(seeds=3)


@pytest.mark.slow
def test_pretraining_helps_where_it_has_the_directions(verdict):
    rows = {row["strategy"]: row for row in verdict.to_dict()["rows"]}
    assert [*rows] == ["scratch", "probe"]
    assert np.mean(rows["probe"]["values"]) > 0.7 > np.mean(rows["scratch"]["values"])
    mean, low, high = rows["probe"]["gains"]["scratch"]
    assert low < mean < high and low > 0 and rows["scratch"]["gains"] == {}
    assert verdict.negative_transfer == "no" and verdict.best == "probe"
    assert rows["probe"]["parameters"] == 20 and rows["scratch"]["parameters"] == 72


@pytest.mark.slow
def test_scratch_is_what_a_user_would_train(verdict):
    """One learning rate for all weights, and no pretrained weight."""
    keras.utils.set_random_seed(FIRST_SEED + 1)
    model = build(False)
    groups = kt.layer_groups(model)
    model.compile(
        kt.optimizers.discriminative(model.optimizer, groups, layer_decay=1.0),
        model.loss,
        metrics=["accuracy"],
        jit_compile=False,
    )
    kt.fine_tune(model, TRAIN, strategy="full", epochs=3, verbose=0)
    accuracy = model.evaluate(*TEST, verbose=0)[1]
    assert verdict.to_dict()["rows"][0]["values"][1] == pytest.approx(accuracy)


@pytest.mark.slow
def test_the_table_says_it_in_words(verdict, tmp_path):
    text = str(verdict)
    assert "negative transfer: no" in text and "above scratch" in text
    assert "over scratch" in text and "± " in text and "(+0." in text
    for name in ("verdict.html", "verdict.md", "verdict.json", "verdict.txt"):
        verdict.save(tmp_path / name)
    assert "<svg" not in (tmp_path / "verdict.html").read_text()  # an embedded image
    assert "data:image/svg+xml" in (tmp_path / "verdict.html").read_text()
    assert (tmp_path / "verdict.md").read_text().count("| :-- |") == 1
    assert json.loads((tmp_path / "verdict.json").read_text()) == verdict.to_dict()
    assert (tmp_path / "verdict.txt").read_text() == text + "\n"
    assert len(verdict.plot(tmp_path / "verdict.png").axes[0].patches) == 2
    with pytest.raises(ValueError, match="suffix must be one of"):
        verdict.save(tmp_path / "verdict.pdf")


@pytest.mark.slow
def test_useless_weights_are_negative_transfer():
    """A stem that loses the input, and only the head trains."""
    blind = np.zeros((12, 4), "float32")
    blind[0] = 1.0
    found = compare(
        lambda pretrained: build(pretrained, rate=0.1, weights=blind),
        seeds=3,
        epochs=10,
    )
    assert found.negative_transfer == "yes"
    assert "probe is below scratch by -0." in str(found)


def test_one_seed_gives_no_verdict():
    found = compare(seeds=1)
    assert found.negative_transfer == "undecided"
    assert "One seed does not show" in str(found) and "±" not in str(found)


def test_a_zero_shot_function_is_a_row():
    found = compare(strategies=("probe",), zero_shot=zero_shot)
    rows = {row["strategy"]: row for row in found.to_dict()["rows"]}
    assert rows["zero-shot"]["values"] == [1.0, 1.0]
    assert [*rows["probe"]["gains"]] == ["zero-shot"]
    assert rows["zero-shot"]["parameters"] == 0
    assert found.best == "zero-shot" and found.negative_transfer != "no"


@pytest.mark.slow
def test_datasets_named_labels_and_losses_without_metrics():
    names = np.array(["a", "b", "c", "d"])

    def only_loss(pretrained):
        return build(pretrained, metrics=())

    def probe(*data):
        return compare(only_loss, *data, strategies=("probe",), seeds=1).to_dict()

    arrays = compare(only_loss, seeds=1)
    named = probe((TRAIN[0], names[TRAIN[1]]), (TEST[0], names[TEST[1]]))
    test = tf.data.Dataset.from_tensor_slices(TEST).batch(32)
    mixed = probe(TRAIN, test)
    first = arrays.to_dict()
    assert first["metric"] == "loss" and not first["larger"]
    assert arrays.best == "probe" and first["rows"][1]["gains"]["scratch"][0] > 0
    values = first["rows"][1]["values"]
    for other in (named, mixed):
        np.testing.assert_allclose(other["rows"][0]["values"], values, rtol=1e-5)


@pytest.mark.slow
def test_a_killed_comparison_continues(verdict, tmp_path, monkeypatch):
    original, calls = module.fine_tune, []

    def killed(model, data, **kwargs):
        calls.append(kwargs["strategy"])
        if len(calls) == 3:
            kwargs["callbacks"] = keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: 1 / 0
            )
        return original(model, data, **kwargs)

    monkeypatch.setattr(module, "fine_tune", killed)
    with pytest.raises(ZeroDivisionError):
        compare(directory=tmp_path / "kept")
    found = compare(directory=tmp_path / "kept")
    assert calls == ["full", "probe", "full", "full", "probe"]
    again = compare(directory=tmp_path / "kept")
    assert len(calls) == 5 and again.to_dict() == found.to_dict()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["comparison.json"]
    with pytest.raises(ValueError, match="epochs: 3 in the folder, 4 in this call"):
        compare(directory=tmp_path / "kept", epochs=4)
    with pytest.raises(ValueError, match="data: "):
        compare(data=(X[1:41], Y[1:41]), directory=tmp_path / "kept")
    with pytest.raises(ValueError, match="test: "):
        compare(test=(X[41:], Y[41:]), directory=tmp_path / "kept")
    for change in ({"metrics": ()}, {"weights": DIRECTIONS + 1}):
        with pytest.raises(ValueError, match="in the folder"):
            compare(
                lambda pretrained, change=change: build(pretrained, **change),
                directory=tmp_path / "kept",
            )
    more = compare(directory=tmp_path / "kept", seeds=3)  # the first two are kept
    assert len(calls) == 7
    pairs = zip(verdict.to_dict()["rows"], more.to_dict()["rows"], strict=True)
    assert all(one["values"] == two["values"] for one, two in pairs)


@pytest.mark.slow
def test_common_examples_are_told(capsys):
    settings = dict(strategies=("probe",), seeds=1)
    found = compare(test=(X[38:], Y[38:]), **settings, verbose=1)
    note = "2 test example(s) are also in the training data"
    assert note in str(found) and f"compare: {note}" in capsys.readouterr().out
    data = tf.data.Dataset.from_tensor_slices(TRAIN).batch(8)
    again = compare(data=data, test=(X[39:].astype("float64"), Y[39:]), **settings)
    assert "1 test example(s) are also" in str(again)


LAST = []


def shared_backbone(pretrained):
    LAST[:] = LAST or [keras.Sequential([keras.Input((12,)), layers.Dense(4)])]
    model = kt.models.TransferClassifier(LAST[0], num_classes=4)
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model


def same_model(pretrained):
    SAME[:] = SAME or [build(True)]
    return SAME[0]


SAME = []


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"function": 3}, TypeError, "build=3 is not a function"),
        ({"function": lambda pretrained: 3}, TypeError, "model=3 is not a Keras model"),
        ({"function": build(True)}, TypeError, "is not a function"),
        ({"test": None}, ValueError, "test=None"),
        ({"zero_shot": 3}, TypeError, "zero_shot=3 is not a function"),
        ({"function": same_model}, ValueError, "returned 4 weights again"),
        ({"function": shared_backbone}, ValueError, "returned 2 weights again"),
        (
            {"function": lambda pretrained: build(True)},
            ValueError,
            "seems to ignore `pretrained`",
        ),
        ({"strategies": ("scratch", "best")}, ValueError, "must be different names"),
        ({"strategies": ()}, ValueError, "must be different names"),
        ({"strategies": ("probe", "probe")}, ValueError, "must be different names"),
        ({"seeds": 0}, ValueError, "seeds=0"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"test": (X[40:], Y[40:] + 9)}, ValueError, "In validation_data"),
        ({"zero_shot": lambda x: x[:, :2]}, ValueError, "outputs of the shape"),
    ],
)
def test_bad_input_raises_before_any_training(kwargs, error, match, monkeypatch):
    monkeypatch.setattr(module, "fine_tune", None)
    with pytest.raises(error, match=match):
        compare(**kwargs)


def test_a_strategy_that_does_not_fit_raises_before_any_training(monkeypatch):
    monkeypatch.setattr(module, "fine_tune", None)

    def frozen(pretrained):
        model = build(pretrained)
        backbone = kt.backbones.FrozenBackbone(model.backbone)
        model = kt.models.TransferClassifier(backbone, num_classes=4)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=False)
        return model

    with pytest.raises(ValueError, match="FrozenBackbone, which cannot be unfrozen"):
        compare(frozen, strategies=("probe", "full"))
    with pytest.raises(ValueError, match="'lora' is not possible.* leave 'lora' out"):
        compare(strategies=("lora", "full"))


def test_a_diverged_row_is_named_and_the_others_go_on():
    def diverging(pretrained):
        return build(pretrained, rate=1e-2 if pretrained else 1e30)

    found = compare(diverging, seeds=1)
    rows = {row["strategy"]: row for row in found.to_dict()["rows"]}
    assert found.best == "probe" and None not in rows["probe"]["values"]
    assert None in rows["scratch"]["values"] and rows["probe"]["gains"] == {}
    assert "not finite" in str(found) and found.negative_transfer is None
    assert found.plot() is not None and "null" in found.to_json()


def test_a_model_stays_in_memory_only_for_its_run():
    alive = []

    def watched(pretrained):
        gc.collect()
        alive.append(sum(ref() is not None for ref in seen))
        model = build(pretrained)
        seen.append(weakref.ref(model))
        return model

    seen = []
    compare(watched, strategies=("probe",))
    assert max(alive[1:]) <= 1


def test_a_folder_with_something_else_raises(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not the folder of a comparison"):
        compare(directory=tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        compare(directory=tmp_path / "notes.txt")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "comparison.json").write_text("{")
    with pytest.raises(ValueError, match="cannot continue"):
        compare(directory=tmp_path / "broken")


def new_head(model):
    return keras.ops.convert_to_numpy(kt.layer_groups(model)[-1].variables[0])


def test_no_new_head_starts_as_the_head_of_a_pretraining_with_a_small_seed():
    """The features would fit it by accident."""
    heads = []

    def watched(pretrained):
        model = build(pretrained)
        heads.append(new_head(model))
        return model

    compare(watched, strategies=("probe",), seeds=1, epochs=1)
    for seed in range(10):
        keras.utils.set_random_seed(seed)
        old = new_head(build(False))
        assert not any(np.array_equal(head, old) for head in heads)


def test_backbones_made_outside_are_told_also_if_they_alternate():
    made = {}

    def outside(pretrained):
        if pretrained not in made:
            made[pretrained] = build(pretrained).backbone
        model = kt.models.TransferClassifier(made[pretrained], num_classes=4)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=False)
        return model

    with pytest.raises(ValueError, match="returned 2 weights again"):
        compare(outside)
