"""Old names: an error says what to use instead."""

import keras
import pytest

import keras_transfer as kt
from tests import tiny


@pytest.mark.parametrize(
    "old, new", [("decay", "layer_decay"), ("no_decay", "no_weight_decay")]
)
def test_old_arguments_name_the_new_ones(old, new):
    adamw = keras.optimizers.AdamW()
    with pytest.raises(TypeError, match=f"no argument '{old}'. Use {new}="):
        kt.optimizers.discriminative(adamw, tiny.mlp(), **{old: 0.5})


def test_unknown_arguments_are_an_ordinary_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'decy'"):
        kt.optimizers.discriminative(keras.optimizers.AdamW(), tiny.mlp(), decy=0.5)


@pytest.mark.parametrize(
    "old, new",
    [
        ("information_maximisation", "information_maximization"),
        ("soft_neighbourhood_density", "soft_neighborhood_density"),
    ],
)
def test_old_functions_name_the_new_ones(old, new):
    with pytest.raises(AttributeError, match=f"It is called '{new}' now"):
        getattr(kt.analysis, old)
    assert callable(getattr(kt.analysis, new))
    assert not hasattr(kt.analysis, "entropie")


def test_old_attributes_of_the_digits_name_the_new_ones():
    target = kt.data.digits.Target((), (), 3)
    assert target.unlabeled == 3
    with pytest.raises(AttributeError, match="It is called 'unlabeled' now"):
        target.unlabelled  # noqa: B018
