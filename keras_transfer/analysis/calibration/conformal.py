"""conformal: sets of classes that contain the right one as often as asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_transfer._arguments import number
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.calibration.conformal_scores import adaptive_scores
from keras_transfer.analysis.calibration.conformal_scores import lac_scores
from keras_transfer.analysis.calibration.conformal_scores import place_of_quantile
from keras_transfer.analysis.calibration.labeled_outputs import read_outputs
from keras_transfer.analysis.calibration.unlabeled_outputs import probabilities_of

METHODS = ("lac", "aps", "raps")
PENALTY, FREE_CLASSES = 0.01, 5
CONFIDENCE = 0.95  # of intervals


class Coverage(NamedTuple):
    """The coverage of conformal sets on labeled data.

    Attributes:
        coverage: Share of the examples whose set contains the right class.
        low: Lower end of the 95 % interval (Clopper and Pearson).
        high: Upper end of this interval.
        mean_size: Mean number of classes in a set.
        empty: Share of the sets without any class.
        examples: Number of examples.
    """

    coverage: float
    low: float
    high: float
    mean_size: float
    empty: float
    examples: int


class ConformalClassifier:
    """The result of `kt.analysis.conformal`: a model and the bound of its sets.

    The random draws of `"aps"` and `"raps"` depend on `seed` and on the position of an
    example alone, so the same inputs give the same sets.

    Args:
        model: A built classifier.
        threshold: Float, the largest score of a class in a set.
        coverage: Float, the coverage that was asked for.
        examples: Number of examples that gave the threshold.
        settings: Dict with the keys `method`, `penalty`, `free_classes`, `from_logits`,
            `names` and `seed`.

    Example:
        ```python
        import numpy as np
        import keras
        import keras_transfer as kt

        random = np.random.default_rng(0)
        y = random.integers(0, 3, 200)
        x = np.eye(3)[y] + random.normal(size=(200, 3))
        model = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
        sets = kt.analysis.conformal(model, (x[:100], y[:100]), coverage=0.8)
        assert sets.predict_sets(x[100:]).shape == (100, 3)
        assert 0.6 < sets.measure((x[100:], y[100:])).coverage < 1
        ```

    Reference:
        Angelopoulos and Bates 2021, A Gentle Introduction to Conformal Prediction,
        arXiv:2107.07511.
    """

    def __init__(
        self,
        model: keras.Model,
        threshold: float,
        coverage: float,
        examples: int,
        settings: dict,
    ) -> None:
        self.model = model
        self.threshold = float(threshold)
        self.coverage = float(coverage)
        self.examples = int(examples)
        self.settings = dict(settings)

    def expected_coverage(self) -> tuple[float, float]:
        """Return the range in which the coverage of such a threshold lies.

        The coverage of one threshold on endless data is random, because its n examples
        are. It has a beta distribution with the parameters k and n + 1 - k, where k is
        `ceil((n + 1) coverage)`. The range has 95 % of it.
        """
        from scipy.stats import beta

        place = place_of_quantile(self.examples, self.coverage)
        low, high = beta.interval(CONFIDENCE, place, self.examples + 1 - place)
        return float(low), float(high)

    def predict_sets(self, x: Any) -> np.ndarray:
        """Return which classes are in the set of each example.

        Args:
            x: Inputs as arrays, or a batched dataset of inputs without labels.

        Returns:
            A boolean array `(examples, classes)`. A set can be empty, if all classes
            are more unusual than the threshold allows.
        """
        from_logits = self.settings["from_logits"]
        return self._sets(probabilities_of(self.model, x, from_logits))

    def named_sets(self, x: Any) -> list[list[str]]:
        """Return the names of the classes in each set, the most probable first."""
        probabilities = probabilities_of(self.model, x, self.settings["from_logits"])
        order = np.argsort(-probabilities, axis=1, kind="stable")
        sets, names = self._sets(probabilities), self.settings["names"]
        return [
            [names[place] for place in places if row[place]]
            for places, row in zip(order, sets, strict=True)
        ]

    def measure(self, data: Any) -> Coverage:
        """Return how often the sets contain the right class, on labeled data.

        The coverage holds for data like the data of `kt.analysis.conformal`. Measure it
        on data of another domain: it is often far below there.

        Args:
            data: As in `kt.analysis.conformal`.

        Raises:
            ValueError: As in `kt.analysis.conformal`.
        """
        from scipy.stats import binomtest

        read = read_outputs(
            self.model,
            data,
            from_logits=self.settings["from_logits"],
            class_names=self.settings["names"],
        )
        sets = self._sets(read.probabilities)
        hits = sets[np.arange(len(sets)), read.labels]
        found = binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE)
        sizes = sets.sum(1)
        return Coverage(
            float(hits.mean()),
            float(found.low),
            float(found.high),
            float(sizes.mean()),
            float((sizes == 0).mean()),
            len(hits),
        )

    def _sets(self, probabilities: np.ndarray) -> np.ndarray:
        return _scores(probabilities, self.settings, 1) <= self.threshold

    def __repr__(self) -> str:
        low, high = self.expected_coverage()
        return (
            f"<ConformalClassifier by {self.settings['method']} from {self.examples} "
            f"examples: coverage {self.coverage} (95 % of such thresholds: {low:.3f} "
            f"to {high:.3f}), threshold {self.threshold:.4f}>"
        )


def conformal(
    model: keras.Model,
    data: Any,
    *,
    coverage: float = 0.9,
    method: str = "lac",
    raps: tuple[float, int] | None = None,
    from_logits: bool | None = None,
    seed: int = 0,
) -> ConformalClassifier:
    """Return sets of classes that contain the right one as often as asked.

    A model that is unsure gives several classes, and one that is certain gives one. For
    new examples of the same distribution, the set contains the right class with at
    least the probability `coverage`, whatever the model is (split conformal
    prediction). Each class has a score, which is low if it is usual. The set has all
    classes with a score of at most the k-th smallest score of the right classes of n
    held-out examples, k = ceil((n + 1) coverage). Methods, with probabilities p:

    - `"lac"`: the score is 1 - p. It gives the smallest sets on average, but some are
      empty.
    - `"aps"`: the sum of the larger probabilities, plus u p with a random number u from
      0 to 1. Hard examples get larger sets and are covered about as often as easy ones.
    - `"raps"`: as `"aps"`, plus a penalty for each rank after the first ones, which
      avoids large sets of improbable classes.

    The probability is over new examples and the held-out examples together. For one set
    of held-out examples, `result.expected_coverage()` gives the range. Calibrate the
    model first (`kt.calibrate`), with other examples, for smaller sets under `"aps"`.
    Nothing is guaranteed under a shift of the domain: see `result.measure(data)`.

    Args:
        model: A built classifier, as in `kt.calibrate`. It does not change.
        data: Held-out examples, as in `kt.calibrate`, neither those of the training nor
            those of the calibration.
        coverage: Float between 0 and 1. Defaults to 0.9.
        method: `"lac"`, `"aps"` or `"raps"`. Defaults to `"lac"`.
        raps: Pair of the penalty of `"raps"`, 0 or more, and the number of first ranks
            without it. Defaults to None, (0.01, 5), or the number of classes if there
            are fewer. The other methods do not take it.
        from_logits: As in `kt.analysis.calibration_error`.
        seed: Whole number, for the random numbers of `"aps"` and `"raps"`. Defaults to
            0. `"lac"` has none.

    Returns:
        A `ConformalClassifier`.

    Raises:
        TypeError: If `model` is not a Keras model, or `data` is of an unknown kind.
        ValueError: If there are too few examples for the coverage, only one class, or
            if an argument or the data is as in `kt.analysis.calibration_error`.

    Example:
        ```python
        import numpy as np
        import keras
        import keras_transfer as kt

        random = np.random.default_rng(0)
        y = random.integers(0, 3, 200)
        x = np.eye(3)[y] + random.normal(size=(200, 3))
        model = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
        sets = kt.analysis.conformal(model, (x, y), coverage=0.8, method="aps")
        print(sets.named_sets(x[:3]))
        ```

    Reference:
        Sadinle, Lei and Wasserman 2019, Least Ambiguous Set-Valued Classifiers with
        Bounded Error Levels, arXiv:1609.00451. Romano, Sesia and Candes 2020,
        Classification with Valid and Adaptive Coverage, arXiv:2006.02544. Angelopoulos,
        Bates, Malik and Jordan 2021, Uncertainty Sets for Image Classifiers using
        Conformal Prediction, arXiv:2009.14193, equation 5.
    """
    number("coverage", coverage, above=0, below=1, why="it is a probability")
    one_of("method", method, METHODS)
    whole_number("seed", seed, 0)
    penalty, free_classes = _raps(raps, method)
    read = read_outputs(model, data, from_logits=from_logits)
    read.check_two_classes()
    place = place_of_quantile(len(read.labels), float(coverage))
    if free_classes > read.num_classes:
        if raps is not None:
            raise ValueError(
                f"raps={raps} leaves {free_classes} ranks without a penalty, but there "
                f"are {read.num_classes} classes, so it has no effect. Pass fewer."
            )
        free_classes = read.num_classes
    settings = {
        "method": method,
        "penalty": penalty,
        "free_classes": free_classes,
        "from_logits": read.from_logits,
        "names": read.names,
        "seed": int(seed),
    }
    scores = _scores(read.probabilities, settings, 0)
    own = np.sort(scores[np.arange(len(scores)), read.labels])
    return ConformalClassifier(model, own[place - 1], coverage, len(own), settings)


def _scores(probabilities: np.ndarray, settings: dict, stream: int) -> np.ndarray:
    """Return the scores of all classes. Each stream has random numbers of its own."""
    if settings["method"] == "lac":
        return lac_scores(probabilities)
    draws = np.random.default_rng((settings["seed"], stream))
    draws = draws.uniform(size=len(probabilities))
    penalty, free_classes = settings["penalty"], settings["free_classes"]
    return adaptive_scores(probabilities, draws, penalty, free_classes)


def _raps(raps: Sequence | None, method: str) -> tuple[float, int]:
    if method != "raps":
        if raps is not None:
            raise ValueError(
                f"raps={raps!r} has no effect with method={method!r}. Leave it out, or "
                'pass method="raps".'
            )
        return 0.0, 0
    if raps is None:
        return PENALTY, FREE_CLASSES
    if not isinstance(raps, list | tuple) or len(raps) != 2:
        raise ValueError(
            f"raps={raps!r} must be a pair: the penalty, and the number of ranks "
            "without it."
        )
    penalty = number("the penalty of raps", raps[0], 0)
    return penalty, whole_number("the number of ranks of raps", raps[1], 0)
