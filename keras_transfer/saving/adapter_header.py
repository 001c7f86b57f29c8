"""The JSON header of an adapter file: the recipe, its layers and the base model."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from collections.abc import Mapping

import keras

from keras_transfer._version import __version__
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter import Plan
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.rank_and_alpha import RankedAdapter
from keras_transfer.adapters.targets import by_pattern
from keras_transfer.adapters.targets import Target
from keras_transfer.adapters.techniques import techniques
from keras_transfer.saving.base_model import Fingerprint
from keras_transfer.saving.strict_json import parse_json
from keras_transfer.saving.tensor_file import TensorFile

KEY = "keras_transfer"
FORMAT = 1
# A file contains paths instead of regular expressions. An expression from a file could
# run forever, and would depend on the depth of the backbone in the model. Targets that
# are not one of these names are the layers with tensors in the file.
NAMED_TARGETS = (None, "all-linear")


@dataclasses.dataclass(frozen=True)
class Header:
    """The information in an adapter file in addition to the tensors.

    Args:
        name: Name of the adapter when it was saved.
        technique: Class of its recipe.
        config: Config of the recipe, with paths instead of regular expressions, and
            without `targets` unless `targets` is in `NAMED_TARGETS`.
        changes: Dict of a layer's path to the values in the part's config that differ
            from the recipe, for example after a weighted sum.
        base: Fingerprint of the base model.
        num_tensors: Number of tensors in the file.
        dtype: `"float32"` or `"float16"`.
    """

    name: str
    technique: type[Adapter]
    config: dict
    changes: dict[str, dict]
    base: Fingerprint
    num_tensors: int
    dtype: str

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the file."""
        said = {
            "format": FORMAT,
            "name": self.name,
            "technique": keras.saving.get_registered_name(self.technique),
            "config": self.config,
            "changes": self.changes,
            "base": dataclasses.asdict(self.base),
            "num_tensors": self.num_tensors,
            "dtype": self.dtype,
            "versions": {KEY: __version__, "keras": keras.__version__},
        }
        return {KEY: json.dumps(said, separators=(",", ":"), allow_nan=False)}

    def adapter(self, places: Mapping[str, str]) -> Adapter:
        """Return the recipe for a model whose paths can differ from the file's paths.

        Args:
            places: Dict of a path in the file to the path in the model.

        Raises:
            ValueError: If the technique does not accept the config.
        """
        config = dict(self.config)
        for key, value in config.items():
            if isinstance(value, dict):
                there = {p: v for p, v in value.items() if p in places}
                config[key] = {re.escape(places[p]): v for p, v in there.items()}
            elif _are_texts(value):
                config[key] = [re.escape(places[p]) for p in value if p in places]
        config.setdefault("targets", expressions(places.values()))
        try:
            recipe = self.technique.from_config(config)
            return recipe.of_file() if isinstance(recipe, RankedAdapter) else recipe
        except (TypeError, ValueError, KeyError) as problem:
            raise ValueError(
                f"The config {config} is not valid for {self.technique.__name__}: "
                f"{problem}"
            ) from problem

    def plan(self, model: keras.Layer, targets: Mapping[str, Target]) -> Plan:
        """Return the plan of the adapter, with the parts that the file describes.

        Args:
            model: The model.
            targets: Dict of a path in the file to the layer in the model.

        Raises:
            ValueError: If the config or a part does not fit.
        """
        adapter = self.adapter({place: x.path for place, x in targets.items()})
        layers = {id(target.layer) for target in targets.values()}
        try:
            by_itself = {id(target.layer) for target in adapter.fitting(model)[0]}
        except ValueError:  # the technique has no default targets for this model
            by_itself = set()
        if by_itself != layers:
            adapter.targets = expressions(target.path for target in targets.values())
        plan = adapter.plan(model, list(targets.values()))
        places = {target.path: place for place, target in targets.items()}
        pairs = tuple(
            (target, self.changed(part, places.get(target.path, "")))
            for target, part in plan.pairs
        )
        return dataclasses.replace(plan, pairs=pairs)

    def changed(self, part: Part, place: str) -> Part:
        """Return the part of the recipe with the changes that the file gives for it.

        Raises:
            ValueError: If the part does not accept a change.
        """
        changes = self.changes.get(place)
        if not changes:
            return part
        config = part.get_config()
        for key, value in changes.items():
            if key not in config or not _same_kind(value, config[key]):
                raise ValueError(
                    f"The file gives {key}={value!r} for the part at {place!r}, which "
                    f"a {type(part).__name__} does not accept."
                )
        return type(part).from_config(config | changes)


def header_of(
    adapter: Adapter,
    parts: Mapping[str, tuple[Target, Part]],
    *,
    name: str,
    base: Fingerprint,
    num_tensors: int,
    dtype: str,
) -> Header:
    """Return the header for an attached adapter, whose parts are given by path.

    Raises:
        ValueError: If its class is not registered, or its config contains more than
            plain values.
    """
    kind = type(adapter)
    if kind not in techniques().values():
        raise ValueError(
            f"{kind.__name__} is not registered, so a file cannot refer to it. Put "
            "@keras.saving.register_keras_serializable('my_package') before the class."
        )
    config = adapter.get_config()
    if config.get("targets") not in NAMED_TARGETS:
        del config["targets"]
    paths = {place: target.path for place, (target, _) in parts.items()}
    for key, value in config.items():
        if isinstance(value, dict):
            found = {p: by_pattern(value, path, None) for p, path in paths.items()}
            config[key] = {p: v for p, v in found.items() if v is not None}
        elif _are_texts(value):
            pattern = dict.fromkeys(value, True)
            config[key] = [p for p, x in paths.items() if by_pattern(pattern, x, False)]
    header = Header(name, kind, config, {}, base, num_tensors, dtype)
    _check_config(config, set(parts))
    plain = header.adapter(paths)
    for place, (target, part) in parts.items():
        given = plain.part(target).get_config()
        own = part.get_config()
        changed = {k: v for k, v in own.items() if k != "name" and v != given[k]}
        if not all(isinstance(value, int | float) for value in changed.values()):
            raise ValueError(
                f"The part on {place!r} has {changed}, which differs from its recipe. "
                "A file can save only numbers that differ."
            )
        if changed:
            header.changes[place] = changed
    return header


def read_header(file: TensorFile) -> Header:
    """Return the header of a file after all of its entries have been checked.

    Raises:
        ValueError: If the header is missing, has a newer format or an unknown
            technique, or is damaged.
    """
    if KEY not in file.metadata:
        raise ValueError(
            f"{str(file.path)!r} has no recipe of keras_transfer, so kt.save_adapter "
            "did not write it. For an adapter of Hugging Face PEFT, pass its folder."
        )
    try:
        said = parse_json(file.metadata[KEY])
        if not isinstance(said, dict):
            raise ValueError("it is not a dict.")
        if said.get("format") != FORMAT:
            raise ValueError(
                f"its format is {said.get('format')!r}, but this version of "
                f"keras_transfer, {__version__}, reads only format {FORMAT}. Try a "
                "newer version."
            )
        return _checked(said, set(file.specs))
    except (ValueError, TypeError, KeyError) as problem:
        raise ValueError(
            f"The recipe in {str(file.path)!r} cannot be used: {problem}"
        ) from problem


def expressions(paths: Iterable[str]) -> list[str]:
    """Return targets that match only the layers at `paths`."""
    return [f"^{re.escape(path)}$" for path in paths]


def _checked(said: dict, tensors: set[str]) -> Header:
    kinds = {
        "name": str,
        "technique": str,
        "config": dict,
        "changes": dict,
        "base": dict,
        "num_tensors": int,
        "dtype": str,
    }
    for key, kind in kinds.items():
        if not isinstance(said.get(key), kind):
            raise ValueError(f"{key!r} is missing or not of type {kind.__name__}.")
    known = techniques()
    if said["technique"] not in known:
        raise ValueError(
            f"the technique {said['technique']!r} is unknown. Known techniques are "
            f"{sorted(known)}. If you wrote the technique, first import the module "
            "that registers it."
        )
    if said["num_tensors"] != len(tensors):
        raise ValueError(
            f"it counts {said['num_tensors']} tensors, but the file has {len(tensors)}."
        )
    places = {name.rpartition("/")[0] for name in tensors}
    _check_config(said["config"], places)
    for place, changes in said["changes"].items():
        if place not in places or not isinstance(changes, dict):
            raise ValueError(f"its changes name {place!r}, which has no tensors.")
        if not all(isinstance(x, int | float) for x in changes.values()):
            raise ValueError(
                f"its changes of {place!r} are {changes!r}, which are not all numbers."
            )
    base = Fingerprint(**said["base"])
    for field in dataclasses.fields(Fingerprint):
        kind = int if field.name == "parameters" else str
        if not isinstance(getattr(base, field.name), kind):
            raise ValueError(
                f"{field.name!r} of its base is not of type {kind.__name__}."
            )
    values = {key: said[key] for key in kinds}
    values |= {"technique": known[said["technique"]], "base": base}
    return Header(**values)


def _check_config(config: dict, places: set[str]) -> None:
    """Check that a config contains only plain values, not objects of Keras."""
    for key, value in config.items():
        if key == "targets" and value not in NAMED_TARGETS:
            raise ValueError(f"its targets are {value!r}, not one of {NAMED_TARGETS}.")
        if isinstance(value, dict) or _are_texts(value):
            numbers = value.values() if isinstance(value, dict) else ()
            good = set(value) <= places and all(map(_is_number, numbers))
        else:
            several = value if isinstance(value, list) else [value]
            good = all(
                isinstance(x, str | bool | None) or _is_number(x) for x in several
            )
        if not good:
            raise ValueError(
                f"{key}={value!r} is not a plain value. An adapter file can contain "
                "only numbers, strings, and paths of its layers."
            )


def _is_number(value: object) -> bool:
    """Return whether a value is a Python number, because JSON has no NumPy numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(each, str) for each in value)


def _same_kind(value: float, own: object) -> bool:
    """Return whether a number of a file has the type of the number in a config."""
    if isinstance(own, bool) or isinstance(value, bool):
        return type(value) is type(own)
    return isinstance(own, float) or (isinstance(own, int) and isinstance(value, int))
