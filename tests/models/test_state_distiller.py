"""StateDistiller: its loss by hand, without labels, widths, and wrong use."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.model_contract import ModelContract

StateDistiller = kt.models.StateDistiller
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SOFT = keras.distillation.LogitsDistillation(2.0, keras.losses.KLDivergence())
PAIR = {"transformer_layer_1": "transformer_layer_0"}
STATES = kt.losses.StateDistillation(PAIR)
ATTENTION = kt.losses.AttentionDistillation(PAIR)
Y = np.arange(8) % 2


def tokens():
    mask = (np.arange(6) < np.array([6, 3, 4, 6, 2, 6, 5, 6])[:, None]).astype("int32")
    ids = np.random.default_rng(0).integers(1, 60, (8, 6)) * mask
    return {"token_ids": ids, "segment_ids": 0 * mask, "padding_mask": mask}


X = tokens()


def made(losses=(SOFT, STATES), narrow=False, **settings):
    keras.utils.set_random_seed(0)
    teacher = kt.models.TransferClassifier(tiny.bert(2, dropout=0.0), 2)
    if narrow:
        small = tiny.bert(1, dropout=0.0, hidden_dim=8)
    else:
        small = kt.models.student(teacher.backbone, keep=[1])
    student = kt.models.TransferClassifier(small, 2)
    return StateDistiller(teacher, student, list(losses), **settings)


def compiled(distiller, loss=SPARSE, **settings):
    settings = dict(run_eagerly=True) | settings
    metrics = ["accuracy"] if loss else None
    distiller.compile(keras.optimizers.SGD(0.05), loss, metrics, **settings)
    return distiller


def softmax(x):
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def state(backbone, place):
    return array(kt.backbones.hidden_states(backbone)(X)[place + 1])


class TestStateDistiller(ModelContract):
    loss = SPARSE

    def make(self):
        return made()

    def inputs(self):
        return X

    def targets(self):
        return Y

    def training_inputs(self):
        rng = np.random.default_rng(1)
        teacher = {
            "output": rng.normal(size=(8, 2)).astype("float32"),
            "states": [rng.normal(size=(8, 6, 16)).astype("float32")],
            "attention": [],
        }
        return {"inputs": X, "teacher": teacher}

    test_symbolic_output_equals_eager = None  # the base class has no symbolic output
    test_two_replicas_equal_one = None  # refused, see below
    test_exports = None  # the student is exported


def test_loss_is_the_formula():
    distiller = compiled(
        made(distillation_loss_weights=[2.0, 3.0], student_loss_weight=0.25)
    )
    recorded = distiller.record(X)
    teacher, student = distiller.teacher, distiller.student
    theirs, ours = (softmax(array(m(X)) / 2) for m in (teacher, student))
    soft = 4 * np.mean(np.sum(theirs * np.log(theirs / ours), 1))
    pair = state(teacher.backbone, 1), state(student.backbone, 0)
    norms = np.linalg.norm(pair[0], axis=-1) * np.linalg.norm(pair[1], axis=-1)
    cosine = 1 - np.sum(pair[0] * pair[1], -1) / norms
    cosine = (cosine * X["padding_mask"]).sum() / X["padding_mask"].sum()
    labels = float(SPARSE(Y, student(X)))
    logs = distiller.train_on_batch(recorded, Y, return_dict=True)
    expected = 0.25 * labels + 0.75 * (2 * soft + 3 * cosine)
    assert logs["total_loss"] == pytest.approx(expected, rel=1e-3)
    assert logs["student_loss"] == pytest.approx(labels, rel=1e-4)
    assert_close(recorded["teacher"]["states"][0], pair[0], 1e-5)


def test_only_the_student_and_the_projection_learn_without_labels():
    distiller = made((SOFT, STATES, ATTENTION), narrow=True, student_loss_weight=0.0)
    compiled(distiller, None)
    before = [array(v) for v in distiller.teacher.weights]
    recorded = distiller.record(X)
    assert recorded["teacher"]["attention"][0].shape == (8, 6, 6)
    np.testing.assert_allclose(recorded["teacher"]["attention"][0].sum(-1), 1, 1e-4)
    (projection,) = distiller.projections
    assert projection.kernel.shape == (8, 16)
    start = array(projection.kernel)
    losses = fit(distiller, recorded, None, epochs=6).history["total_loss"]
    assert losses[-1] < losses[0]
    assert np.abs(array(projection.kernel) - start).max() > 1e-4
    assert_close([array(v) for v in distiller.teacher.weights], before)
    assert not {id(v) for v in projection.weights} & {
        id(v) for v in distiller.student.weights
    }


@pytest.mark.slow
def test_plain_inputs_evaluate_the_student():
    distiller = compiled(made())
    found = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    expected = np.mean(array(distiller.student(X)).argmax(1) == Y)
    assert found["accuracy"] == pytest.approx(expected)


def test_wrong_use():
    distiller = compiled(made())
    stock = keras.distillation.LogitsDistillation(2.0)
    unknown = kt.losses.StateDistillation({"transformer_layer_7": "stem"})
    cases = [
        (lambda: made([stock]), "applies to logits"),
        (lambda: made([unknown]), "transformer_layer_7"),
        (lambda: made(student_loss_weight=2.0), "between 0.0 and 1.0"),
        (lambda: distiller.compile("sgd"), "needs the loss of the labels"),
        (
            lambda: made(student_loss_weight=0).compile("sgd", metrics=["mae"]),
            "compare with labels",
        ),
        (lambda: distiller.fit(X, Y, verbose=0), "Pass fit"),
        (lambda: distiller.fit(distiller.record(X), verbose=0), "needs labels"),
        (lambda: distiller.record(X["token_ids"][:0]), "empty"),
    ]
    for call, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            call()


@pytest.mark.slow
def test_without_labels_it_reloads_without_a_loss(tmp_path):
    distiller = compiled(made(student_loss_weight=0.0), None)
    recorded = distiller.record(X)
    distiller.fit(recorded, verbose=0)
    distiller.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.student_loss is None and again.compiled
    logs = [each.fit(recorded, verbose=0).history for each in (distiller, again)]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-5)
