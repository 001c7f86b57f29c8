"""The block of metadata at the beginning of a model card of Hugging Face."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
OURS = ("library_name", "base_model", "base_model_relation")
WORDS = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")  # not as text
# Characters that JSON may contain, and YAML may not or has as line breaks.
NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# "organization/name", as models are named on the Hugging Face Hub.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def front_matter(values: Mapping[str, object]) -> str:
    """Return metadata as YAML between two lines of dashes.

    Each value is written as JSON, which is YAML too, so no text can end the block or
    add a key.
    """
    lines = [f"{_key(key)}: {_yaml(value)}" for key, value in values.items()]
    text = "\n".join(lines)
    return f"---\n{text}\n---\n"


def _key(key: str) -> str:
    return json.dumps(key) if key.lower() in WORDS else key


def _yaml(value: object) -> str:
    """Return a value as JSON that YAML reads in the same way."""
    if isinstance(value, Mapping):
        # json.dumps knows how keys that are not text become text.
        keys = json.loads(json.dumps(dict.fromkeys(value)))
        pairs = zip(keys, value.values(), strict=True)
        return "{" + ", ".join(f"{_yaml(k)}: {_yaml(v)}" for k, v in pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, float):  # YAML 1.1 reads 1e-05 as text, and 1.0e-05 not
        return text if "." in text else text.replace("e", ".0e")
    return NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
