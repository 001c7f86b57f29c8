"""TokenClassifier: one output for each word, from words to tags and to a server."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.backbones import FrozenBackbone
from keras_transfer.models import TokenClassifier
from tests import tiny
from tests.contracts import fresh
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import run
from tests.contracts.model_contract import ModelContract
from tests.export import plain_tensorflow

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TAGS = ("O", "PER", "LOC")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["ada", "sing", "##s", "in", "paris", "!"]
SENTENCES = [["Ada", "sings"], ["Ada", "in", "Paris"], ["Paris"]]
LABELS = [["PER", "O"], ["PER", "O", "LOC"], ["LOC"]]


def tokenizer(words=WORDS):
    import keras_hub

    return keras_hub.models.BertTokenizer(vocabulary=words, lowercase=True)


def tagger(**kwargs):
    backbone = tiny.bert(num_layers=1, dropout=0.0)
    return TokenClassifier(backbone, TAGS, tokenizer=tokenizer(), **kwargs)


@pytest.fixture(scope="module")
def trained():
    """A tagger that has learned the three sentences. Tests must not change it."""
    keras.utils.set_random_seed(0)
    model = tagger()
    settings = dict(weighted_metrics=["accuracy"], jit_compile=False)
    model.compile(keras.optimizers.AdamW(2e-2), LOSS, **settings)
    data = model.word_preprocessor.batches(SENTENCES * 4, LABELS * 4, batch_size=4)
    model.fit(data, epochs=6, shuffle=False, verbose=0)
    return model


class TestContract(ModelContract):
    loss = LOSS

    def make(self):
        backbone = tiny.bert(num_layers=1, dropout=0.0)
        return TokenClassifier(backbone, TAGS)

    def inputs(self):
        rng = np.random.default_rng(0)
        ids = rng.integers(1, 60, size=(8, 12)).astype("int32")
        count = rng.integers(4, 12, size=(8, 1))
        positions = np.array([[1, 2, 4, 6]])
        return {
            "token_ids": ids,
            "segment_ids": ids * 0,
            "padding_mask": (np.arange(12) < count).astype("int32"),
            "word_positions": np.where(positions < count, positions, -1).astype(
                "int32"
            ),
        }

    def targets(self):
        return np.arange(32).reshape(8, 4) % 3


def test_the_logits_of_a_word_are_those_of_its_first_token():
    model = tagger()
    x = model.word_preprocessor.encode(SENTENCES)
    kernel, bias = model.get_layer("logits").get_weights()
    ids = {name: each for name, each in x.items() if name != "word_positions"}
    tokens = arrays(model.backbone(ids)["sequence_output"])[0]
    logits = arrays(run(model, x))[0]
    # "sings" has two tokens, at 2 and 3. "Paris" is the third word of sentence 1.
    for row, word, position in [(0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 0, 1)]:
        wanted = tokens[row, position] @ kernel + bias
        np.testing.assert_allclose(logits[row, word], wanted, atol=1e-5)


def test_learns_tags_and_tags_words(trained):
    assert trained.tag(SENTENCES) == LABELS
    assert trained.tag([tuple(SENTENCES[1])]) == LABELS[1:2]


def test_each_word_of_a_long_sentence_gets_a_tag(trained):
    # 12 positions are room for 10 tokens, and "sings" has two.
    words = SENTENCES[1] * 9 + ["sings"]
    (tags,) = trained.tag([words])
    parts = [words[:10], words[10:20], words[20:]]
    assert tags == sum(trained.tag(parts), [])
    with pytest.warns(UserWarning, match="18 words at the end of 1 sentences"):
        x, _, weight = trained.word_preprocessor.encode([words], [tags])
    assert weight.sum() == 10 and x["token_ids"].shape == (1, 12)


def test_reloads_with_its_vocabulary_in_a_fresh_process(trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    x = trained.word_preprocessor.encode(SENTENCES)
    assert_close(fresh.load(tmp_path / "model.keras", x).outputs, run(trained, x))
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.tag(SENTENCES) == LABELS and again.tags == TAGS
    assert again.tokenizer.get_vocabulary() == WORDS


def test_padding_changes_nothing(trained):
    one = trained.word_preprocessor.encode(SENTENCES[2:])
    all_three = trained.word_preprocessor.encode(SENTENCES)
    assert_close(
        arrays(run(trained, one))[0][0, 0],
        arrays(run(trained, all_three))[0][2, 0],
        1e-5,
    )


def test_a_frozen_backbone_and_lora_train_few_weights():
    backbone = tiny.bert(num_layers=1)
    frozen = TokenClassifier(FrozenBackbone(backbone), TAGS)
    assert len(frozen.trainable_variables) == 2
    model = tagger()
    adapters.LoRA(rank=2).attach(model, verbose=0)
    names = {variable.path.split("/")[-1] for variable in model.trainable_variables}
    assert names == {"lora_a", "lora_b", "kernel", "bias"} or len(names) == 4
    assert list(kt.layer_groups(model).names) == ["stem", "transformer_layer_0", "head"]


def test_fine_tunes_on_batches_of_several_lengths():
    model = tagger()
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    settings = dict(weighted_metrics=["accuracy"], jit_compile=False)
    model.compile(keras.optimizers.AdamW(1e-2), loss, **settings)
    data = model.word_preprocessor.batches(
        SENTENCES * 4, LABELS * 4, 4, boundaries=[3, 6]
    )
    history = kt.fine_tune(model, data, epochs=2, strategy="lp-ft", verbose=0)
    assert history.history["accuracy"][-1] > 0.8


def test_serves_raw_strings_with_their_words(trained, tmp_path):
    texts = ["Ada sings in Paris!", "Paris", "", "in " * 30]
    folder = kt.export_serving(trained, tmp_path, samples=texts[:2])
    request = np.array([text.encode() for text in texts], object)
    (answer,) = plain_tensorflow.serve(
        folder, [("serving_default", {"text": request})], text=True
    )
    words = [[word.decode() for word in row] for row in answer["words"]]
    labels = [[label.decode() for label in row] for row in answer["label"]]
    assert words[0][:6] == ["Ada", "sings", "in", "Paris", "!", ""]
    assert labels[0][:4] == trained.tag([["Ada", "sings", "in", "Paris"]])[0]
    assert labels[0][5] == "" and words[2] == [""] * 10
    assert words[3] == ["in"] * 10  # of 30: the others are cut off
    assert answer["outputs"].shape == (4, 10, 3)


def test_serves_its_own_inputs_and_features(trained, tmp_path):
    x = trained.word_preprocessor.encode(SENTENCES)
    folder = kt.export_serving(
        trained, tmp_path, preprocessor=False, samples=x, features=True
    )
    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serving_default"]
    answer = serve(**{name: tf.constant(each) for name, each in x.items()})
    right = arrays(run(trained, x))[0]
    np.testing.assert_allclose(answer["outputs"], right, atol=1e-5)
    tensors = {name: tf.constant(each) for name, each in x.items()}
    assert loaded.signatures["features"](**tensors)["features"].shape == (3, 16)


def test_errors_say_what_does_not_fit():
    backbone = tiny.bert(num_layers=1)
    with pytest.raises(ValueError, match="no tokenizer, so it cannot read words"):
        TokenClassifier(backbone, TAGS).tag(SENTENCES)
    with pytest.raises(ValueError, match="sequence_length=8 has no effect"):
        TokenClassifier(backbone, TAGS, sequence_length=8)
    with pytest.raises(ValueError, match="above the 12 positions"):
        TokenClassifier(backbone, TAGS, tokenizer=tokenizer(), sequence_length=13)
    words = [*WORDS, *map(str, range(60))]
    with pytest.raises(ValueError, match="71 tokens, but .* embedding of 64"):
        TokenClassifier(backbone, TAGS, tokenizer=tokenizer(words))
    with pytest.raises(ValueError, match="tags="):
        TokenClassifier(backbone, ["O", "O"])
    words_of_numbers = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="not a dictionary.*text encoder"):
        TokenClassifier(words_of_numbers, TAGS)
    with pytest.raises(ValueError, match="one vector for each token is needed"):
        TokenClassifier(tiny.mlp(), TAGS)
    with pytest.raises(TypeError, match="already has a head"):
        TokenClassifier(tiny.bert_classifier(), TAGS)
