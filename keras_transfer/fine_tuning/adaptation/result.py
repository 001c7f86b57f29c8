"""Adaptation: what kt.adapt tried, the scores without labels, and the choice."""

from __future__ import annotations

from collections.abc import Sequence

from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section


class Adaptation(SavedResult):
    """What `kt.adapt` tried and chose, as text, Markdown, JSON and HTML.

    The adapted model has it as its attribute `adaptation`. `print(model.adaptation)`
    shows the table. No number in it uses labels of the target.

    Args:
        content: Dict that JSON can store, the content of the result.

    Example:
        ```python
        import keras_transfer as kt

        row = {"method": "source only", "agreement": 0.8, "reverse_accuracy": 0.7}
        row |= {"source_accuracy": 0.9, "seconds": 0.0, "verdict": "the reference"}
        content = {"rows": [row], "chosen": "source only", "why": "", "notes": []}
        result = kt.fine_tuning.Adaptation(content)
        print(result)
        assert result.chosen == "source only"
        ```

    Reference:
        Hu, Luo, Liang and Foo 2024, Towards Reliable Model Selection for Unsupervised
        Domain Adaptation: An Empirical Study and A Certified Baseline, NeurIPS Datasets
        and Benchmarks (EnsV).
    """

    kind = "adaptation"

    @property
    def chosen(self) -> str:
        """The name of the chosen method, or "source only"."""
        return self._content["chosen"]

    @property
    def why(self) -> str:
        """The reason for the choice, as a sentence."""
        return self._content["why"]

    def __repr__(self) -> str:
        return f"<Adaptation, chosen: {self.chosen!r}. Use print() to show it>"

    def _sections(self) -> Sequence[Section]:
        """Return the section that all text formats share."""
        content = self._content
        keys = ("agreement", "reverse_accuracy", "source_accuracy")
        rows = tuple(
            (
                row["method"],
                *("" if row[key] is None else f"{row[key]:.3f}" for key in keys),
                f"{row['seconds']:.1f}",
                row["verdict"],
            )
            for row in content["rows"]
        )
        note = (
            "Agreement with all candidates together, accuracy on the source of a "
            "classifier that learned the predictions for the target, and accuracy on "
            "held-out source. No label of the target was used."
        )
        header = ("method", "agreement", "reverse", "source", "seconds", "")
        table = Section(
            "adaptation",
            f"Adaptation: {self.chosen}",
            (note,),
            header,
            rows,
            left=(0, 5),
            items=(content["why"], *content["notes"]),
        )
        return [table]
