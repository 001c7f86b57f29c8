"""continue_pretraining lowers the perplexity of the same backbone, and can continue."""

import keras
import keras_hub
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from tests import tiny

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "##x"]
# Each letter is followed by the next one, so hidden letters can be known.
TEXTS = [" ".join(np.roll(list("abcdefgh"), -n)[:6]) for n in range(8)] * 6


def tokenizer():
    return keras_hub.models.BertTokenizer(vocabulary=WORDS)


def bert():
    keras.utils.set_random_seed(0)
    return tiny.bert(num_layers=1, dropout=0.0)


def pretrain(backbone, texts=TEXTS, **kwargs):
    settings = {"tokenizer": tokenizer(), "learning_rate": 1e-2, "batch_size": 16}
    return kt.continue_pretraining(
        backbone, texts, **{**settings, "verbose": 0, **kwargs}
    )


def values(model):
    return [weight.copy() for weight in model.get_weights()]


@pytest.fixture(scope="module")
def trained():
    """A BERT after four passes, its weights before, and the result."""
    backbone = bert()
    before = values(backbone)
    flags = [weight.trainable for weight in backbone.weights]
    result = pretrain(backbone, epochs=4)
    assert [weight.trainable for weight in backbone.weights] == flags
    return backbone, before, result


def test_the_perplexity_falls_and_the_backbone_trains_in_place(trained):
    backbone, before, result = trained
    # 15 of the 64 tokens of the embedding occur, which the bias of the new head knows.
    assert 1 < result.perplexity_after < result.perplexity_before < 20
    assert result.task.backbone is backbone
    assert len(result.history.history["val_crossentropy"]) == 4
    logs = result.history.history["val_crossentropy"]
    assert result.perplexity_after == pytest.approx(np.exp(logs[-1]), rel=1e-4)
    pooler = [weight.path.startswith("pooled_dense") for weight in backbone.weights]
    moved = [
        not np.array_equal(one, other) for one, other in zip(before, values(backbone))
    ]
    assert moved == [not idle for idle in pooler]  # nothing else is without gradient
    assert "after 4 passes" in str(result)


def test_a_classifier_on_the_backbone_has_the_new_weights(trained):
    backbone, _, _ = trained
    model = kt.models.TransferClassifier(backbone, 2)
    kernel = backbone.get_layer("token_embedding").embeddings
    assert any(weight is kernel for weight in model.weights)


@pytest.mark.slow
def test_lora_pretrains_only_its_pairs():
    backbone = bert()
    before = {
        id(each): keras.ops.convert_to_numpy(each) + 0 for each in backbone.weights
    }
    model = kt.models.TransferClassifier(backbone, 2)
    adapters.LoRA(rank=2).attach(model, verbose=0)
    result = pretrain(model)
    pairs = [each for each in backbone.weights if each.path.endswith("lora_b")]
    assert len(pairs) == 2
    assert all(np.abs(keras.ops.convert_to_numpy(each)).max() > 0 for each in pairs)
    unchanged = [each for each in backbone.weights if id(each) in before]
    assert len(unchanged) == len(before)
    for weight in unchanged:
        value = keras.ops.convert_to_numpy(weight)
        np.testing.assert_array_equal(value, before[id(weight)])
    assert result.perplexity_after < result.perplexity_before


@pytest.mark.slow
def test_a_layer_decay_slows_the_embedding():
    backbone = bert()
    embedding = backbone.get_layer("token_embedding").embeddings
    before = keras.ops.convert_to_numpy(embedding).copy()
    pretrain(backbone, layer_decay=0.01)
    after = keras.ops.convert_to_numpy(embedding)
    # Two groups below the head, so at 1e-4 of the rate of 0.01, for three steps.
    assert 0 < np.abs(after - before).max() < 1e-5


def test_a_causal_model_learns_the_next_token():
    letters = ["<|endoftext|>", "Ġ", *"abcdefgh", *(f"Ġ{each}" for each in "abcdefgh")]
    own = keras_hub.models.GPT2Tokenizer(
        vocabulary={token: number for number, token in enumerate(letters)},
        merges=[f"Ġ {each}" for each in "abcdefgh"],
    )
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=18,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=12,
        dropout=0.0,
    )
    result = pretrain(backbone, tokenizer=own, epochs=4)
    assert type(result.task).__name__ == "GPT2CausalLM"
    assert result.perplexity_after < 11 < 17 < result.perplexity_before
    with pytest.raises(ValueError, match="whole_words=True has no effect"):
        pretrain(backbone, tokenizer=own, whole_words=True)


class Interrupt(keras.callbacks.Callback):
    """Stop the second pass, as a killed process would."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise self.kind("stopped")


@pytest.mark.slow
def test_an_interrupted_run_continues_to_the_same_weights(tmp_path, trained):
    whole, _, result = trained
    backbone = bert()
    with pytest.raises(KeyboardInterrupt):
        pretrain(
            backbone,
            epochs=4,
            directory=tmp_path / "run",
            callbacks=Interrupt(KeyboardInterrupt),
        )
    again = bert()
    continued = pretrain(again, epochs=4, directory=tmp_path / "run")
    for one, other in zip(values(again), values(whole), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert continued.perplexity_before is None
    assert continued.perplexity_after == pytest.approx(result.perplexity_after, 1e-4)
    logs = continued.history.history["val_crossentropy"]
    np.testing.assert_allclose(
        logs, result.history.history["val_crossentropy"], atol=1e-4
    )
    finished = pretrain(bert(), epochs=4, directory=tmp_path / "run")  # trains nothing
    assert finished.perplexity_after == pytest.approx(result.perplexity_after, 1e-4)
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        pretrain(bert(), epochs=3, directory=tmp_path / "run")


def test_an_error_leaves_the_backbone_as_it_was():
    backbone = bert()
    before = values(backbone)
    with pytest.raises(RuntimeError, match="stopped"):
        pretrain(backbone, epochs=2, callbacks=[Interrupt(RuntimeError)])
    for one, other in zip(values(backbone), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_input_is_refused_before_anything_trains():
    backbone = bert()
    with pytest.raises(ValueError, match="no preprocessor with a tokenizer"):
        pretrain(backbone, tokenizer=None)
    with pytest.raises(TypeError, match="a tokenizer of keras-hub"):
        pretrain(backbone, tokenizer=str.split)
    with pytest.raises(TypeError, match="Text 0 is 1, which is a int"):
        pretrain(backbone, [1, 2])
    with pytest.raises(ValueError, match="One text cannot be split"):
        pretrain(backbone, ["a b"])
    with pytest.raises(ValueError, match="In validation_data: None of the 1 texts"):
        pretrain(backbone, validation_data=[""])
    with pytest.raises(ValueError, match="neither a masked nor a causal"):
        pretrain(tiny.mlp())
    frozen = kt.backbones.FrozenBackbone(backbone)
    with pytest.raises(ValueError, match="FrozenBackbone, which cannot train"):
        pretrain(kt.models.TransferClassifier(frozen, 2))
    words = keras_hub.models.BertTokenizer(vocabulary=[*WORDS, *map(str, range(60))])
    with pytest.raises(ValueError, match="embedding of 64"):
        pretrain(backbone, tokenizer=words)
    with pytest.raises(ValueError, match="layer_decay=2"):
        pretrain(backbone, layer_decay=2)
    for name, value in {"epochs": 0, "batch_size": 0, "learning_rate": -1}.items():
        with pytest.raises(ValueError, match=f"{name}={value}"):
            pretrain(backbone, **{name: value})
