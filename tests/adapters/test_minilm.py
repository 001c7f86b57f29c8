"""LoRA on the real MiniLM: parameter count as in PEFT, merge, and time of attach."""

import time

import numpy as np

from keras_transfer import adapters
from tests.adapters import models
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import run


def test_minilm(minilm_folder):
    import keras_hub

    model = keras_hub.models.BertBackbone.from_preset(str(minilm_folder))
    x = models.tokens(rows=4, words=30522, length=32)
    base = run(model, x)
    start = time.perf_counter()
    adapters.LoRA().attach(model)
    seconds = time.perf_counter() - start
    trained = sum(array(v).size for v in model.trainable_weights)
    assert trained == 73_728  # as in PEFT for query and value at rank 8
    assert_close(run(model, x), base)
    models.disturb(model, 0.02)
    y = run(model, x)
    assert np.abs(y["sequence_output"] - base["sequence_output"]).max() > 0.1
    adapters.merge(model)
    assert_close(run(model, x), y, 1e-5)
    adapters.unmerge(model)
    assert_close(run(model, x), y)
    adapters.detach(model)
    assert_close(run(model, x), base)
    assert seconds < 3, seconds  # half a second on an idle machine
    print(f"attached in {seconds:.2f} s")
