"""PromptTuning: the contract, a prompt of real tokens, positions, and generation."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.switching import places
from tests import tiny
from tests.adapters import models
from tests.adapters import prompt_models
from tests.backbones import families
from tests.contracts.adapter_contract import AdapterContract
from tests.contracts.adapter_contract import small
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import run

X = models.tokens()
TEXT = [7, 3, 9]


class TestPromptTuning(AdapterContract):
    learns = {"prompt_embeddings"}
    parameters = 4 * 16
    at_once = True
    cannot_fold = "cannot be merged"
    no_images = "one embedding of tokens"

    def recipe(self, **kwargs):
        return adapters.PromptTuning(tokens=4, **kwargs)


def of_text(tokens=3):
    return adapters.PromptTuning(tokens, init="text", text=TEXT)


def with_text(x):
    """Return inputs with the tokens of TEXT before the others."""
    new = {"token_ids": TEXT, "segment_ids": [0] * 3, "padding_mask": [1] * 3}
    rows = len(x["token_ids"])
    return {
        key: np.concatenate([np.repeat([new[key]], rows, 0), value], 1)
        for key, value in x.items()
    }


def encoder(name, **kwargs):
    kind, config = families.HUB[name]
    import keras_hub

    kwargs = {"num_layers": 2, "max_sequence_length": 12} | kwargs
    return prompt_models.randomize(
        getattr(keras_hub.models, kind)(**config | {"dropout": 0.0} | kwargs)
    )


def of_encoder(model):
    return {key: X[key] for key in model.input}


def test_a_prompt_of_real_tokens_is_these_tokens_in_bert():
    backbone = encoder("bert")
    backbone.segment_embedding.embeddings.assign(np.random.normal(size=(2, 16)))
    x = of_encoder(backbone)
    x["segment_ids"] = np.ones_like(x["segment_ids"])
    expected = run(backbone, with_text(x))["sequence_output"][:, 3:]
    pooled = backbone.pooled_dense(expected[:, 0])
    of_text().attach(backbone, verbose=0)
    found = run(backbone, x)
    assert_close(found["sequence_output"], expected, 1e-5)
    assert_close(found["pooled_output"], pooled, 1e-5)
    with pytest.raises(ValueError, match="only 12 positions.*to 9 tokens"):
        run(backbone, {k: np.repeat(v, 2, 1)[:, :10] for k, v in x.items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta", "distilbert", "electra", "xlm_roberta"])
def test_other_encoders(name):
    backbone = encoder(name)
    x = of_encoder(backbone)
    outputs = run(backbone, with_text(x))
    of_text().attach(backbone, verbose=0)
    found = run(backbone, x)
    if isinstance(found, dict):
        outputs, found = outputs["sequence_output"], found["sequence_output"]
    assert_close(found, outputs[:, 3:], 1e-5)


@pytest.mark.parametrize("name", prompt_models.QUICK)
def test_a_prompt_of_real_tokens_in_decoders(name):
    check_decoder(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [x for x in prompt_models.DECODERS if x not in prompt_models.QUICK]
)
def test_other_decoders(name):
    check_decoder(name)
    prompt_models.check_generation(name, adapters.PromptTuning(3))


def check_decoder(name):
    model = prompt_models.decoder(name)
    x = {key: X[key] for key in ("token_ids", "padding_mask")}
    expected = run(model, with_text(x))[:, 3:]
    of_text().attach(model, verbose=0)
    assert_close(run(model, x), expected, 1e-4)


@pytest.mark.parametrize("name", prompt_models.QUICK)
def test_generation_with_a_cache_equals_no_cache(name):
    prompt_models.check_generation(name, adapters.PromptTuning(3))


def test_a_short_text_is_repeated_and_a_long_one_cut():
    for tokens, ids in ((5, [7, 3, 9, 7, 3]), (2, [7, 3])):
        model = small()
        of_text(tokens).attach(model, verbose=0)
        _, host, part = next(places(model))
        assert_close(part.prompt_embeddings, array(host.embeddings)[ids])


def test_a_vocabulary_and_a_random_start():
    model = small()
    adapters.PromptTuning(6, "vocabulary").attach(model, verbose=0)
    _, host, part = next(places(model))
    rows = array(host.embeddings)
    for row in array(part.prompt_embeddings):
        assert np.abs(rows - row).max(1).min() == 0
    keras.utils.set_random_seed(0)
    backbone = encoder(
        "bert", hidden_dim=64, vocabulary_size=200, max_sequence_length=32
    )
    table = backbone.token_embedding.embeddings
    table.assign(np.random.default_rng(0).normal(3, 0.1, table.shape))
    adapters.PromptTuning(20, "random").attach(backbone, verbose=0)
    drawn = array(next(places(backbone))[2].prompt_embeddings)
    assert abs(drawn.mean() - 3) < 0.02
    assert abs(drawn.std() - 0.1) < 0.01


def test_a_text_and_its_tokenizer():
    import keras_hub

    tokenizer = keras_hub.models.BertTokenizer(
        vocabulary=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "or", "bad"]
    )
    recipe = adapters.PromptTuning(3, "text", "good or bad", tokenizer)
    assert recipe.text == [5, 6, 7]
    assert recipe.get_config()["text"] == [5, 6, 7]
    with pytest.raises(ValueError, match="at least one token id"):
        adapters.PromptTuning(3, "text", "", tokenizer)
    with pytest.raises(TypeError, match="not a function"):
        adapters.PromptTuning(3, "text", "good")


def test_masked_tokens_change_nothing():
    model = small()
    adapters.PromptTuning(3).attach(model, verbose=0)
    other = dict(X, token_ids=np.where(X["padding_mask"], X["token_ids"], 9))
    assert_close(run(model, other), run(model, X), 1e-6)


def test_adapter_files_and_another_adapter(tmp_path):
    model = models.nested()
    adapters.LoRA(rank=2, targets=["token_embedding", "query"]).attach(
        model, "lora", verbose=0
    )
    models.disturb(model, 0.3)
    of_lora = run(model, X)
    of_text().attach(model, verbose=0)
    models.disturb_head(models.disturb(model, 1.0, "default"))
    y = run(model, X)
    kt.save_adapter(model, tmp_path / "a.safetensors", name="default", verbose=0)
    adapters.use(model, "lora")
    assert_close(run(model, X), of_lora)
    adapters.remove(model, "default")
    assert_close(run(model, X), of_lora)
    kt.load_adapter(model, tmp_path / "a.safetensors", verbose=0)
    assert_close(run(model, X), y)
    assert adapters.attached(model)["default"].text == TEXT
    adapters.detach(model)
    kt.load_adapter(model, tmp_path / "a.safetensors", verbose=0)
    assert_close(run(model, X), y)


def test_predict_follows_the_adapter_in_use():
    model = small()
    base = model.predict(X, verbose=0)
    adapters.PromptTuning(4).attach(model, "long", verbose=0)
    models.disturb(model, 1.0, "long")
    longer = model.predict(X, verbose=0)
    adapters.PromptTuning(2).attach(model, "short", verbose=0)
    models.disturb(model, 0.5, "short")
    shorter = model.predict(X, verbose=0)
    assert np.abs(shorter - longer).max() > 1e-3
    with adapters.disabled(model):
        assert_close(model.predict(X, verbose=0), base, 1e-6)
    assert_close(model.predict(X, verbose=0), shorter)
    adapters.use(model, "long")
    assert_close(model.predict(X, verbose=0), longer, 1e-6)


@pytest.mark.parametrize(
    "name, why",
    [
        ("albert", "calls it several times"),
        ("bart", "attends to an encoder"),
        ("deberta_v3", "DisentangledSelfAttention"),
        ("t5", "T5MultiHeadAttention"),
        ("xlnet", "one embedding of tokens|TwoStreamRelativeAttention"),
        ("esm", "one embedding of tokens|EsmSelfAttention"),
    ],
)
def test_families_that_are_refused_by_name(name, why):
    model = families.build(name)
    with pytest.raises(ValueError, match=why):
        adapters.PromptTuning(tokens=2).attach(model)
    assert adapters.attached(model) == {}


def test_invalid_arguments_raise():
    for tokens in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="tokens"):
            adapters.PromptTuning(tokens)
    with pytest.raises(ValueError, match="init"):
        adapters.PromptTuning(3, "words")
    for kwargs in (dict(init="text"), dict(text=[3])):
        with pytest.raises(ValueError, match="do not fit together"):
            adapters.PromptTuning(3, **kwargs)
    with pytest.raises(ValueError, match="at least one token id"):
        adapters.PromptTuning(3, "text", [])
    with pytest.raises(ValueError, match="token id"):
        adapters.PromptTuning(3, "text", [-1])
    with pytest.raises(ValueError, match="only 64 tokens"):
        adapters.PromptTuning(3, "text", [64]).attach(tiny.bert())
    with pytest.raises(ValueError, match="leaves no position"):
        adapters.PromptTuning(tokens=512).attach(tiny.bert(max_sequence_length=512))


@pytest.mark.slow
def test_two_replicas_train_as_one(strategy):
    prompt_models.check_two_replicas(adapters.PromptTuning(2), strategy)
