"""RankBudget: prune the triplets of AdaLoRA during `fit`, to a budget of ranks."""

from __future__ import annotations

import keras

from keras_transfer import _keras
from keras_transfer._arguments import number
from keras_transfer._arguments import whole_number
from keras_transfer.adapters.adalora import AdaLoRA
from keras_transfer.adapters.adalora import ranks
from keras_transfer.adapters.switching import active
from keras_transfer.adapters.switching import attached
from keras_transfer.optimizers.rank_allocation import Allocation
from keras_transfer.optimizers.rank_allocation import with_allocation

# The shares of the updates before the first choice, and after the last one.
WARMUP, FINAL = 0.1, 0.3


@keras.saving.register_keras_serializable(package="keras_transfer")
class RankBudget(keras.callbacks.Callback):
    """Prune the least important triplets of AdaLoRA during `fit`.

    A weight w with the gradient g has the sensitivity `|w g|`, the change of the loss
    if w were 0. Its average I is `beta_1 I + (1 - beta_1) |w g|`, and the average U of
    the deviation is `beta_2 U + (1 - beta_2) | |w g| - I |`. The importance of a
    triplet is `I U` of its number, plus the mean of `I U` over its column of P, plus
    the mean over its row of Q. In update t, with `warmup_steps` < t < T -
    `final_steps`, the budget is

        b(t) = target + (total - target) * (1 - (t - warmup) / (T - final - warmup))^3

    Every `interval` updates, the numbers of all but the b(t) most important triplets of
    all layers are set to 0. Between two choices they train, so a triplet can return.
    The last choice is at T - `final_steps`: from then on its zeros stay. `total` is
    `initial_rank` times the number of layers, and `target` is `rank` times it.

    The callback replaces the optimizer with a subclass that does this in the training
    step, so XLA, several replicas, several steps per execution and JAX work as usual.
    Importance and zeros are saved with the optimizer. A `fit` that continues it
    continues the schedule, because t counts the updates of the optimizer. With a new
    optimizer the schedule starts again. Put the callback after `GradualUnfreezing`,
    and before all callbacks that save the optimizer.

    Args:
        total_steps: Whole number T of updates. Defaults to None, for all updates of
            `fit`: epochs times batches per epoch.
        warmup_steps: Whole number of updates before the first choice. Defaults to None,
            for 10 % of T.
        final_steps: Whole number of last updates with fixed ranks. Defaults to None,
            for 30 % of T.
        interval: Whole number of updates from choice to choice. Defaults to 10.
        beta_1: Number from 0 to below 1. Defaults to 0.85.
        beta_2: Number from 0 to below 1. Defaults to 0.85.
        verbose: 1 prints the ranks at the end of `fit`, 0 prints nothing. Defaults
            to 1.

    Raises:
        ValueError: If a number is out of range, no update is left between warm-up and
            final steps, the number of batches is unknown, the model has no AdaLoRA in
            use, or the optimizer is not supported, averages weights (`use_ema`), or has
            made updates with another schedule. The model does not change.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
        kt.adapters.AdaLoRA(2, initial_rank=3, targets="all-linear").attach(model)
        model.compile("adam", "mse")
        x, y = np.random.rand(16, 4), np.random.rand(16, 4)
        budget = kt.callbacks.RankBudget(warmup_steps=2, final_steps=4, interval=2)
        model.fit(x, y, epochs=5, batch_size=8, callbacks=[budget], verbose=0)
        ```

    Reference:
        Q. Zhang et al., 2023, "AdaLoRA: Adaptive Budget Allocation for
        Parameter-Efficient Fine-Tuning", arXiv:2303.10512; PEFT, `RankAllocator`.
    """

    def __init__(
        self,
        total_steps: int | None = None,
        *,
        warmup_steps: int | None = None,
        final_steps: int | None = None,
        interval: int = 10,
        beta_1: float = 0.85,
        beta_2: float = 0.85,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        self.total_steps = _steps("total_steps", total_steps, 1)
        self.warmup_steps = _steps("warmup_steps", warmup_steps, 0)
        self.final_steps = _steps("final_steps", final_steps, 0)
        self.interval = whole_number("interval", interval)
        self.beta_1 = number("beta_1", beta_1, 0, below=1)
        self.beta_2 = number("beta_2", beta_2, 0, below=1)
        self.verbose = verbose

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        names = ("total_steps", "warmup_steps", "final_steps", "interval")
        names += ("beta_1", "beta_2", "verbose")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: dict) -> RankBudget:
        """Return the callback with the arguments of `get_config`."""
        return cls(**config)

    def set_params(self, params: dict) -> None:
        """Give the model an optimizer for the schedule, which depends on `fit`."""
        super().set_params(params)
        self._install()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Print the ranks."""
        if not self.verbose:
            return
        found = ranks(self.model)
        total, most = sum(found.values()), self._recipe().initial_rank * len(found)
        text = ", ".join(f"{path} {rank}" for path, rank in found.items())
        print(f"AdaLoRA keeps {total} of {most} triplets: {text}")

    def _install(self) -> None:
        model = self.model
        count = len(ranks(model))
        if not model.optimizer:
            raise ValueError(
                "The model has no optimizer, so it cannot train. Call model.compile() "
                "first."
            )
        old = _keras.inner_optimizer(model.optimizer)
        allocation = self._allocation(old, self._recipe().rank * count)
        if getattr(old, "allocation", None) == allocation:
            return
        updates = _keras.value(old.iterations)
        if updates > 0:
            had = getattr(old, "allocation", "no schedule")
            raise ValueError(
                f"The {type(old).__name__} has made {updates} updates with {had}, and "
                f"RankBudget has {allocation}. Give the same schedule, with the "
                "total_steps of the whole training, or call compile() with a new "
                "optimizer."
            )
        if old.use_ema:
            raise ValueError(
                f"The {type(old).__name__} averages the weights (use_ema=True), and an "
                "average of pruned triplets is not 0. Leave use_ema out."
            )
        with _keras.scope(model):
            new = with_allocation(old, allocation)
            variables = _keras.trained_by(old) if old.built else None
            new.build(variables or model.trainable_variables)
            _keras.replace_optimizer(model, new)
            model.optimizer.build(_keras.trained_by(new))
        _keras.forget_traces(model)

    def _allocation(self, optimizer: keras.Optimizer, target: int) -> Allocation:
        total = self.total_steps
        if total is None:
            if not self.params.get("steps"):
                raise ValueError(
                    "The number of batches of an epoch is unknown, so the budget has "
                    "no schedule. Pass total_steps to RankBudget, or steps_per_epoch "
                    "to fit."
                )
            total = self.params["epochs"] * self.params["steps"]
            total = total // (optimizer.gradient_accumulation_steps or 1)
        warmup, final = self.warmup_steps, self.final_steps
        warmup = round(WARMUP * total) if warmup is None else warmup
        final = round(FINAL * total) if final is None else final
        if warmup + final >= total:
            raise ValueError(
                f"Of the {total} updates {warmup} are warm-up and {final} are final, "
                "so no update is left to prune. Train longer, or give smaller "
                "warmup_steps and final_steps."
            )
        return Allocation(
            target, total, warmup, final, self.interval, self.beta_1, self.beta_2
        )

    def _recipe(self) -> AdaLoRA:
        recipes = attached(self.model)
        names = [x for x in active(self.model) if isinstance(recipes[x], AdaLoRA)]
        return recipes[names[0]]


def _steps(name: str, value: object, least: int) -> int | None:
    return None if value is None else whole_number(name, value, least)
