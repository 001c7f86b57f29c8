"""LoRA as a recipe: targets, numbers, errors, and the printed line."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from keras_transfer.backbones.block_patterns import find_owners
from tests import tiny
from tests.adapters import models
from tests.backbones import families
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compute import tensorflow_only

LAYER = "transformer_layer_{}/self_attention_layer/{}"


def paths(model, name=None):
    return [path for path, _, _ in places(model, name)]


def test_queries_and_values_by_default():
    model = tiny.bert(num_layers=2)
    assert adapters.LoRA(rank=2).attach(model) is model
    expected = [LAYER.format(i, name) for i in (0, 1) for name in ("query", "value")]
    assert sorted(paths(model)) == expected


def test_paths_match_layer_groups():
    model = tiny.bert_classifier()
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    owners = {owner.path for owner in find_owners(model)}
    assert set(paths(model)) <= owners
    assert all(path.startswith("bert_backbone/") for path in paths(model))


def test_starts_as_the_base_model():
    model = models.nested()
    y = model(models.tokens())
    adapters.LoRA(rank=2).attach(model)
    assert np.array_equal(model(models.tokens()), y)


def test_equals_the_sum_of_the_matrices():
    model, other = models.nested(), models.nested()
    other.set_weights(model.get_weights())
    adapters.LoRA(rank=2, alpha=3, targets="all-linear").attach(model)
    models.disturb(model)
    at = {owner.path: owner.layer for owner in find_owners(other)}
    for path, _, part in places(model):
        a, b = array(part.lora_a), array(part.lora_b)
        kernel = at[path].kernel
        kernel.assign(array(kernel) + 1.5 * (a @ b).reshape(kernel.shape))
    before = array(other(models.tokens()))
    assert_close(model(models.tokens()), before, 1e-5)


def test_parameter_count_of_a_query_matches_peft():
    layer = keras.layers.EinsumDense("btc,chd->bthd", (None, 12, 32), name="query")
    model = keras.Sequential([keras.Input((None, 384)), layer])
    adapters.LoRA(targets="query").attach(model)
    assert sum(array(v).size for v in model.trainable_weights) == 6144


def test_convolutions_of_a_single_block_by_default():
    import keras_hub

    settings = families.HUB_RESNET | dict(
        stackwise_num_filters=[64], stackwise_num_blocks=[1], stackwise_num_strides=[1]
    )
    model = keras_hub.models.ResNetBackbone(block_type="basic_block", **settings)
    adapters.LoRA(rank=2).attach(model)
    assert paths(model) == ["stack0_block0_1_conv", "stack0_block0_2_conv"]


@pytest.mark.slow
def test_convolutions_of_the_blocks_by_default():
    model = tiny.hub_resnet()
    y = model(models.images())
    adapters.LoRA(rank=2).attach(model)
    names = paths(model)
    assert names and all("block" in name for name in names)
    assert np.array_equal(model(models.images()), y)
    before = arrays(model.non_trainable_weights)
    models.disturb(model)
    out = keras.layers.GlobalAveragePooling2D()(model.output)
    head = keras.Model(model.input, keras.layers.Dense(3)(out))
    models.compiled(head, run_eagerly=True).fit(
        models.images(), models.labels(4), verbose=0
    )
    # The statistics of BatchNormalization do not change either.
    assert_close(model.non_trainable_weights, before)


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny.cv_resnet, tiny.applications_resnet])
def test_other_convolutional_families(make):
    model = make()
    x = models.images(size=model.input_shape[1])
    y = np.asarray(model(x))
    adapters.LoRA(rank=2).attach(model)
    assert paths(model)
    assert np.array_equal(model(x), y)
    models.disturb(model, 0.05)
    changed = model(x)
    scale = np.abs(y).max()  # MobileNet's random features are tiny
    assert np.abs(changed - y).max() > 1e-3 * scale
    adapters.merge(model)
    assert_close(model(x), changed, 1e-4 * np.abs(changed).max())


def test_all_linear_leaves_out_the_head_and_embeddings():
    model = models.nested()
    adapters.LoRA(rank=2, targets="all-linear").attach(model)
    assert len(paths(model)) == 2 * 6 + 1  # q, k, v, output, two of the MLP; pooler
    assert "logits" not in paths(model)


def test_a_regular_expression_over_paths():
    model = models.nested()
    adapters.LoRA(rank=2, targets=r"layer_1/.*/(query|key)$").attach(model)
    assert [path.split("/")[1:] for path in paths(model)] == [
        ["transformer_layer_1", "self_attention_layer", "query"],
        ["transformer_layer_1", "self_attention_layer", "key"],
    ]


def test_layer_objects_become_paths_in_the_recipe():
    model = models.nested()
    layer = model.layers[-2].get_layer("pooled_dense")
    recipe = adapters.LoRA(rank=2, targets=[layer, "value$"])
    with pytest.raises(ValueError, match="Attach it"):
        recipe.get_config()
    recipe.attach(model)
    kept = adapters.attached(model)["default"]
    again = adapters.LoRA.from_config(kept.get_config())
    other = models.nested()
    again.attach(other)
    assert paths(other) == paths(model) and len(paths(model)) == 3


def test_rank_and_alpha_by_pattern():
    model = models.nested()
    adapters.LoRA(
        rank=4,
        alpha=8,
        rank_pattern={"transformer_layer_0/.*/query": 1},
        alpha_pattern={"value": 3},
    ).attach(model)
    found = {path: (part.rank, part.scaling) for path, _, part in places(model)}
    assert sorted(found.values()) == [(1, 8.0), (4, 0.75), (4, 0.75), (4, 2.0)]


def test_rank_stabilized_scaling():
    model = models.nested()
    adapters.RsLoRA(rank=4, alpha=8).attach(model)
    assert {part.scaling for _, _, part in places(model)} == {4.0}


def test_reversible_embedding_tied_output_included():
    import keras_hub

    layer = keras_hub.layers.ReversibleEmbedding(10, 6, name="tokens", logit_soft_cap=3)
    ids = keras.Input((4,), dtype="int32")
    model = keras.Model(ids, layer(layer(ids), reverse=True))
    x = np.arange(8).reshape(2, 4)
    y = array(model(x))
    adapters.LoRA(rank=2, targets="tokens").attach(model)
    assert_close(model(x), y)
    models.disturb(model)
    part = next(places(model))[2]
    matrix = array(layer.embeddings) + part.delta(layer)
    expected = 3 * np.tanh(matrix[x] @ matrix.T / 3)
    assert_close(model(x), expected, 1e-5)
    part.tied = False  # as in PEFT
    expected = 3 * np.tanh(matrix[x] @ array(layer.embeddings).T / 3)
    assert_close(model(x), expected, 1e-5)
    with pytest.raises(ValueError, match="logits too"):
        adapters.merge(model)
    part.tied = True
    y = array(model(x))
    adapters.merge(model)
    assert type(layer) is keras_hub.layers.ReversibleEmbedding
    assert_close(model(x), y, 1e-5)


def test_the_pair_of_an_embedding_has_no_dropout():
    layers = [keras.layers.Embedding(9, 6, name="words"), keras.layers.Dense(5)]
    model = keras.Sequential([keras.Input((3,), dtype="int32"), *layers])
    adapters.LoRA(rank=2, dropout=0.1, targets="words|dense").attach(model)
    below = {path: len(_keras.flat_layers(part)) for path, _, part in places(model)}
    assert below["words"] == 1
    assert below.pop(layers[1].name) == 2


def test_an_embedding_keeps_its_mask():
    layer = keras.layers.Embedding(10, 4, mask_zero=True, name="words")
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.LSTM(2)])
    x = np.array([[1, 2, 0], [3, 0, 0]])
    y = model(x)
    adapters.LoRA(rank=2, targets="words").attach(model)
    assert_close(model(x), y)
    assert layer(x)._keras_mask is not None


def test_prints_one_line(capsys):
    adapters.LoRA(rank=2).attach(models.nested())
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert "LoRA 'default' on 4 layers of" in text
    # 4 pairs of (16, 2) and (2, 16), and the head of 16 x 3 + 3.
    assert "307 of " in text and "51 of them in the head" in text


def test_the_adapters_own_head_trains():
    model = models.nested()
    head = model.layers[-1]
    own = [head.kernel, head.bias]
    adapters.LoRA(rank=2).attach(model)
    shapes = [tuple(variable.shape) for variable in head.trainable_weights]
    assert shapes == [(16, 3), (3,)]
    assert not any(v is x for v in head.trainable_weights for x in own)
    frozen = models.nested()
    frozen.layers[-1].trainable = False
    adapters.LoRA(rank=2).attach(frozen)
    assert frozen.layers[-1].trainable_weights == []
    assert len(frozen.trainable_weights) == 8


@pytest.mark.slow
def test_a_pair_with_a_bias_equals_a_change_of_kernel_and_bias():
    model, other = models.nested(), models.nested()
    other.set_weights(model.get_weights())
    x, before = models.tokens(), arrays(model.weights)
    recipe = adapters.LoRA(rank=2, alpha=3, targets="query|output_dense", bias="pair")
    recipe.attach(model)
    assert_close(model(x), other(x))
    models.disturb(model)
    at = {owner.path: owner.layer for owner in find_owners(other)}
    for path, _, part in places(model):
        assert set(part.named_weights) == {"lora_a", "lora_b", "lora_bias"}
        a, b, bias = (array(weight) for weight in part.named_weights.values())
        host = at[path]
        host.kernel.assign(host.kernel + 1.5 * (a @ b).reshape(host.kernel.shape))
        host.bias.assign(host.bias + 1.5 * bias.reshape(host.bias.shape))
    wanted = array(other(x))
    assert_close(model(x), wanted, 1e-5)
    models.disturb(model)
    adapters.LoRA(rank=3, targets="query|output_dense", bias="pair").attach(model, "b")
    models.disturb(model)
    found = [array(model(x))]
    adapters.add_weighted(model, "sum", {"b": 1.0})
    found.append(array(model(x)))
    adapters.merge(model)
    found.append(array(model(x)))
    for each in found[1:]:
        assert_close(each, found[0], 1e-5)
    assert np.abs(found[0] - wanted).max() > 0.01
    adapters.unmerge(model)
    adapters.detach(model)
    assert len(before) == len(model.weights)


def test_a_bias_of_a_pair_is_refused_where_it_cannot_be():
    with pytest.raises(ValueError, match="not supported with init='pissa'"):
        adapters.LoRA(bias="pair", init="pissa")
    model = models.nested()
    with pytest.raises(ValueError, match="EmbeddingPair"):
        adapters.LoRA(rank=2, targets="token_embedding", bias="pair").attach(model)
    with pytest.raises(ValueError, match="for a Dense or an EinsumDense"):
        adapters.DoRA(rank=2, bias="pair").attach(model)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    adapters.LoRA(rank=2, targets="all-linear", bias="pair").attach(model)
    with pytest.raises(ValueError, match="has no such bias"):
        adapters.merge(model)


@pytest.mark.slow
def test_bias_trains_the_biases_of_the_targets_or_all():
    for bias, count in (("none", 0), ("lora_only", 4)):
        model = models.nested()
        adapters.LoRA(rank=2, bias=bias).attach(model)
        assert len(model.trainable_weights) == 8 + 2 + count
    model = models.nested()
    adapters.LoRA(rank=2, bias="all").attach(model)
    biases = [v for v in model.trainable_weights if v.name == "bias"]
    assert len(biases) == 2 * 6 + 1 + 1
    x = models.tokens()
    models.compiled(model, run_eagerly=True).fit(x, models.labels(), verbose=0)
    with pytest.raises(ValueError, match="combined in one model"):
        adapters.LoRA(rank=2).attach(model, "second")
    with pytest.raises(ValueError, match="switched off"), adapters.disabled(model):
        pass


@pytest.mark.parametrize(
    "kwargs, match",
    [
        (dict(rank=0), "rank=0"),
        (dict(rank=-1), "rank=-1"),
        (dict(rank_pattern={"query": 0}), "rank=0"),
        (dict(alpha=float("nan")), "alpha=nan"),
        (dict(alpha=float("inf")), "alpha=inf"),
        (dict(dropout=1.0), "dropout=1.0"),
        (dict(dropout=-0.5), "dropout=-0.5"),
        (dict(bias="some"), "bias='some'"),
    ],
)
def test_numbers_out_of_range_raise(kwargs, match):
    with pytest.raises(ValueError, match=match):
        adapters.LoRA(**kwargs)


def test_a_pattern_that_is_not_a_dict_raises():
    with pytest.raises(TypeError, match="dict"):
        adapters.LoRA(rank_pattern=[("query", 2)])


@pytest.mark.parametrize(
    "kwargs, match",
    [
        (dict(targets="qery"), "nearest are .*query"),
        (dict(targets="self_attention_layer_norm"), "LayerNormalization, which"),
        (dict(targets="("), "regular expression"),
        (dict(targets=[]), "must be None"),
        (dict(targets=3), "must be None"),
        (dict(targets=[3]), "3 cannot be a target"),
        (dict(rank=17), "too large"),
        (dict(rank_pattern={"qery": 2}), "matches none of the targets"),
        (dict(alpha_pattern={"key": 2}), "matches none of the targets"),
        (dict(targets="segment_embedding"), "too large"),
    ],
)
def test_a_failing_attach_changes_nothing(kwargs, match):
    model = models.nested()
    adapters.LoRA(rank=2).attach(model, "first")
    classes, weights = models.classes(model), model.get_weights()
    flags = _keras.flags(model), [v.trainable for v in model.weights]
    wrong_type = "must be None" in match or "cannot be a target" in match
    error = TypeError if wrong_type else ValueError
    with pytest.raises(error, match=match):
        adapters.LoRA(**{"rank": 3} | kwargs).attach(model, "second")
    assert models.classes(model) == classes
    assert_close(model.get_weights(), weights)
    assert flags == (_keras.flags(model), [v.trainable for v in model.weights])
    assert list(adapters.attached(model)) == ["first"]


def test_an_error_during_attach_changes_nothing(monkeypatch):
    model = models.nested()
    classes, weights = models.classes(model), model.get_weights()
    flags = _keras.flags(model), [v.trainable for v in model.weights]

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("keras_transfer.adapters.plan.retrace", fail)
        with pytest.raises(KeyboardInterrupt):
            adapters.LoRA(rank=2).attach(model)
    assert models.classes(model) == classes
    assert_close(model.get_weights(), weights)
    assert flags == (_keras.flags(model), [v.trainable for v in model.weights])
    adapters.LoRA(rank=2).attach(model)


def test_models_that_cannot_be_adapted_raise():
    with pytest.raises(ValueError, match="not built"):
        adapters.LoRA().attach(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(TypeError, match="Keras model"):
        adapters.LoRA().attach("model")
    with pytest.raises(ValueError, match="No default targets"):
        adapters.LoRA(rank=2).attach(tiny.mlp())
    backbone = kt.backbones.FrozenBackbone(tiny.bert(num_layers=2))
    model = kt.models.TransferClassifier(backbone, 3)
    with pytest.raises(ValueError, match="FrozenBackbone"):
        adapters.LoRA(rank=2).attach(model)
    native = tiny.bert(num_layers=2)
    native.enable_lora(2)
    with pytest.raises(ValueError, match="enable_lora"):
        adapters.LoRA(rank=2).attach(native)
    own = keras.Sequential([keras.Input((4,)), adapters.LoRADense(4, rank=2)])
    with pytest.raises(ValueError, match="pair of their own"):
        adapters.LoRA(rank=2, targets="dense").attach(own, "second")
    with pytest.raises(ValueError, match="cannot name an adapter"):
        adapters.LoRA(rank=2).attach(tiny.bert(), "a/b")


def test_a_subclass_that_overrides_call_is_not_a_target():
    class Doubled(keras.layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    model = keras.Sequential([keras.Input((4,)), Doubled(4, name="doubled")])
    with pytest.raises(ValueError, match="of the class Doubled"):
        adapters.LoRA(rank=2, targets="doubled").attach(model)
    with pytest.raises(ValueError, match="no layer that"):
        adapters.LoRA(rank=2).attach(model)


@pytest.mark.slow
def test_gradual_unfreezing_trains_the_pairs_and_never_the_base():
    model = models.nested()
    adapters.LoRA(rank=2).attach(model, "idle")
    adapters.LoRA(rank=2).attach(model)
    models.disturb(model)
    base = models.base_values(model)
    idle = [array(v) for _, _, part in places(model, "idle") for v in part.weights]
    model.compile(keras.optimizers.AdamW(0.01), "mse", run_eagerly=True)
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    x, y = models.tokens(), np.ones((8, 3))
    model.fit(x, y, epochs=3, callbacks=[unfreezing], verbose=0)
    moved = [
        v.path
        for v in model.weights
        if id(v) in base and not np.array_equal(array(v), base[id(v)])
    ]
    assert moved == []  # not even the head, because the adapter's own head trains
    now = [array(v) for _, _, part in places(model, "idle") for v in part.weights]
    assert_close(now, idle)
    assert len(model.trainable_variables) == 8 + 2
    assert len(model.optimizer.variables) < 3 * 12 + 12  # slots for these alone


@pytest.mark.slow
def test_lora_plus_sets_a_learning_rate_for_b():
    model = models.nested()
    adapters.LoRA(rank=2).attach(model)
    groups = kt.layer_groups(model)
    rates = {(name, "lora_b"): 16.0 for name in groups.names if "transformer" in name}
    sgd = keras.optimizers.SGD(0.01)
    optimizer = kt.optimizers.discriminative(sgd, model, rates=rates)
    models.disturb(model, 0.1)
    before = {v.path: array(v) for v in model.trainable_variables}
    model.compile(optimizer, "mse", run_eagerly=True)
    x, y = models.tokens(), np.ones((8, 3))
    model.fit(x, y, batch_size=8, verbose=0)
    moved = {v.path: array(v) - before[v.path] for v in model.trainable_variables}
    for variable in model.trainable_variables:
        variable.assign(before[variable.path])
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    model.fit(x, y, batch_size=8, verbose=0)
    for variable in model.trainable_variables:
        step = array(variable) - before[variable.path]
        factor = 16 if variable.name == "lora_b" else 1
        np.testing.assert_allclose(moved[variable.path], factor * step, atol=2e-6)


def test_the_config_is_plain_json():
    import json

    recipe = adapters.RsLoRA(
        2, 4, ["query$", "value$"], 0.1, {"query": 1}, {"value": 2}
    )
    config = keras.saving.serialize_keras_object(recipe)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert type(again) is adapters.RsLoRA
    assert again.get_config() == recipe.get_config()


@tensorflow_only("the values are random numbers of TensorFlow")
def test_a_seed_gives_the_same_initial_values_as_before():
    # The values of version 0.1.0. Reading `weight_specs` must not draw seeds.
    model = tiny.mlp()
    keras.utils.set_random_seed(0)
    adapters.LoRA(rank=2, targets="dense_[01]").attach(model)
    sums = [np.abs(array(v)).sum() for v in model.trainable_weights]
    np.testing.assert_allclose(sums, [1.8951323, 0, 1.6838515, 0], rtol=1e-5)


@pytest.mark.slow
def test_queries_and_values_of_esm_by_default():
    model = families.build("esm")
    adapters.LoRA(rank=2).attach(model)
    ends = {path.rsplit("/", 1)[-1] for path in paths(model)}
    assert ends == {"q_dense_layer", "v_dense_layer"}
    assert len(paths(model)) == 6
