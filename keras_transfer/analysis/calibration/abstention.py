"""abstention: leave the least certain examples to a person, at a chosen risk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer._arguments import number
from keras_transfer.analysis.calibration.drawn_result import DrawnResult
from keras_transfer.analysis.calibration.labeled_outputs import read_outputs
from keras_transfer.analysis.calibration.unlabeled_outputs import probabilities_of
from keras_transfer.analysis.report.plots import BLUE
from keras_transfer.analysis.report.plots import GRAY
from keras_transfer.analysis.report.plots import new_figure
from keras_transfer.analysis.report.plots import ORANGE
from keras_transfer.analysis.report.plots import styled
from keras_transfer.analysis.report.tables import Section

ABSTAINED = -1
SHOWN = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)  # coverages in the table
POINTS = 200  # of the curve


class SelectiveRisk(NamedTuple):
    """What a classifier with a threshold does on labeled data.

    Attributes:
        coverage: Share of the examples that are accepted.
        risk: Share of wrong classes among these, or None if none is accepted.
        examples: Number of examples.
    """

    coverage: float
    risk: float | None
    examples: int


class Abstention(DrawnResult):
    """The result of `kt.analysis.abstention`: a threshold, and what it costs.

    `print(abstention)` shows the threshold and the curve of risk and coverage.
    `plot` and `save` work as for `CalibrationError`.

    Args:
        content: Dict that JSON can store, the content of the result.
        model: The model, for `classify` and `measure`. Defaults to None.

    Example:
        ```python
        import numpy as np
        import keras
        import keras_transfer as kt

        random = np.random.default_rng(0)
        y = random.integers(0, 2, 500)
        x = (y[:, None] * 2 - 1 + random.normal(size=(500, 1))) * 2
        model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Activation("sigmoid")]
        )
        abstention = kt.analysis.abstention(model, (x, y), risk=0.1)
        assert abstention.bound <= 0.1 and 0.3 < abstention.coverage < 1
        classes = abstention.classify(x)
        assert set(classes) == {-1, 0, 1}
        ```

    Reference:
        Geifman and El-Yaniv 2017, Selective Classification for Deep Neural Networks,
        arXiv:1705.08500.
    """

    kind = "abstention"
    words = "Risk against coverage"

    def __init__(self, content: dict, model: keras.Model | None = None) -> None:
        super().__init__(content)
        self._model = model

    @property
    def threshold(self) -> float:
        """The lowest confidence of an example that is accepted."""
        return self._content["threshold"]

    @property
    def coverage(self) -> float:
        """Share of the held-out examples that are accepted."""
        return self._content["coverage"]

    @property
    def risk(self) -> float:
        """Share of wrong classes among the held-out examples that are accepted."""
        return self._content["risk"]

    @property
    def bound(self) -> float:
        """The upper bound of the risk on new data, at the confidence."""
        return self._content["bound"]

    def classify(self, x: Any) -> np.ndarray:
        """Return the class of each example, or -1 for examples that are not accepted.

        Args:
            x: Inputs as arrays, or a batched dataset of inputs without labels.

        Raises:
            ValueError: If the result was made from its content alone.
        """
        found = probabilities_of(self._checked(), x, self._content["from_logits"])
        return np.where(found.max(1) >= self.threshold, found.argmax(1), ABSTAINED)

    def measure(self, data: Any) -> SelectiveRisk:
        """Return coverage and risk of the threshold on other labeled data.

        The bound holds for data like the held-out data, not under a shift.

        Args:
            data: As in `kt.analysis.abstention`.

        Raises:
            ValueError: If the result was made from its content alone.
        """
        content = self._content
        read = read_outputs(
            self._checked(),
            data,
            from_logits=content["from_logits"],
            class_names=content["class_names"],
        )
        found = read.probabilities
        accepted = found.max(1) >= self.threshold
        wrong = (found.argmax(1) != read.labels)[accepted]
        risk = float(wrong.mean()) if accepted.any() else None
        return SelectiveRisk(float(accepted.mean()), risk, len(accepted))

    def _checked(self) -> keras.Model:
        if self._model is None:
            raise ValueError(
                "This Abstention was made from its content, without a model. Pass "
                "model= too."
            )
        return self._model

    def _draw(self) -> Any:
        content = self._content
        coverages, risks = np.array(content["curve"]).T
        with styled():
            figure = new_figure(4.4, 3.2)
            ax = figure.subplots()
            ax.plot(coverages, risks, color=BLUE)
            ax.axhline(content["wanted"], color=GRAY, linestyle="--", linewidth=1)
            ax.scatter([self.coverage], [self.risk], color=ORANGE, zorder=3)
            ax.set_xlim(0, 1)
            ax.set_ylim(0, None)
            ax.set_xlabel("coverage")
            ax.set_ylabel("risk")
        return figure

    def _sections(self) -> Sequence[Section]:
        content = self._content
        notes = (
            f"Examples with a confidence of {self.threshold:.4f} or more are accepted: "
            f"{self.coverage:.4f} of {content['examples']}, {self.risk:.4f} of them "
            "wrong.",
            f"With a confidence of {content['confidence']:g}, the risk on new data is "
            f"at most {self.bound:.4f} (wanted: {content['wanted']:g}).",
            f"Area under the curve of risk and coverage: {content['aurc']:.4f}.",
        )
        curve = np.array(content["curve"])
        rows = []
        for coverage in SHOWN:
            place = np.abs(curve[:, 0] - coverage).argmin()
            rows.append(tuple(f"{each:.4f}" for each in curve[place]))
        header = ("coverage", "risk")
        return [Section("abstention", "Abstention", notes, header, tuple(rows))]

    def __repr__(self) -> str:
        return (
            f"<Abstention: threshold {self.threshold:.4f}, coverage "
            f"{self.coverage:.4f}, risk at most {self.bound:.4f}>"
        )


def abstention(
    model: keras.Model,
    data: Any,
    *,
    risk: float = 0.05,
    confidence: float = 0.95,
    class_names: Sequence[str] | None = None,
    from_logits: bool | None = None,
) -> Abstention:
    """Choose the confidence below which a classifier abstains, for a guaranteed risk.

    The classifier answers if the probability of its class is at least the threshold.
    The risk is the share of wrong answers. The result is the lowest threshold of a
    binary search whose upper bound of the risk is at most `risk`. For k wrong answers
    of m, the bound b solves

        sum_{j=0}^{k} binomial(m, j) b^j (1 - b)^(m - j) = (1 - confidence) / steps

    With the probability `confidence`, over the choice of the held-out examples, the
    risk on new data of the same distribution is at most the bound. This also holds for
    a model that is not calibrated; a temperature does not change which examples of two
    classes are accepted.

    Args:
        model: A built classifier, as in `kt.calibrate`. It does not change.
        data: Held-out examples, as in `kt.calibrate`.
        risk: Float between 0 and 1, the largest share of wrong answers. Defaults to
            0.05.
        confidence: Float between 0 and 1. Defaults to 0.95.
        class_names: As in `kt.analysis.calibration_error`.
        from_logits: As in `kt.analysis.calibration_error`.

    Returns:
        An `Abstention`, with `threshold`, `coverage`, `risk`, `bound`, `classify`, and
        the curve of risk and coverage.

    Raises:
        TypeError: If `model` is not a Keras model, or `data` is of an unknown kind.
        ValueError: If no threshold has the risk, there is only one class, or if an
            argument or the data is as in `kt.analysis.calibration_error`.

    Example:
        ```python
        import numpy as np
        import keras
        import keras_transfer as kt

        random = np.random.default_rng(0)
        y = random.integers(0, 2, 500)
        x = (y[:, None] * 2 - 1 + random.normal(size=(500, 1))) * 2
        model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Activation("sigmoid")]
        )
        print(kt.analysis.abstention(model, (x, y), risk=0.1))
        ```

    Reference:
        Geifman and El-Yaniv 2017, Selective Classification for Deep Neural Networks,
        arXiv:1705.08500, algorithm 1 and lemma 3.1.
    """
    why = "it is a share of wrong answers"
    number("risk", risk, above=0, below=1, why=why)
    number("confidence", confidence, above=0, below=1, why="it is a probability")
    read = read_outputs(model, data, from_logits=from_logits, class_names=class_names)
    read.check_two_classes()
    found = read.probabilities
    confidences, wrong = found.max(1), found.argmax(1) != read.labels
    threshold, bound = _guaranteed(confidences, wrong, risk, 1 - confidence)
    accepted = confidences >= threshold
    curve, area = _curve(confidences, wrong)
    content = {
        "threshold": threshold,
        "coverage": float(accepted.mean()),
        "risk": float(wrong[accepted].mean()),
        "bound": bound,
        "wanted": float(risk),
        "confidence": float(confidence),
        "examples": len(wrong),
        "class_names": list(read.names),
        "from_logits": read.from_logits,
        "aurc": area,
        "curve": curve,
    }
    return Abstention(content, model)


def _guaranteed(
    confidences: np.ndarray, wrong: np.ndarray, risk: float, delta: float
) -> tuple[float, float]:
    """Return the threshold and its bound, by the binary search of the paper."""
    from scipy.stats import beta

    ordered, count = np.sort(confidences), len(confidences)
    steps = max(1, math.ceil(math.log2(count)))
    low, high, best, lowest = 0, count - 1, None, 1.0
    for _ in range(steps):
        place = math.ceil((low + high) / 2)
        accepted = confidences >= ordered[place]
        mistakes, size = int(wrong[accepted].sum()), int(accepted.sum())
        bound = 1.0
        if mistakes < size:
            # The solution of the binomial tail.
            bound = float(beta.ppf(1 - delta / steps, mistakes + 1, size - mistakes))
        lowest = min(lowest, bound)
        if bound <= risk:
            best, high = (float(ordered[place]), bound), place
        else:
            low = place
    if best is None:
        raise ValueError(
            f"No threshold that was tried has a risk of at most {risk} with a "
            f"confidence of {1 - delta:g}. The lowest bound is {lowest:.4g}, for "
            f"{count} examples. Pass more held-out examples, allow a larger risk, or "
            "train a better model."
        )
    return best


def _curve(
    confidences: np.ndarray, wrong: np.ndarray
) -> tuple[list[tuple[float, float]], float]:
    """Return pairs of coverage and risk, and the mean risk over all coverages."""
    order = np.argsort(-confidences, kind="stable")
    sizes = np.arange(1, len(order) + 1)
    risks = wrong[order].cumsum() / sizes
    # Examples of equal confidence are accepted together.
    ends = np.append(np.diff(confidences[order]) != 0, True)
    places = np.flatnonzero(ends)
    shown = places[np.unique(np.linspace(0, len(places) - 1, POINTS).astype(int))]
    pairs = [[float(sizes[i] / len(order)), float(risks[i])] for i in shown]
    return pairs, float(risks.mean())
