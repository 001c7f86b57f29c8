"""Restored: a recipe that attaches what an adapter file holds, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set

import keras

from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.targets import nearest
from keras_transfer.adapters.targets import Target
from keras_transfer.saving.adapter_header import expressions
from keras_transfer.saving.adapter_header import Recipe
from keras_transfer.saving.base_model import chosen
from keras_transfer.saving.base_model import HEAD
from keras_transfer.saving.base_model import joined
from keras_transfer.saving.base_model import paths_in
from keras_transfer.saving.base_model import weight_names
from keras_transfer.saving.tensor_file import TensorFile

LEAVE_OUT = " Pass head=False to load the adapter alone."


class Restored(Adapter):
    """Stands for a recipe while its adapter is attached out of a file.

    `attach` asks it in this order, before it changes the model: which layers, which
    weights of the model's own, which part for each layer, and to connect the parts.
    Each weight of a part is compared with the file before it is made, so that a file
    cannot ask for more memory than it has itself; and all get their values at the end.

    Args:
        plain: The recipe itself, which stays with the model.
        changes: Dict of path in the file to what the part there has in its config
            other than the recipe gives it.
        file: The file.
        targets: Dict of path in the file to the layer and its path in the model.
        own: Dict of name in the file to the model's own weights that are in it.
        wanted: Names of the tensors that all have to be used.
    """

    def __init__(
        self,
        plain: Adapter,
        changes: Mapping[str, dict],
        file: TensorFile,
        targets: Mapping[str, Target],
        own: Mapping[str, keras.Variable],
        wanted: Set[str],
    ) -> None:
        super().__init__(plain.targets)
        self.plain, self.changes, self.file = plain, changes, file
        self.own, self.wanted = own, wanted
        self.hosts = list(targets.values())
        self.places = {id(t.layer): place for place, t in targets.items()}
        self.parts = plain.parts
        self.made: list[tuple[str, Part]] = []

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the layers that the file has weights of."""
        return self.hosts

    def trained(
        self, model: keras.Layer, targets: list[Target]
    ) -> list[keras.Variable]:
        """Return the model's own weights that the recipe trains."""
        return self.plain.trained(model, targets)

    def part(self, target: Target) -> Part:
        """Return the part that the recipe gives a layer, with the file's changes."""
        place = self.places[id(target.layer)]
        part = self.plain.part(target)
        changes = self.changes.get(place)
        if changes:
            config = part.get_config()
            for key, value in changes.items():
                if key not in config or not _alike(value, config[key]):
                    raise ValueError(
                        f"{str(self.file.path)!r} gives the part at {place!r} "
                        f"{key}={value!r}, which a {type(part).__name__} does not take."
                    )
            part = type(part).from_config(config | changes)
        self._guard(part, place)
        self.made.append((place, part))
        return part

    def link(self, parts: list[Part]) -> None:
        """Connect the parts, and give them and the model's own weights their values."""
        self.plain.link(parts)
        names = dict(self.own)
        for place, part in self.made:
            part.__dict__.pop("weight")
            for name, variable in part.named_weights.items():
                names[joined(place, name)] = variable
        surplus = sorted(self.wanted - set(names))
        if surplus:
            raise ValueError(
                f"{str(self.file.path)!r} has the tensors {surplus[:5]}, which the "
                f"{type(self.plain).__name__} that it names has no weights for."
            )
        values = self.file.read(names)
        for name, variable in names.items():
            variable.assign(values[name])

    def resolved(self, targets: list[Target]) -> Adapter:
        """Return the recipe itself, which stays with the model."""
        return self.plain

    def __repr__(self) -> str:
        return repr(self.plain)

    def _guard(self, part: Part, place: str) -> None:
        """Have `part` make a weight only if the file has one of its name and shape."""
        make = part.weight

        def weight(
            name: str, shape: tuple, initializer: object, *, trainable: bool = True
        ) -> keras.Variable:
            if name != "gate":
                self.file.expect(joined(place, name), shape, "float32")
            return make(name, shape, initializer, trainable=trainable)

        part.__dict__["weight"] = weight


def restored(
    model: keras.Layer,
    file: TensorFile,
    recipe: Recipe,
    wanted: set[str],
    places: Mapping[str, keras.Layer],
) -> Restored:
    """Return what attaches the tensors `wanted` of a file, checked against `model`."""
    weights, paths = weight_names(places), paths_in(model)
    own = {key: weights[key] for key in sorted(wanted & set(weights))}
    targets = {}
    for key in sorted(wanted - set(own)):
        place = key.rpartition("/")[0]
        if place not in places:
            raise ValueError(
                f"{str(file.path)!r} has weights for the layer {place!r}, which "
                f"{model.name!r} does not have. {nearest(place, places)}"
                + (LEAVE_OUT if place.startswith(HEAD) else "")
            )
        targets[place] = Target(places[place], paths[id(places[place])])
    _check_head(model, file, wanted, weights)
    if not recipe.technique.parts:
        owners = [key.rpartition("/")[0] for key in own if not key.startswith(HEAD)]
        targets = {x: Target(places[x], paths[id(places[x])]) for x in owners}
    if not targets:
        raise ValueError(
            f"{str(file.path)!r} has no weights of an adapter for {model.name!r} "
            "without its head."
            if len(wanted) < len(file.specs)
            else f"{str(file.path)!r} has no weights of an adapter."
        )
    hosts = {place: target.path for place, target in targets.items()}
    adapter = recipe.adapter(hosts)
    if not _finds(adapter, model, targets):
        adapter.targets = expressions(hosts.values())
    trained = chosen(weights, adapter.trained(model, list(targets.values())))
    found, needed = ({k for k in x if not k.startswith(HEAD)} for x in (own, trained))
    if found != needed:
        raise ValueError(
            f"{str(file.path)!r} has the weights {sorted(found - needed)[:5]} of the "
            f"model's own, which {adapter!r} does not train, and lacks "
            f"{sorted(needed - found)[:5]}, which it does."
        )
    for key in sorted(found):
        file.expect(key, own[key].shape, own[key].dtype)
    # A class of its own, so that the printed line and errors name the technique.
    kind = type(type(adapter).__name__, (Restored,), {})
    return kind(adapter, recipe.changes, file, targets, own, wanted)


def _check_head(
    model: keras.Layer,
    file: TensorFile,
    wanted: set[str],
    weights: Mapping[str, keras.Variable],
) -> None:
    """Check that the head in a file, if it has one, is the model's.

    Raises:
        ValueError: If it is another.
    """
    if not any(key.startswith(HEAD) for key in wanted):
        return
    for key, variable in weights.items():
        if key.startswith(HEAD) and (variable.trainable or key in wanted):
            try:
                file.expect(key, variable.shape, variable.dtype)
            except ValueError as problem:
                raise ValueError(
                    f"The head of {model.name!r} is not that of the file: {problem}"
                    f"{LEAVE_OUT}"
                ) from problem


def _finds(adapter: Adapter, model: keras.Layer, targets: Mapping[str, Target]) -> bool:
    """Return whether the recipe by itself finds the layers of the file."""
    try:
        found = adapter.find(model)
    except ValueError:  # it has no default for this model
        return False
    layers = {id(target.layer) for target in targets.values()}
    return {id(target.layer) for target in found} == layers


def _alike(value: float, own: object) -> bool:
    """Return whether a number from a file is of the kind that a config has there."""
    if isinstance(own, bool) or isinstance(value, bool):
        return type(value) is type(own)
    return isinstance(own, float) or (isinstance(own, int) and isinstance(value, int))
