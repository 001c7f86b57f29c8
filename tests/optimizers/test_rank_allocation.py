"""The choice of triplets: the equations of the paper, PEFT's code, and refusals."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_transfer.optimizers.rank_allocation import Allocation
from keras_transfer.optimizers.rank_allocation import largest
from keras_transfer.optimizers.rank_allocation import NAMES
from keras_transfer.optimizers.rank_allocation import with_allocation
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close

RATE = 0.1
SHAPES = [((4, 3), (3,), (3, 5)), ((2, 2, 2), (2,), (2, 3))]  # the second: a window
TOTAL = 5
SCHEDULE = Allocation(
    target=2,
    total_steps=14,
    warmup_steps=2,
    final_steps=3,
    interval=2,
    beta_1=0.7,
    beta_2=0.6,
)

# Update -> lambda of both layers, from the RankAllocator of PEFT 0.21.2 for the same
# values and gradients, with update_ipt before the step, as in the paper.
PEFT = {
    3: [-1.986, -0.10141, -1.1186, 0.8018, 1.37537],
    4: [-1.95787, 0.0, 0.0, 0.89777, 1.54223],
    5: [-1.98954, -0.05105, 0.14931, 0.97755, 1.56257],
    6: [-1.89371, 0.0, 0.0, 0.95507, 0.0],
    9: [-1.90557, -0.15055, 0.06536, 1.20017, 0.12352],
    11: [-1.86642, 0.0, 0.0, 1.13053, 0.0],
}


def random(rng, shape):
    return rng.normal(size=shape).astype("float32")


def start():
    """Return the values of P, lambda and Q of two layers."""
    rng = np.random.default_rng(0)
    return [[random(rng, shape) for shape in each] for each in SHAPES]


def gradients(step):
    rng = np.random.default_rng(step)
    return [[random(rng, shape) for shape in each] for each in SHAPES]


def variables(values):
    return [
        keras.Variable(value, name=name)
        for layer in values
        for name, value in zip(NAMES, layer, strict=True)
    ]


def optimizer(schedule=SCHEDULE, parent=None):
    return with_allocation(parent or keras.optimizers.SGD(RATE), schedule)


def budget_of_the_paper(step, schedule=SCHEDULE, total=TOTAL):
    """Return b(t) of section 3.3, from the warm-up to the final updates."""
    end = schedule.total_steps - schedule.final_steps
    if step <= schedule.warmup_steps:
        return total
    if step >= end:
        return schedule.target
    left = 1 - (step - schedule.warmup_steps) / (end - schedule.warmup_steps)
    return int(schedule.target + (total - schedule.target) * left**3)


class Paper:
    """Algorithm 1 of the paper with SGD, in NumPy."""

    def __init__(self):
        self.layers = start()
        self.average = [[np.zeros(s) for s in each] for each in SHAPES]
        self.deviation = [[np.zeros(s) for s in each] for each in SHAPES]
        self.mask = None
        self.step = 0

    def importance(self):
        found = []
        for average, deviation in zip(self.average, self.deviation, strict=True):
            p, value, q = (a * d for a, d in zip(average, deviation, strict=True))
            p = p.reshape(-1, len(value)).mean(0)
            found.append(value + p + q.reshape(len(value), -1).mean(1))
        return np.concatenate(found)

    def update(self, grads):
        self.step += 1
        for k, layer in enumerate(self.layers):
            for i, (w, g) in enumerate(zip(layer, grads[k], strict=True)):
                now, b1, b2 = np.abs(w * g), SCHEDULE.beta_1, SCHEDULE.beta_2
                self.average[k][i] = b1 * self.average[k][i] + (1 - b1) * now
                apart = np.abs(now - self.average[k][i])
                self.deviation[k][i] = b2 * self.deviation[k][i] + (1 - b2) * apart
                layer[i] = w - RATE * g
        end = SCHEDULE.total_steps - SCHEDULE.final_steps
        between = SCHEDULE.warmup_steps < self.step < end
        if between and self.step % SCHEDULE.interval == 0 or self.step == end:
            order = np.argsort(-self.importance())
            self.mask = np.zeros(TOTAL, bool)
            self.mask[order[: budget_of_the_paper(self.step)]] = True
            self.prune()
        elif self.step > end:
            self.prune()

    def prune(self):
        first = len(self.layers[0][1])
        masks = self.mask[:first], self.mask[first:]
        for layer, mask in zip(self.layers, masks, strict=True):
            layer[1] = layer[1] * mask


def flat(layers):
    return [value for layer in layers for value in layer]


def test_updates_equal_the_equations_of_the_paper_and_the_choices_of_peft():
    paper, own = Paper(), variables(start())
    ours = optimizer()
    ours.build(own)
    counts = []
    for step in range(SCHEDULE.total_steps):
        grads = gradients(step)
        paper.update(grads)
        ours.apply([keras.ops.convert_to_tensor(g) for g in flat(grads)], own)
        assert_close(own, flat(paper.layers), 1e-5)
        found = np.concatenate(arrays(ours.importance()))
        np.testing.assert_allclose(found, paper.importance(), rtol=1e-4, atol=1e-6)
        if step + 1 in PEFT:
            value = np.concatenate([array(own[1]), array(own[4])])
            np.testing.assert_allclose(value, PEFT[step + 1], rtol=0, atol=1e-5)
        counts.append(sum(np.count_nonzero(array(own[i])) for i in (1, 4)))
    assert counts == [5, 5, 5, 3, 5, 2, 5, 2, 5, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    "total, changed", [(5, {}), (40, dict(total_steps=97, warmup_steps=0)), (2, {})]
)
def test_the_budget_falls_as_a_cubic_function(total, changed):
    schedule = dataclasses.replace(SCHEDULE, **changed)
    drops = schedule.drops(total)
    for step in range(schedule.total_steps + 1):
        expected = budget_of_the_paper(step, schedule, total)
        assert total - np.sum(drops <= step) == expected


def test_equal_scores_leave_the_exact_number():
    scores = keras.ops.convert_to_tensor(np.float32([1, 2, 1, 1, 0]))
    for count, expected in ((0, [0] * 5), (3, [1, 1, 1, 0, 0]), (5, [1] * 5)):
        assert_close(largest(scores, count), np.float32(expected))


def test_the_schedule_is_in_the_config_and_the_state_in_the_variables():
    own, ours = variables(start()), optimizer()
    ours.build(own)
    for step in range(4):
        ours.apply([keras.ops.convert_to_tensor(g) for g in flat(gradients(step))], own)
    config = keras.saving.serialize_keras_object(ours)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(ours) and again.allocation == SCHEDULE
    other = variables(arrays(own)[i : i + 3] for i in (0, 3))
    again.build(other)
    again.set_weights(arrays(ours.variables))
    for step in range(4, 6):
        grads = [keras.ops.convert_to_tensor(g) for g in flat(gradients(step))]
        ours.apply(grads, own)
        again.apply(grads, other)
    assert_close(other, arrays(own))


def test_accumulated_gradients_are_one_update():
    parent = keras.optimizers.SGD(RATE, gradient_accumulation_steps=2)
    paper, own, ours = Paper(), variables(start()), optimizer(parent=parent)
    ours.build(own)
    for step in range(5):
        grads = gradients(step)
        paper.update(grads)
        for _ in range(2):
            ours.apply([keras.ops.convert_to_tensor(g) for g in flat(grads)], own)
    assert_close(own, flat(paper.layers), 1e-5)


def test_refusals():
    with pytest.raises(ValueError, match="Ftrl cannot give ranks"):
        with_allocation(keras.optimizers.Ftrl(), SCHEDULE)
    with pytest.raises(ValueError, match="6 triplets are to be left, but only 5"):
        many = dataclasses.replace(SCHEDULE, target=6)
        optimizer(many).build(variables(start()))
    own, ours = variables(start()), optimizer()
    ours.build(own)
    grads = [keras.ops.convert_to_tensor(g) for g in flat(gradients(0))]
    with pytest.raises(ValueError, match="Only 1 of 2 layers"):
        ours.apply(grads[:3], own[:3])
