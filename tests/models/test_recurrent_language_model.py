"""RecurrentLanguageModel: carried states, penalties, tied softmax, other words."""

import json

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer.models.language_model_layers import Penalties
from keras_transfer.models.new_vocabulary import rows_of
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import run
from tests.contracts.compute import weight_gradients
from tests.contracts.model_contract import ModelContract

WORDS = ["", "[UNK]", "[END]", "good", "bad", "book", "plot", "long", "not"]
IDS = np.random.default_rng(0).integers(1, 9, size=(2, 12)).astype("int32")
NO_PENALTIES = {"activation_penalty": 0.0, "slowness_penalty": 0.0}


def small(words=WORDS, **settings):
    """Return a model without dropout, with larger weights than at the start."""
    settings = {"dropout": 0.0, "batch_size": 2} | settings
    model = kt.models.RecurrentLanguageModel(words, 4, 5, 2, **settings)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def part(first, last, restart=False):
    """Return positions of `IDS` as a batch that carries states."""
    return {"token_ids": IDS[:, first:last], "restart": np.full(2, restart)}


class TestRecurrentLanguageModel(ModelContract):
    loss = None  # the default

    def make(self):
        return kt.models.RecurrentLanguageModel(WORDS, 4, 5, 2, dropout=0.0)

    def inputs(self):
        return np.random.default_rng(2).integers(1, 9, size=(8, 6)).astype("int32")

    def targets(self):
        return np.roll(self.inputs(), -1, axis=1)

    def test_symbolic_output_equals_eager(self):
        model = self.make()
        assert model.output.shape == (None, None, 9)  # any number of positions
        eager = run(model, self.inputs())
        assert eager.shape == (8, 6, 9)
        assert keras.backend.standardize_dtype(eager.dtype) == model.output.dtype


@pytest.mark.parametrize("training", [False, True])
def test_carried_states_give_the_outputs_of_one_long_sequence(training):
    model = small()
    whole = array(model(IDS, training=training))
    for first, last, restart in ((0, 5, True), (5, 6, False), (6, 12, False)):
        found = model(part(first, last, restart), training=training)
        assert_close(found, whole[:, first:last], 1e-6)
    assert_close(model(part(0, 5, True), training=training), whole[:, :5], 1e-6)


def test_each_row_restarts_alone():
    model = small()
    model(part(0, 6, True))
    batch = part(6, 12) | {"restart": np.array([True, False])}
    found = array(model(batch))
    assert_close(found[0], array(model(IDS[:, 6:]))[0], 1e-6)
    assert_close(found[1], array(model(IDS))[1, 6:], 1e-6)


def test_training_evaluation_and_prediction_do_not_disturb_each_other():
    model = small()
    whole = array(run(model, IDS))
    model(part(0, 4, True), training=True)
    model(part(4, 8, True), training=False)
    model.predict(IDS[:1], verbose=0)
    assert_close(model(part(4, 12), training=True), whole[:, 4:], 1e-6)


def test_states_are_neither_weights_nor_saved(tmp_path):
    model = small()
    names = {v.name for v in model.weights}
    assert "carried_state" not in names and len(model.weights) == 8
    model(part(0, 4, True))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again(part(4, 8)), run(model, IDS[:, 4:8]), 1e-6)
    assert again.vocabulary == WORDS
    assert json.loads(json.dumps(again.get_config())) == model.get_config()


def test_penalties_by_hand():
    outputs = np.array([[[1.0, 2.0], [3.0, 2.0], [9.0, 9.0]]])
    dropped = np.array([[[2.0, 0.0], [6.0, 0.0], [7.0, 7.0]]])
    mask = np.array([[True, True, False]])
    layer = Penalties(activation=2.0, slowness=3.0)
    layer(outputs, dropped, mask=mask)
    large = 2.0 * (4 + 0 + 36 + 0) / 4
    quick = 3.0 * (4 + 0) / 2
    assert_close(layer.losses, [np.array(large), np.array(quick)], 1e-6)
    one = Penalties(activation=0.0, slowness=3.0)
    one(outputs[:, :1], dropped[:, :1], mask=mask[:, :1])
    assert_close(one.losses, [np.array(0.0)])


def test_fit_adds_the_penalties_to_the_cross_entropy_and_evaluate_does_not():
    model = small(activation_penalty=0.7, slowness_penalty=0.3)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    targets = np.roll(IDS, -1, axis=1)
    evaluated = model.evaluate(IDS, targets, verbose=0, return_dict=True)
    logs = model.train_on_batch(IDS, targets, return_dict=True)
    h = array(run(model.encoder, IDS))
    penalties = 0.7 * np.mean(h**2) + 0.3 * np.mean((h[:, 1:] - h[:, :-1]) ** 2)
    logits = array(run(model, IDS))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    entropy = -np.take_along_axis(log_p, targets[..., None], -1).mean()
    np.testing.assert_allclose(evaluated["loss"], entropy, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], entropy + penalties, rtol=1e-5)
    for each in (evaluated, logs):
        np.testing.assert_allclose(each["perplexity"], np.exp(entropy), rtol=1e-5)


def test_a_model_that_knows_nothing_has_the_number_of_words_as_perplexity():
    model = small()
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    model.compile("adam", jit_compile=False)
    targets = np.where(IDS == 3, 0, IDS)  # padding does not count
    logs = model.evaluate(IDS, targets, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["perplexity"], len(WORDS), rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], np.log(len(WORDS)), rtol=1e-5)
    weights = np.array([0.0, 1.0])  # of rows
    logs = model.evaluate(IDS, targets, sample_weight=weights, verbose=0)
    np.testing.assert_allclose(logs[-1], len(WORDS), rtol=1e-5)


def test_the_softmax_is_tied_to_the_embedding():
    model = small()
    embedding = model.encoder.get_layer("embedding").embeddings
    ids, targets = np.array([[3, 4, 3]]), np.array([[4, 3, 5]])
    h = array(run(model.encoder, ids))[0]
    bias = array(model.get_layer("head").bias)
    logits = h @ array(embedding).T + bias
    assert_close(run(model, ids)[0], logits, 1e-5)

    def loss():
        losses = keras.losses.sparse_categorical_crossentropy
        return keras.ops.mean(losses(targets, model(ids), from_logits=True))

    gradient = weight_gradients(loss, [embedding])[0]
    gradient = array(keras.ops.convert_to_tensor(gradient))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    of_softmax = (p - np.eye(len(WORDS))[targets[0]]).T @ h / 3
    read = [3, 4]  # these words get a second gradient, from the lookup
    others = [i for i in range(len(WORDS)) if i not in read]
    assert_close(gradient[others], of_softmax[others], 1e-6)
    assert np.abs(gradient[read] - of_softmax[read]).min() > 1e-5


def test_the_gradient_ends_at_the_beginning_of_a_batch():
    model = small()
    weights = model.encoder.trainable_weights
    batch, state = part(6, 12), model._carried()

    def gradients(first_ids):
        model({"token_ids": first_ids, "restart": np.full(2, True)})
        kept = arrays(state.variables)

        def loss():
            for variable, value in zip(state.variables, kept, strict=True):
                variable.assign(value)
            return keras.ops.sum(model(batch))

        found = weight_gradients(loss, weights)
        return arrays([keras.ops.convert_to_tensor(x) for x in found])

    # Words that only the first batch has get no gradient from the second.
    batch["token_ids"] = np.clip(batch["token_ids"], 5, 8)
    first = np.full((2, 6), 3, "int32")
    lookup = weights[0]
    assert lookup.name == "embeddings"
    by_softmax = gradients(first)[0]
    assert_close(by_softmax[3], by_softmax[4], 1e-4)


@pytest.mark.slow
def test_with_vocabulary_keeps_an_adapter():
    model = small()
    kt.adapters.LoRA(rank=2, targets="embedding$|lstm_1").attach(model)
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(3).normal(size=weight.shape))
    copy = model.with_vocabulary(["", "[UNK]", "[END]", "plot", "new", "good"])
    logits = array(run(copy, np.array([[5, 3, 5]])))
    expected = array(run(model, np.array([[3, 6, 3]])))
    assert_close(logits[..., [3, 5]], expected[..., [6, 3]], 1e-5)


@pytest.mark.slow
def test_validation_in_the_middle_of_a_pass_does_not_change_the_training():
    texts = ["good book not bad plot long"] * 30
    streams = kt.data.language_model_batches(texts, WORDS, 2, sequence_length=8)
    other = kt.data.language_model_batches(texts[:9], WORDS, 2, sequence_length=4)
    weights = []
    for validation in (None, other):
        model = small()
        model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        settings = {"epochs": 2, "steps_per_epoch": 3, "shuffle": False, "verbose": 0}
        history = model.fit(streams, validation_data=validation, **settings)
        weights.append(model.get_weights())
    assert_close(*weights)
    assert history.history["val_perplexity"][-1] < history.history["val_perplexity"][0]


@pytest.mark.slow
def test_streams_train_with_dropout_rates_xla_and_half_precision():
    texts = ["good book not bad plot long"] * 30
    streams = kt.data.language_model_batches(
        texts, WORDS, 2, sequence_length=8, seed=0, drop_remainder=True
    )
    keras.utils.set_random_seed(0)
    model = kt.models.RecurrentLanguageModel(
        WORDS, 8, 10, 2, dropout=0.3, batch_size=2, dtype="mixed_bfloat16"
    )
    adam = keras.optimizers.Adam(0.05)
    rates = kt.optimizers.discriminative(adam, model, layer_decay=0.9)
    model.compile(rates, jit_compile=True)
    history = model.fit(streams, epochs=8, shuffle=False, verbose=0)
    assert history.history["perplexity"][-1] < 4
    assert np.isfinite(history.history["loss"]).all()


def test_layer_groups_are_the_embedding_the_lstms_and_the_head():
    groups = kt.layer_groups(small())
    assert groups.names == ["embedding", "lstm_1", "lstm_2", "head"]
    assert [v.name for v in groups["head"].variables] == ["bias"]


def test_new_words_get_the_mean_and_known_words_keep_their_rows():
    rows = np.array([[1.0, 2.0], [3.0, 6.0]], "float32")
    found = rows_of(rows, ["a", "b"], ["b", "c", "a"])
    assert found.tolist() == [[3.0, 6.0], [2.0, 4.0], [1.0, 2.0]]


def test_with_vocabulary_changes_only_the_words():
    model = small()
    model.get_layer("encoder").get_layer("lstm_1").trainable = False
    new = ["", "[UNK]", "[END]", "plot", "new", "good"]
    copy = model.with_vocabulary(new, batch_size=3)
    assert copy.vocabulary == new and copy.batch_size == 3
    assert not copy.encoder.get_layer("lstm_1").trainable
    ids, same = np.array([[5, 3, 5]]), np.array([[3, 6, 3]])  # good plot good
    logits, expected = array(run(copy, ids)), array(run(model, same))
    assert_close(logits[..., [3, 5]], expected[..., [6, 3]], 1e-6)
    assert_close(logits[..., 4], expected.mean(-1), 1e-5)  # logits are linear
    assert len(model.vocabulary) == len(WORDS)
    with pytest.raises(ValueError, match="no word in common"):
        model.with_vocabulary(["", "[UNK]", "[END]", "Good"])


def test_dropout_is_a_factor_of_the_rates_of_the_paper_or_a_dict():
    model = small(dropout=0.5)
    rates = model.get_config()["dropout"]
    expected = dict(embedding=0.025, input=0.2, recurrent=0.25, hidden=0.15, output=0.2)
    assert rates == pytest.approx(expected)
    model = small(dropout={"hidden": 0.5})
    layers = model.encoder.layers
    assert [x.rate for x in layers if isinstance(x, keras.layers.Dropout)] == [0, 0.5]
    assert sum(model.get_config()["dropout"].values()) == 0.5


def test_locked_dropout_has_one_mask_for_all_positions():
    layer = keras.layers.SpatialDropout1D(0.5)
    y = array(layer(np.ones((2, 6, 40)), training=True))
    assert_close(y, np.broadcast_to(y[:, :1], y.shape))
    assert (y[0, 0] != y[1, 0]).any()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"dropout": 3.0}, "'input'"),
        ({"dropout": {"hidden": 1.0}}, "'hidden'"),
        ({"dropout": {"words": 0.1}}, "places are"),
        ({"dropout": None}, "factor of the rates"),
        ({"activation_penalty": -1.0}, "activation_penalty"),
        ({"slowness_penalty": float("nan")}, "slowness_penalty"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_out_of_range_raise(wrong, message):
    with pytest.raises(ValueError, match=message):
        small(**wrong)


def test_other_wrong_arguments_raise():
    with pytest.raises(ValueError, match="num_layers=1"):
        kt.models.RecurrentLanguageModel(WORDS, 4, 5, 1)
    with pytest.raises(TypeError, match="no arguments"):
        small(layers=3)
    with pytest.raises(ValueError, match="must begin with"):
        small(["good", "bad"])


def test_batches_of_another_size_or_form_raise():
    model = small(batch_size=3)
    with pytest.raises(ValueError, match="2 rows, but the model carries"):
        model(part(0, 4))
    with pytest.raises(ValueError, match="restart"):
        model({"token_ids": IDS})
    with pytest.raises(ValueError, match=r"pass ids\[None\]"):
        model(IDS[0])


@pytest.mark.parametrize(
    "loss",
    ["sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy()],
)
def test_a_loss_of_probabilities_raises(loss):
    with pytest.raises(ValueError, match="takes probabilities"):
        small().compile("adam", loss)
