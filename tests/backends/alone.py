"""What is shown on JAX alone: half precision, random steps, and what is refused.

KERAS_BACKEND=jax python -m tests.backends.alone folder

The folder contains a file of TensorFlow, whose training continues.
"""

import pathlib
import sys
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from tests.backends import trainings
from tests.contracts.compare import arrays
from tests.contracts.domain_contract import extractor
from tests.contracts.domain_contract import free_head
from tests.golden import bases


def refused(needs, instead, call):
    """Fail unless a call raises an error that says what is needed, and what to do."""
    try:
        call()
    except NotImplementedError as error:
        said = str(error)
        assert said.startswith(f"{needs} needs the TensorFlow backend"), said
        assert "the backend is jax" in said and instead in said, said
    else:
        raise AssertionError(f"{needs} was not refused")


def half_precision():
    """Check that the pairs of LoRA stay float32 in bfloat16, and that they move."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = bases.bert()
    kt.adapters.LoRA(rank=2).attach(model, verbose=0)
    rate = 1e-4  # steps that bfloat16 would round to zero
    model.compile(keras.optimizers.SGD(rate), bases.LOGITS)
    pairs = [x for x in model.trainable_variables if x.name in ("lora_a", "lora_b")]
    assert pairs and {x.dtype for x in pairs} == {"float32"}
    before = arrays(pairs)
    model.fit(bases.tokens(16), bases.labels(16), batch_size=4, verbose=0)
    moved = [np.abs(a - b).max() for a, b in zip(arrays(pairs), before, strict=True)]
    assert 0 < max(moved) < 1e-3
    assert model(bases.tokens(4)).dtype == "bfloat16"
    keras.config.set_dtype_policy("float32")


def random_step():
    """Check that VADA trains, with its random step and BatchNormalization."""
    network = extractor()
    network.add(keras.layers.BatchNormalization())
    network.add(keras.layers.Dropout(0.5))
    model = kt.models.VADA(network, free_head(), radius=0.5)
    model.compile(keras.optimizers.SGD(0.05), bases.LOGITS)
    x = {name: bases.vectors(16) for name in ("source", "target")}
    logs = model.fit(x, bases.labels(16), epochs=3, verbose=0).history
    assert all(np.isfinite(values).all() for values in logs.values())
    assert min(logs["source_smoothness_loss"]) > 1e-4
    assert np.any(arrays(network.layers[-2].moving_mean)[0])


def refused_settings():
    """Check two settings that JAX cannot have or does not need."""
    batch_norm = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((6,)), batch_norm, keras.layers.Dense(3)])
    with pytest.raises(NotImplementedError, match="sees the whole batch already"):
        kt.distribute.synchronize_batch_norm(model)
    assert not batch_norm.synchronized
    adamw = keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=2)
    model.compile(kt.optimizers.discriminative(adamw, model), bases.LOGITS)
    unfreezing = kt.callbacks.GradualUnfreezing(model)
    with pytest.raises(Exception, match="ema_overwrite_frequency"):
        model.fit(bases.vectors(8), bases.labels(8), verbose=0, callbacks=[unfreezing])


def refused_layers():
    """Check the layers that cannot do everything in a step or a pipeline of JAX."""
    optimizer = keras.optimizers.SGD(1.0)
    rising = kt.optimizers.GaninRampUp(10)
    layer = kt.layers.GradientReversal(rising, step=optimizer.iterations)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1), layer])
    model.compile(optimizer, "mse")
    with pytest.raises(NotImplementedError, match="kt.models.DANN"):
        model.fit(np.ones((8, 1)), np.ones((8, 1)), verbose=0)
    images = tf.data.Dataset.from_tensors(np.ones((1, 8, 8, 3), "float32"))
    layer = kt.layers.DomainRandomization(seed=1)
    with pytest.raises(NotImplementedError, match="a layer of the model instead"):
        images.map(lambda x: layer(x, training=True))


def refusals():
    model, workers = bases.mlp(), "kt.distribute.multi_worker"
    refused(workers, "keras.distribution.initialize", kt.distribute.multi_worker)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "exported")
        for name, export in (
            (
                "kt.export_serving with adapters=",
                lambda: kt.export_serving(model, path, adapters=["first"]),
            ),
            (
                "kt.export.export_file",
                lambda: kt.export.export_file(model, path, format="onnx"),
            ),
        ):
            refused(name, "KERAS_BACKEND=tensorflow", export)
            assert not path.exists()


def main(folder):
    trainings.main(folder, "continued")
    half_precision()
    random_step()
    refusals()
    refused_layers()
    refused_settings()


if __name__ == "__main__":
    main(*sys.argv[1:])
