"""The layers that an adapter owns: by default the head, or the layers of `train`."""

import keras
import numpy as np
import pytest

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.switching import own_places
from tests.adapters import models
from tests.adapters.test_own_layer import body
from tests.adapters.test_own_layer import lora
from tests.adapters.test_own_layer import model_of
from tests.adapters.test_own_layer import normalized
from tests.adapters.test_own_layer import X
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run

TOKENS, Y = models.tokens(), models.labels()


def owned(model, name="default"):
    """Return the paths of the layers that an adapter owns."""
    return [path for path, _, _ in own_places(model, name)]


@pytest.mark.slow
def test_layers_by_name_and_the_head():
    model = models.nested()
    y = run(model, TOKENS)
    recipe = adapters.LoRA(rank=2)
    recipe.attach(model, train=["_1/.*layer_norm", "head"])
    assert [path.split("/")[-1] for path in owned(model)] == [
        "self_attention_layer_norm",
        "feedforward_layer_norm",
        "logits",
    ]
    assert_close(run(model, TOKENS), y)
    learning = {v.path for v in model.trainable_variables}
    assert len(learning) == 2 * 2 * 2 + 2 * 2 + 2
    fit(models.compiled(model), TOKENS, Y)
    assert np.abs(run(model, TOKENS) - y).max() > 1e-4
    with adapters.disabled(model):
        assert_close(run(model, TOKENS), y)
    changed = run(model, TOKENS)
    adapters.merge(model)
    assert_close(run(model, TOKENS), changed, 1e-5)


def test_train_accepts_an_empty_list_a_string_and_a_layer():
    model = model_of()
    lora().attach(model, train=[])
    assert owned(model) == []
    assert all("logits" not in v.path for v in model.trainable_variables)
    lora().attach(model, "second", train="logits")
    lora().attach(model, "third", train=[model.layers[-1]])
    assert owned(model, "second") == owned(model, "third") == ["logits"]


def test_trainable_layers_of_the_head_by_default():
    model = normalized()
    model.get_layer("norm").trainable = False
    lora().attach(model)
    assert owned(model) == ["logits"]
    lora().attach(model, "second")  # the first adapter has frozen the head
    assert owned(model, "second") == ["logits"]
    lora().attach(model, "third", train=["head"])
    assert owned(model, "third") == ["norm", "logits"]


def test_a_head_that_is_a_target_is_not_owned():
    model = model_of()
    adapters.LoRA(rank=1, targets="hidden|logits").attach(model)
    assert owned(model) == []
    with pytest.raises(ValueError, match="'logits' is both a target"):
        adapters.LoRA(rank=1, targets="logits").attach(model, "b", train=["head"])


def test_names_that_match_nothing_raise():
    model = model_of()
    classes = models.classes(model)
    for train, match in (
        (["logit", "hiden_0"], "'hiden_0'.*nearest are"),
        (["("], "not a regular expression"),
        (["^nothing$", "head"], "'\\^nothing\\$'"),
    ):
        with pytest.raises(ValueError, match=match):
            lora().attach(model, train=train)
    with pytest.raises(ValueError, match="model has no head"):
        lora().attach(body(), train=["head"])
    for wrong in (3, [3], {"head": 1}):
        with pytest.raises(TypeError, match="train"):
            lora().attach(model, train=wrong)
    assert models.classes(model) == classes


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method:UserWarning")
def test_the_bias_of_a_quantized_head_trains():
    model = model_of()
    model.quantize("int8")
    y = run(model, X)
    with pytest.raises(ValueError, match="quantized \\(int8\\)"):
        lora().attach(model, train=["logits"])
    lora().attach(model)
    assert_close(run(model, X), y)
    names = [v.name for v in model.layers[-1].trainable_weights]
    assert names == ["bias"]


def test_techniques_that_train_own_weights_train_the_models_head():
    for recipe in (adapters.BitFit(), adapters.LoRA(2, targets="hidden", bias="all")):
        model = model_of()
        head = model.layers[-1]
        recipe.attach(model)
        assert [v is x for v, x in zip(head.weights, head.trainable_weights)] == [
            True
        ] * 2
        adapters.detach(model)
        with pytest.raises(ValueError, match="it can own no layers"):
            recipe.attach(model, train=["head"])


@pytest.mark.slow
def test_two_adapters_on_different_layers():
    model = models.nested()
    y = run(model, TOKENS)
    adapters.LoRA(rank=2, targets="query").attach(model, "first", train=["_0/.*value$"])
    adapters.LoRA(rank=2, targets="value").attach(
        model, "second", train=["_0/.*query$"]
    )
    outputs = {}
    for name in ("first", "second"):
        adapters.use(model, name)
        models.disturb(models.disturb_head(model, name), name=name)
        outputs[name] = run(model, TOKENS)
    for name in ("first", "second"):
        adapters.use(model, name)
        assert_close(run(model, TOKENS), outputs[name], 1e-6)
        changed = outputs[name]
        adapters.merge(model)
        assert_close(run(model, TOKENS), changed, 1e-5)
        adapters.unmerge(model)
    with pytest.raises(ValueError, match="another owns a copy of the whole layer"):
        adapters.add_weighted(model, "sum", {"first": 0.5, "second": 0.5})
    with adapters.disabled(model):
        assert_close(run(model, TOKENS), y)


def test_the_adapter_file_contains_layers_below_the_head(tmp_path):
    model, other = models.nested(), models.nested()
    other.set_weights(model.get_weights())
    adapters.LoRA(rank=2).attach(model, train=["_1/.*layer_norm", "head"])
    models.disturb_head(models.disturb(model))
    kt.save_adapter(model, tmp_path / "it.safetensors")
    kt.load_adapter(other, tmp_path / "it.safetensors")
    assert len(owned(other)) == 3
    assert_close(run(other, TOKENS), run(model, TOKENS))
    adapters.detach(other)
    changed = other.get_weights()
    other.set_weights([value + 0.1 for value in changed])
    with pytest.raises(ValueError, match="on other weights"):
        kt.load_adapter(other, tmp_path / "it.safetensors")


class Reading(keras.layers.Layer):
    """A head that reads one layer's kernel, calls another, and ignores a third."""

    def build(self, shape):
        self.read = keras.layers.Dense(4, use_bias=False, name="read")
        self.called = keras.layers.Dense(2, name="called")
        self.idle = keras.layers.Dense(3, name="idle")
        for layer, width in ((self.read, 6), (self.called, 4), (self.idle, 4)):
            layer.build((None, width))

    def call(self, inputs):
        return self.called(keras.ops.matmul(inputs, self.read.kernel))


@pytest.mark.parametrize(
    ("train", "match"),
    [
        (["read"], "'reading/read'.*Reading 'reading' reads its weights"),
        (["idle"], "'reading/idle'.*never runs"),
    ],
)
def test_naming_a_layer_that_no_adapter_can_own_raises(train, match):
    model = model_of(Reading(name="reading"))
    before = models.classes(model)
    with pytest.raises(ValueError, match=match):
        lora().attach(model, train=train)
    assert models.classes(model) == before
    lora().attach(model, train=["called"])
    assert owned(model) == ["reading/called"]


@pytest.mark.parametrize("train", [["norm"], ["inner"]])
def test_naming_a_layer_that_shares_a_weight_raises(train):
    inner = keras.layers.Dense(3, name="inner")
    model = model_of(keras.layers.SpectralNormalization(inner, name="norm"))
    with pytest.raises(ValueError, match="shares and reads its 'kernel'"):
        lora().attach(model, train=train)


HEADS = {
    "read": lambda: Reading(name="reading"),
    "inner": lambda: keras.layers.SpectralNormalization(
        keras.layers.Dense(3, name="inner"), name="norm"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_layers_of_the_head_that_no_adapter_can_own_train_in_place(
    name, capsys, tmp_path
):
    model, other = model_of(HEADS[name]()), model_of(HEADS[name]())
    lora().attach(model)
    assert f"'{name}'" in capsys.readouterr().out.partition("] trains in place")[0]
    variable = next(v for v in model.trainable_variables if f"{name}/kernel" in v.path)
    start = array(variable)
    fit(models.compiled(model), X, np.arange(len(X)) % 2)
    assert not np.array_equal(array(variable), start)
    assert "logits" in owned(model)
    kt.save_adapter(model, tmp_path / "it.safetensors")
    kt.load_adapter(other, tmp_path / "it.safetensors")
    assert_close(run(other, X), run(model, X))
    model.save(tmp_path / "it.keras")
    again = keras.saving.load_model(tmp_path / "it.keras", {"Reading": Reading})
    assert_close(run(again, X), run(model, X))
    assert len(again.trainable_variables) == len(model.trainable_variables)
