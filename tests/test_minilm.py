"""Groups, features, unfreezing and resume on a real pretrained BERT."""

import csv

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import _keras
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit


@pytest.fixture(scope="module")
def folder(minilm_folder):
    return str(minilm_folder)


def backbone(folder):
    import keras_hub

    return keras_hub.models.BertBackbone.from_preset(folder)


@pytest.fixture(scope="module")
def sentences(folder, data_folder):
    """Return token inputs and labels of 100 sentences of SST-2, and 200 others."""
    import keras_hub

    def read(name, count):
        with open(data_folder / name, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        labels, texts = zip(*rows[:count], strict=True)
        return tokens(list(texts)), np.array(labels, int)

    tokens = keras_hub.models.BertTextClassifierPreprocessor.from_preset(
        folder, sequence_length=32
    )
    return read("sst2_train.tsv", 100), read("sst2_dev.tsv", 200)


def test_layer_groups(folder):
    groups = kt.layer_groups(backbone(folder))
    assert groups.names == ["stem", *(f"transformer_layer_{i}" for i in range(6))]
    assert sum(group.num_parameters for group in groups) == 22_713_216


def test_frozen_features_separate_positive_and_negative_sentences(folder, sentences):
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_test, y_test) = sentences
    model = kt.backbones.features(backbone(folder))
    features, test_features = (
        model.predict(each, batch_size=100, verbose=0) for each in (x, x_test)
    )
    assert features.shape == (100, 384)
    accuracy = LogisticRegression(max_iter=1000).fit(features, y)
    # 68.6 % is the reference for the whole development set; chance is 51 %.
    assert accuracy.score(test_features, y_test) > 0.6


def test_gradual_unfreezing_and_resume(folder, sentences, tmp_path):
    (x, y), _ = sentences
    x, y = keras.tree.map_structure(lambda each: each[:8], (x, y))
    model = kt.models.TransferClassifier(backbone(folder), 2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    adamw = keras.optimizers.AdamW(1e-4)
    optimizer = kt.optimizers.discriminative(
        adamw, model, layer_decay=0.8, no_weight_decay=True
    )
    model.compile(optimizer, loss, jit_compile=False)
    before = model.get_weights()
    callback = kt.callbacks.GradualUnfreezing(model)
    fit(model, x, y, epochs=2, callbacks=[callback])
    groups = kt.layer_groups(model)
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
    frozen = {id(v) for group in groups[:-2] for v in group.variables}
    assert not any(m for m, v in zip(moved, model.weights) if id(v) in frozen)
    assert sum(moved) > 15

    model.save(tmp_path / "half.keras")
    again = kt.resume(tmp_path / "half.keras")
    assert_close(again.optimizer.variables, model.optimizer.variables)
    assert len(again.trainable_variables) == len(model.trainable_variables)
    # All except the pooler, which the mean over positions does not use.
    assert len(_keras.trained_by(again.optimizer)) == len(model.weights) - 2
    assert_close(again.get_weights(), model.get_weights())
