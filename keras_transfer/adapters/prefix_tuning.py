"""PrefixTuning: train keys and values that each attention layer also attends to."""

from __future__ import annotations

import dataclasses

import keras

from keras_transfer import _keras
from keras_transfer._arguments import whole_number
from keras_transfer.adapters.adapter import Adapter
from keras_transfer.adapters.adapter_part import add
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import gate_value
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.adapter_part import take_away
from keras_transfer.adapters.attention_layers import attention_targets
from keras_transfer.adapters.attention_layers import heads_of
from keras_transfer.adapters.in_place.compiled_model import activate
from keras_transfer.adapters.in_place.compiled_model import retrace
from keras_transfer.adapters.in_place.compiled_model import stale_optimizers
from keras_transfer.adapters.in_place.layer_state import all_or_nothing
from keras_transfer.adapters.in_place.layer_state import own_recipes
from keras_transfer.adapters.plan import Plan
from keras_transfer.adapters.positions import position_targets
from keras_transfer.adapters.prefix_part import PrefixPart
from keras_transfer.adapters.prefix_part import PrefixPositions
from keras_transfer.adapters.switching import check_known
from keras_transfer.adapters.targets import select
from keras_transfer.adapters.targets import Target
from keras_transfer.adapters.techniques import what_fits
from keras_transfer.backbones.layer_paths import located


@keras.saving.register_keras_serializable("keras_transfer")
class PrefixTuning(Adapter):
    """Train keys and values that come before those of the text in each attention layer.

    A head computes `softmax(q [P_k; K]^T / sqrt(d)) [P_v; V]`. K and V are the keys and
    values of the text. P_k and P_v have `tokens` rows, train, and are the same for all
    texts. Everything else is frozen. Each text may attend to the whole prefix, also
    where a mask hides parts of the text or the attention is causal. The prefix has no
    position. The lengths of inputs and outputs, the positions of the text, pooled
    outputs and the cache of `generate()` stay as they are. With `projection=None` this
    is P-tuning v2. Each block then trains 2 * tokens * (heads of the keys) * (size of a
    head) parameters.

    The paper finds that training the prefix itself is unstable. With `projection=width`
    P_k and P_v are the outputs of a network, `tanh(E D + d) U + u`. E has `tokens` rows
    of the width of the model. All layers share E, D and d, and each has its own U and
    u. After training, `kt.adapters.fold_projection` replaces the network by its
    outputs.

    Unlike LoRA, the adapter changes the outputs as soon as it is attached, because each
    query gives a part of its attention to the prefix. `kt.adapters.merge` raises an
    error. It needs a larger learning rate than LoRA, such as 0.01 with Adam.

    PEFT calls this `PrefixTuningConfig`.

    Args:
        tokens: Number of keys in each layer, a whole number, 1 or more. Defaults to 16.
        projection: Number of hidden units of the network, or None for no network.
            Defaults to None.
        targets: None for all self-attention layers, a regular expression that is
            searched in the paths of attention layers, or a list of expressions and
            layers. Attention layers of Keras and most decoders and encoders of
            keras-hub can be targets. Defaults to None.
        shift_positions: Whether the learned positions of the text begin at `tokens`, as
            in PEFT and the papers' code. A text then has `tokens` positions fewer. PEFT
            needs this for a prefix of BERT or GPT-2. Defaults to False.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        inputs = keras.Input((None, 8))
        attention = keras.layers.MultiHeadAttention(num_heads=2, key_dim=4)
        model = keras.Model(inputs, attention(inputs, inputs))
        kt.adapters.PrefixTuning(tokens=3).attach(model)
        assert [tuple(v.shape) for v in model.trainable_weights] == [(3, 2, 4)] * 2
        ```

    Raises:
        ValueError: If a number is out of range. When attaching, if a model without
            learned positions is to shift them.

    Reference:
        X. Li and P. Liang, 2021, "Prefix-Tuning: Optimizing Continuous Prompts for
        Generation", arXiv:2101.00190; X. Liu et al., 2022, "P-Tuning v2",
        arXiv:2110.07602.
    """

    # The layers are found by how they compute, because keras_hub is imported late.
    parts = {keras.layers.Layer: PrefixPart}

    def __init__(
        self,
        tokens: int = 16,
        projection: int | None = None,
        targets: object = None,
        shift_positions: bool = False,
    ) -> None:
        super().__init__(targets)
        self.shift_positions = bool(shift_positions)
        self.tokens = whole_number("tokens", tokens)
        if projection is not None:
            projection = whole_number("projection", projection)
        self.projection = projection

    def find(self, model: keras.Layer) -> list[Target]:
        """Return the attention layers that get a prefix."""
        found, fit = attention_targets(model)
        if self.targets is not None:
            why = "PrefixTuning cannot adapt; it adapts self-attention layers"
            return select(model, self.targets, found, why)
        if not found:
            raise ValueError(
                f"The model {model.name!r} has no attention layer that is known, so "
                f"PrefixTuning has nothing to attach to. {what_fits(model)}"
            )
        for target in found if len(fit) < len(found) else ():
            heads_of(target)  # raises and says why
        return found

    def fitting(self, model: keras.Layer) -> tuple[list[Target], int]:
        """Return the targets. All of them fit, or `find` raises."""
        return self.find(model), 0

    def part(self, target: Target) -> Part:
        """Return the prefix of one attention layer."""
        heads = heads_of(target)
        width = heads.width if self.projection is not None else None
        return PrefixPart(self.tokens, self.projection, width)

    def plan(
        self,
        model: keras.Layer,
        targets: list[Target] | None = None,
        *,
        train: object = None,
    ) -> Plan:
        """Return the changes that `attach` would make, without changing `model`."""
        plan = super().plan(model, targets, train=train)
        order = {id(layer): i for i, layer in enumerate(located(model).values())}
        first = min(plan.pairs, key=lambda pair: order[id(pair[0].layer)])
        first[1].leads = self.projection is not None
        widths = {part.width for _, part in plan.pairs}
        if len(widths) > 1:
            raise ValueError(
                f"The attention layers have inputs of the widths {sorted(widths)}, so "
                "they cannot share one network. Use projection=None."
            )
        if not self.shift_positions:
            return plan
        shifted = position_targets(model, self.tokens)
        if not shifted:
            raise ValueError(
                f"shift_positions=True has no meaning for {model.name!r}, because it "
                "has no learned positions. Leave it out."
            )
        parts = tuple((target, PrefixPositions(self.tokens)) for target in shifted)
        return dataclasses.replace(plan, pairs=plan.pairs + parts)

    def link(self, parts: list[Part]) -> None:
        """Let all parts compute with the shared weights of the leading part."""
        parts = [part for part in parts if isinstance(part, PrefixPart)]
        leader = next((part for part in parts if part.leads), None)
        for part in parts if leader is not None else ():
            part.follow(leader)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        names = ("tokens", "projection", "shift_positions")
        return super().get_config() | {name: getattr(self, name) for name in names}


def fold_projection(model: keras.Layer, name: str = "default") -> keras.Layer:
    """Replace the network of a `PrefixTuning` by the keys and values it computes.

    The outputs stay the same, and the model needs less memory. The keys and values then
    train themselves, as with `projection=None`. Call this after training, and before
    you save the adapter for PEFT.

    Args:
        model: A model with the adapter.
        name: Name of the adapter. Defaults to `"default"`.

    Returns:
        The model.

    Raises:
        ValueError: If the model has no such adapter, it is not a `PrefixTuning` with a
            network, or the optimizer has made updates.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        inputs = keras.Input((None, 8))
        attention = keras.layers.MultiHeadAttention(num_heads=2, key_dim=4)
        model = keras.Model(inputs, attention(inputs, inputs))
        kt.adapters.PrefixTuning(tokens=3, projection=16).attach(model)
        kt.adapters.fold_projection(model)
        assert kt.adapters.attached(model)["default"].projection is None
        ```

    Reference:
        X. Li and P. Liang, 2021, "Prefix-Tuning: Optimizing Continuous Prompts for
        Generation", arXiv:2101.00190, section 4.3.
    """
    check_known(model, name)
    pairs = [
        (host, part)
        for host, part in all_parts(model)
        if part.name == name and isinstance(part, PrefixPart)
    ]
    if not any(part.projection for _, part in pairs):
        raise ValueError(
            f"The adapter {name!r} of {model.name!r} has no network of a PrefixTuning, "
            "so there is nothing to fold. A network is made by projection=width."
        )
    replacements = stale_optimizers(model, new_weights=True)
    gates = {part.name: gate_value(part) for _, part in all_parts(model)}
    new = [(host, part, part.folded(host)) for host, part in pairs]
    with all_or_nothing(model):
        for host, part, folded in new:
            take_away(host, part)
            add(host, folded)
        for layer in _keras.flat_layers(model):
            if name in own_recipes(layer):
                old = own_recipes(layer)[name]
                config = old.get_config() | {"projection": None}
                own_recipes(layer)[name] = type(old).from_config(config)
        activate(model, gates)
        retrace(model, replacements)
    return model
