"""The model_card function, which collects what is known about a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_transfer import _keras
from keras_transfer._version import __version__
from keras_transfer.adapters.switching import active
from keras_transfer.adapters.switching import attached
from keras_transfer.analysis.model_card.card import ModelCard
from keras_transfer.analysis.model_card.front_matter import checked_metadata
from keras_transfer.analysis.model_card.front_matter import HUB_ID
from keras_transfer.analysis.report.saved_result import SavedResult
from keras_transfer.analysis.report.section import Section
from keras_transfer.analysis.report.tables import clean
from keras_transfer.analysis.report.tables import MISSING

USE, LIMITS = "Intended use", "Limits"
# Results that a card should have, by kind: what they are, and how to get them.
EXPECTED = {
    "report": ("training and evaluation", "kt.report(model, history, data=...)"),
    "verdict": ("the comparison with training from scratch", "kt.compare(...)"),
    "fairness audit": ("the audit by groups", "kt.analysis.fairness(...)"),
    "calibration": ("calibration", "kt.calibrate(...).calibration"),
    "energy use": ("energy", "kt.callbacks.Energy().use"),
}
NOT_SHOWN = "not in a card"  # instead of an example
# Sections of a report that the card has in another form, or that show raw examples.
LEFT_OUT = ("title", "model", "worst", "missing")


def model_card(
    model: keras.Model,
    name: str,
    *,
    base_model: str | None = None,
    data: str | Sequence[str] | None = None,
    results: Sequence[SavedResult] = (),
    texts: Mapping[str, str] | None = None,
    metadata: Mapping[str, object] | None = None,
) -> ModelCard:
    """Return a model card: what a model was made from, how, and what is known about it.

    The card reads the classes, sizes, adapters and quantization from the model. What
    only you can know, such as the data, you give. What was measured comes from
    `results`: they appear as they print, except the worst examples of a report, which
    are raw data. A part that nobody gave is "not recorded", with a line on how to
    record it. The card makes no statement of its own about quality or risk.

    Args:
        model: The model.
        name: Name of the model for readers.
        base_model: Name of the pretrained model, as on the Hugging Face Hub
            ("google-bert/bert-base-uncased") or of a preset. Defaults to None, not
            recorded.
        data: What the model was trained on, in one or several sentences or names.
            Defaults to None, not recorded.
        results: Results with tables: of `kt.report`, `kt.compare`, `kt.adapt`,
            `kt.analysis.fairness`, `kt.calibrate`, `kt.callbacks.Energy` and others.
            At most one of each kind. Defaults to `()`.
        texts: Dict from a heading to its text. "Intended use" and "Limits" have their
            own places, and others follow them. Text is shown as it is, so Markdown and
            HTML in it have no effect. Defaults to None.
        metadata: Dict of more values for the beginning of the Markdown, which the Hub
            reads, such as `{"license": "mit", "language": ["en"]}`. Defaults to None.

    Returns:
        A `kt.analysis.ModelCard`. Print it, or call `save` with the suffix `.md`,
        `.html`, `.json` or `.txt`, or `save_beside` with the files of the model.

    Raises:
        TypeError: If `model` is not a Keras model, or a result or text has another
            type.
        ValueError: If the model is not built, two results have the same kind, or
            metadata cannot be written.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile("adam", "mse")
        energy = kt.callbacks.Energy()
        x, y = np.ones((8, 4)), np.ones((8, 2))
        history = model.fit(x, y, callbacks=[energy], verbose=0)
        card = kt.model_card(
            model,
            "Two numbers",
            data="Eight rows of ones, made for this example.",
            results=[kt.report(model, history), energy.use],
            texts={"Limits": "It has seen nothing but ones."},
        )
        print(card)
        assert "Eight rows of ones" in card.to_markdown()
        ```

    Reference:
        Mitchell et al. 2019, Model Cards for Model Reporting, arXiv:1810.03993. Hugging
        Face, "Model Cards", huggingface.co/docs/hub/model-cards.
    """
    _check(model, name)
    texts = _checked_texts(texts)
    found = _by_kind(results)
    given = _sentences(data)
    _check_strings("base_model", [] if base_model is None else [base_model])
    adapters = attached(model)
    metadata = _metadata(base_model, bool(adapters), model) | checked_metadata(metadata)
    title = Section("title", f"Model card: {clean(name)}")
    parts = [("", [title, _made_from(model, base_model, given)])]
    parts += [("", [_text(USE, texts.pop(USE, None))])]
    for kind in dict.fromkeys([*EXPECTED, *found]):
        if kind in found:
            parts.append((kind, _sections_of(found[kind], found)))
    parts += [("", [_text(LIMITS, texts.pop(LIMITS, None))])]
    parts += [("", [_text(heading, text)]) for heading, text in texts.items()]
    missing = [how for kind, how in EXPECTED.items() if kind not in found]
    if missing:
        parts.append(("", [_missing(missing)]))
    content = {
        "name": clean(name),
        "metadata": metadata,
        "parts": [
            {"result": kind, "sections": [dataclasses.asdict(each) for each in shown]}
            for kind, shown in parts
        ],
        "results": {kind: _content(each) for kind, each in found.items()},
    }
    bodies = {kind: each.html_body() for kind, each in found.items()}
    bodies.pop("report", None)  # it shows examples
    return ModelCard(content, bodies)


def _check(model: object, name: object) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model is a {type(model).__name__}, not a Keras model. Pass the model "
            "that the card describes."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so its size is unknown. Call it "
            "on one batch, or build it."
        )
    if not isinstance(name, str) or not clean(name):
        raise ValueError(f"name={name!r} is not a name. Pass text that is not empty.")


def _check_strings(argument: str, values: Sequence) -> None:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(
                f"{argument} has {value!r}, a {type(value).__name__}. The card shows "
                "text: describe it in words."
            )


def _sentences(data: object) -> list[str]:
    """Return the sentences about the data that are not empty."""
    given = [] if data is None else data
    given = given if isinstance(given, list | tuple) else [given]
    _check_strings("data", given)
    return [each for each in given if clean(each)]


def _checked_texts(texts: Mapping[str, str] | None) -> dict[str, str]:
    if not isinstance(texts, Mapping | None):
        raise TypeError(
            f"texts={texts!r} is not a dict. Pass text by heading, such as "
            f'{{"{LIMITS}": "English only."}}.'
        )
    texts = dict(texts or {})
    _check_strings("texts", [*texts, *texts.values()])
    return texts


def _by_kind(results: Sequence[SavedResult]) -> dict[str, SavedResult]:
    found: dict[str, SavedResult] = {}
    several = isinstance(results, Iterable) and not isinstance(results, str)
    for each in results if several else [results]:
        if not isinstance(each, SavedResult):
            raise TypeError(
                f"results has a {type(each).__name__}, which is not a result of this "
                "package with tables. Pass what kt.report, kt.compare and others "
                "return, and put other figures into `texts`."
            )
        if each.kind in found:
            raise ValueError(
                f"results has two of the kind {each.kind!r}. A card has one of each "
                "kind: choose one, and describe the other in `texts`."
            )
        found[each.kind] = each
    return found


def _sections_of(result: SavedResult, found: Mapping) -> list[Section]:
    """Return the sections of a result, without those that the card has elsewhere."""
    out = {*LEFT_OUT, "energy"} if "energy use" in found else {*LEFT_OUT}
    if result.kind != "report":
        return list(result.sections())
    return [each for each in result.sections() if each.name not in out]


def _content(result: SavedResult) -> dict:
    """Return the content of a result, without the examples of a report."""
    content = result.to_dict()
    evaluation = content.get("evaluation") if result.kind == "report" else None
    if evaluation:
        for each in evaluation.get("by_output", {"": evaluation}).values():
            for row in (each or {}).get("worst", ()):
                row["example"] = NOT_SHOWN
    return content


def _metadata(base_model: str | None, adapted: bool, model: keras.Model) -> dict:
    """Return the metadata that the card sets. Only a name of the Hub is linked."""
    found = {"library_name": "keras"}
    name = (base_model or "").removeprefix("hf://")  # as keras-hub's presets
    if HUB_ID.fullmatch(name):
        relation = "quantized" if _quantized(model) else "finetune"
        found["base_model"] = name
        found["base_model_relation"] = "adapter" if adapted else relation
    return found


def _made_from(model: keras.Model, base_model: str | None, data: list[str]) -> Section:
    backbone = getattr(model, "backbone", None)
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    rows = [
        ("class", type(model).__name__),
        ("backbone", MISSING if backbone is None else type(backbone).__name__),
        ("pretrained model", MISSING if base_model is None else clean(base_model)),
        *[("trained on", clean(each)) for each in data or [MISSING]],
        ("parameters", f"{model.count_params():,}"),
        ("trainable parameters", f"{trained:,}"),
    ]
    gates = active(model)
    for name, recipe in attached(model).items():
        state = "in use" if name in gates else "not in use"
        rows.append(("adapter", f"{clean(name)}: {type(recipe).__name__}, {state}"))
    quantized = _quantized(model)
    if quantized:
        rows.append(("quantized layers", ", ".join(quantized)))
    rows.append(("made with", f"keras_transfer {__version__}, Keras {keras.version()}"))
    header = ("what", "value")
    return Section(
        "made_from", "What it was made from", (), header, tuple(rows), (0, 1)
    )


def _quantized(model: keras.Model) -> list[str]:
    """Return the numbers of quantized layers as text, by format."""
    counts: dict[str, int] = {}
    for layer in _keras.flat_layers(model):
        mode = getattr(layer, "quantization_mode", None)
        if mode is not None:
            counts[mode] = counts.get(mode, 0) + 1
    return [f"{count} in {mode}" for mode, count in sorted(counts.items())]


def _text(heading: str, text: str | None) -> Section:
    lines = [line for line in map(clean, (text or "").split("\n")) if line]
    return Section("text", clean(heading), tuple(lines) or (MISSING,))


def _missing(missing: Sequence[tuple[str, str]]) -> Section:
    title, header = "What was not recorded", ("what", "how to record it")
    return Section("missing", title, (), header, tuple(missing), (0, 1))
