"""The fixtures of adapter files."""

import pytest

import keras_transfer as kt
from keras_transfer import adapters
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
