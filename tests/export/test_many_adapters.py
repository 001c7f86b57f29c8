"""A graph with several adapters gives each example its merged model's outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.adapters.adapter_part import all_parts
from keras_transfer.adapters.adapter_part import parts_of
from keras_transfer.adapters.low_rank import DensePair
from keras_transfer.export.many_adapters import ManyAdapters
from keras_transfer.export.request import plain_entry
from keras_transfer.export.serving import export_serving
from keras_transfer.export.stacked_pairs import StackedPairs
from tests import tiny
from tests.export.files import size

NAMES = ["cat", "dog", "cow"]
WHO = ["dog", "", "cow", "cat", "dog"]


def adapted(model, targets="hidden", ranks=(2, 3, 1), kind=kt.adapters.LoRA, **more):
    """Return the model with an adapter for each name, with different ranks."""
    rng = np.random.default_rng(0)
    for name, rank in zip(NAMES, ranks, strict=True):
        kind(rank=rank, targets=targets, **more).attach(model, name)
    for _, part in all_parts(model):
        for variable in part.named_weights.values():
            variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


def function_of(model, names=NAMES):
    """Return the traced function of inputs and adapter names of a signature."""
    many, plain = ManyAdapters(model, names), plain_entry(model)
    compute = many.forward(model, plain, "outputs")

    def run(x, who):
        tensors = plain.prepare({k: tf.constant(v) for k, v in inputs(x).items()})
        tensors = tensors if isinstance(tensors, dict) else {"inputs": tensors}
        return compute({**tensors, "adapter": tf.constant(who)})["outputs"].numpy()

    def inputs(x):
        return x if isinstance(x, dict) else {"inputs": x}

    return run


def merged_rows(model, x, who):
    """Return the outputs of the merged models, each for its rows."""
    found = None
    for name in dict.fromkeys(who):
        if name:
            kt.adapters.use(model, name)
            kt.adapters.merge(model)
            outputs = np.asarray(model(x, training=False), "float32")
            kt.adapters.unmerge(model)
        else:
            with kt.adapters.disabled(model):
                outputs = np.asarray(model(x, training=False), "float32")
        found = np.zeros_like(outputs) if found is None else found
        rows = [i for i, each in enumerate(who) if each == name]
        found[rows] = outputs[rows]
    return found


def around(layer, shape):
    """Return a functional model of one layer, a tanh and a Dense layer."""
    dtype = "int32" if isinstance(layer, keras.layers.Embedding) else "float32"
    x = keras.Input(shape, dtype=dtype)
    return keras.Model(
        x, keras.layers.Dense(2)(keras.layers.Activation("tanh")(layer(x)))
    )


def conv(*args, **more):
    return keras.layers.Conv2D(*args, name="hidden", activation="relu", **more)


def einsum(equation, shape, **more):
    return keras.layers.EinsumDense(equation, shape, name="hidden", **more)


LAYERS = {
    "dense": (keras.layers.Dense, (4,), (6,)),
    "dense of 4 axes": (keras.layers.Dense, (4,), (2, 3, 6)),
    "einsum": (einsum, ("abc,cde->abde", (None, 2, 3)), (5, 6)),
    "einsum, two axes in": (einsum, ("abcd,cde->abe", (None, 4)), (5, 2, 3)),
    "einsum, kernel turned": (einsum, ("abc,dc->abd", (None, 4)), (5, 6)),
    "einsum, ellipsis": (einsum, ("...x,xy->...y", 4), (5, 6)),
    "conv 1, strides": (conv, (4, 1, 2), (7, 8, 3)),
    "conv 5 x 2, strides": (conv, (4, (5, 2), (1, 2), "same"), (7, 8, 3)),
    "embedding": (keras.layers.Embedding, (20, 6), (5,)),
}
ACTIVATED = (keras.layers.Dense, einsum)


@pytest.mark.parametrize("name", LAYERS)
def test_each_host_gives_the_outputs_of_the_merged_models(name):
    make, arguments, shape = LAYERS[name]
    more = {} if make is conv or make is einsum else {"name": "hidden"}
    more |= {"activation": "gelu"} if make in ACTIVATED else {}
    model = adapted(around(make(*arguments, **more), shape))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5, *shape)).astype("float32")
    if make is keras.layers.Embedding:
        x = rng.integers(0, 20, (5, *shape)).astype("int32")
    wanted = merged_rows(model, x, WHO)
    np.testing.assert_allclose(function_of(model)(x, WHO), wanted, rtol=0, atol=1e-5)
    base = merged_rows(model, x, [""] * 5)
    assert np.abs(wanted - base).max(axis=tuple(range(1, wanted.ndim)))[0] > 1e-3


def test_dilated_convolutions():
    model = adapted(around(conv(4, 3, dilation_rate=2), (7, 8, 3)))
    x = np.random.default_rng(1).normal(size=(5, 7, 8, 3)).astype("float32")
    wanted = merged_rows(model, x, WHO)
    np.testing.assert_allclose(function_of(model)(x, WHO), wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["all-linear", ["token_embedding", "query"]])
def test_bert_equals_the_merged_models(targets):
    model = adapted(tiny.bert_classifier(num_layers=1), targets)
    rng = np.random.default_rng(1)
    ids = rng.integers(5, 64, (5, 12)).astype("int32")
    mask = (np.arange(12) < rng.integers(3, 13, (5, 1))).astype("int32")
    x = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": mask}
    found = function_of(model)(x, WHO)
    wanted = merged_rows(model, x, WHO)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_tied_embeddings_also_change_the_logits():
    layer = keras.layers.ReversibleEmbedding(20, 6, name="hidden")
    x = keras.Input((5,), dtype="int32")
    model = adapted(keras.Model(x, layer(keras.ops.tanh(layer(x)), reverse=True)))
    ids = np.random.default_rng(1).integers(0, 20, (5, 5)).astype("int32")
    found, wanted = function_of(model)(ids, WHO), merged_rows(model, ids, WHO)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)  # values up to 50
    for _, part in all_parts(model):
        part.tied = False
    kt.adapters.use(model, "dog")
    alone = np.asarray(model(ids))
    assert np.abs(function_of(model)(ids, ["dog"] * 5) - alone).max() < 1e-4
    assert np.abs(alone[0] - wanted[0]).max() > 1e-2


def test_adapters_on_different_layers_with_different_scalings():
    model = tiny.mlp()
    kt.adapters.LoRA(rank=2, alpha=1, targets="dense_0").attach(model, "cat")
    kt.adapters.RsLoRA(rank=3, alpha=5, targets="dense_[01]").attach(model, "dog")
    kt.adapters.LoRA(rank=1, targets="dense_1", dropout=0.5).attach(model, "cow")
    for _, part in all_parts(model):
        part.lora_b.assign(np.ones(part.lora_b.shape))
    x = np.random.default_rng(1).normal(size=(5, 6)).astype("float32")
    found, wanted = function_of(model)(x, WHO), merged_rows(model, x, WHO)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_an_adapter_that_is_not_exported_has_no_effect():
    model = adapted(tiny.mlp(), "dense_[01]")
    x = np.random.default_rng(1).normal(size=(5, 6)).astype("float32")
    wanted = merged_rows(model, x, ["dog", ""] * 2 + ["dog"])
    kt.adapters.use(model, "cow")
    found = function_of(model, ["dog"])(x, ["dog", ""] * 2 + ["dog"])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="cow"):
        function_of(model, ["dog"])(x, ["cow"] * 5)


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = adapted(tiny.mlp(), "dense_[01]")
    x = np.random.default_rng(1).normal(size=(5, 6)).astype("float32")
    found, wanted = function_of(model)(x, WHO), merged_rows(model, x, WHO)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.05)


def test_any_batch_size():
    run = function_of(adapted(tiny.mlp(), "dense_[01]"))
    for rows in (0, 1, 7):
        x = np.ones((rows, 6), "float32")
        found = run(x, np.array(["dog"] * rows, dtype=str).reshape(-1))
        assert found.shape == (rows, 3)


def test_an_unknown_name_raises_with_the_known_names():
    run = function_of(adapted(tiny.mlp(), "dense_0"))
    x = np.ones((2, 6), "float32")
    for who in (["dog", "bird"], ["Dog", "dog"], ["dog ", "dog"]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="cat dog cow") as info:
            run(x, who)
        (bad,) = set(who) - {"dog"}
        assert bad in str(info.value).split("Unknown:")[1]
    assert run(x, ["dog", "cat"]).shape == (2, 3)


def test_each_example_has_one_name():
    run = function_of(adapted(tiny.mlp(), "dense_0"))
    for count in (1, 3):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="one adapter for each example"
        ):
            run(np.ones((2, 6), "float32"), ["dog"] * count)


@pytest.mark.slow
def test_the_model_does_not_change_and_can_train():
    model = adapted(tiny.mlp(), "dense_[01]")
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(1).normal(size=(5, 6)).astype("float32")
    before = [np.array(v) for v in model.get_weights()]
    outputs, state = model.predict(x, verbose=0), kt.adapters.active(model)
    trained = [v.path for v in model.trainable_variables]
    function_of(model)(x, WHO)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(model.predict(x, verbose=0), outputs)
    assert kt.adapters.active(model) == state
    assert [v.path for v in model.trainable_variables] == trained
    hooks = [set(vars(p)) & {"on_inputs", "on_outputs"} for _, p in all_parts(model)]
    assert hooks == [set()] * len(hooks)
    model.fit(x, np.ones((5, 3)), verbose=0)
    assert np.abs(model.predict(x, verbose=0) - outputs).max() > 1e-4


def test_a_failed_trace_leaves_no_hooks():
    model = adapted(tiny.mlp(), "dense_0")
    many = ManyAdapters(model, NAMES)
    with pytest.raises(KeyError), many.applied():
        raise KeyError
    assert not any("on_outputs" in vars(part) for _, part in all_parts(model))


@pytest.mark.parametrize(
    "kind, more",
    [
        (kt.adapters.DoRA, {"rank": 2}),
        (kt.adapters.VeRA, {"rank": 2}),
        (kt.adapters.IA3, {}),
        (kt.adapters.Bottleneck, {"size": 2}),
    ],
)
def test_other_techniques_are_refused(kind, more):
    model = tiny.mlp()
    kind(targets="dense_0", **more).attach(model, "other")
    with pytest.raises(ValueError, match="dense_0.*Only low-rank pairs"):
        ManyAdapters(model, ["other"])


class Bent(DensePair):
    """A pair with another computation than A B."""

    def scaled(self, hidden):
        return keras.ops.tanh(super().scaled(hidden))


class Straight(Bent):
    """A subclass that declares that it still computes A B."""

    low_rank_factors = DensePair.low_rank_factors


class Row(keras.layers.Layer):
    """A custom layer."""

    def call(self, x):
        return x


def test_a_subclass_with_another_computation_is_refused():
    host = tiny.mlp().get_layer("dense_0")
    pairs = [kind(2, 1.0, name="cat") for kind in (Bent, Straight)]
    for pair in pairs:
        pair.create(host)
    with pytest.raises(ValueError, match=r"Bent.*\['scaled'\].*dense_0"):
        StackedPairs(host, pairs[:1], "dense_0")
    assert StackedPairs(host, pairs[1:], "dense_0").a.shape == (None, 6, None)


def test_an_unsupported_layer_is_refused():
    pair = DensePair(2, 1.0, name="cat")
    pair.create(tiny.mlp().get_layer("dense_0"))
    with pytest.raises(ValueError, match="'row' is a .*Supported layers are .*Dense"):
        StackedPairs(Row(name="row"), [pair], "row")


def test_an_adapter_with_biases_is_refused():
    model = tiny.mlp()
    kt.adapters.LoRA(rank=2, targets="dense_0", bias="all").attach(model, "cat")
    with pytest.raises(ValueError, match="biases"):
        ManyAdapters(model, ["cat"])


@pytest.mark.parametrize(
    "names, error, text",
    [
        ("cat", TypeError, "list of adapter names"),
        ([1], TypeError, "list of adapter names"),
        ([], ValueError, "at least one"),
        (["cat", "cat"], ValueError, "once"),
        (["cat", "bird"], ValueError, "no adapter 'bird'"),
    ],
)
def test_wrong_names_are_refused(names, error, text):
    with pytest.raises(error, match=text):
        ManyAdapters(adapted(tiny.mlp(), "dense_0"), names)


def test_a_layer_whose_first_axis_is_not_the_batch_is_refused():
    x = keras.Input((3, 4))
    rows = keras.layers.Lambda(lambda t: keras.ops.reshape(t, (-1, 4)))(x)
    model = keras.Model(x, keras.layers.Dense(5, name="hidden")(rows))
    with pytest.raises(ValueError, match="'hidden' is not the batch: it has 6 rows"):
        function_of(adapted(model))
    assert all(not set(vars(p)) & {"on_outputs"} for p in parts_of(model.layers[-1]))


def test_an_input_named_adapter_is_refused():
    x = keras.Input((4,), name="adapter")
    model = keras.Model({"adapter": x}, keras.layers.Dense(5, name="hidden")(x))
    with pytest.raises(ValueError, match="Rename"):
        function_of(adapted(model))


def test_the_saved_model_grows_only_by_the_adapters(tmp_path):
    layers = [keras.layers.Dense(256, name=f"hidden_{i}") for i in range(3)]
    model = keras.Sequential([keras.Input((256,)), *layers])
    x = np.random.default_rng(1).normal(size=(2, 256)).astype("float32")
    export_serving(model, tmp_path / "plain")
    adapted(model, "hidden_[01]", (4, 4, 4))
    path = export_serving(model, tmp_path / "many", samples=x, adapters=NAMES)
    sizes = {
        name: size(tmp_path, f"{name}/1/variables/variables.data*")
        for name in ("plain", "many")
    }
    own = 3 * 2 * 2 * 256 * 4 * 4
    more = sizes["many"] - sizes["plain"]
    assert own <= more <= own + 3000  # the names of the variables
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    rows = np.repeat(x, 2, axis=0)
    who = ["cat", "", "cow", "dog"]
    found = serve(inputs=tf.constant(rows), adapter=tf.constant(who))["outputs"]
    wanted = merged_rows(model, rows, who)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_every_signature_takes_the_names(tmp_path):
    model = adapted(tiny.convnet(), ["conv", "hidden"])
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3)).astype("uint8")
    files = [tf.io.encode_png(each).numpy() for each in images]
    path = export_serving(
        model,
        tmp_path / "many",
        samples=files,
        preprocessor=kt.export.ImageBytes(scale=1 / 255),
        labels=["x", "y", "z"],
        adapters=["cow", "dog"],
    )
    signatures = tf.saved_model.load(str(path)).signatures
    assert set(signatures) == {"serving_default", "image_bytes"}
    for each in signatures.values():
        assert "adapter" in each.structured_input_signature[1]
        assert set(each.structured_outputs) == {"outputs", "label", "label_id"}
    who = ["dog", "cow"]
    wanted = merged_rows(model, images / np.float32(255), who)
    found = signatures["image_bytes"](
        image_bytes=tf.constant(files), adapter=tf.constant(who)
    )
    np.testing.assert_allclose(found["outputs"], wanted, rtol=0, atol=1e-5)
    warmup = (path / "assets.extra/tf_serving_warmup_requests").read_bytes()
    assert b"adapter" in warmup and b"cow" in warmup


def test_the_samples_are_compared_with_each_adapter_alone(tmp_path, monkeypatch):
    model = adapted(tiny.mlp(), "dense_[01]")
    stacked = "keras_transfer.export.stacked_pairs.filled"

    def wrong(variable, rank, axis):
        return np.zeros(
            [3 if i == axis % 2 else n for i, n in enumerate(variable.shape)]
        )

    monkeypatch.setattr(stacked, wrong)
    x = np.ones((2, 6), "float32")
    with pytest.raises(ValueError, match="gives another 'outputs'"):
        export_serving(model, tmp_path / "many", samples=x, adapters=NAMES)
    assert not (tmp_path / "many").exists()
