"""Domain adaptation with backbones, adapters, callbacks and mixed precision."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_transfer as kt
from keras_transfer.adapters.switching import own_places
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.models import AdaBN
from keras_transfer.models import DANN
from keras_transfer.models import DeepCORAL
from keras_transfer.models import VADA
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import build
from tests.contracts.compare import run
from tests.contracts.domain_contract import free_head
from tests.contracts.domain_contract import LABELS
from tests.contracts.domain_contract import LOGITS


def tokens(seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 60, size=(8, 12))
    mask = np.arange(12) < rng.integers(3, 12, size=(8, 1))
    x = dict(token_ids=ids, segment_ids=ids * 0, padding_mask=mask)
    return {name: value.astype("int32") for name, value in x.items()}


def images(size=16, seed=0):
    return np.random.default_rng(seed).random((8, size, size, 3), "float32")


def data(make=tokens, batch_size=4):
    """Return a dataset of two domains."""
    return kt.data.domain_dataset((make(seed=0), LABELS), make(seed=1), batch_size)


def bert(**kwargs):
    return tiny.bert(num_layers=2, dropout=0.0, **kwargs)


def compiled(model, optimizer=None, **kwargs):
    kwargs = dict(jit_compile=False, run_eagerly=True) | kwargs
    model.compile(optimizer or keras.optimizers.Adam(0.01), LOGITS, **kwargs)
    return model


def train(model, batches=None, **kwargs):
    settings = dict(verbose=0, shuffle=False) | kwargs
    batches = data() if batches is None else batches
    build(model, *next(iter(batches)))
    return model.fit(batches, **settings).history


def moved(variables, before):
    """Return for each variable whether it changed."""
    return [
        not np.array_equal(a, b) for a, b in zip(arrays(variables), before, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [VADA])  # which does all that DANN does
def test_bert_accepts_dictionaries_of_tokens(tmp_path, kind):
    model = compiled(kind(bert(), free_head()), metrics=["accuracy"])
    history = train(model, epochs=2)
    assert all(np.isfinite(values).all() for values in history.values())
    found = model.evaluate(tokens(1), LABELS, verbose=0, return_dict=True)
    assert found.keys() == {"loss", "accuracy"}
    assert model.predict(tokens(1), verbose=0).shape == (8, 3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(run(again, tokens(1)), run(model, tokens(1)))
    assert_close(again.optimizer.variables, model.optimizer.variables)
    train(again)


def test_each_example_keeps_its_padding_mask():
    # In a batch of both domains, each row keeps its own mask.
    model = compiled(DANN(bert(), free_head(), strength=1.0))
    both = run(model, {"source": tokens(0), "target": tokens(1)})
    for name, seed in (("source", 0), ("target", 1)):
        assert_close(both[name], run(model, tokens(seed)), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DANN, DeepCORAL])
@pytest.mark.parametrize(
    "make, size", [(tiny.hub_resnet, 16), (tiny.applications_resnet, 32)]
)
def test_image_backbones(tmp_path, kind, make, size):
    model = kind(make(), free_head(), strength=1.0)
    compiled(model, keras.optimizers.SGD(0.01))
    weights = arrays(model.trainable_variables)

    def pictures(seed):
        return images(size, seed)

    history = train(model, data(pictures), steps_per_epoch=1)
    assert all(np.isfinite(values).all() for values in history.values())
    assert any(moved(model.trainable_variables, weights))
    outputs = run(model, pictures(1))
    assert outputs.shape == (8, 3)
    again = kind.from_config(model.get_config())
    again.set_weights(model.get_weights())
    assert_close(run(again, pictures(1)), outputs, 1e-5)


def test_ada_bn_of_a_backbone():
    model = AdaBN(tiny.hub_resnet(), free_head())
    before = arrays(model.trainable_variables)
    model.adapt(images(seed=1))
    assert not any(moved(model.trainable_variables, before))
    norms = [
        x for x in model._flatten_layers() if isinstance(x, layers.BatchNormalization)
    ]
    assert norms and all(np.any(array(x.moving_mean) != 0) for x in norms)


@pytest.mark.slow
def test_a_frozen_backbone_does_not_change_while_the_heads_train():
    network = bert()
    model = compiled(DANN(FrozenBackbone(network), free_head(), strength=1.0))
    before, heads = arrays(network.weights), arrays(model.trainable_variables)
    assert len(heads) == 2 + 4
    train(model)
    assert not any(moved(network.weights, before))
    assert all(moved(model.trainable_variables, heads))


@pytest.mark.slow
@pytest.mark.parametrize(
    "when, targets", [("before", None), ("after", "all-linear")], ids=str
)
def test_lora_trains_with_both_heads_and_the_base_is_frozen(tmp_path, when, targets):
    network = bert()
    recipe = kt.adapters.LoRA(rank=2, targets=targets)
    if when == "before":
        recipe.attach(network)
        model = DANN(network, free_head(), strength=1.0)
    else:
        model = DANN(network, free_head(), strength=1.0)
        recipe.attach(model)
    compiled(model)
    base = [v for v in model.weights if not v.trainable]
    heads = model.label_head.weights + model.domain_head.weights
    if when == "after":  # the adapter trains its own copy of the heads
        heads = [part.named_weights for _, _, part in own_places(model, "default")]
        heads = [v for weights in heads for v in weights.values()]
    pairs = [v for v in model.trainable_variables if v.name in ("lora_a", "lora_b")]
    assert {id(v) for v in model.trainable_variables} == {
        id(v) for v in [*pairs, *heads]
    }
    fixed, learning = arrays(base), arrays([*pairs, *heads])
    train(model, epochs=2)
    assert not any(moved(base, fixed))
    assert all(moved([*pairs, *heads], learning))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    outputs = run(model, tokens(1))
    assert_close(run(again, tokens(1)), outputs)
    assert len(again.trainable_variables) == len(model.trainable_variables)
    assert_close(again.optimizer.variables, model.optimizer.variables)
    train(again)
    if when == "after":
        kt.adapters.merge(model)
        assert_close(run(model, tokens(1)), outputs, 1e-5)
        assert not any("lora" in v.name for v in model.weights)


@pytest.mark.slow
def test_gradual_unfreezing_starts_with_both_heads():
    model = compiled(DANN(bert(), free_head()))
    groups = kt.layer_groups(model)
    assert groups.names == [
        "stem",
        "transformer_layer_0",
        "transformer_layer_1",
        "head",
    ]
    for each in model.label_head.weights + model.domain_head.weights:
        assert groups.position(each) == 3
    seen = {}

    def note(epoch, logs=None):
        seen[epoch] = len(model.trainable_variables), arrays(model.domain_head.weights)

    unfreezing = kt.callbacks.GradualUnfreezing(model)
    note(-1)
    logs = train(
        model,
        epochs=4,
        callbacks=[unfreezing, keras.callbacks.LambdaCallback(on_epoch_end=note)],
    )
    assert seen[0][0] == 2 + 4
    counts = [seen[epoch][0] for epoch in range(4)]
    assert counts == sorted(set(counts))
    for epoch in range(4):
        assert all(moved(seen[epoch][1], seen[epoch - 1][1]))
    # A strength of None rises over all phases.
    expected = 2 / (1 + np.exp(-10 * np.array([2, 4, 6, 8]) / 8)) - 1
    np.testing.assert_allclose(logs["strength"], expected, atol=1e-6)


@pytest.mark.slow
def test_the_domain_head_trains_at_the_full_learning_rate():
    model = DANN(bert(), free_head(), strength=1.0)
    optimizer = kt.optimizers.discriminative(
        keras.optimizers.SGD(0.01), model, layer_decay=0.5
    )
    compiled(model, optimizer)
    start = model.get_weights()
    train(model, data(batch_size=8))
    ours = arrays(model.domain_head.weights)
    stem = model.feature_extractor.get_layer("token_embedding").embeddings
    step = arrays(stem)[0]
    model.set_weights(start)
    before = arrays(stem)[0]
    compiled(model, keras.optimizers.SGD(0.01))
    train(model, data(batch_size=8))
    assert_close(ours, arrays(model.domain_head.weights), 1e-6)
    plain = arrays(stem)[0] - before
    assert np.abs(plain).max() > 1e-5
    np.testing.assert_allclose(step - before, plain / 8, atol=1e-6)


@pytest.mark.slow
def test_mixed_float16_in_a_graph():
    keras.config.set_dtype_policy("mixed_float16")
    model = DANN(bert(), free_head())
    compiled(model, metrics=["accuracy"], run_eagerly=False)
    history = train(model, epochs=2)
    assert all(np.isfinite(values).all() for values in history.values())
    # A step that float16 skips is not an update, so it does not count.
    expected = 2 / (1 + np.exp(-10 * np.array([1, 3]) / 4)) - 1
    assert np.all(history["strength"] >= expected - 1e-6)
