"""LayerTransferability: how far the blocks of a network transfer, as table and plot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import GRAY
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import ORANGE
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.plots import to_svg
from keras_transfer.analysis.report.repeated import mean_and_deviation
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section

# The networks of the paper: A is pretrained, B is trained on the new task. "+" means
# that the copied blocks train too.
KINDS = ("BnB", "BnB+", "AnB", "AnB+")
STYLES = {"BnB": (ORANGE, ":"), "BnB+": (ORANGE, "-"), "AnB": (BLUE, ":")}
STYLES |= {"AnB+": (BLUE, "-")}


class LayerTransferability(SavedResult):
    """The result of `kt.analysis.layer_transferability`, as table, plot and file.

    Args:
        content: Dict that JSON can store, the content of the result.

    Example:
        ```python
        import keras_transfer as kt

        row = {"block": "stem", "BnB": [0.7], "BnB+": [0.8]}
        row |= {"AnB": [0.8], "AnB+": [0.9]}
        content = {"metric": "accuracy", "base": [0.7], "rows": [row]}
        print(kt.analysis.LayerTransferability(content))
        ```

    Reference:
        Yosinski, Clune, Bengio and Lipson 2014, How transferable are features in deep
        neural networks?, arXiv:1411.1792.
    """

    kind = "layer transferability"

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Draw the score by the last block that is copied, a line for each network.

        Args:
            path: String or path of the file to write, such as "transfer.png". The
                suffix decides the format. Defaults to `None`, which writes no file.

        Returns:
            A `matplotlib.figure.Figure`, which pyplot does not manage.
        """
        rows = self._content["rows"]
        names = ["none", *(row["block"] for row in rows)]
        base = [_mean(self._content["base"])]
        with styled():
            figure = new_figure(2.6 + 0.5 * len(names), 3.6)
            ax = figure.subplots()
            ax.axhline(base[0], color=GRAY, linewidth=1)
            for kind in KINDS:
                color, line = STYLES[kind]
                means = [_mean(row[kind]) for row in rows]
                ax.plot(names, base + means, line, color=color, marker="o", label=kind)
                for name, row in zip(names[1:], rows, strict=True):
                    found = [value for value in row[kind] if value is not None]
                    ax.plot([name] * len(found), found, ".", color=color, alpha=0.4)
            ax.set(xlabel="copied up to", ylabel=self._content["metric"])
            ax.legend(frameon=False)
            ax.tick_params("x", rotation=45)
            for label in ax.get_xticklabels():
                label.set_horizontalalignment("right")
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __repr__(self) -> str:
        blocks = [row["block"] for row in self._content["rows"]]
        return f"<LayerTransferability of {blocks}. Use print() to show it>"

    def _images(self) -> Mapping[str, tuple[str, str]]:
        return {"transfer": (to_svg(self.plot()), "The score by copied blocks")}

    def _sections(self) -> Sequence[Section]:
        content = self._content
        rows = [("none", mean_and_deviation(content["base"]), "", "", "")]
        for row in content["rows"]:
            rows.append(
                (row["block"], *(mean_and_deviation(row[kind]) for kind in KINDS))
            )
        count = len(content["base"])
        over = "one run" if count == 1 else f"mean ± standard deviation of {count} runs"
        notes = (
            f"The {content['metric']} on the test part, {over}. All blocks up to the "
            "named one are copied, the others are new.",
            "AnB: copied from the pretrained network and frozen. BnB: copied from a "
            "network that was trained on this task and frozen. With +, the copied "
            "blocks train too. none: everything is new.",
        )
        header = ("copied up to", *KINDS)
        title = "Layer transferability"
        return [Section("transfer", title, notes, header, tuple(rows))]


def _mean(values: Sequence[float | None]) -> float:
    return float("nan") if None in values else float(np.mean(values))
