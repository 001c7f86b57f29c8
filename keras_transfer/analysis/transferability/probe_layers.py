"""probe_layers: which block of a backbone knows most about a new task."""

from __future__ import annotations

import os
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import GRAY
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import ORANGE
from keras_transfer.analysis.transferability.cached_arrays import cached_arrays
from keras_transfer.analysis.transferability.classes import class_indices
from keras_transfer.analysis.transferability.probe import cross_validated_probe
from keras_transfer.analysis.transferability.probe import Probe
from keras_transfer.analysis.transferability.scalar_mix import MixedProbe
from keras_transfer.analysis.transferability.scalar_mix import scalar_mix
from keras_transfer.backbones.block_outputs import block_outputs
from keras_transfer.backbones.features import features_of_outputs
from keras_transfer.backbones.features import unwrap
from keras_transfer.backbones.frozen import FrozenBackbone


class LayerProbes(NamedTuple):
    """The probes of the blocks of a backbone, from the stem to the last block.

    Args:
        probes: Dict from the names of the blocks to pairs of accuracy and standard
            error.
        mix: The probe of a weighted sum of all blocks, with its `weights`; None if the
            blocks have different numbers of features.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        layers = [keras.layers.Dense(5, "relu", name=name) for name in ("low", "high")]
        backbone = keras.Sequential([keras.Input((6,)), *layers])
        x, y = np.random.rand(40, 6), np.arange(40) % 2
        found = kt.analysis.probe_layers(backbone, (x, y), verbose=0)
        print(found)
        assert list(found.probes) == ["low", "high"]
        ```

    Reference:
        Alain and Bengio 2016, Understanding intermediate layers using linear classifier
        probes, arXiv:1610.01644.
    """

    probes: dict[str, Probe]
    mix: MixedProbe | None

    @property
    def best(self) -> str:
        """The name of the block with the largest accuracy, the first of several."""
        return max(self.probes, key=lambda name: self.probes[name].accuracy)

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Draw the accuracy by block, and the weights of the mix.

        Args:
            path: String or path of the file to write, such as "probes.png". The suffix
                decides the format. Defaults to `None`, which writes no file.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not manage.
        """
        names = list(self.probes)
        values, errors = np.array(list(self.probes.values())).T
        figure = new_figure(2 + 0.4 * len(names), 3.6)
        ax = figure.subplots()
        ax.errorbar(names, values, errors, color=BLUE, marker="o", capsize=3)
        ax.set_ylabel("accuracy of a probe")
        ax.margins(y=0.2)
        ax.tick_params("x", rotation=45)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")
        if self.mix is not None:
            ax.axhline(self.mix.probe.accuracy, color=ORANGE, linestyle="--")
            ax.text(0, self.mix.probe.accuracy, "all blocks, mixed", va="bottom")
            weights = ax.twinx()
            weights.bar(names, self.mix.weights, color=GRAY, alpha=0.3)
            weights.set(ylabel="weight in the mix", ylim=(0, 1))
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __str__(self) -> str:
        width = max(len("all, mixed"), *map(len, self.probes))
        lines = [f"{'block':{width}}  accuracy of a probe"]
        shares = [""] * len(self.probes)
        if self.mix is not None:
            lines[0] += "  weight in the mix"
            shares = [f"{each:19.2f}" for each in self.mix.weights]
        for (name, probe), share in zip(self.probes.items(), shares, strict=True):
            mark = "  <- best" if name == self.best else ""
            lines.append(f"{name:{width}}  {_shown(probe)}{share}{mark}".rstrip())
        if self.mix is None and len(self.probes) > 1:
            lines.append("No mix: the blocks have different numbers of features.")
        if self.mix is not None:
            lines.append(f"{'all, mixed':{width}}  {_shown(self.mix.probe)}".rstrip())
            lines.append(
                f"The center of gravity of the mix is {self.mix.center:.1f}, where 0 "
                f"is {next(iter(self.probes))} and {len(self.probes) - 1} is "
                f"{list(self.probes)[-1]}."
            )
        return "\n".join(lines)


def probe_layers(
    backbone: keras.Model | FrozenBackbone,
    data: Any,
    *,
    directory: str | os.PathLike | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int = 1,
) -> LayerProbes:
    """Train a linear probe on the output of each block of a backbone.

    The blocks are the layer groups of `kt.layer_groups`. The backbone runs once. The
    output of each block is reduced to a vector as in `kt.backbones.features`, and a
    logistic regression predicts the labels from it, in five folds. If a middle block is
    the best one, a head on this block, or unfreezing of the blocks above it, may help
    more than a head on the last one.

    If all blocks have the same number of features, as in a transformer, a scalar mix
    is trained too: a weighted sum of the blocks, whose weights are trained together
    with the classifier. The weights show where the information is. With a few hundred
    labels they are not reliable, and one block can get all the weight: trust the probes
    more. `kt.layers.ScalarMix` trains such a mix as part of a model.

    Args:
        backbone: Built functional or Sequential `keras.Model`, or a `FrozenBackbone`
            of such a model.
        data: Batched `tf.data.Dataset` of `(x, y)`, or a tuple of arrays, with class
            numbers or one-hot rows.
        directory: Folder for the features, to which a later call with the same data
            returns. Defaults to `None`, which keeps nothing.
        batch_size: Integer, the number of examples in a batch, for arrays. Defaults to
            32.
        seed: Integer, the seed of the folds. Defaults to 0.
        verbose: 1 for a progress bar, 0 for no output. Defaults to 1.

    Returns:
        A `kt.analysis.LayerProbes`. Print it, or call its `plot`.

    Raises:
        TypeError: If the backbone is not a model, or the data cannot be read twice.
        ValueError: If the backbone is not functional, if the data have weights, or if
            labels are of one class, or of classes with a single example.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        backbone = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(2)]
        )
        x, y = np.random.rand(40, 6), np.arange(40) % 2
        found = kt.analysis.probe_layers(backbone, (x, y), verbose=0)
        assert found.best in ("dense", "dense_1") and found.mix is None
        ```

    Reference:
        Tenney, Das and Pavlick 2019, BERT Rediscovers the Classical NLP Pipeline,
        arXiv:1905.05950 (the mix and its center of gravity). Alain and Bengio 2016,
        Understanding intermediate layers using linear classifier probes,
        arXiv:1610.01644.
    """
    network = unwrap(backbone)
    outputs = block_outputs(network)
    model = features_of_outputs(network, outputs)
    features, labels = cached_arrays(model, data, directory, batch_size, verbose)
    labels = class_indices(labels, len(labels))
    blocks = {
        name: np.reshape(features[name], (len(labels), -1)).astype("float64")
        for name in outputs
    }
    probes = {
        name: cross_validated_probe(block, labels, seed)
        for name, block in blocks.items()
    }
    mix = None
    if len({block.shape for block in blocks.values()}) == 1 and len(blocks) > 1:
        mix = scalar_mix(np.stack(list(blocks.values())), labels, seed)
    return LayerProbes(probes, mix)


def _shown(probe: Probe) -> str:
    return f"{probe.accuracy:.3f} ± {probe.error:.3f}      "
