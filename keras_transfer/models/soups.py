"""Model soups: average the weights of several fine-tuned models."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras

from keras_transfer._arguments import different_names
from keras_transfer.adapters.in_place.compiled_model import activate
from keras_transfer.adapters.in_place.compiled_model import retrace
from keras_transfer.adapters.in_place.layer_state import check_name
from keras_transfer.adapters.switching import active
from keras_transfer.adapters.switching import attached
from keras_transfer.adapters.switching import remove
from keras_transfer.adapters.switching import use
from keras_transfer.adapters.weighted import add_weighted
from keras_transfer.models.averaged_weights import WeightAverage
from keras_transfer.models.held_out_score import held_out_score
from keras_transfer.models.held_out_score import HeldOutScore


class Soup(NamedTuple):
    """The result of a greedy soup.

    Attributes:
        model: The model with averaged weights, or with the averaged adapter in use.
        ingredients: What was averaged, the best first: the positions of the models, or
            the names of the adapters.
        score: Score of the soup on the held-out data.
        scores: Score of each candidate alone, in the order given.
        metric: Name of the metric.
    """

    model: keras.Model
    ingredients: tuple
    score: float
    scores: tuple[float, ...]
    metric: str

    def __str__(self) -> str:
        alone = ", ".join(f"{each:.4f}" for each in self.scores) or "not measured"
        return (
            f"Soup of {list(self.ingredients)}: {self.metric} {self.score:.4f}. Each "
            f"candidate alone: {alone}"
        )


def uniform_soup(
    models: Sequence[keras.Model], *, batch_norm_data: Any = None
) -> keras.Model:
    """Return a model with the mean of the weights of several fine-tuned models.

    Fine-tune the same pretrained model several times, with other seeds, rates or
    augmentations. The mean of their weights is often more accurate than each of them,
    and costs no more than one model in use. The runs must have the same start, also of
    the head: train the head first, such as by `strategy="lp-ft"`. A bad run spoils the
    mean. `greedy_soup` leaves such runs out.

    Args:
        models: Two or more models with the same layers, without adapters.
        batch_norm_data: As in `interpolate`.

    Returns:
        A copy of the last model with the mean of the weights.

    Raises:
        TypeError: If the last entry is not a model.
        ValueError: If there are fewer than two models, or as in `interpolate`.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        def network(value):
            kernel = keras.initializers.Constant(value)
            dense = keras.layers.Dense(1, kernel_initializer=kernel)
            return keras.Sequential([keras.Input((2,)), dense])

        soup = kt.models.uniform_soup([network(1.0), network(2.0), network(6.0)])
        assert (soup.get_weights()[0] == 3.0).all()
        ```

    Reference:
        Wortsman et al. 2022, Model Soups: Averaging Weights of Multiple Fine-Tuned
        Models Improves Accuracy Without Increasing Inference Time, arXiv:2203.05482.
    """
    models = _several(models)
    average = WeightAverage(models, batch_norm_data)
    return average.set([1 / len(models)] * len(models))


def greedy_soup(
    models: Sequence[keras.Model],
    data: Any,
    *,
    metric: str | None = None,
    batch_norm_data: Any = None,
) -> Soup:
    """Average those fine-tuned models that improve the mean on held-out data.

    The models are tried from the best to the worst. A model stays in the soup if the
    soup with it is at least as good as without it. So on the held-out data the soup is
    at least as good as the best model.

    Args:
        models: As in `uniform_soup`. The last one is compiled, and its loss and metrics
            are those of all.
        data: Held-out `(x, y)` or `(x, y, sample_weight)` as arrays, or a batched
            dataset. Do not report the score of the soup on the same data.
        metric: Name of the metric. Defaults to None: the first compiled metric with a
            known direction, and otherwise the loss.
        batch_norm_data: As in `interpolate`.

    Returns:
        A `Soup` with `model`, `ingredients`, `score`, `scores` and `metric`.

    Raises:
        TypeError: As in `uniform_soup`, and if the data is of an unknown kind.
        ValueError: As in `uniform_soup`, and if the last model is not compiled, the
            metric is unknown, or the data is empty.

    Example:
        ```python
        import keras
        import keras_transfer as kt
        import numpy as np

        def network(value):
            kernel = keras.initializers.Constant(value)
            dense = keras.layers.Dense(1, kernel_initializer=kernel)
            model = keras.Sequential([keras.Input((1,)), dense])
            model.compile("sgd", "mse")
            return model

        data = np.ones((4, 1)), 2 * np.ones((4, 1))
        networks = [network(1.5), network(9.0), network(2.5)]
        soup = kt.models.greedy_soup(networks, data)
        assert soup.ingredients == (0, 2) and soup.score == 0
        ```

    Reference:
        Wortsman et al. 2022, Model Soups, arXiv:2203.05482, recipe 1.
    """
    models = _several(models)
    average = WeightAverage(models, batch_norm_data)

    def score(chosen: Sequence[int]) -> HeldOutScore:
        share = 1 / len(chosen)
        shares = [share if place in chosen else 0.0 for place in range(len(models))]
        return held_out_score(average.set(shares), data, metric)

    return _greedy(average.model, range(len(models)), score)


def adapter_soup(
    model: keras.Model,
    names: Sequence[str],
    data: Any = None,
    *,
    name: str = "soup",
    metric: str | None = None,
) -> Soup:
    """Average adapters of one model, all or those that help on held-out data.

    The soup is a new adapter, which is then in use. It is the exact mean of the
    adapters' effects, see `kt.adapters.add_weighted`. The other adapters stay attached.

    Args:
        model: A compiled model with two or more adapters of one technique.
        names: Names of the adapters.
        data: Held-out data, as in `greedy_soup`. With None, all adapters are averaged,
            and the scores are not measured. Defaults to None.
        name: Name of the new adapter. Defaults to `"soup"`.
        metric: As in `greedy_soup`.

    Returns:
        A `Soup`. Without data, its `score` is NaN and `scores` is empty.

    Raises:
        TypeError: If the data is of an unknown kind.
        ValueError: If an adapter is unknown, there are fewer than two, the new name is
            taken, the adapters cannot be summed, or as in `greedy_soup`. The adapters
            of the model do not change.

    Example:
        ```python
        import keras
        import keras_transfer as kt

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        for each in ("first", "second"):
            kt.adapters.LoRA(rank=2, targets="all-linear").attach(model, each)
        soup = kt.models.adapter_soup(model, ["first", "second"])
        assert kt.adapters.active(soup.model) == {"soup": 1.0}
        ```

    Reference:
        Chronopoulou et al. 2023, AdapterSoup: Weight Averaging to Improve
        Generalization of Pretrained Language Models, arXiv:2302.07027.
    """
    names = different_names("names", names, attached(model))
    if len(names) < 2:
        raise ValueError(
            f"names={list(names)!r} has one adapter, and a soup needs two or more."
        )
    check_name(model, name)
    if data is None:
        _add(model, name, names)
        return Soup(model, names, float("nan"), (), metric or "")

    def score(chosen: Sequence[str]) -> HeldOutScore:
        if len(chosen) == 1:
            use(model, chosen[0])
            return held_out_score(model, data, metric)
        _add(model, name, chosen)
        try:
            return held_out_score(model, data, metric)
        finally:
            remove(model, name)

    gates = active(model)
    try:
        soup = _greedy(model, names, score)
    except BaseException:
        activate(model, gates)
        retrace(model)
        raise
    _add(model, name, soup.ingredients)
    return soup


def _add(model: keras.Model, name: str, names: Sequence[str]) -> None:
    add_weighted(model, name, dict.fromkeys(names, 1 / len(names)))


def _greedy(
    model: keras.Model, candidates: Sequence, score: Callable[[list], HeldOutScore]
) -> Soup:
    """Try the candidates from the best to the worst, and keep those that help."""
    alone = {each: score([each]) for each in candidates}
    ordered = sorted(candidates, key=lambda each: -alone[each].sort_key)
    chosen, best = [ordered[0]], alone[ordered[0]]
    for each in ordered[1:]:
        found = score([*chosen, each])
        if found.sort_key >= best.sort_key:
            chosen, best = [*chosen, each], found
    score(chosen)  # leaves the weights of the soup in the model
    scores = tuple(alone[each].value for each in candidates)
    return Soup(model, tuple(chosen), best.value, scores, best.metric)


def _several(models: Sequence[keras.Model]) -> list[keras.Model]:
    models = list(models)
    if len(models) < 2:
        raise ValueError(
            f"There are {len(models)} models, and a soup needs two or more. Fine-tune "
            "the same start with several seeds or rates."
        )
    return models
