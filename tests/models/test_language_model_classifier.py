"""LanguageModelClassifier: labels and next tokens in one loss, the last token read."""

import keras
import keras_hub
import numpy as np
import pandas
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.models import LanguageModelClassifier
from keras_transfer.models import TransferClassifier
from tests import tiny
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.model_contract import ModelContract

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LABELS = np.arange(8) % 3


def gpt2(**kwargs):
    settings = {"hidden_dim": 16, "intermediate_dim": 32, "dropout": 0.0} | kwargs
    return keras_hub.models.GPT2Backbone(
        vocabulary_size=20,
        num_layers=1,
        num_heads=2,
        max_sequence_length=8,
        **settings,
    )


def tokens(lengths=(6,) * 8):
    ids = np.random.default_rng(0).integers(1, 20, (len(lengths), 7)).astype("int32")
    mask = (np.arange(7) < np.array(lengths)[:, None]).astype("int32")
    return {"token_ids": ids * mask, "padding_mask": mask}


class TestContract(ModelContract):
    loss = LOSS

    def make(self):
        return LanguageModelClassifier(gpt2(), 3, dropout=0.0)

    def inputs(self):
        return tokens()

    def targets(self):
        return LABELS

    def test_fit_lowers_the_loss(self):  # in smaller batches, and more steps
        keras.utils.set_random_seed(1)
        model = self.make()
        model.compile(keras.optimizers.SGD(0.01), LOSS, jit_compile=False)
        losses = fit(model, self.inputs(), LABELS, epochs=3).history["loss"]
        assert losses[-1] < losses[0]


def loss_of(model, x):
    """Return the loss of the labels and of the tokens of one training step."""
    model.compile(keras.optimizers.SGD(0.0), LOSS, jit_compile=False)
    labels = model.evaluate(x, LABELS, batch_size=8, verbose=0)
    return labels, model.train_on_batch(x, LABELS) - labels


def test_the_auxiliary_loss_is_the_mean_over_next_tokens():
    backbone, x = gpt2(), tokens((6, 2, 3, 7, 1, 4, 5, 6))
    model = LanguageModelClassifier(backbone, 3, auxiliary_weight=0.25, dropout=0.0)
    states = backbone(x)
    logits = arrays(backbone.token_embedding(states, reverse=True))[0][:, :-1]
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ids, kept = x["token_ids"][:, 1:], x["padding_mask"][:, 1:]
    right = -np.take_along_axis(logs, ids[..., None], -1)[..., 0]
    _, added = loss_of(model, x)
    assert added == pytest.approx(0.25 * (right * kept).sum() / kept.sum(), rel=1e-4)


def test_without_the_auxiliary_loss_it_is_a_transfer_classifier():
    backbone, x = gpt2(), tokens((6, 2, 3, 7, 1, 4, 5, 6))
    model = LanguageModelClassifier(backbone, 3, auxiliary_weight=0, dropout=0.0)
    other = TransferClassifier(backbone, 3, pooling="last")
    other.get_layer("logits").set_weights(model.get_layer("logits").get_weights())
    assert_close(run(model, x), run(other, x), 1e-6)
    assert loss_of(model, x)[1] == pytest.approx(0, abs=1e-6)


def test_reads_the_last_token_under_any_padding():
    model = LanguageModelClassifier(gpt2(), 3)
    x = tokens((4,) * 8)
    cut = {name: each[:, :4] for name, each in x.items()}
    assert_close(run(model, x), run(model, cut), 1e-5)


@pytest.mark.slow
def test_the_task_on_the_same_backbone_still_writes_text():
    keras.utils.set_random_seed(0)
    backbone = gpt2()
    model = LanguageModelClassifier(backbone, 2)
    ids = np.tile(np.arange(1, 8), (16, 1)).astype("int32")
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    y = np.arange(16) % 2
    model.compile(keras.optimizers.Adam(2e-2), LOSS, jit_compile=False)
    model.fit(x, y, epochs=80, verbose=0)
    task = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    task.compile(sampler="greedy", jit_compile=False)
    prompt = {"token_ids": ids[:1] * (np.arange(7) < 3), "padding_mask": ids[:1] < 4}
    prompt["padding_mask"] = prompt["padding_mask"].astype("int32")
    found = task.generate(prompt, stop_token_ids=None)["token_ids"]
    assert arrays(found)[0][0].tolist() == ids[0].tolist()


def with_strings():
    words = [
        "<|endoftext|>",
        *"abcdefgh",
        "\u0120",
        *(f"\u0120{x}" for x in "abcdefgh"),
    ]
    tokenizer = keras_hub.models.GPT2Tokenizer(
        vocabulary={word: number for number, word in enumerate(words)},
        merges=[f"\u0120 {letter}" for letter in "abcdefgh"],
    )
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, 6)
    keras.utils.set_random_seed(0)
    return LanguageModelClassifier(gpt2(), 3, preprocessor=preprocessor)


def test_strings_are_tokenized_before_the_model_and_in_its_files(tmp_path):
    model, texts = with_strings(), ["a b", "c d e f g h a", "b"]
    x = model.encode(texts)
    assert x["token_ids"].shape == (3, 6)
    assert x["padding_mask"].sum(1).tolist() == [4, 6, 3]  # with both end tokens
    right = model.predict(x, verbose=0)
    assert_close(model.predict(texts, verbose=0), right)
    assert_close(model.predict(pandas.Series(texts), verbose=0), right)
    with pytest.raises(ValueError, match="There are no texts"):
        model.predict([])
    model.compile("sgd", LOSS, jit_compile=False)
    model.fit(x, np.arange(3), verbose=0)
    right = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again.predict(texts, verbose=0), right)
    with pytest.raises(ValueError, match="has no preprocessor"):
        LanguageModelClassifier(gpt2(), 3).predict(texts)
    with pytest.raises(TypeError, match="preprocessor is a function"):
        LanguageModelClassifier(gpt2(), 3, preprocessor=with_strings)


@pytest.mark.slow
def test_strings_are_served(tmp_path):
    model, texts = with_strings(), ["a b", "c d e f g h a", "b"]
    path = kt.export_serving(model, tmp_path / "texts", samples=texts)
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = serve(text=tf.constant(texts))["outputs"]
    assert_close(found.numpy(), model.predict(texts, verbose=0), 1e-5)


def test_adapters_and_fine_tune_work():
    model = LanguageModelClassifier(gpt2(), 3)
    adapters.LoRA(rank=2).attach(model, verbose=0)
    optimizer = keras.optimizers.AdamW(1e-2)
    model.compile(optimizer, LOSS, metrics=["accuracy"], jit_compile=False)
    history = kt.fine_tune(
        model, (tokens(), LABELS), epochs=2, strategy="lora", verbose=0
    )
    assert np.isfinite(history.history["loss"]).all()


def test_backbones_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="needs a causal backbone"):
        LanguageModelClassifier(tiny.bert(), 3)
    distil = keras_hub.models.DistilBertBackbone(20, 1, 2, 8, 16, max_sequence_length=8)
    with pytest.raises(ValueError, match="is not causal"):
        LanguageModelClassifier(distil, 3)
    with pytest.raises(ValueError, match="no effect on a FrozenBackbone"):
        LanguageModelClassifier(FrozenBackbone(gpt2()), 3)
    frozen = LanguageModelClassifier(FrozenBackbone(gpt2()), 3, auxiliary_weight=0)
    assert len(frozen.trainable_variables) == 2
    with pytest.raises(ValueError, match="auxiliary_weight=-1"):
        LanguageModelClassifier(gpt2(), 3, auxiliary_weight=-1)
    with pytest.raises(TypeError, match="already has a head"):
        LanguageModelClassifier(keras_hub.models.GPT2CausalLM(gpt2()), 3)
