"""AdapterContract: what every adapter recipe guarantees, one test per guarantee."""

import json

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters.adapter_part import all_parts
from tests import tiny
from tests.adapters import models
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run

X, Y = models.tokens(), models.labels()
HEAD = 16 * 3 + 3  # parameters of the classifier's last layer


def small():
    """Return a classifier on a BERT of one block, the same each time."""
    keras.utils.set_random_seed(0)
    backbone = tiny.bert(num_layers=1, dropout=0.0, name="backbone")
    head = keras.layers.Dense(3, name="logits")
    outputs = head(backbone(backbone.input)["pooled_output"])
    model = keras.Model(backbone.input, outputs)
    rng = np.random.default_rng(1)
    for variable in model.weights:
        if variable.name in ("kernel", "bias"):
            # With BERT's own small initial weights a block hardly changes its inputs.
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


class AdapterContract:
    """Subclass this, define `recipe` and the attributes, and add specific tests.

    The class trains one model for all its tests, so a test must not change it.
    """

    learns = set()  # names of the weights that train, without the head
    parameters = 0  # number of parameters of these weights in `small`
    own = False  # whether these weights belong to the base model
    cannot_fold = ""  # pattern of the error of `merge`
    no_images = ""  # pattern of the error of attaching to a ResNet
    at_once = False  # whether attaching changes the outputs

    def recipe(self, **kwargs):
        """Return a recipe for tiny models, with its default targets."""
        raise NotImplementedError

    def attached(self, name="default"):
        """Return `small` with the adapter, which changes the outputs."""
        model = small()
        self.recipe().attach(model, name)
        return self.disturbed(model, name)

    def callbacks(self):
        """Return the callbacks without which the technique does not train."""
        return []

    def disturbed(self, model, name="default", scale=0.3):
        """Change the trainable weights of the adapter, the same way each time."""
        if not self.own:
            return models.disturb(model, scale, name)
        rng = np.random.default_rng(3)
        for variable in model.trainable_variables:
            noise = rng.normal(0, scale, variable.shape)
            variable.assign(array(variable) + noise)
        return model

    def trained(self):
        """Return a model after two epochs and its weights before, cached per class."""
        kind = type(self)
        if "_trained" not in vars(kind):
            model = small()
            self.recipe().attach(model)
            before = arrays(model.weights)
            self.fit(model, epochs=2)
            kind._trained = model, before
        return kind._trained

    def fit(self, model, epochs=1, **kwargs):
        """Compile and fit the model, without a graph by default, which is faster."""
        settings = dict(run_eagerly=True, jit_compile=False) | kwargs
        optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, **settings)
        self.continue_fit(model, epochs)

    def continue_fit(self, model, epochs=1):
        """Fit a compiled model on the data of the contract."""
        fit(model, X, Y, epochs=epochs, batch_size=8, callbacks=self.callbacks())

    def moved(self, model, before):
        """Return the weights that changed."""
        pairs = zip(model.weights, before, strict=True)
        return [v for v, value in pairs if not np.array_equal(array(v), value)]

    def names(self, model, variables):
        """Return the names of all `variables` that are not in the head."""
        head = {id(v) for v in model.layers[-1].weights}
        return {v.name for v in variables if id(v) not in head}

    def test_config_makes_the_same_recipe(self):
        recipe = self.recipe(targets=["a$", "b$"])
        config = keras.saving.serialize_keras_object(recipe)
        again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
        assert type(again) is type(recipe)
        assert again.get_config() == recipe.get_config()
        assert config["config"]["targets"] == ["a$", "b$"]

    def test_starts_as_the_base_model(self):
        model = small()
        y = run(model, X)
        assert self.recipe().attach(model) is model
        if not self.at_once:
            assert_close(run(model, X), y)

    def test_its_own_weights_and_the_head_train(self):
        model = small()
        self.recipe().attach(model)
        head = model.layers[-1]
        shapes = [tuple(variable.shape) for variable in head.trainable_weights]
        assert shapes == [(16, 3), (3,)]
        in_place = any(v is head.kernel for v in head.trainable_weights)
        assert in_place == self.own
        assert self.names(model, model.trainable_variables) == self.learns
        count = sum(array(v).size for v in model.trainable_variables)
        assert count == self.parameters + HEAD

    def test_fit_changes_only_these_weights(self):
        model, before = self.trained()
        moved = self.moved(model, before)
        assert all(v.trainable for v in moved)
        assert self.names(model, moved) == self.learns

    def test_flags_unfreeze_nothing_else(self):
        model = small()
        self.recipe().attach(model)
        paths = models.trained_paths(model)
        model.trainable = False
        assert model.trainable_variables == []
        model.trainable = True
        assert models.trained_paths(model) == paths

    def test_loaded_model_has_the_same_outputs_and_trains(self, tmp_path):
        model, _ = self.trained()
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert_close(run(again, X), run(model, X))
        assert models.trained_paths(again) == models.trained_paths(model)
        assert_close(again.optimizer.variables, model.optimizer.variables)
        config = adapters.attached(again)["default"].get_config()
        assert config == self.recipe().get_config()
        before = arrays(again.weights)
        self.continue_fit(again)
        moved = self.moved(again, before)
        assert all(v.trainable for v in moved)
        assert self.names(again, moved) == self.learns

    @pytest.mark.costly
    def test_xla_trains_the_same(self):
        plain, before = self.trained()
        model = small()
        self.recipe().attach(model)
        model.set_weights(before)
        self.fit(model, epochs=2, run_eagerly=False, jit_compile=True)
        assert_close(model.weights, plain.weights, 1e-5)

    @pytest.mark.costly
    def test_mixed_bfloat16(self):
        full = self.attached()
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = small()
        y = run(model, X)
        self.recipe().attach(model)
        if not self.at_once:
            assert_close(run(model, X), y)
        assert {v.dtype for _, part in all_parts(model) for v in part.weights} <= {
            "float32"
        }
        model.set_weights(full.get_weights())
        for a, b in zip(arrays(run(model, X)), arrays(run(full, X)), strict=True):
            np.testing.assert_allclose(a.astype("float32"), b, rtol=0, atol=0.1)
        before = arrays(model.weights)
        self.fit(model)
        assert self.names(model, self.moved(model, before)) <= self.learns
        assert all(np.isfinite(array(v)).all() for v in model.trainable_variables)

    def test_disabled_adapter_gives_the_base_model_exactly(self):
        model = small()
        y = run(model, X)
        self.recipe().attach(model)
        models.disturb_head(self.disturbed(model))
        changed = run(model, X)
        assert np.abs(changed - y).max() > 1e-3
        if self.own:
            off = adapters.disabled(model)
            with pytest.raises(ValueError, match="switched off"), off:
                pass
            return
        with adapters.disabled(model):
            assert_close(run(model, X), y)
        assert_close(run(model, X), changed)

    def test_merging_changes_no_output(self):
        model = small()
        classes = models.classes(model)
        model = models.disturb_head(self.attached())
        y = run(model, X)
        if self.cannot_fold:
            with pytest.raises(ValueError, match=self.cannot_fold):
                adapters.merge(model)
            assert_close(run(model, X), y)
            return
        adapters.merge(model)
        assert models.classes(model) == classes
        assert_close(run(model, X), y, 1e-5)
        adapters.unmerge(model)
        assert_close(run(model, X), y)

    def test_switching_between_two(self):
        model = self.attached("first")
        y = run(model, X)
        if self.own:
            with pytest.raises(ValueError, match="combined in one model"):
                self.recipe().attach(model, "second")
            return
        self.recipe().attach(model, "second")
        models.disturb_head(self.disturbed(model, "second", 0.5), "second")
        other = run(model, X)
        assert np.abs(other - y).max() > 1e-3
        adapters.use(model, "first")
        assert_close(run(model, X), y)
        assert self.names(model, model.trainable_variables) == self.learns
        adapters.use(model, "second")
        assert_close(run(model, X), other)

    def test_target_without_a_match_raises(self):
        model = small()
        classes = models.classes(model)
        with pytest.raises(ValueError, match="The nearest are"):
            self.recipe(targets="selfattention_lyr").attach(model)
        assert models.classes(model) == classes

    def test_layer_objects_as_targets(self):
        model = small()
        self.recipe().attach(model)
        path, layer = self.a_target(model)
        adapters.detach(model)
        self.recipe(targets=[layer]).attach(model)
        config = adapters.attached(model)["default"].get_config()
        assert len(config["targets"]) == 1
        other = small()
        type(self.recipe()).from_config(config).attach(other)
        assert models.trained_paths(other) == models.trained_paths(model)

    def a_target(self, model):
        """Return path and layer of one target of an attached model."""
        recipe = adapters.attached(model)["default"]
        target = recipe.find(model)[0]
        return target.path, target.layer

    def test_convolutional_networks(self):
        model = tiny.hub_resnet()
        x = models.images()
        y = run(model, x)
        if self.no_images:
            with pytest.raises(ValueError, match=self.no_images):
                self.recipe().attach(model)
            return
        self.recipe().attach(model)
        assert_close(run(model, x), y)
        self.disturbed(model, scale=0.1)
        changed = run(model, x)
        assert np.abs(changed - y).max() > 1e-3
        if not self.cannot_fold:
            adapters.merge(model)
            assert_close(run(model, x), changed, 1e-5 * np.abs(changed).max())
