"""Plot the features of two domains in two dimensions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.arrays import as_domains
from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import ORANGE

METHODS = ("pca", "tsne")
MARKERS = {"source": "o", "target": "^"}
COLORS = {"source": BLUE, "target": ORANGE}
COLUMNS = 3  # panels side by side
LEAST = 3  # smallest number of examples of a domain


def plot_domains(
    panels: Mapping[str, tuple[Any, Any]],
    *,
    labels: tuple[Any, Any] | None = None,
    method: str = "pca",
    path: str | os.PathLike | None = None,
    max_examples: int = 500,
    seed: int = 0,
) -> Any:
    """Plot features of source and target in two dimensions, one panel for each pair.

    If the domains are well aligned, the points of both domains overlap within each
    class. Source examples are circles and target examples are triangles. Colors show
    the classes if `labels` are given, and otherwise the domains. Each panel is fitted
    to both of its domains together.

    Args:
        panels: Dict from a title, such as "before" or "after", to a pair of feature
            arrays `(source, target)`. Each array has one row for each example. More
            axes are flattened.
        labels: Pair `(source_labels, target_labels)` of arrays of class numbers. The
            labels apply to all panels, so all panels must contain the same examples.
            Pass `None` as the target labels to draw the target in gray. Defaults to
            `None`, no labels.
        method: "pca" or "tsne". "pca" shows the two directions of largest variance, and
            their shares of the variance. "tsne" shows which examples are neighbors.
            Its distances between groups have no meaning. Defaults to "pca".
        path: String or path of the file to write, such as "features.png". The suffix
            decides the format. Defaults to `None`, which writes no file.
        max_examples: Integer of 3 or more, the largest number of examples to draw from
            each domain. A larger domain is sampled at random. Defaults to 500.
        seed: Integer, the seed of the sampling and of t-SNE. Defaults to 0.

    Returns:
        A `matplotlib.figure.Figure`. pyplot does not manage the figure, so it does not
        need to be closed. Call `figure.savefig` to write it.

    Raises:
        TypeError: If `panels` is not a dict of pairs.
        ValueError: If `panels` is empty, `method` is unknown, features do not fit, are
            not finite or have fewer than 3 examples, or the number of labels differs
            from the number of examples.

    Example:
        ```python
        import keras_transfer as kt
        import numpy as np

        rng = np.random.default_rng(0)
        source, target = rng.normal(size=(2, 30, 8))
        panels = {"before": (source, target + 3), "after": (source, target)}
        figure = kt.analysis.plot_domains(panels)
        assert [ax.get_title() for ax in figure.axes] == ["before", "after"]
        ```

    Reference:
        van der Maaten and Hinton 2008, Visualizing Data using t-SNE, Journal of Machine
        Learning Research 9. Ganin et al. 2016, Domain-Adversarial Training of Neural
        Networks, arXiv:1505.07818, figure 5.
    """
    one_of("method", method, METHODS)
    whole_number("max_examples", max_examples, LEAST)
    drawn = _read(panels)
    classes = None if labels is None else _labels(labels, drawn)
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    size = (4.2 * columns, 0.7 + 3.8 * rows)
    figure = new_figure(*size)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(drawn) :]:
        ax.remove()
    for ax, (title, domains) in zip(axes, drawn.items()):
        chosen = [_choose(len(each), max_examples, seed) for each in domains]
        parts = [rows[index] for rows, index in zip(domains, chosen, strict=True)]
        points, names = _embed(np.concatenate(parts), method, seed)
        points = np.split(points, [len(parts[0])])
        ax.set_title(title)
        ax.set_xlabel(names[0])
        ax.set_ylabel(names[1])
        ax.set_xticks([])
        ax.set_yticks([])
        for number, domain in enumerate(MARKERS):
            numbers = None if classes is None else classes[number]
            colors = _colors(domain, classes, numbers)
            ax.scatter(
                *points[number].T,
                s=14,
                marker=MARKERS[domain],
                c=colors if isinstance(colors, str) else colors[chosen[number]],
                alpha=0.65,
                linewidths=0,
            )
    _legend(figure, classes)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _read(panels: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if not isinstance(panels, Mapping):
        raise TypeError(
            f"`panels` is a {type(panels).__name__}. Pass a dict from a title to the "
            "features (source, target)."
        )
    if not panels:
        raise ValueError(
            "`panels` is empty, so there is nothing to draw. Pass a dict from a title "
            "to the features (source, target)."
        )
    drawn = {}
    for title, pair in panels.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(
                f"The panel {title!r} is a {type(pair).__name__}. Pass the pair of "
                "features (source, target)."
            )
        drawn[str(title)] = as_domains(*pair, least=LEAST)
    return drawn


def _labels(labels: Any, drawn: dict) -> list[np.ndarray | None]:
    if not isinstance(labels, tuple | list) or len(labels) != 2 or labels[0] is None:
        raise TypeError(
            "`labels` must be a pair (source_labels, target_labels). Only "
            "target_labels can be None."
        )
    arrays = [None if each is None else np.asarray(each) for each in labels]
    for title, domains in drawn.items():
        for name, rows, each in zip(MARKERS, domains, arrays, strict=True):
            if each is not None and each.shape != (len(rows),):
                raise ValueError(
                    f"The {name} labels have the shape {each.shape}, but the panel "
                    f"{title!r} has {len(rows)} {name} examples. Pass one class number "
                    "for each example."
                )
    return arrays


def _choose(count: int, most: int, seed: int) -> np.ndarray:
    """Return the indices to draw. They depend only on the count and the seed."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def _embed(rows: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, list[str]]:
    """Return two coordinates for each row, and the names of the axes."""
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(rows) - 1) / 3)
        # If all rows are equal, the PCA start would give t-SNE a scale of 0.
        start = "pca" if min(rows.shape) > 1 and _differ(rows) else "random"
        tsne = TSNE(perplexity=perplexity, init=start, random_state=seed)
        return tsne.fit_transform(rows), ["t-SNE 1", "t-SNE 2"]
    centered = rows - rows.mean(0)
    if rows.shape[1] == 1 or not _differ(rows):
        flat = np.stack([centered[:, 0], np.zeros(len(rows))], axis=1)
        return flat, ["the only direction", ""]
    from sklearn.decomposition import PCA

    pca = PCA(2, random_state=seed)
    points = pca.fit_transform(rows)
    shares = pca.explained_variance_ratio_
    return points, [f"component {i + 1} ({s:.0%})" for i, s in enumerate(shares)]


def _differ(rows: np.ndarray) -> bool:
    return bool(np.ptp(rows, axis=0).any())


def _colors(domain: str, classes: list | None, numbers: np.ndarray | None) -> Any:
    """Return one color for all examples, or an array with one for each example."""
    if classes is None:
        return COLORS[domain]
    if numbers is None:
        return "0.6"
    palette = _palette(classes)
    return np.array([palette[each] for each in numbers.tolist()])


def _palette(classes: list) -> dict:
    import matplotlib

    known = [each for each in classes if each is not None]
    names = np.unique(np.concatenate(known)).tolist()
    colormap = matplotlib.colormaps["tab10" if len(names) <= 10 else "turbo"]
    steps = range(10) if len(names) <= 10 else np.linspace(0, 1, len(names))
    return {name: colormap(step) for name, step in zip(names, steps)}


def _legend(figure: Any, classes: list | None) -> None:
    from matplotlib.lines import Line2D

    point = dict(linestyle="", markersize=5)
    handles = [
        Line2D(
            [], [], marker=marker, label=domain, **point,
            color=COLORS[domain] if classes is None else "0.4",
        )
        for domain, marker in MARKERS.items()
    ]  # fmt: skip
    palette = {} if classes is None else _palette(classes)
    if len(palette) <= 20:
        handles += [
            Line2D([], [], marker="s", label=str(name), color=color, **point)
            for name, color in palette.items()
        ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 4 * len(figure.axes) + 4),
        frameon=False,
        fontsize=8,
        handletextpad=0.2,
        columnspacing=1.0,
    )
