"""plot_domains: points, colors and files, and errors."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from sklearn.decomposition import PCA

import keras_transfer as kt

plot_domains = kt.analysis.plot_domains


def pair(count=20, other=15, size=6, shift=2.0):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, size)), rng.normal(shift, size=(other, size))


def points(ax):
    """Return the drawn points as one array for each domain."""
    return [np.asarray(each.get_offsets()) for each in ax.collections]


def colors(ax):
    return [each.get_facecolors()[:, :3] for each in ax.collections]


def test_points_match_pca_of_scikit_learn():
    source, target = pair()
    figure = plot_domains({"features": (source, target)})
    (ax,) = figure.axes
    expected = PCA(2, random_state=0).fit_transform(np.concatenate([source, target]))
    np.testing.assert_allclose(np.concatenate(points(ax)), expected)
    assert len(points(ax)[0]) == 20
    share = PCA(2).fit(np.concatenate([source, target])).explained_variance_ratio_[0]
    assert ax.get_xlabel() == f"component 1 ({share:.0%})"


def test_tsne_keeps_far_groups_apart():
    figure = plot_domains({"a": pair(shift=50.0)}, method="tsne")
    source, target = points(figure.axes[0])
    gap = np.linalg.norm(source.mean(0) - target.mean(0))
    assert gap > 2 * source.std() and figure.axes[0].get_xlabel() == "t-SNE 1"


def test_a_panel_for_each_pair():
    figure = plot_domains({str(i): pair() for i in range(5)})
    assert [ax.get_title() for ax in figure.axes] == list("01234")


def test_colors_are_domains_without_labels():
    source, target = colors(plot_domains({"a": pair()}).axes[0])
    assert len(source) == len(target) == 1 and not np.allclose(source, target)


def test_colors_are_classes_with_labels():
    labels = np.arange(20) % 3, np.arange(15) % 3
    figure = plot_domains({"a": pair()}, labels=labels)
    source, target = colors(figure.axes[0])
    np.testing.assert_array_equal(source[:3], target[:3])
    assert len(np.unique(source, axis=0)) == 3
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["source", "target", "0", "1", "2"]


def test_target_without_labels_is_gray():
    figure = plot_domains({"a": pair()}, labels=(np.arange(20) % 12, None))
    _, target = colors(figure.axes[0])
    np.testing.assert_allclose(target, [[0.6] * 3])


def test_labels_match_examples_when_domains_are_sampled():
    source, target = pair(300, 300, 2, 0.0)
    labels = (source[:, 0] > 0).astype(int), (target[:, 0] > 0).astype(int)
    figure = plot_domains({"a": (source, target)}, labels=labels, max_examples=50)
    (ax,) = figure.axes
    for domain, each in zip(points(ax), colors(ax), strict=True):
        assert len(domain) == len(each) == 50
        # PCA of two features only rotates and mirrors, so a line separates classes.
        first = (each == each[0]).all(1)
        a, b = domain[first], domain[~first]
        direction = a.mean(0) - b.mean(0)
        assert np.mean(a @ direction) > np.mean(b @ direction)


def test_writes_a_file(tmp_path):
    plot_domains({"a": pair()}, path=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_pyplot_is_not_changed():
    before = pyplot.get_fignums(), dict(matplotlib.rcParams)
    plot_domains({"a": pair()})
    assert (pyplot.get_fignums(), dict(matplotlib.rcParams)) == before


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize(
    "domains",
    [
        (np.ones((5, 4)), np.ones((5, 4))),
        (np.ones((5, 1)), np.zeros((4, 1))),
        (np.eye(3), np.eye(3)),
        (np.zeros((4, 2, 2, 3)), np.ones((3, 2, 2, 3))),
    ],
)
def test_degenerate_features_are_drawn(method, domains):
    figure = plot_domains({"a": domains}, method=method)
    assert np.isfinite(np.concatenate(points(figure.axes[0]))).all()


@pytest.mark.parametrize(
    "panels, given, message",
    [
        ({}, {}, "nothing to draw"),
        ({"a": pair()}, {"method": "umap"}, "'pca', 'tsne'"),
        ({"a": pair()}, {"max_examples": 2}, "a whole number of 3 or more"),
        ({"a": pair(2)}, {}, "2 example"),
        ({"a": (np.ones((5, 2)), np.ones((5, 3)))}, {}, "same network"),
        ({"a": (np.full((5, 2), np.nan), np.ones((5, 2)))}, {}, "NaN"),
        ({"a": pair()}, {"labels": ([0, 1], None)}, "source labels"),
        ({"a": pair()}, {"labels": ([0] * 20, [0])}, "target labels"),
    ],
)
def test_bad_values_raise(panels, given, message):
    with pytest.raises(ValueError, match=message):
        plot_domains(panels, **given)


@pytest.mark.parametrize(
    "panels, given",
    [
        (pair(), {}),
        ({"a": np.ones((5, 2))}, {}),
        ({"a": pair()}, {"labels": [0, 1, 2]}),
        ({"a": pair()}, {"labels": (None, [0] * 15)}),
    ],
)
def test_bad_types_raise(panels, given):
    with pytest.raises(TypeError, match="pair|dict"):
        plot_domains(panels, **given)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_equal_rows_are_drawn(method):
    same = np.tile([1.0, 2.0, 3.0], (20, 1))
    figure = kt.analysis.plot_domains({"x": (same, same)}, method=method)
    points = np.concatenate([each.get_offsets() for each in figure.axes[0].collections])
    assert np.isfinite(points).all()
