"""lora_plus: a higher learning rate for the B of each low-rank pair."""

from __future__ import annotations

import keras

from keras_transfer._arguments import number
from keras_transfer.backbones.groups import LayerGroups
from keras_transfer.optimizers.discriminative import as_groups
from keras_transfer.optimizers.discriminative import discriminative

# The last part of the paths of the matrices that start at zero.
B_MATRICES = r"(^|/)lora_b$"


def lora_plus(
    optimizer: keras.Optimizer,
    model_or_groups: keras.Model | LayerGroups,
    *,
    ratio: float = 16.0,
) -> keras.Optimizer:
    """Return an optimizer that trains the B of each LoRA pair at a higher rate.

    The update of B is `ratio` times the learning rate, and that of A and of all other
    weights, such as the head, is the learning rate. In a wide layer, equal rates for A
    and B change the features too little. The paper uses a ratio of 16 for difficult
    tasks, with a learning rate below that of plain LoRA. It is `discriminative` with
    one rate for these matrices, so schedules, clipping and saved models work as usual.

    Args:
        optimizer: As in `discriminative`, an optimizer that has made no update yet.
        model_or_groups: The built model with LoRA, or its `LayerGroups`.
        ratio: Float of 1 or more. Defaults to 16.

    Returns:
        A new optimizer, of a subclass of the class of `optimizer`.

    Raises:
        ValueError: If no LoRA pair trains in the model, if the ratio is below 1, or if
            `discriminative` does not support the optimizer.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        kt.adapters.LoRA(rank=2, targets="all-linear").attach(model)
        adam = keras.optimizers.Adam(1e-3)
        model.compile(kt.optimizers.lora_plus(adam, model), "mse")
        assert 16.0 in model.optimizer.rates.values()
        ```

    Reference:
        Hayou et al., 2024, "LoRA+: Efficient Low Rank Adaptation of Large Models",
        arXiv:2402.12354.
    """
    why = "B would train more slowly than A, and LoRA+ is the opposite"
    number("ratio", ratio, 1, why=why)
    groups = as_groups(model_or_groups)
    found = [
        group.name
        for group in groups
        if any(v.trainable and v.path.endswith("lora_b") for v in group.variables)
    ]
    if not found:
        raise ValueError(
            f"No LoRA pair trains in '{groups.model.name}', so a rate for B has no "
            "effect. Attach kt.adapters.LoRA first."
        )
    rates = {(name, B_MATRICES): float(ratio) for name in found}
    return discriminative(optimizer, groups, layer_decay=1.0, rates=rates)
