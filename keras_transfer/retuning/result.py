"""Retuning: the comparison of a retuned model with the served one, and the decision."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section


class Retuning(SavedResult):
    """The result of `kt.retune`, as text, Markdown, JSON and HTML.

    Args:
        content: Dict that JSON can store, the content of the result.

    Example:
        ```python
        import keras_transfer as kt

        row = {"data": "new", "examples": 40, "before": 0.3, "after": 0.2}
        row |= {"worse": 1, "better": 5, "p": 0.98}
        content = {"measure": "error rate", "level": 0.05, "before": "version 1"}
        result = kt.Retuning(content | {"rows": [row], "version": 2, "path": "m/2"})
        print(result)
        assert result.exported and result.version == 2
        ```

    Reference:
        McNemar 1947, Note on the sampling error of the difference between correlated
        proportions or percentages, Psychometrika 12.
    """

    kind = "retuning"

    @property
    def exported(self) -> bool:
        """Whether the retuned model was exported."""
        return self._content["version"] is not None

    @property
    def version(self) -> int | None:
        """The version that was exported, or None."""
        return self._content["version"]

    @property
    def path(self) -> pathlib.Path | None:
        """The folder of the version that was exported, or None."""
        path = self._content["path"]
        return None if path is None else pathlib.Path(path)

    @property
    def worse(self) -> tuple[str, ...]:
        """The data on which the retuned model is worse, "new" or "old" or both."""
        level = self._content["level"]
        rows = self._content["rows"]
        return tuple(row["data"] for row in rows if row["p"] < level)

    def __repr__(self) -> str:
        said = f"version {self.version}" if self.exported else "refused"
        return f"<Retuning, {said}. Use print() to show it>"

    def _sections(self) -> Sequence[Section]:
        """Return the sections that all text formats share."""
        content = self._content
        title = f"Retuning: exported as version {self.version}"
        if not self.exported:
            title = f"Retuning: refused, worse on the {' and '.join(self.worse)} data"
        rows = tuple(
            (
                row["data"],
                f"{row['examples']:,}",
                f"{row['before']:.4g}",
                f"{row['after']:.4g}",
                f"{row['better']:,}",
                f"{row['worse']:,}",
                f"{row['p']:.3g}",
            )
            for row in content["rows"]
        )
        header = ("held-out data", "examples", content["before"], "retuned")
        header += ("better on", "worse on", "p")
        notes = (
            f"The {content['measure']}, and the numbers of examples with a smaller and "
            "a larger error than before.",
            "p: the probability of at least this difference if the retuned model were "
            f"as good. Below {content['level']:g}, it is called worse.",
        )
        return [Section("retuning", title, notes, header, rows)]
