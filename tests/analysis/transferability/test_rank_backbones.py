"""rank_backbones: the order, the scores of each kind of network, and bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_transfer as kt
from keras_transfer.analysis.transferability.probe import cross_validated_probe

RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
MEANS = RNG.normal(size=(3, 8))
X = (3 * MEANS[Y] + RNG.normal(size=(60, 8))).astype("float32")


def network(size, seed=0, name=None, top=None, activation=None):
    """Return a random projection, with a classifier of three source classes."""
    initializer = keras.initializers.RandomNormal(seed=seed)
    parts = [keras.Input((8,)), layers.Dense(size, kernel_initializer=initializer)]
    if top:
        parts.append(layers.Dense(3, activation, kernel_initializer="zeros", name=top))
    return keras.Sequential(parts, name=name)


def perfect(name="perfect"):
    """Return a classifier that knows the classes."""
    model = network(8, name=name, top="predictions", activation="softmax")
    model.layers[0].set_weights([np.eye(8), np.zeros(8)])
    model.layers[1].set_weights([MEANS.T, -0.5 * (3 * MEANS**2).sum(1)])
    return model


@pytest.fixture(scope="module")
def ranking():
    blind = keras.Sequential([keras.Input((8,)), layers.Dense(8)], name="blind")
    blind.set_weights([np.eye(8)[:, ::-1] * 1e-3 * (np.arange(8) > 6), np.zeros(8)])
    frozen = kt.backbones.FrozenBackbone(network(8, name="full"), name="full")
    candidates = [network(1, name="narrow"), frozen, blind]
    return kt.rank_backbones(candidates, (X, Y), verbose=0)


def test_the_best_is_first_and_scores_are_those_of_the_features(ranking):
    assert ranking.best == "full" and len(ranking.rows) == 3
    row = ranking.rows[0]
    features = network(8)(X)
    assert row.scores["log_me"] == pytest.approx(kt.analysis.log_me(features, Y), 1e-5)
    assert row.scores["h_score"] == pytest.approx(
        kt.analysis.h_score(features, Y), 1e-4
    )
    probe = cross_validated_probe(np.asarray(features, "float64"), Y, seed=0)
    assert (row.scores["probe"], row.probe_error) == probe
    assert probe.accuracy > 0.8 > ranking.rows[-1].scores["probe"]
    assert (row.num_features, row.parameters) == (8, 72)
    assert set(row.seconds) == {"features", "probe", "log_me", "h_score"}


def test_the_table_and_the_plot_show_each_backbone(ranking, tmp_path):
    lines = str(ranking).splitlines()
    assert lines[0].split()[:3] == ["backbone", "probe", "log_me"]
    assert lines[1].startswith("full") and "±" in lines[1]
    assert lines[-1] == "full is clearly the best probe."
    figure = ranking.plot(tmp_path / "ranking.png")
    drawn = [len(ax.collections[-1].get_offsets()) for ax in figure.axes]
    assert drawn == [3, 3, 3]
    assert (tmp_path / "ranking.png").stat().st_size > 1000


def test_equal_backbones_are_not_told_apart():
    pair = {"a": network(8), "b": network(8)}
    shown = str(kt.rank_backbones(pair, (X, Y), scores="probe", verbose=0))
    assert shown.endswith("Not below a by two standard errors of the difference: b.")


@pytest.mark.parametrize("activation", ["softmax", None])
def test_a_classifier_has_leep_and_the_features_before_its_scores(activation):
    exact = perfect()
    exact.layers[1].activation = keras.activations.get(activation)
    exact = keras.Sequential([keras.Input((8,)), *exact.layers], name="perfect")
    unsure = network(8, name="unsure", top="predictions", activation=activation)
    found = kt.rank_backbones(
        [unsure, exact], (X, keras.utils.to_categorical(Y)), scores=["leep", "log_me"]
    )
    assert found.best == "perfect"
    outputs = exact.predict(X, verbose=0)
    expected = kt.analysis.leep(outputs, Y, from_logits=activation is None)
    assert found.rows[0].scores["leep"] == pytest.approx(expected, 1e-5)
    assert found.rows[1].scores["leep"] == pytest.approx(np.log(1 / 3), 1e-5)
    assert found.rows[0].num_features == 8


def test_backbones_may_have_their_own_data_and_keep_their_features(tmp_path):
    wide = keras.Sequential([keras.Input((16,)), layers.Dense(4)], name="wide")
    data = tf.data.Dataset.from_tensor_slices((np.tile(X, 2), Y)).batch(7)
    given = [(wide, data), (network(4, name="narrow"), (X, Y))]
    settings = dict(directory=tmp_path / "kept", scores=["log_me"], verbose=0)
    first = kt.rank_backbones(given, **settings)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"wide", "narrow"}
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shard*")}
    again = kt.rank_backbones(given, **settings)
    assert [row.scores for row in again.rows] == [row.scores for row in first.rows]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shard*")} == times


def model(name="a"):
    return network(2, name=name)


@pytest.mark.parametrize(
    ("backbones", "data", "kwargs", "error", "match"),
    [
        ([], (X, Y), {}, ValueError, "`backbones` is empty"),
        (model, (X, Y), {}, TypeError, "`backbones` is a function"),
        (lambda: [model(), model()], (X, Y), {}, ValueError, "have the name 'a'"),
        (lambda: [model()], None, {}, ValueError, "no data for 'a'"),
        (lambda: [(model(),)], None, {}, ValueError, "'a' is a tuple of 1"),
        (lambda: ["a"], (X, Y), {}, TypeError, "must be a keras.Model"),
        (lambda: [model()], (X, Y), {"scores": "nce"}, ValueError, "scores='nce'"),
        (lambda: [model()], (X, Y), {"scores": []}, ValueError, r"scores=\[\]"),
        (
            lambda: [perfect(), model()],
            (X, Y),
            {"scores": ["leep"]},
            ValueError,
            "'a' does not end in the scores of source classes",
        ),
        (lambda: [model()], (X, Y * 0), {}, ValueError, "All 60 labels are 0"),
        (lambda: [model()], (X, X[:, 0]), {}, ValueError, "not whole numbers"),
        (
            lambda: [model()],
            (X[:4], Y[:4]),
            {},
            ValueError,
            "2 of 3 classes have a single example",
        ),
        (lambda: [model()], (X, Y, Y), {}, ValueError, "weights that are not 1"),
        (
            lambda: {"a": model(), "b": (model(), (X[:30], Y[:30]))},
            (X, Y),
            {},
            ValueError,
            "'b' has 30 examples with other labels",
        ),
    ],
)
def test_bad_input_raises(backbones, data, kwargs, error, match):
    given = (
        backbones() if getattr(backbones, "__name__", "") == "<lambda>" else backbones
    )
    with pytest.raises(error, match=match):
        kt.rank_backbones(given, data, verbose=0, **kwargs)


def test_any_name_has_a_folder_of_its_own(tmp_path):
    names = ["a/b", "a", str(tmp_path / "outside")]
    backbones = {name: network(2) for name in names}
    settings = dict(directory=tmp_path / "kept", scores=["log_me"], verbose=0)
    found = kt.rank_backbones(backbones, (X, Y), **settings)
    assert {row.name for row in found.rows} == set(names)
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert not (tmp_path / "outside").exists()
    for name in ("", ".."):
        with pytest.raises(ValueError, match="cannot be the name of a folder"):
            kt.rank_backbones({name: network(2)}, (X, Y), **settings)


def test_an_error_of_the_data_names_the_backbone():
    other = keras.Sequential([keras.Input((5,)), layers.Dense(2)], name="other")
    with pytest.raises(ValueError, match="For the backbone 'other': "):
        kt.rank_backbones([other], (X, Y), verbose=0)
