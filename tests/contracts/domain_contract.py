"""DomainContract: what every model that trains on two domains guarantees."""

import inspect
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer.models import SourceOnly
from keras_transfer.models.domain_adaptation import DomainAdaptation
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.compute import tensors
from tests.contracts.model_contract import ModelContract

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LABELS = np.arange(8) % 3
# Tests that LossContract covers for a loss, and other methods cover for the base class.
# The last ones check prediction and evaluation, which do not use the loss at all.
OF_THE_LOSS = (
    "test_exports",
    "test_mixed_precision",
    "test_reloads_in_a_fresh_process_with_optimizer_state",
    "test_two_replicas_equal_one",
    "test_xla_trains_the_same",
    "test_plain_evaluation_shows_no_key_of_the_method",
    "test_plain_inputs_give_only_the_label_head",
    "test_target_accuracy_is_a_count_and_needs_labels",
    "test_two_streams_can_be_predicted",
)
# Members that a method may define if it only adds a loss to the base class.
LOSS_ALONE = {"__init__", "get_config", "penalties"}
TARGET_LABELS = (np.arange(8) + 1) % 3


def extractor(seed=0):
    """Return a feature extractor from 6 numbers to 5."""
    init = keras.initializers.GlorotUniform(seed=seed)
    dense = layers.Dense(5, "tanh", kernel_initializer=init, name="features")
    return keras.Sequential([keras.Input((6,)), dense], name="extractor")


def free_head(classes=3, **kwargs):
    """Return a label head that returns logits, without a seed, for methods with two."""
    return layers.Dense(classes, name="label", **kwargs)


def streams(size=8, target_size=None):
    """Return examples of both domains; the target is shifted."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(size, 6)).astype("float32")
    target = rng.normal(0.5, 2.0, size=(target_size or size, 6)).astype("float32")
    return {"source": source, "target": target}


def loss_of(model, x, y, training=False):
    """Return the loss of one batch, run eagerly."""
    x, y = tensors((x, y))
    outputs = model(x, training=training)
    return model.compute_loss(x, y, outputs, training=training)


def seen(model, x):
    """Return features and outputs of each domain in inference, as NumPy arrays."""
    results = {}
    for name, inputs in x.items():
        features = model.feature_extractor(inputs)
        outputs = array(model.label_head(features))
        results[name] = Seen(array(features), outputs)
    return results


def only_adds_a_loss(kind):
    """Return whether a method overrides nothing of the base class except penalties."""
    if kind.__base__ is not DomainAdaptation or "penalties" not in vars(kind):
        return False
    own = {
        name
        for name, value in vars(kind).items()
        if inspect.isroutine(value) or isinstance(value, property)
    }
    return own <= LOSS_ALONE


class Seen(NamedTuple):
    """Features and outputs of one domain."""

    features: np.ndarray
    outputs: np.ndarray


def logged(model):
    """Return the results of the metrics of `model`."""
    return {key: float(value) for key, value in model.get_metrics_result().items()}


class DomainContract(ModelContract):
    """Subclass this, set `kind`, and add specific tests.

    A method that defines only `penalties` adds a loss to the base class. LossContract
    then tests XLA, half precision and two replicas for the loss, and the methods with
    `whole = True` test them for the base class, and also prediction and evaluation.

    Predictions get plain inputs, and training gets both domains.
    """

    kind = None  # the class of the model
    settings = {}  # its arguments
    loss = LOGITS
    metrics = ("accuracy",)
    # "whole": the loss is a mean over examples, so two replicas equal one device.
    # "halves": the loss is a statistic of a batch, so two replicas equal the mean of
    # two devices. Any other text: the reason why two replicas equal neither.
    replicas = "whole"
    random = False  # whether the method uses random numbers in training
    whole = False  # whether a method that only adds a loss runs all tests

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.kind is not None and only_adds_a_loss(cls.kind) and not cls.whole:
            for name in OF_THE_LOSS:
                setattr(cls, name, None)

    def make(self, **settings):
        return self.kind(extractor(), free_head(), **self.settings | settings)

    def inputs(self):
        return streams()["source"]

    def training_inputs(self):
        return streams()

    def targets(self):
        return LABELS

    def compiled(self, optimizer=None, run_eagerly=False, **settings):
        """Return a new model that is compiled without XLA."""
        model = self.make(**settings)
        optimizer = optimizer or keras.optimizers.SGD(0.01)
        kwargs = dict(jit_compile=False, run_eagerly=run_eagerly)
        model.compile(optimizer, self.loss, **kwargs)
        return model

    def test_fit_lowers_the_loss(self):
        model = self.plain()
        assert np.isfinite(self.history.history["loss"]).all()
        keras.utils.set_random_seed(1)
        before = self.compiled(run_eagerly=True)
        x, y = streams()["source"], self.targets()
        losses = [
            each.evaluate(x, y, verbose=0, return_dict=True)["loss"]
            for each in (before, model)
        ]
        assert losses[1] < losses[0]

    @pytest.mark.costly
    def test_xla_trains_the_same(self):
        if self.random:
            pytest.skip("XLA draws other random numbers")
        super().test_xla_trains_the_same()

    @pytest.mark.costly
    def test_two_replicas_equal_one(self, strategy):
        if self.replicas == "whole":
            super().test_two_replicas_equal_one(strategy)
        elif self.replicas == "halves":
            self.check_halves(strategy)
        else:
            pytest.skip(self.replicas)

    def check_halves(self, strategy):
        """Check that a step on two replicas is the mean of a step on each half."""
        x, y = streams(), self.targets()
        model = self.make()
        start, weights, logs = model.get_weights(), [], []
        for half in (slice(0, 4), slice(4, 8)):
            model = self.compiled(run_eagerly=True)
            model.set_weights(start)
            part = {name: value[half] for name, value in x.items()}
            logs.append(fit(model, part, y[half]).history)
            weights.append(model.get_weights())
        with strategy.scope():
            two = self.compiled()
        two.set_weights(start)
        results = fit(two, x, y, batch_size=8).history
        mean = [sum(pair) / 2 for pair in zip(*weights, strict=True)]
        assert_close(two.get_weights(), mean, 1e-6)
        assert results.keys() == logs[0].keys()
        for name, (value,) in results.items():
            assert value == pytest.approx((logs[0][name][0] + logs[1][name][0]) / 2)

    def test_logs_name_the_terms_of_the_method(self):
        model = self.plain()
        results = self.history.history
        names = {"loss", "accuracy", *model.logs, *self.strength_logs(model)}
        assert results.keys() == names
        assert all(np.isfinite(values).all() for values in results.values())

    def strength_logs(self, model):
        """Return the name of the strength in the logs, if it has one."""
        return ["strength"] if isinstance(model, DomainAdaptation) else []

    def test_plain_inputs_give_only_the_label_head(self):
        model, x = self.plain(), streams()
        for domain in x.values():
            expected = model.label_head(model.feature_extractor(domain))
            assert_close(run(model, domain), expected, 1e-6)
            assert_close(model.predict(domain, verbose=0), expected, 1e-6)
        both = run(model, x)
        for name, domain in x.items():
            assert_close(both[name], run(model, domain), 1e-6)
            features = model.feature_extractor(domain)
            assert_close(both["features"][name], features, 1e-6)

    def test_two_streams_can_be_predicted(self):
        model, x = self.plain(), streams()
        results = model.predict(x, batch_size=5, verbose=0)
        assert_close(results["target"], run(model, x["target"]), 1e-6)
        assert all(len(each) == 8 for each in keras.tree.flatten(results))

    def test_plain_evaluation_shows_no_key_of_the_method(self):
        model, x = self.plain(), streams()["target"]
        results = model.evaluate(x, TARGET_LABELS, verbose=0, return_dict=True)
        assert results.keys() == {"loss", "accuracy"}
        outputs = run(model, x)
        assert results["loss"] == pytest.approx(float(LOGITS(TARGET_LABELS, outputs)))
        assert len(model.evaluate(x, TARGET_LABELS, verbose=0)) == 2

    def test_target_accuracy_is_a_count_and_needs_labels(self):
        model, x = self.plain(), streams()
        both = {"source": LABELS, "target": TARGET_LABELS}
        settings = dict(batch_size=3, verbose=0, return_dict=True)
        results = model.evaluate(x, both, **settings)
        for key, name in (("accuracy", "source"), ("target_accuracy", "target")):
            chosen = np.argmax(arrays(run(model, x[name]))[0], axis=1)
            assert results[key] == pytest.approx(np.mean(chosen == both[name]))
        without = model.evaluate(x, LABELS, **settings)
        assert without.keys() == results.keys() - {"target_accuracy"}

    def test_labels_of_the_target_in_training_raise(self):
        both = {"source": LABELS, "target": TARGET_LABELS}
        with pytest.raises(ValueError, match="leak"):
            fit(self.compiled(), streams(), both)

    def test_one_domain_in_training(self):
        model = self.compiled()
        if not isinstance(model, SourceOnly):
            with pytest.raises(ValueError, match="two domains.*domain_dataset"):
                fit(model, self.inputs(), LABELS)
        else:
            assert fit(model, self.inputs(), LABELS).history.keys() == {"loss"}

    @pytest.mark.parametrize(
        "target, match",
        [
            (np.zeros((8, 7), "float32"), r"\(6,\).*\(7,\)"),
            (np.zeros((8, 6), "int32"), "float32.*int32"),
            ([np.zeros((8, 6), "float32")], "structure"),
        ],
        ids=["shape", "dtype", "structure"],
    )
    def test_streams_that_differ_raise(self, target, match):
        with pytest.raises(ValueError, match=match):
            self.make()({"source": self.inputs(), "target": target})

    def test_streams_may_differ_in_length(self):
        model = self.plain()
        results = loss_of(model, streams(8, 4), LABELS)
        assert np.isfinite(float(results))
        outputs = run(model, streams(8, 4))
        assert outputs["target"].shape == (4, 3)
