"""probe_layers: a probe of each block, and the mix of all blocks."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_transfer as kt
from keras_transfer.analysis.transferability import scalar_mix as mixing
from keras_transfer.analysis.transferability.probe import cross_validated_probe
from keras_transfer.analysis.transferability.scalar_mix import scalar_mix

RNG = np.random.default_rng(0)
Y = np.arange(90) % 3
X = (2 * RNG.normal(size=(3, 6))[Y] + RNG.normal(size=(90, 6))).astype("float32")


def forgetful(sizes=(6, 6, 6)):
    """Return a backbone whose second block keeps the input and whose third loses it."""
    names = ("low", "middle", "high")
    parts = [layers.Dense(size, name=name) for size, name in zip(sizes, names)]
    backbone = keras.Sequential([keras.Input((6,)), *parts], name="forgetful")
    for layer, scale in zip(parts, (0.0, 1.0, 0.0), strict=True):
        rows, columns = layer.kernel.shape
        layer.set_weights([scale * np.eye(rows, columns), np.ones(columns)])
    return backbone


@pytest.fixture(scope="module")
def found():
    backbone = forgetful()
    keep = RNG.normal(scale=0.1, size=(6, 6))  # the first block blurs the input
    backbone.layers[0].set_weights([np.eye(6), np.zeros(6)])
    backbone.layers[2].set_weights([keep @ np.diag([1, 0, 0, 0, 0, 0]), np.zeros(6)])
    return kt.analysis.probe_layers(backbone, (X, Y), verbose=0)


def test_each_block_has_the_probe_of_its_features(found):
    assert [*found.probes] == ["low", "middle", "high"]
    assert found.probes["low"] == cross_validated_probe(X.astype("float64"), Y, 0)
    assert found.best == "low"
    assert found.probes["low"].accuracy > found.probes["high"].accuracy + 0.1


def test_the_mix_prefers_the_blocks_that_know_the_labels(found):
    weights = found.mix.weights
    assert weights.sum() == pytest.approx(1) and weights[2] < 0.2 < weights[0]
    assert found.mix.center == pytest.approx(weights[1] + 2 * weights[2])
    assert found.mix.probe.accuracy > 0.8


def test_the_table_and_the_plot_show_each_block(found, tmp_path):
    lines = str(found).splitlines()
    assert lines[1].startswith("low") and lines[1].endswith("<- best")
    assert lines[-1].startswith("The center of gravity of the mix is 0.")
    figure = found.plot(tmp_path / "probes.png")
    assert len(figure.axes) == 2 and (tmp_path / "probes.png").stat().st_size > 1000


def test_blocks_of_different_sizes_have_no_mix():
    found = kt.analysis.probe_layers(forgetful((4, 6, 5)), (X, Y), verbose=0)
    assert found.mix is None
    assert str(found).endswith("the blocks have different numbers of features.")


def test_the_gradient_of_the_mix_is_that_of_its_loss(monkeypatch):
    features, seen = RNG.normal(size=(3, 20, 4)), []

    def check(loss, start, **kwargs):
        values = RNG.normal(size=start.shape)
        _, gradient = loss(values)
        step = 1e-6 * np.eye(len(values))
        numeric = [(loss(values + h)[0] - loss(values - h)[0]) / 2e-6 for h in step]
        np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-6)
        seen.append(len(values))
        return original(loss, start, **kwargs)

    import scipy.optimize

    original = scipy.optimize.minimize
    monkeypatch.setattr(scipy.optimize, "minimize", check)
    scalar_mix(features, np.arange(20) % 2, seed=0)
    assert seen == [3 + 4 * 2 + 2] * 6  # five folds and all examples


def test_a_mix_of_one_block_is_the_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    features = X.astype("float64")
    standard = (features - features.mean(0)) / features.std(0)
    weights, kernel, bias = mixing._fit(standard[None], np.eye(3)[Y])
    solved = LogisticRegression(C=mixing.PENALTY, tol=1e-8).fit(standard, Y)
    np.testing.assert_allclose(kernel, solved.coef_.T, atol=1e-3)
    logits, expected = standard @ kernel + bias, solved.decision_function(standard)
    np.testing.assert_allclose(
        logits - logits.mean(1, keepdims=True),
        expected - expected.mean(1, keepdims=True),
        atol=5e-3,
    )
    assert weights.tolist() == [1.0]


def test_features_are_kept_and_bad_input_raises(tmp_path):
    settings = dict(directory=tmp_path / "kept", verbose=0)
    sizes = (4, 6, 5)  # different, so that no mix is solved
    first = kt.analysis.probe_layers(forgetful(sizes), (X, Y), **settings)
    again = kt.analysis.probe_layers(forgetful(sizes), (X, Y), **settings)
    assert first.probes == again.probes and any((tmp_path / "kept").iterdir())
    with pytest.raises(ValueError, match="2 of 3 classes have a single example"):
        kt.analysis.probe_layers(forgetful(), (X[:4], Y[:4]), verbose=0)
    with pytest.raises(ValueError, match="weights that are not 1"):
        kt.analysis.probe_layers(forgetful(), (X, Y, Y), verbose=0)
