"""retune: train on new data with replay of old data, and export if it is not worse."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer._arguments import one_of
from keras_transfer._arguments import whole_number
from keras_transfer.backbones.compiled_model import check_built
from keras_transfer.data.replay import replay
from keras_transfer.export.serving import export_serving
from keras_transfer.fine_tuning.unchanged import ModelState
from keras_transfer.retuning.errors import errors_of
from keras_transfer.retuning.errors import outputs_of
from keras_transfer.retuning.paired_test import probability_of_worse
from keras_transfer.retuning.parts import checked_tests
from keras_transfer.retuning.parts import Parts
from keras_transfer.retuning.parts import parts_of
from keras_transfer.retuning.result import Retuning
from keras_transfer.retuning.served_outputs import newest
from keras_transfer.retuning.served_outputs import served_outputs

SHARE = 0.25  # that is held out by default
LEVEL = 0.05  # a p-value below it is called worse
EXPORT = ("samples", "preprocessor", "labels", "features", "reference")


def retune(
    model: keras.Model,
    new_data: tuple,
    old_data: tuple,
    directory: str | os.PathLike,
    *,
    replay_share: float = 0.5,
    held_out: float | Mapping[str, tuple] = 0.25,
    export: Mapping[str, object] | None = None,
    epochs: int = 3,
    batch_size: int = 32,
    verbose: int | str = 1,
) -> Retuning:
    """Train a served model on new data, and export it if it is not worse than before.

    A model that is in use for long meets new data. Training on these alone makes it
    forget the old ones, and an accuracy on the new ones alone does not show this. So
    this function

    1. holds out a part of the new and of the old data,
    2. trains the model on the rest by `fit`, with old examples in each batch
       (`kt.data.replay`), the compiled optimizer and the trainable flags of the model,
    3. compares its errors on both held-out parts with those of the newest version in
       `directory`, example by example,
    4. exports it as the next version, or refuses.

    It is refused if it is worse on one of the two parts: by the exact one-sided test of
    McNemar for classes, or Wilcoxon's signed rank test for numbers, at the level 0.05.
    The test cannot find a small loss with few held-out examples, and the table has
    their number. If it is refused or interrupted, or if anything fails, the model has
    its weights of before, and `directory` is unchanged. If `directory` has no version
    yet, the model is compared with itself as it was.

    An example is held out by its values, not by its place (`kt.data.is_held_out`). So
    the next call, with the data of this one among the old data, holds out the same
    examples, and no model is tested on an example that an earlier call has trained on.
    Keep the values exactly as they are, and keep `held_out`. The first version, too,
    must not have trained on the held-out old examples: its errors on them would be too
    small, and the retuned model would seem worse. So train it on the rows that
    `kt.data.is_held_out` leaves, or pass its test data as `held_out={"old": (x, y)}`.

    Args:
        model: The compiled model with the weights that are served. It has one output,
            and one label or one row of labels for each example.
        new_data: The new examples `(x, y)` as arrays or lists, as `model.fit` takes
            them, so as tokens if only the served model has a preprocessor.
        old_data: The examples `(x, y)` that the model has learned from, or a sample of
            them.
        directory: Folder of the versions, as in `kt.export_serving`.
        replay_share: Number above 0 and below 1, the share of old examples in a batch.
            `replay_share * batch_size` has to be a whole number. Defaults to 0.5.
        held_out: Number above 0 and below 1, the share of both data that is held out.
            Or a dict with test data `(x, y)` for "new", "old" or both, which no version
            has trained on. Of data without an entry, 0.25 are held out. Defaults to
            0.25.
        export: Dict of arguments of `kt.export_serving`: `samples`, `preprocessor`,
            `labels`, `features` and `reference`. Pass the same in each call. The model
            is exported with them once before the training, to a temporary folder.
            Defaults to None.
        epochs: Int, passes over the new data. Defaults to 3.
        batch_size: Int, examples in each batch, new and old. Defaults to 32.
        verbose: As in `fit`; 0 prints nothing. Defaults to 1, which also prints the
            result.

    Returns:
        A `kt.Retuning`, with `.exported`, `.version`, `.path` and a table.

    Raises:
        TypeError: If data are not arrays, or another argument has a wrong type.
        ValueError: If the model is not compiled or its optimizer has made updates, if a
            part has no examples, if labels do not fit, or if the newest version has no
            model or another one: its inputs or outputs differ.

    Example:
        ```python
        import pathlib
        import tempfile

        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss)
        x, y = np.random.rand(80, 4).astype("float32"), np.arange(80) % 2
        with tempfile.TemporaryDirectory() as folder:
            kt.export_serving(model, pathlib.Path(folder, "animals"))
            result = kt.retune(
                model,
                (x[:40], y[:40]),
                (x[40:], y[40:]),
                pathlib.Path(folder, "animals"),
                epochs=1,
                verbose=0,
            )
        print(result)
        assert result.version in (2, None)
        ```

    Reference:
        Chaudhry et al. 2019, On Tiny Episodic Memories in Continual Learning,
        arXiv:1902.10486. Dietterich 1998, Approximate Statistical Tests for Comparing
        Supervised Classification Learning Algorithms, Neural Computation 10 (McNemar's
        test).
    """
    check_built(model)
    tests = checked_tests(held_out)
    share = SHARE if tests else number("held_out", held_out, above=0, below=1)
    whole_number("epochs", epochs)
    export = _checked_export(export)
    served = newest(pathlib.Path(directory))
    parts = {
        name: parts_of(model, name, data, tests.get(name, share))
        for name, data in (("new", new_data), ("old", old_data))
    }
    train = replay(
        parts["new"].train,
        parts["old"].train,
        share=replay_share,
        batch_size=batch_size,
    )
    before = {}
    for name, part in parts.items():
        outputs = served_outputs(model, served, part.test)
        before[name], measure = errors_of(model, outputs, part.test[1])
        labels = part.train[1]  # checked with outputs of any values
        errors_of(model, np.resize(outputs, (len(labels), *outputs.shape[1:])), labels)
    if export:  # an error comes here, not after the training
        with tempfile.TemporaryDirectory() as folder:
            export_serving(model, pathlib.Path(folder, "trial"), **export)
    with _keras.scope(model):
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    state = ModelState(model, [*model.weights, *model.optimizer.variables])
    try:
        model.fit(train, epochs=epochs, shuffle=False, verbose=verbose)
        rows = _compared(model, parts, before)
        content = {
            "measure": measure,
            "level": LEVEL,
            "before": "before" if served is None else f"version {int(served.name)}",
            "rows": rows,
            "version": None,
            "path": None,
        }
        if all(row["p"] >= LEVEL for row in rows):
            version = 1 if served is None else int(served.name) + 1
            path = export_serving(model, directory, version, **export)
            content |= {"version": version, "path": str(path)}
        else:
            state.restore()
    except BaseException:  # also after an interrupt
        state.restore()
        raise
    result = Retuning(content)
    if verbose:
        print(result)
    return result


def _checked_export(export: Mapping[str, object] | None) -> dict[str, object]:
    if not isinstance(export, Mapping | None):
        raise TypeError(
            f"export={export!r} is not a dict. Pass arguments of kt.export_serving by "
            'name, such as {"labels": ["cat", "dog"]}.'
        )
    for name in export or ():
        one_of("A name in export", name, EXPORT)
    return dict(export or {})


def _compared(
    model: keras.Model, parts: Mapping[str, Parts], before: Mapping[str, np.ndarray]
) -> list[dict]:
    """Return a row for each of the held-out parts, with the errors before and after."""
    rows = []
    for name, (_, test) in parts.items():
        first = before[name]
        second, _ = errors_of(model, outputs_of(model, test), test[1])
        rows.append(
            {
                "data": name,
                "examples": len(first),
                "before": float(first.mean()),
                "after": float(second.mean()),
                "better": int((second < first).sum()),
                "worse": int((second > first).sum()),
                "p": probability_of_worse(first, second),
            }
        )
    return rows
