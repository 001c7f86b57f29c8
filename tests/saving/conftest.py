"""The fixtures of adapter files."""

import pytest

import keras_transfer as kt
from keras_transfer import adapters
from tests.saving import peft_models
from tests.saving.files import small
from tests.saving.files import trained


@pytest.fixture
def path(tmp_path):
    return tmp_path / "adapter.safetensors"


@pytest.fixture
def saved(path):
    """Return a `small` model with a saved adapter, and a model with the same base."""
    model, other = small(), small("other")
    other.set_weights(model.get_weights())
    trained(model, adapters.LoRA(rank=2, targets="wide|narrow"))
    kt.save_adapter(model, path)
    return model, other


@pytest.fixture
def shared():
    """Return a function for shared models, which are reset afterward."""
    used = []

    def get(make, family):
        model = peft_models.shared(make, family)
        used.append((model, model.get_weights()))
        return model

    yield get
    for model, weights in reversed(used):
        if adapters.attached(model):
            adapters.detach(model)
        model.set_weights(weights)
