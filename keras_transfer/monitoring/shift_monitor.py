"""ShiftMonitor: whether later examples come from the distribution of a reference."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number
from keras_transfer.analysis.shift.looks import level_of_look
from keras_transfer.export.served_model import fingerprint_of
from keras_transfer.export.served_model import ServedModel
from keras_transfer.export.shift_reference import read_reference
from keras_transfer.export.shift_reference import ShiftReference
from keras_transfer.monitoring.shift_report import ShiftReport
from keras_transfer.monitoring.shift_tests import tested
from keras_transfer.monitoring.window import Window

LEAST = 2  # examples of a window


class ShiftMonitor:
    """Tests whether later examples come from the distribution of a reference.

    `kt.export_serving(model, directory, reference=(x, y))` keeps the scores and the
    features of held-out examples in the folder of the model. Make a monitor by
    `kt.ShiftMonitor.load(directory)`, pass examples or the outputs of a server to
    `update`, and ask for a `report` as often as you like. A report tests the examples
    since the last one:

    - BBSDs: a Kolmogorov-Smirnov test of each class score, with Bonferroni's correction
      for their number. In Rabanser et al. 2019 this was the best detector.
    - The same test of each principal component of the features.
    - The maximum mean discrepancy of all components together, with a Gaussian kernel
      and a permutation test (see `kt.analysis.mmd_test`).

    These tests share the level of the report equally. The report also estimates the
    share of each class, which is wrong in the predictions themselves if the model makes
    errors. Two methods correct it under the assumption of label shift, that `p(y)`
    changes but `p(x | y)` does not: `q` with `A q = predicted` for the confusion matrix
    `A` of the reference (Lipton et al. 2018), and expectation maximization on the
    scores (Saerens et al. 2002).

    A stream that is tested again and again at the level 0.05 gives a false alarm sooner
    or later. So the report number `k` has the level `alpha * 6 / (π² k²)`. The levels
    of all reports add up to `alpha`, so the probability that there is any false alarm,
    however long the stream is, is at most `alpha` (alpha spending, by Bonferroni's
    inequality). Products of e-values would need fewer examples, but they are valid
    only if the tests are independent, and these use the same reference. Later
    reports need a larger shift or more examples: report 20 has the level 7.6e-5. From
    report 15 on, the level is too small for the permutations of the MMD test, which
    then does not run. A new monitor starts at report 1 and at a new `alpha`.

    The tests assume independent examples. Frames of one video, or several requests of
    one user, are not independent, and give false alarms. Repeated scores make the tests
    more conservative. A shift that is found is a difference of distributions and not
    always a loss of accuracy, and the other way around.

    Args:
        reference: The reference that `load` reads.
        model: The served model, or None. Without one, only outputs can be passed.
        alpha: Probability of a false alarm in all reports together, between 0 and 1.
            Defaults to 0.05.
        looks: Whole number, the reports of earlier monitors of the same stream. The
            first report of this monitor has the number `looks + 1`. Defaults to 0.
        seed: Integer, the seed of the permutations. Defaults to 0.

    Raises:
        ValueError: If `alpha` or `looks` is out of range.

    Example:
        ```python
        import pathlib
        import tempfile

        import keras
        import numpy as np
        import keras_transfer as kt

        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]
        )
        x = np.random.default_rng(0).normal(size=(400, 4))
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder, "model")
            kt.export_serving(model, folder, reference=x[:300])
            monitor = kt.ShiftMonitor.load(folder)
            monitor.update(x[300:])
            assert not monitor.report().shifted
            monitor.update(x[300:] + 3)
            report = monitor.report()
            assert report.shifted
        print(report)
        ```

    Reference:
        Rabanser, Günnemann and Lipton 2019, Failing Loudly: An Empirical Study of
        Methods for Detecting Dataset Shift, NeurIPS, arXiv:1810.11953. Lipton, Wang
        and Smola 2018, Detecting and Correcting for Label Shift with Black Box
        Predictors, ICML, arXiv:1802.03916. Saerens, Latinne and Decaestecker 2002,
        Adjusting the Outputs of a Classifier to New a Priori Probabilities, Neural
        Computation 14. Lan and DeMets 1983, Discrete Sequential Boundaries for Clinical
        Trials, Biometrika 70 (alpha spending).
    """

    def __init__(
        self,
        reference: ShiftReference,
        model: ServedModel | None = None,
        *,
        alpha: float = 0.05,
        looks: int = 0,
        seed: int = 0,
    ) -> None:
        self.alpha = number("alpha", alpha, above=0, below=1)
        self.looks = whole_number("looks", looks, 0)
        self.reference = reference
        self._model = model
        self._rng = np.random.default_rng(whole_number("seed", seed, 0))
        self._window = Window(self._rng)
        self._last: ShiftReport | None = None

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike,
        *,
        outputs_only: bool = False,
        alpha: float = 0.05,
        looks: int = 0,
        seed: int = 0,
    ) -> ShiftMonitor:
        """Return the monitor of an exported model.

        The model is loaded for `update(inputs)`. This runs the operations of its graph
        as a server does, so load only models that you trust. If the graph needs the
        operations of `tensorflow_text`, this package is imported.

        Args:
            directory: The folder of a version, or the folder of the model. Of several
                versions, the largest number is used.
            outputs_only: Whether to leave the model unloaded. Then nothing of its
                graph runs. Defaults to False.
            alpha: As in `ShiftMonitor`.
            looks: As in `ShiftMonitor`.
            seed: As in `ShiftMonitor`.

        Raises:
            ValueError: If the folder has no model or no reference, or the reference is
                that of another model.
        """
        folder = version_folder(directory)
        reference = read_reference(folder)
        if fingerprint_of(folder) != reference.facts.get("fingerprint"):
            raise ValueError(
                f"The reference in {str(folder)!r} is not that of this model, because "
                "its fingerprint differs from that of the graph and the weights. Do "
                "not copy a reference to another model: export the model with "
                "reference= instead."
            )
        model = None if outputs_only else ServedModel(folder)
        return cls(reference, model, alpha=alpha, looks=looks, seed=seed)

    @property
    def rows(self) -> int:
        """The number of examples since the last report."""
        return self._window.seen

    @property
    def inputs(self) -> dict[str, bool]:
        """For each input of the model, whether it takes texts. Empty without one."""
        specs = self._model.specs if self._model else {}
        return {name: spec.dtype.name == "string" for name, spec in specs.items()}

    def update(
        self,
        inputs: object = None,
        *,
        outputs: object = None,
        features: object = None,
    ) -> None:
        """Add examples to the window of the next report.

        Pass inputs, which the model then runs on, or the outputs of the model. If
        anything is wrong, no example is added. More than 10,000 examples are thinned
        out to a random part of 10,000.

        Args:
            inputs: Examples as `serving_default` takes them: an array, strings, or a
                dict of arrays by name.
            outputs: The outputs of the served model for examples, `(count, size)`.
            features: The output `features` of the signature `monitoring` for the same
                examples, or None to test the class scores alone.

        Raises:
            ValueError: If the examples or outputs do not fit the model, are not finite
                or are not probabilities, or if both or neither are passed.
        """
        if (inputs is None) == (outputs is None):
            raise ValueError(
                "update needs either inputs or outputs="
                f"{', but got both' if inputs is not None else ''}."
            )
        if inputs is not None:
            outputs, features = self._run(inputs, features)
        scores = self.reference.kind.scores(outputs)
        reduced = None
        if features is not None:
            reduced = self.reference.reduced(features).astype("float32")
            if len(reduced) != len(scores):
                raise ValueError(
                    f"There are {len(scores)} rows of outputs, but {len(reduced)} of "
                    "features. Pass both for the same examples."
                )
        predicted = self.reference.kind.predicted(scores)
        counts = None
        if predicted is not None:
            counts = np.bincount(predicted, minlength=len(self.reference.class_names))
        self._window.add(scores.astype("float32"), reduced, counts)

    def report(self) -> ShiftReport:
        """Test the examples since the last report, and begin a new window.

        Without new examples, the last report is returned again.

        Raises:
            ValueError: If there are fewer than 2 new examples.
        """
        count = self._window.seen
        if not count and self._last is not None:
            return self._last
        if count < LEAST:
            raise ValueError(
                f"The window has {count} examples. Call update with at least {LEAST}; "
                "with 100 or more, most shifts that matter can be found."
            )
        look = self.looks + 1
        level = level_of_look(self.alpha, look)
        found = tested(self.reference, self._window, level, self._rng)
        content = {
            "model": self.reference.facts.get("model", "model"),
            "rows": count,
            "look": look,
            "alpha": self.alpha,
            "level": level,
        }
        if count > len(self._window.scores):
            kept = len(self._window.scores)
            found["notes"].append(f"A random part of {kept:,} examples is tested.")
        self._last = ShiftReport(content | found)
        self.looks = look
        self._window.clear()
        return self._last

    def _run(self, inputs: object, features: object) -> tuple[object, object]:
        if features is not None:
            raise ValueError(
                "features= belongs to outputs=. For inputs, the model computes both."
            )
        if self._model is None:
            raise ValueError(
                "This monitor has no model, so it cannot run on inputs. Pass outputs=, "
                "or load it without outputs_only."
            )
        answers = self._model(inputs)
        return answers[self.reference.facts["output"]], answers.get("features")


def version_folder(directory: str | os.PathLike) -> pathlib.Path:
    """Return the folder of a SavedModel: `directory`, or its largest version.

    Raises:
        ValueError: If there is no SavedModel.
    """
    folder = pathlib.Path(directory)
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = []
    if folder.is_dir():
        versions = [
            each
            for each in folder.iterdir()
            if each.name.isdecimal() and (each / "saved_model.pb").is_file()
        ]
    if not versions:
        raise ValueError(
            f"{str(folder)!r} is not an exported model: it has no saved_model.pb and "
            "no version with one. Pass the directory of kt.export_serving."
        )
    return max(versions, key=lambda each: int(each.name))
