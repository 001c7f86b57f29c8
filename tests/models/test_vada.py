"""VADA: confident predictions that the worst small step does not change."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_transfer.models import VADA
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.domain_contract import DomainContract
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import logged
from tests.contracts.domain_contract import LOGITS
from tests.contracts.domain_contract import seen
from tests.contracts.domain_contract import streams
from tests.models import paper


class TestVADA(DomainContract):
    kind = VADA
    settings = {"radius": 0.5}
    replicas = "the trial step is random, and each replica has its own"
    random = True

    def test_loss_equals_the_paper(self):
        model, x = self.compiled(strength=0.5, smoothing=(0.7, 0.2)), streams(8, 5)
        outputs = model(x, training=False)
        found = float(model.compute_loss(x, LABELS, outputs, training=False))
        source, target = seen(model, x).values()
        smooth = [
            arrays(outputs["compared"][f"{name}_smoothness"])[0].mean() for name in x
        ]
        entropy = paper.entropy(paper.softmax(target.outputs)).mean()
        logits = [array(model.domain_head(each.features)) for each in (source, target)]
        expected = paper.cross_entropy(LABELS, source.outputs)
        expected += paper.domain_loss(*logits)
        expected += 0.7 * smooth[0] + 0.2 * (entropy + smooth[1])
        assert found == pytest.approx(expected, rel=1e-5)
        logs = logged(model)
        assert logs["entropy_loss"] == pytest.approx(entropy, rel=1e-5)
        assert logs["target_smoothness_loss"] == pytest.approx(smooth[1], rel=1e-4)


def divergence(z, others):
    """Return KL(p || q) of each row of logits."""
    p, q = paper.softmax(z), paper.softmax(others)
    return (p * np.log(p / q)).sum(axis=1)


def test_the_step_is_close_to_the_worst_of_its_length():
    keras.utils.set_random_seed(0)
    body = keras.Sequential([keras.Input((2,)), layers.Dense(8, "tanh")])
    model = VADA(body, layers.Dense(3), strength=0.0, radius=0.05)
    model.compile("sgd", LOGITS, jit_compile=False)
    rng = np.random.default_rng(0)
    x = {
        name: rng.normal(size=(40, 2)).astype("float32")
        for name in ("source", "target")
    }
    found = arrays(run(model, x)["compared"]["target_smoothness"])[0]
    plain = arrays(run(model, x["target"]))[0]
    angles = np.arange(0, 2 * np.pi, 0.05)
    around = np.array(
        [
            divergence(
                plain,
                arrays(
                    run(
                        model,
                        (x["target"] + 0.05 * np.array([np.cos(a), np.sin(a)])).astype(
                            "float32"
                        ),
                    )
                )[0],
            )
            for a in angles
        ]
    )
    worst, usual = around.max(axis=0), around.mean(axis=0)
    assert np.all(found <= worst * 1.01)
    # After one power iteration from a random start, most examples are close to it.
    assert np.mean(found / worst) > 0.8
    assert found.mean() > 1.5 * usual.mean()


def embedding():
    parts = [keras.Input((4,), dtype="int32"), layers.Embedding(9, 5), layers.Flatten()]
    return keras.Sequential(parts)


def ids():
    rng = np.random.default_rng(0)
    return {name: rng.integers(9, size=(8, 4)).astype("int32") for name in streams()}


def test_the_step_for_token_ids_is_in_the_features():
    keras.utils.set_random_seed(0)
    body = embedding()
    model = VADA(body, layers.Dense(3), strength=0.5, radius=0.1)
    model.compile(keras.optimizers.SGD(0.01), LOGITS, jit_compile=False)
    rng, x = np.random.default_rng(1), ids()
    features = arrays(body(x["target"]))[0]
    outputs = run(model, x)
    found = arrays(outputs["compared"]["target_smoothness"])[0]
    # Compare with random steps of the same length.
    steps = rng.normal(size=(200, 8, 20))
    steps *= 0.1 / np.linalg.norm(steps, axis=2, keepdims=True)
    head = model.label_head
    plain = array(head(features))
    usual = [
        divergence(plain, array(head((features + r).astype("float32")))) for r in steps
    ]
    assert found.mean() > 2 * np.mean(usual)
    logs = fit(model, x, LABELS, epochs=2).history
    assert all(np.isfinite(each).all() for each in logs.values())


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["ids", "float64"])
def test_data_and_features_of_other_precision(policy, kind):
    keras.config.set_dtype_policy(policy)
    x = (
        ids()
        if kind == "ids"
        else {k: v.astype("float64") for k, v in streams().items()}
    )
    body = embedding() if kind == "ids" else extractor()
    model = VADA(body, free_head(dtype="float32"), strength=0.5, radius=0.5)
    model.compile(keras.optimizers.SGD(0.01), LOGITS, run_eagerly=True)
    data = tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(8)
    logs = model.fit(data, shuffle=False, verbose=0).history
    assert all(np.isfinite(each).all() for each in logs.values())
    assert logs["target_smoothness_loss"][0] > 1e-4


def test_the_step_for_integer_images_is_in_the_features():
    body = keras.Sequential(
        [keras.Input((6,), dtype="uint8"), layers.Rescaling(1 / 255), layers.Dense(5)]
    )
    model = VADA(body, free_head(), strength=0.5, radius=0.1)
    x = {name: np.ones((4, 6), "uint8") for name in streams()}
    assert np.isfinite(arrays(run(model, x)["compared"]["source_smoothness"])[0]).all()


@pytest.mark.parametrize("smoothing", [(1.0,), (-1.0, 0.1), (np.nan, 0.0)])
def test_smoothing_that_is_not_a_pair_of_weights_raises(smoothing):
    with pytest.raises(ValueError, match="smoothing is"):
        VADA(extractor(), free_head(), smoothing=smoothing)


def test_a_radius_of_zero_raises():
    with pytest.raises(ValueError, match="radius=0"):
        VADA(extractor(), free_head(), radius=0.0)


def test_constant_predictions_have_no_divergence_and_no_nan():
    # The gradient of a head with a kernel of zeros is 0, so the step has no direction.
    model = VADA(extractor(), free_head(kernel_initializer="zeros"), strength=0.5)
    model.compile(keras.optimizers.SGD(0.01), LOGITS, jit_compile=False)
    found = run(model, streams())["compared"]
    assert np.all(arrays(found["target_smoothness"])[0] == 0)
    logs = fit(model, streams(), LABELS).history
    assert all(np.isfinite(each).all() for each in logs.values())
    assert all(np.isfinite(each).all() for each in arrays(model.weights))


def shifted(normalize):
    """Return a network and two domains that are far apart."""
    parts = [keras.Input((6,)), layers.Dense(5), *normalize, layers.ReLU()]
    x = streams()
    return keras.Sequential(parts), {"source": x["source"], "target": x["target"] + 8}


def test_a_tiny_step_changes_nothing_with_batch_norm():
    body, x = shifted([layers.BatchNormalization()])
    model = VADA(body, layers.Dense(3), strength=1.0, radius=1e-3)
    model.compile("sgd", LOGITS, jit_compile=False)
    compared = model(x, training=True)["compared"]
    for name in x:
        assert np.abs(compared[f"{name}_smoothness"]).max() < 1e-4


def test_batch_norm_uses_both_domains():
    norm = layers.BatchNormalization(momentum=0.0)
    body, x = shifted([norm])
    model = VADA(body, layers.Dense(3), strength=1.0, radius=1e-3)
    model.compile("sgd", LOGITS, jit_compile=False)
    model(x, training=True)
    seen = body.layers[0](np.concatenate([x["source"], x["target"]]))
    np.testing.assert_allclose(norm.moving_mean, np.mean(seen, axis=0), atol=1e-2)
    np.testing.assert_allclose(norm.moving_variance, np.var(seen, axis=0), rtol=1e-2)


def test_the_error_names_only_arguments_of_vada():
    model = VADA(extractor(), free_head(), strength=None)
    model.compile("sgd", LOGITS, jit_compile=False)
    with pytest.raises(ValueError, match="step by step, pass strength="):
        model.train_on_batch(streams(), LABELS)
