"""EWC: elastic weight consolidation, which keeps the weights that old tasks need."""

from __future__ import annotations

from typing import Any

import keras

from keras_transfer import _keras
from keras_transfer._arguments import fraction
from keras_transfer._arguments import one_of
from keras_transfer._arguments import positive
from keras_transfer.regularizers.attachments import Attached
from keras_transfer.regularizers.attachments import attached
from keras_transfer.regularizers.fisher import diagonal_fisher
from keras_transfer.regularizers.fisher import EXPECTED
from keras_transfer.regularizers.fisher import SAMPLED
from keras_transfer.regularizers.penalized import forget_functions
from keras_transfer.regularizers.penalized import install
from keras_transfer.regularizers.penalty import able_weights
from keras_transfer.regularizers.penalty import check_model
from keras_transfer.regularizers.penalty import Penalty
from keras_transfer.regularizers.quadratic import Quadratic


@keras.saving.register_keras_serializable(package="keras_transfer")
class EWC(Penalty):
    """Elastic weight consolidation: keep weights in proportion to their importance.

    A network that learns a new task forgets the old ones. EWC lets weights move that
    the old tasks do not need. After each task `t` it adds to the loss of all later
    `fit` calls

    `strength/2 sum_i F_ti (w_i - w_ti)^2`

    `w_t` are the weights after the task, and `F_t` is the diagonal of the Fisher
    information of the task, see `kt.regularizers.diagonal_fisher`. The penalties of
    several tasks add up, in the memory of one task. With `gamma`, the online form, all
    tasks together have the importance `F <- gamma F + F_t`, around the weights after
    the last task.

    Call `attach` after each task, with its data. Else the penalty behaves as `L2SP`: it
    acts in every `fit`, on replicas and in phases, and is saved, loaded and resumed
    with the model. It needs memory for two float32 values for each weight that can
    train.

    Args:
        strength: Positive number. Its scale depends on the task, because the Fisher
            information becomes small when the model is certain. Try powers of 10.
            Defaults to 1000.
        gamma: Number from 0 to 1, how much of the importance of earlier tasks is kept.
            Defaults to None: the penalties of the tasks are added up.
        classes: `"expected"` or `"sampled"`, as in `diagonal_fisher`. Defaults to
            `"expected"`.

    Raises:
        ValueError: If `strength` is not positive, `gamma` is out of range, or `classes`
            is unknown.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)
        x, y = np.random.rand(16, 4), np.arange(16) % 2
        model.fit(x, y, verbose=0)  # the old task
        kt.regularizers.EWC(strength=100).attach(model, x)
        model.fit(1 - x, y, verbose=0)  # the new task
        ```

    Reference:
        Kirkpatrick et al. 2017, Overcoming Catastrophic Forgetting in Neural Networks,
        arXiv:1612.00796. Schwarz et al. 2018, Progress and Compress: A Scalable
        Framework for Continual Learning, arXiv:1805.06370 (the online form).
    """

    def __init__(
        self,
        strength: float = 1000.0,
        *,
        gamma: float | None = None,
        classes: str = EXPECTED,
    ):
        self.strength = positive("strength", strength)
        self.gamma = None if gamma is None else fraction("gamma", gamma)
        self.classes = one_of("classes", classes, (EXPECTED, SAMPLED))

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            "strength": self.strength,
            "gamma": self.gamma,
            "classes": self.classes,
        }

    def attach(
        self,
        model: keras.Model,
        data: Any,
        *,
        task_model: keras.Model | None = None,
        from_logits: bool | None = None,
        seed: int = 0,
    ) -> keras.Model:
        """Add the penalty of the task that the model has just learned, in place.

        Args:
            model: The built model that you fit. To distribute it, attach inside
                `strategy.scope()`.
            data: Examples of the task, as in `diagonal_fisher`. Some hundred are
                enough.
            task_model: Model with the output of the task, if it is not the output of
                `model`: such as the old classifier, if `model` is a new classifier on
                the same backbone. Weights of `model` that it does not share get no
                penalty. Defaults to None, which means `model`.
            from_logits: Bool, whether the outputs are logits. Defaults to None, which
                takes the setting of the compiled loss.
            seed: Int, the seed of sampled classes. Defaults to 0.

        Returns:
            The model.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If the model is not built, has an EWC of other arguments, or
                shares no weight that can train with `task_model`, or if the data does
                not fit, as in `diagonal_fisher`. The model does not change.
        """
        check_model(model, self.name, again=True)
        before = attached(model).get(self.name)
        if before and before.recipe.get_config() != self.get_config():
            raise ValueError(
                f"The model {model.name!r} has {before.recipe!r}, and this is {self!r}."
                " Use the same arguments for all tasks, or call "
                "kt.regularizers.detach(model) first."
            )
        if before and not before.loaded:
            raise ValueError(
                f"{model.name!r} was made from a config, so its EWC has no values yet. "
                "Load its weights first."
            )
        reader = model if task_model is None else task_model
        shared = {id(variable) for variable in reader.weights}
        able = {k: v for k, v in able_weights(model).items() if id(v) in shared}
        if not able:
            raise ValueError(
                f"{reader.name!r} shares no weight with {model.name!r} that can train, "
                "so there is nothing to keep. Build both on the same backbone object."
            )
        fisher = diagonal_fisher(
            reader,
            data,
            classes=self.classes,
            from_logits=from_logits,
            weights=list(able.values()),
            seed=seed,
        )
        penalties = dict(before.penalties) if before else {}
        with _keras.scope(model):
            for place, variable in able.items():
                if place not in penalties:
                    penalties[place] = Quadratic(
                        self.strength, variable.shape, center=True, importance=True
                    )
        found = dict(zip(able, fisher, strict=True))
        for place, penalty in penalties.items():
            importance = found.get(place, 0.0)  # the task does not use the weight
            center = _keras.value(model.weights[place])
            if self.gamma is not None:
                penalty.replace(self.gamma, importance, center)
            elif place in found:
                penalty.add(importance, center)
        if before and len(penalties) == len(before.penalties):
            forget_functions(model)  # on JAX, a trace has the old values
        else:
            install(model, self.name, Attached(self, penalties))
        return model
