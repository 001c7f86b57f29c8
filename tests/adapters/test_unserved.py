"""Layers where a part has no effect are left out, or raise if they are named."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_transfer import _keras
from keras_transfer import adapters
from keras_transfer.adapters.adapter_part import Part
from keras_transfer.adapters.switching import places
from tests.adapters import models
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
IDS = np.arange(6).reshape(2, 3)


class Reading(keras.Model):
    """A model that reads one layer's kernel, calls another, and ignores a third."""

    def __init__(self, name="reading"):
        super().__init__(name=name)
        self.read = keras.layers.Dense(5, name="read")
        self.called = keras.layers.Dense(4, name="called")
        self.idle = keras.layers.Dense(3, name="idle")

    def build(self, shape):
        self.read.build(shape)
        self.called.build((None, 5))
        self.idle.build((None, 4))

    def call(self, x):
        return self.called(ops.matmul(x, self.read.kernel))


class Eager(Reading):
    """A model that cannot run on symbolic inputs."""

    def call(self, x):
        return super().call(ops.convert_to_tensor(array(x)))


class Tied(keras.Model):
    """A language model that reads the embedding's weights to compute the logits."""

    def __init__(self):
        super().__init__(name="tied")
        self.words = keras.layers.Embedding(9, 6, name="words")
        self.hidden = keras.layers.Dense(6, name="hidden")

    def call(self, ids):
        hidden = self.hidden(self.words(ids))
        return ops.matmul(hidden, ops.transpose(self.words.embeddings))


def tied_in_a_graph():
    """Return a functional model that computes as `Tied`."""
    ids = keras.Input((3,), dtype="int32")
    words = keras.layers.Embedding(9, 6, name="words")
    hidden = keras.layers.Dense(6, name="hidden")(words(ids))
    logits = ops.einsum("btd,vd->btv", hidden, words.embeddings)
    return keras.Model(ids, logits, name="tied")


def called(model, x):
    model(x)
    return model


def parts_on(model):
    return [path for path, _, _ in places(model)]


@pytest.mark.parametrize("make", [Reading, Eager])
def test_layers_that_never_run_are_left_out_by_default(make, capsys):
    model = called(make(), X)
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    assert parts_on(model) == ["called"]
    assert (
        "not on ['read', 'idle'], where it would have no effect"
        in capsys.readouterr().out
    )
    outputs = run(models.disturb(model), X)
    adapters.merge(model)
    assert_close(run(model, X), outputs, 1e-5)


@pytest.mark.parametrize(
    "name, why",
    [("read", "the Reading.*reads its weights and"), ("idle", "'idle': it never runs")],
)
def test_naming_a_layer_that_never_runs_raises(name, why):
    model = called(Reading(), X)
    was = models.classes(model)
    for technique, more in ((adapters.LoRA, {"rank": 2}), (adapters.IA3, {})):
        with pytest.raises(ValueError, match=why):
            technique(targets=[f"^{name}$", "^called$"], **more).attach(model)
    with pytest.raises(ValueError, match=why):
        adapters.Bottleneck(size=2, targets=f"^{name}$").attach(model)
    assert models.classes(model) == was and adapters.attached(model) == {}


class Trained(Reading):
    """A model with a layer that runs only in training."""

    def call(self, x, training=False):
        outputs = super().call(x)
        return outputs + self.idle(outputs)[:, :1] if training else outputs


def test_a_layer_that_runs_only_in_training_can_be_named():
    model = Trained()
    model(X)
    adapters.LoRA(rank=1, targets="idle").attach(model)
    assert [weight.name for weight in model.trainable_weights][:2] == [
        "lora_a",
        "lora_b",
    ]


class Spare(Reading):
    """A model with a layer that is not built."""

    def build(self, shape):
        self.read.build(shape)
        self.called.build((None, 5))


@pytest.mark.parametrize("was_called", [True, False])
def test_a_layer_without_weights_is_left_out_or_raises(was_called):
    model = Spare()
    model(X) if was_called else model.build((None, 6))
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    assert "idle" not in parts_on(model)
    model = Spare()
    model(X) if was_called else model.build((None, 6))
    with pytest.raises(ValueError, match="'idle': it has no weights yet"):
        adapters.LoRA(rank=2, targets=["called", "idle"]).attach(model)


@pytest.mark.parametrize("make", [Tied, tied_in_a_graph])
def test_a_layer_whose_weight_another_layer_reads_raises(make):
    model = called(make(), IDS)
    with pytest.raises(ValueError, match=r"'words': the \w+ 'tied' reads"):
        adapters.LoRA(rank=2, targets="words").attach(model)
    adapters.LoRA(rank=2, targets="hidden").attach(model)
    assert parts_on(model) == ["hidden"]


def test_a_bottleneck_can_be_added_where_another_layer_reads_the_weights():
    class Both(Reading):
        def call(self, x):
            return self.called(self.read(x) + ops.matmul(x, self.read.kernel))

    model = called(Both(), X)
    adapters.Bottleneck(size=2, targets="^read$").attach(model)
    assert parts_on(model) == ["read"]
    with pytest.raises(ValueError, match="'read': the Both.*as well"):
        adapters.LoRA(rank=2, targets="^read$").attach(model, "second")


def test_merge_raises_if_an_outer_model_reads_the_weights():
    ids = keras.Input((3,), dtype="int32")
    words = keras.layers.Embedding(9, 6, name="words")
    inner = keras.Model(ids, words(ids))
    adapters.LoRA(rank=2, targets="words").attach(inner)
    logits = ops.einsum("btd,vd->btv", inner(ids), words.embeddings)
    outer = keras.Model(ids, logits, name="outer")
    outputs = run(models.disturb(outer), IDS)
    with pytest.raises(ValueError, match="'words' cannot be merged: the .*'outer'"):
        adapters.merge(outer)
    assert_close(run(outer, IDS), outputs)
    assert parts_on(inner) == ["words"]


def test_a_symbolic_pass_does_not_change_the_model():
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(6)(inputs))
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(x))
    before = arrays(model.variables)
    nodes = [len(each._inbound_nodes) for each in model.layers]
    once = _keras.symbolic_pass(model, model.layers, Part)
    assert once.ran >= {id(layer) for layer in model.layers[1:]}
    assert once.readers == {}
    assert_close(arrays(model.variables), before)
    assert [len(each._inbound_nodes) for each in model.layers] == nodes
    assert all("call" not in vars(each) for each in model.layers)
    never = Reading()
    never.build((None, 6))
    once = _keras.symbolic_pass(never, [never.read], Part)
    assert once.readers == {id(never.read): never}
    assert not any(map(_keras.was_called, [never, *never.layers]))


class Direct(keras.layers.Layer):
    """Calls its layer, or reads the kernel of the layer if `_direct` is set."""

    runs, _direct = [], False

    def build(self, shape):
        self.inner = keras.layers.Dense(4, name="inner")
        self.inner.build(shape)

    def call(self, x):
        self.runs.append(x)
        return x @ self.inner.kernel if self._direct else self.inner(x)


def test_more_adapters_need_no_pass_until_the_model_changes():
    block = Direct()
    model = keras.Sequential([keras.Input((6,)), block, keras.layers.Dense(2)])
    lora = adapters.LoRA(rank=1, targets="inner")
    lora.attach(model, "first")
    runs = len(block.runs)
    lora.attach(model, "second")
    assert len(block.runs) == runs
    block._direct = True
    with pytest.raises(ValueError, match="reads its weights"):
        lora.attach(model, "third")
    assert len(block.runs) > runs


def test_a_feed_forward_network_computed_by_its_block():
    import keras_hub

    model = keras_hub.models.Gemma4Backbone(
        vocabulary_size=20,
        image_size=16,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=12,
        head_dim=4,
        layer_types=["full_attention"],
    )
    x = {key: np.ones((2, 5), "int32") for key in model.input}
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    assert len(parts_on(model)) == 4
    assert not any("ffw" in path for path in parts_on(model))
    outputs = run(models.disturb(model), x)
    adapters.merge(model)
    assert_close(run(model, x), outputs, 1e-5)
