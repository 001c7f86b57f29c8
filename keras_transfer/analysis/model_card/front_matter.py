"""The block of metadata at the beginning of a model card of Hugging Face."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
OURS = ("library_name", "base_model", "base_model_relation")
# "organization/name", as models are named on the Hugging Face Hub.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def front_matter(values: Mapping[str, object]) -> str:
    """Return metadata as YAML between two lines of dashes.

    Each value is written as JSON, which is YAML too, so no text can end the block or
    add a key.
    """
    lines = [
        f"{key}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for key, value in values.items()
    ]
    # YAML has more line breaks than JSON.
    text = "\n".join(lines).replace("\x85", "\\u0085")
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"---\n{text}\n---\n"


def checked_metadata(metadata: Mapping[str, object] | None) -> dict[str, object]:
    """Return metadata as a new dict.

    Raises:
        TypeError: If it is not a dict.
        ValueError: If a key is not a word or is set by the card itself, or a value is
            not JSON.
    """
    if not isinstance(metadata, Mapping | None):
        raise TypeError(
            f"metadata={metadata!r} is not a dict. Pass values by key, such as "
            '{"license": "mit", "language": ["en"]}.'
        )
    found = dict(metadata or {})
    for key, value in found.items():
        if key in OURS:
            raise ValueError(
                f"metadata has the key {key!r}, which the card sets itself. Leave it "
                "out, and pass base_model= for the pretrained model."
            )
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise ValueError(
                f"metadata has the key {key!r}. A key is a word, such as 'license'."
            )
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"metadata[{key!r}] = {value!r} cannot be written: {error}. Use text, "
                "numbers, lists and dicts."
            ) from error
    return found
