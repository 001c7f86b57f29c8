"""Tiny decoders for the tests of prompts and prefixes, and what they generate."""

import keras_hub
import numpy as np

from keras_transfer import adapters
from tests.adapters import models
from tests.backbones import families
from tests.contracts.compare import array
from tests.contracts.compare import assert_close
from tests.contracts.compare import fit
from tests.contracts.compare import run

GROUPED = dict(num_layers=2) | families.GROUPED
DECODERS = {
    "GPT2": dict(num_layers=2) | families.TEXT | families.WORDS,
    "OPT": dict(num_layers=2) | families.TEXT | families.WORDS,
    "Llama": GROUPED,
    "Mistral": GROUPED,
    "Qwen": GROUPED,
    "Qwen3": GROUPED | dict(head_dim=8, sliding_window_size=3),
    "Gemma": GROUPED
    | dict(head_dim=8, use_sliding_window_attention=True, sliding_window_size=4),
    "Phi3": GROUPED,
}
QUICK = ("GPT2", "Qwen3")


def decoder(name):
    """Return a causal language model with random weights that move the outputs."""
    backbone = getattr(keras_hub.models, f"{name}Backbone")(**DECODERS[name])
    randomize(backbone)
    task = getattr(keras_hub.models, f"{name}CausalLM")
    return task(backbone=backbone, preprocessor=None)


def randomize(backbone):
    """Give all kernels and embeddings values that change the outputs."""
    rng = np.random.default_rng(0)
    for variable in backbone.trainable_weights:
        if variable.name in ("kernel", "embeddings"):
            variable.assign(rng.normal(0, 0.4, variable.shape))
    return backbone


def check_generation(name, recipe):
    """Fail unless the adapter changes what `name` generates, the same without cache."""
    model = decoder(name)
    eagerly = name not in QUICK  # tracing takes longest, and is tried on these
    model.compile(sampler="greedy", jit_compile=False, run_eagerly=eagerly)
    ids = np.zeros((2, 7), "int32")
    ids[:, :4] = [[5, 9, 3, 7], [8, 2, 0, 0]]
    mask = (ids > 0).astype("int32")
    prompt = {"token_ids": ids, "padding_mask": mask}
    base = model.generate(prompt, stop_token_ids=None)["token_ids"]
    recipe.attach(model, verbose=0)
    models.disturb(model, 1.0)
    found = model.generate(prompt, stop_token_ids=None)["token_ids"]
    assert (found != base).any()
    expected = ids.copy()
    for i in range(2, 7):
        every = {"token_ids": expected, "padding_mask": np.ones_like(mask)}
        following = array(run(model, every))[:, i - 1].argmax(-1)
        expected[:, i] = np.where(mask[:, i], expected[:, i], following)
    assert_close(found, expected)
    with adapters.disabled(model):
        again = model.generate(prompt, stop_token_ids=None)["token_ids"]
    assert_close(again, base)


def check_two_replicas(recipe, strategy):
    """Fail unless the adapter trains on two replicas as on one."""

    def make():
        model = models.nested(num_layers=1)
        recipe.attach(model, verbose=0)
        models.disturb(model)
        return models.compiled(model)

    one = make()
    with strategy.scope():
        two = make()
    two.set_weights(one.get_weights())
    before = [array(v) for v in one.trainable_variables]
    for model in (one, two):
        fit(model, models.tokens(), models.labels(), epochs=2)
    assert all(
        np.any(array(v) != x)
        for v, x in zip(one.trainable_variables, before, strict=True)
    )
    assert_close(two.get_weights(), one.get_weights(), 1e-4)
