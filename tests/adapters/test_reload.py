"""Saving and trainable flags, where Keras's own LoRA loses or unfreezes weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer import adapters
from keras_transfer.adapters.in_place.adapted_layer import Adapted
from keras_transfer.adapters.switching import places
from tests import tiny
from tests.adapters import models
from tests.contracts import fresh
from tests.contracts.compare import array
from tests.contracts.compare import arrays
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run
from tests.contracts.compute import exports

X, Y = models.tokens(), models.labels()
MORE = dict(x=X, y=Y, batch_size=4, epochs=2, shuffle=False, verbose=0)


def trained(make=models.nested, recipe=None, **kwargs):
    """Return a model with LoRA after some training steps, without a graph."""
    model = models.compiled(make(), run_eagerly=True, **kwargs)
    (recipe or adapters.LoRA(rank=2, alpha=5)).attach(model)
    data = X if make is not tiny.hub_resnet else models.images()
    fit(model, data, Y, epochs=2)
    return model


@pytest.mark.filterwarnings("ignore:.*shuffle=True:UserWarning")
@pytest.mark.parametrize("make", [models.nested, models.flat, models.task])
def test_a_new_process_gives_the_same_outputs_and_continues_training(make, tmp_path):
    model = trained(make)
    model.run_eagerly = make is not models.nested  # one trains in a graph
    model.save(tmp_path / "model.keras")
    here = fresh.load(tmp_path / "model.keras", X)
    assert_close(here.outputs, run(model, X))
    assert len(here.trainable) == len(model.trainable_variables)
    assert here.iterations == 4
    assert_close(here.optimizer_variables, model.optimizer.variables)
    there = fresh.load(tmp_path / "model.keras", X, fit=MORE)
    fit(model, X, Y, epochs=2)
    assert_close(there.outputs, run(model, X), 1e-6)
    assert_close(there.optimizer_variables, model.optimizer.variables, 1e-6)


@pytest.mark.parametrize("kind", ["dense", "einsum", "conv", "embedding"])
def test_both_factors_survive_a_reload(kind, tmp_path):
    inputs, layer = {
        "dense": (keras.Input((6,)), keras.layers.Dense(5, name="it")),
        "einsum": (
            keras.Input((6,)),
            keras.layers.EinsumDense("ab,bcd->acd", (5, 2), name="it"),
        ),
        "conv": (keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3, name="it")),
        "embedding": (
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(9, 6, name="it"),
        ),
    }[kind]
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(layer(inputs)))
    model = keras.Model(inputs, outputs)
    adapters.LoRA(rank=2, alpha=7, targets="^it$").attach(model)
    model.layers[-1].trainable = False
    model.compile(keras.optimizers.SGD(0.003), "mse", jit_compile=False)
    shape = (8, *inputs.shape[1:])
    x = np.arange(np.prod(shape)).reshape(shape) % 9
    x = (x / 9 if kind != "embedding" else x).astype(inputs.dtype)
    fit(model, x, np.ones((8, 1)))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    _, _, part = next(places(again))
    assert part.scaling == 3.5
    for name, weight in next(places(model))[2].named_weights.items():
        assert array(weight).any()
        assert_close(part.named_weights[name], weight)
    before = again.evaluate(x, np.ones((8, 1)), verbose=0)
    fit(again, x, np.ones((8, 1)), epochs=2)
    assert again.evaluate(x, np.ones((8, 1)), verbose=0) < before
    fit(model, x, np.ones((8, 1)), epochs=2)
    assert_close(again.get_weights(), model.get_weights(), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("discriminative", [True])
def test_resume_keeps_all_slots(discriminative, tmp_path):
    model = models.nested()
    adapters.LoRA(rank=2).attach(model)
    optimizer = keras.optimizers.Adam(0.01)
    if discriminative:
        optimizer = kt.optimizers.discriminative(optimizer, model, layer_decay=0.5)
    model.compile(optimizer, "mse", jit_compile=False)
    y = np.ones((8, 3))
    fit(model, X, y, epochs=2)
    model.save(tmp_path / "model.keras")
    again = kt.resume(tmp_path / "model.keras")
    assert_close(again.optimizer.variables, model.optimizer.variables)
    fit(model, X, y)
    fit(again, X, y)
    assert_close(again.get_weights(), model.get_weights(), 1e-6)


@pytest.mark.slow
def test_weights_files_keep_pairs_and_gates(tmp_path):
    model = trained()
    adapters.LoRA(rank=3).attach(models.compiled(model), "second")
    models.disturb(model, name="second")
    adapters.use(model, "default")
    model.save_weights(tmp_path / "model.weights.h5")
    other = models.nested()
    adapters.LoRA(rank=2, alpha=5).attach(other)
    adapters.LoRA(rank=3).attach(other, "second")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_close(run(other, X), run(model, X))
    assert adapters.active(other) == {"default": 1.0}


@pytest.mark.slow
def test_backup_and_restore_continues_as_if_never_stopped(tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch, logs=None):
        if epoch == 2:
            raise Stop

    start = models.nested().get_weights()

    def make():
        model = models.nested()
        model.set_weights(start)
        keras.utils.set_random_seed(5)
        adapters.LoRA(rank=2).attach(model)
        return models.compiled(model, run_eagerly=True)

    whole = make()
    fit(whole, X, Y, epochs=4)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    interrupt = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    with pytest.raises(Stop):
        fit(make(), X, Y, epochs=4, callbacks=[backup, interrupt])
    resumed = make()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    fit(resumed, X, Y, epochs=4, callbacks=[backup])
    assert_close(resumed.get_weights(), whole.get_weights(), 1e-6)


@pytest.mark.parametrize("make", [models.nested, models.flat, tiny.hub_resnet])
def test_base_weights_load_into_a_model_with_pairs(make, tmp_path):
    base, model = make(), make()
    for i, variable in enumerate(base.weights):
        variable.assign(np.random.default_rng(i).normal(0, 0.2, variable.shape))
    base.save_weights(tmp_path / "base.weights.h5")
    adapters.LoRA(rank=2).attach(model)
    pairs = [array(part.lora_a) for _, _, part in places(model)]
    model.load_weights(tmp_path / "base.weights.h5")
    assert_close([part.lora_a for _, _, part in places(model)], pairs)
    assert all(pair.any() for pair in pairs)
    assert not any(array(part.lora_b).any() for _, _, part in places(model))
    x = X if make is not tiny.hub_resnet else models.images()
    assert_close(run(model, x), run(base, x))


@pytest.mark.parametrize("policy", ["mixed_bfloat16"])
def test_half_precision_saves_the_base_bit_for_bit(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = models.nested()
    base = model.get_weights()
    adapters.LoRA(rank=2).attach(model)
    for _, _, part in places(model):
        assert {v.dtype for v in part.weights} == {"float32"}
    model.save(tmp_path / "start.keras")
    again = keras.models.load_model(tmp_path / "start.keras")
    adapters.detach(again)
    assert_close(again.get_weights(), base)
    models.compiled(model, run_eagerly=True)
    fit(model, X, Y, epochs=2)
    assert np.abs(array(next(places(model))[2].lora_b)).max() > 0
    model.save(tmp_path / "model.keras")
    there = fresh.load(tmp_path / "model.keras", X, policy=policy)
    assert_close(there.outputs, run(model, X))


def test_half_precision_without_a_mixed_policy():
    model = tiny.bert(num_layers=2, dropout=0.0, dtype="bfloat16")
    y = run(model, X)
    adapters.LoRA(rank=2).attach(model)
    after = run(model, X)
    assert after["pooled_output"].dtype == y["pooled_output"].dtype
    assert_close(after, y)


@pytest.mark.parametrize("make", [models.nested, models.flat])
def test_changing_trainable_does_not_unfreeze_weights(make):
    model = make()
    adapters.LoRA(rank=2).attach(model)
    before = models.trained_paths(model)
    model.trainable = False
    assert model.trainable_variables == []
    model.trainable = True
    assert models.trained_paths(model) == before
    for layer in model.layers:
        layer.trainable = False
        layer.trainable = True
    assert models.trained_paths(model) == before


@pytest.mark.slow
def test_changing_trainable_leaves_statistics_frozen():
    backbone = tiny.hub_resnet()
    adapters.LoRA(rank=2).attach(backbone)
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    for outer in (backbone, keras.Model(backbone.input, keras.layers.Dense(3)(pooled))):
        outer.trainable = False
        outer.trainable = True
    before = arrays(backbone.non_trainable_variables)
    fit(models.compiled(outer), models.images(), models.labels(4))
    assert_close(backbone.non_trainable_variables, before)


@pytest.mark.slow
def test_attaching_after_compile_and_before_training_renews_the_optimizer():
    model = models.compiled(models.nested())
    model.optimizer.build(model.trainable_variables)
    model.predict(X, verbose=0)
    model.make_train_function()
    adapters.LoRA(rank=2).attach(model)
    base = models.base_values(model)
    head = {id(v) for v in model.layers[-1].weights}
    fit(model, X, Y, epochs=2)
    now = models.base_values(model)
    assert all(np.array_equal(now[k], base[k]) for k in base if k not in head)
    assert array(next(places(model))[2].lora_b).any()
    assert_close(model.predict(X, verbose=0), run(model, X), 1e-6)


@pytest.mark.slow
def test_attaching_after_training_raises():
    model = models.compiled(models.nested(), run_eagerly=True)
    fit(model, X, Y)
    classes = models.classes(model)
    with pytest.raises(ValueError, match="compile"):
        adapters.LoRA(rank=2).attach(model)
    assert models.classes(model) == classes
    adapters.LoRA(rank=2).attach(models.compiled(model, run_eagerly=True))
    fit(model, X, Y)
    assert array(next(places(model))[2].lora_b).any()
    other = models.nested()
    other.compile(
        kt.optimizers.discriminative(keras.optimizers.Adam(), other),
        "mse",
        jit_compile=False,
    )
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(ValueError, match="Attach first"):
        adapters.LoRA(rank=2).attach(other)


@pytest.mark.slow
def test_xla_trains_the_same():
    start = models.nested(1).get_weights()
    results = []
    for jit in (False, True):
        model = models.nested(1)
        model.set_weights(start)
        keras.utils.set_random_seed(5)
        adapters.LoRA(rank=2).attach(model)
        models.compiled(model, jit_compile=jit, run_eagerly=not jit)
        fit(model, X, Y, epochs=2)
        results.append(model.get_weights())
    assert_close(results[1], results[0], 1e-5)


@pytest.mark.slow
def test_two_replicas_equal_one(strategy):
    start = models.nested(1).get_weights()

    def make():
        model = models.nested(1)
        model.set_weights(start)
        keras.utils.set_random_seed(5)
        adapters.LoRA(rank=2).attach(model)
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        return model

    one = make()
    with strategy.scope():
        two = make()
    fit(one, X, Y, epochs=2)
    fit(two, X, Y, epochs=2)
    assert_close(two.get_weights(), one.get_weights(), 1e-5)
    with adapters.disabled(two):
        pass
    y = two.predict(X, verbose=0)
    adapters.merge(two)
    assert_close(two.predict(X, verbose=0), y, 1e-5)
    adapters.unmerge(two)
    assert_close(two.predict(X, verbose=0), y)


def test_attaching_outside_the_scope_raises(strategy):
    with strategy.scope():
        model = models.nested()
    with pytest.raises(ValueError, match="strategy.scope"):
        adapters.LoRA(rank=2).attach(model)
    assert not any(issubclass(each, Adapted) for each in models.classes(model))
    outside = models.nested()
    with strategy.scope(), pytest.raises(ValueError, match="strategy.scope"):
        adapters.LoRA(rank=2).attach(outside)


@exports
@pytest.mark.slow
def test_export(tmp_path):
    model = trained()
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    inputs = {k: tf.constant(v, "float32") for k, v in X.items()}
    try:
        out = served.serve(inputs)
    except (TypeError, ValueError):
        out = served.serve({k: tf.constant(v) for k, v in X.items()})
    assert_close(out, run(model, X), 1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*shuffle=True:UserWarning")
# keras-hub saves the optimizer with the weights of a task, and cannot load it.
@pytest.mark.filterwarnings("ignore:Skipping variable loading:UserWarning")
def test_presets_of_a_task(tmp_path):
    import keras_hub

    model = trained(models.task)
    model.save_to_preset(str(tmp_path / "preset"))
    again = keras_hub.models.BertTextClassifier.from_preset(str(tmp_path / "preset"))
    assert_close(run(again, X), run(model, X))
    assert len(again.trainable_variables) == len(model.trainable_variables)
    assert list(adapters.attached(again)) == ["default"]


def test_presets_of_a_backbone(tmp_path):
    import keras_hub

    model = tiny.bert(num_layers=2)
    adapters.LoRA(rank=2).attach(model)
    models.disturb(model)
    model.save_to_preset(str(tmp_path / "preset"))
    for kind in (keras_hub.models.Backbone, keras_hub.models.BertBackbone):
        again = kind.from_preset(str(tmp_path / "preset"))
        assert isinstance(again, keras_hub.models.BertBackbone)
        assert_close(run(again, X), run(model, X))
        assert len(again.trainable_variables) == 8


@pytest.mark.slow
def test_the_file_names_the_package_to_import(tmp_path):
    import json
    import zipfile

    model = trained()
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = json.loads(archive.read("config.json"))
    assert "run `import keras_transfer` first" in config["module"]
    assert config["registered_name"] == "keras_transfer>Adapted"


def test_an_outer_model_reloads_with_an_adapted_backbone(tmp_path):
    backbone = tiny.bert(num_layers=2, dropout=0.0)
    adapters.LoRA(rank=2, targets="all-linear").attach(backbone)
    model = kt.models.TransferClassifier(backbone, 3)
    models.compiled(model, run_eagerly=True)
    fit(model, X, Y, epochs=2)
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", X)
    assert_close(again.outputs, run(model, X))
    assert len(again.trainable) == len(model.trainable_variables)
    assert_close(again.optimizer_variables, model.optimizer.variables)


def test_a_whole_transfer_classifier_can_be_adapted(tmp_path):
    backbone = tiny.bert(num_layers=2, dropout=0.0)
    model = kt.models.TransferClassifier(backbone, 3)
    models.compiled(model, run_eagerly=True)
    adapters.LoRA(rank=2, targets=["query$", "logits"]).attach(model)
    fit(model, X, Y, epochs=2)
    model.save(tmp_path / "model.keras")
    again = fresh.load(tmp_path / "model.keras", X)
    assert_close(again.outputs, run(model, X))
    assert len(again.trainable) == len(model.trainable_variables)
    assert_close(again.optimizer_variables, model.optimizer.variables)


@pytest.mark.slow
def test_a_clone_has_the_adapters():
    model = trained()
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    assert_close(run(copy, X), run(model, X))


@pytest.mark.slow
def test_an_outer_graph_is_stale_until_refreshed():
    backbone = tiny.bert(num_layers=2, dropout=0.0)
    head = keras.layers.Dense(3)
    outer = keras.Model(backbone.input, head(backbone(backbone.input)["pooled_output"]))
    models.compiled(outer)
    old = outer.predict(X, verbose=0)
    adapters.LoRA(rank=2).attach(backbone)
    models.disturb(backbone)
    assert_close(outer.predict(X, verbose=0), old)  # Keras traced it before
    adapters.refresh(outer)
    assert np.abs(outer.predict(X, verbose=0) - old).max() > 1e-3
    assert_close(outer.predict(X, verbose=0), run(outer, X), 1e-6)
