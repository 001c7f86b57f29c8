"""ZeroShotClassifier: embeddings of descriptions by hand, for texts and for images."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.backbones import features
from keras_transfer.models import ZeroShotClassifier
from tests import tiny
from tests.contracts.compare import array
from tests.contracts.model_contract import ModelContract

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["a", "film", "about", "good", "bad", "war", "love", "."]
CLASSES = {"war": "a film about war", "love": ["love", "good love ."]}


def preprocessor(length=8):
    tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary=WORDS)
    kind = keras_hub.models.BertTextClassifierPreprocessor
    return kind(tokenizer, sequence_length=length)


def bert():
    keras.utils.set_random_seed(0)
    return tiny.bert(num_layers=1, vocabulary_size=16, dropout=0.0)


def classifier(classes=CLASSES, **kwargs):
    """Return a classifier that runs without a graph, which saves time."""
    settings = {"preprocessor": preprocessor(), **kwargs}
    model = ZeroShotClassifier(bert(), classes, **settings)
    model.compile(keras.optimizers.Adam(0.01), LOSS, run_eagerly=True)
    return model


@pytest.fixture(scope="module")
def shared():
    """A classifier that tests must not change."""
    return classifier(templates=["{}", "about {} ."], temperature=0.5)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def vectors(texts):
    """Return the means of the tokens of texts, from the backbone itself."""
    x = preprocessor()(texts)
    states = array(bert()(x)["sequence_output"])
    mask = array(x["padding_mask"])[..., None]
    return (states * mask).sum(1) / mask.sum(1)


class TestContract(ModelContract):
    loss = LOSS

    def make(self):
        return ZeroShotClassifier(
            bert(), CLASSES, preprocessor=preprocessor(), temperature=1.0
        )

    def inputs(self):
        x = preprocessor()(["war", "love", "a bad film", "good love"] * 2)
        return {key: array(each).astype("int32") for key, each in x.items()}

    def targets(self):
        return np.arange(8) % 2


def test_scores_are_cosines_to_the_mean_over_templates_and_descriptions(shared):
    texts = ["good film", "bad", "a film about love ."]
    of_war = ["a film about war", "about a film about war ."]
    of_love = ["love", "good love .", "about love .", "about good love . ."]
    classes = [unit(unit(vectors(each)).mean(0)) for each in (of_war, of_love)]
    expected = unit(vectors(texts)) @ np.stack(classes).T / 0.5
    found = shared.predict(texts)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.dtype == "float32" and shared.class_names == ("war", "love")
    np.testing.assert_allclose(shared.class_embeddings, classes, atol=1e-4)
    names = np.array(shared.class_names)[found.argmax(1)]
    assert shared.classify(np.array(texts, object)) == names.tolist()
    np.testing.assert_allclose(shared.embed(texts), unit(vectors(texts)), atol=1e-5)


def test_padding_and_batches_change_nothing(shared):
    texts = ["war", "a good film about love .", "bad film", "love"] * 2
    together = shared.predict(texts)
    np.testing.assert_allclose(together[:4], together[4:], atol=1e-5)
    alone = np.concatenate([shared.predict([text]) for text in texts[:4]])
    np.testing.assert_allclose(together[:4], alone, atol=1e-4)
    arrays = shared.predict(shared.encode(texts), verbose=0)
    np.testing.assert_allclose(together, arrays, atol=1e-4)


def test_a_text_that_is_a_description_is_of_its_class():
    model = classifier(["war", "love", "good", "bad"])
    assert model.classify(["bad", "love", "war"]) == ["bad", "love", "war"]
    np.testing.assert_allclose(model.predict(["good"])[0, 2], 100, rtol=1e-5)


def test_classes_change_without_the_others():
    model = classifier()
    before = model.predict(["bad film"])
    model.add_class("bad", "bad film")
    after = model.predict(["bad film"])
    np.testing.assert_allclose(after[:, :2], before, rtol=1e-5)
    np.testing.assert_allclose(after[:, 2], 100, rtol=1e-5)
    model.remove_class("war")
    assert model.descriptions == {"love": ("love", "good love ."), "bad": ("bad film",)}
    np.testing.assert_allclose(model.predict(["bad film"]), after[:, 1:], rtol=1e-5)
    model.add_class("war", "war")  # again, with another description
    assert model.class_names == ("love", "bad", "war")
    empty = classifier({})
    with pytest.raises(ValueError, match="The model has no classes"):
        empty.predict(["bad"])


def test_fit_moves_the_encoder_and_refresh_the_classes():
    model = classifier(temperature=0.2)
    texts, numbers = ["bad", "good", "film", "a"], np.array([0, 1, 0, 1])
    fixed = model.class_embeddings.copy()
    model.fit(model.encode(texts), numbers, epochs=6, verbose=0)
    assert model.predict(texts).argmax(1).tolist() == numbers.tolist()
    np.testing.assert_array_equal(model.class_embeddings, fixed)
    model.refresh()
    assert abs(model.class_embeddings - fixed).max() > 1e-3
    found = unit(model.embed(["a film about war"]))
    np.testing.assert_allclose(model.class_embeddings[0], found[0], atol=1e-5)


def test_takes_strings_in_all_forms_in_which_data_comes(shared):
    texts = ["war", "a good film"]
    expected = shared.predict(texts)
    forms = [np.array(texts), np.array(texts, object), tf.constant(texts)]
    forms += [[each.encode() for each in texts], tuple(texts)]
    for form in forms:
        np.testing.assert_allclose(shared.predict(form), expected, atol=1e-5)


def test_reloads_without_running_the_encoder(tmp_path, shared):
    shared.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    texts = ["good film", "bad"]
    np.testing.assert_allclose(again.predict(texts), shared.predict(texts), atol=1e-5)
    assert again.descriptions == shared.descriptions
    assert again.templates == shared.templates
    again.add_class("bad", "bad")
    assert again.predict(texts).shape == (2, 3)


def test_serves_strings_and_vectors_for_new_classes(tmp_path, shared):
    texts = ["a film about war", "good love .", "bad"]
    folder = kt.export_serving(shared, tmp_path / "a", samples=texts, features=True)
    signatures = tf.saved_model.load(str(folder)).signatures
    answer = signatures["serving_default"](text=tf.constant(texts))
    expected = [each.encode() for each in shared.classify(texts)]
    assert answer["label"].numpy().tolist() == expected
    np.testing.assert_allclose(answer["outputs"], shared.predict(texts), atol=1e-4)
    of_texts = signatures["features"](text=tf.constant(texts))["features"].numpy()
    np.testing.assert_allclose(unit(of_texts), shared.embed(texts), atol=1e-5)


def test_classes_in_each_request(tmp_path, shared):
    model, texts = shared.with_class_inputs(), ["good film", "bad"]
    classes = np.stack([shared.class_embeddings, shared.embed(["bad", "a"])])
    x = {**shared.encode(texts), "class_embeddings": classes}
    folder = kt.export_serving(model, tmp_path, samples=x)
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = serve(**{key: tf.constant(each) for key, each in x.items()})["outputs"]
    np.testing.assert_allclose(found[:1], shared.predict(texts[:1]), atol=1e-4)
    expected = shared.embed(["bad"]) @ classes[1].T / 0.5
    np.testing.assert_allclose(found[1:], expected, atol=1e-4)


def clip():
    keras.utils.set_random_seed(0)
    size = dict(hidden_dim=16, num_layers=1, num_heads=2, intermediate_dim=16)
    vision = keras_hub.models.CLIPVisionEncoder(
        patch_size=8, image_shape=(16, 16, 3), **size
    )
    text = keras_hub.models.CLIPTextEncoder(
        vocabulary_size=12, embedding_dim=16, max_sequence_length=6, **size
    )
    backbone = keras_hub.models.CLIPBackbone(vision, text, projection_dim=8)
    outputs = ("vision_projection", "text_projection")
    return tuple(features(backbone, output=each) for each in outputs)


def clip_preprocessor():
    tokens = ["a", "c", "t", "d", "a</w>", "c</w>", "t</w>", "d</w>", "at</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = keras_hub.models.CLIPTokenizer(
        vocabulary={token: number for number, token in enumerate(tokens)},
        merges=["a t</w>"],
    )
    return keras_hub.models.CLIPPreprocessor(tokenizer, sequence_length=6)


def test_a_pair_of_encoders_scores_images_by_texts(tmp_path):
    of_images, of_texts = clip()
    model = ZeroShotClassifier(
        (of_images, of_texts),
        ["cat", "dac"],
        preprocessor=clip_preprocessor(),
        temperature=0.1,
    )
    images = {"images": np.random.default_rng(0).random((3, 16, 16, 3), "float32")}
    prepared = clip_preprocessor()({"prompts": ["cat", "dac"], "images": None})
    texts = array(of_texts({key: prepared[key] for key in of_texts.input}))
    expected = unit(array(of_images(images))) @ unit(texts).T / 0.1
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-4)
    assert abs(expected[:, 0] - expected[:, 1]).max() > 1e-3
    names = [("cat", "dac")[number] for number in expected.argmax(1)]
    assert model.classify(images) == names
    # Training must not touch the encoder of the texts.
    model.compile("sgd", LOSS, run_eagerly=True)
    before = [array(weight) for weight in of_texts.weights]
    model.fit(images, np.array([0, 1, 0]), verbose=0)
    for weight, value in zip(of_texts.weights, before, strict=True):
        np.testing.assert_array_equal(array(weight), value)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5
    )
    np.testing.assert_allclose(again.embed(["cat"]), unit(texts[:1]), atol=1e-5)
    folder = kt.export_serving(model, tmp_path / "served", samples=images)
    assert folder.is_dir()
    with pytest.raises(ValueError, match="The inputs of the model are not texts"):
        model.predict(["cat"])


def test_bad_input_is_refused_and_changes_nothing():
    model = classifier()
    for descriptions in ("", " ", [], ["good", ""], [3]):
        with pytest.raises(ValueError, match="The class 'bad' has the descriptions"):
            model.add_class("bad", descriptions)
    with pytest.raises(ValueError, match="There is a class 'war' already"):
        model.add_class("war", "war")
    with pytest.raises(TypeError, match="Text 1 is 3"):
        model.predict(["good", 3])
    with pytest.raises(TypeError, match="are one string"):
        model.embed("good")
    assert model.class_names == ("war", "love")
    for templates in ("about", [], ["{}", "about"], "{} {}", [3]):
        with pytest.raises(ValueError, match="must be texts with '{}' once"):
            classifier(templates=templates)
    with pytest.raises(ValueError, match="has a name twice"):
        classifier(["war", "war"])
    with pytest.raises(TypeError, match="must be a dict from class names"):
        classifier("war")
    with pytest.raises(ValueError, match="preprocessor is a NoneType"):
        classifier(preprocessor=None)
    with pytest.raises(ValueError, match="encoder is 1 encoders"):
        ZeroShotClassifier([bert()], CLASSES, preprocessor=preprocessor())
    wide = tiny.bert(num_layers=1, vocabulary_size=16, hidden_dim=8)
    with pytest.raises(ValueError, match=r"of the widths \[16, 8\]"):
        ZeroShotClassifier((bert(), wide), CLASSES, preprocessor=preprocessor())
    with pytest.raises(ValueError, match="The tokenizer has 13 tokens"):
        ZeroShotClassifier(
            tiny.bert(num_layers=1, vocabulary_size=9),
            CLASSES,
            preprocessor=preprocessor(),
        )
