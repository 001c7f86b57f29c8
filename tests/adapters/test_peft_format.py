"""PEFT files: the technique of a config, and the axes of a tensor."""

import numpy as np

from keras_transfer import adapters
from keras_transfer.adapters.peft_format import PeftTensor


def test_a_config_describes_one_technique():
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": True}
    kinds = (adapters.LoRA, adapters.RsLoRA, adapters.DoRA)
    assert [kind.peft.is_of(config) for kind in kinds] == [False, False, True]
    assert [kind.peft.is_of({"peft_type": "IA3"}) for kind in kinds] == [False] * 3
    assert adapters.DoRA.peft.rank_and_alpha(config) == (4, 8)


def test_a_tensor_with_an_axis_of_one_entry():
    spec = PeftTensor("ia3_scale", ("outputs", "one"), ("outputs",), rest=1.0)
    assert spec.shape({"outputs": 5}) == (5, 1)
    tensor = np.arange(5, dtype="float32")[:, None]
    at = {"outputs": np.array([3, 1])}
    assert spec.read(tensor, at).tolist() == [3, 1]
    again = np.zeros_like(tensor)
    spec.write(again, np.array([3.0, 1.0]), at)
    assert again[:, 0].tolist() == [0, 1, 0, 3, 0]


def test_read_selects_rows_and_write_restores_them():
    spec = PeftTensor("lora_b", ("outputs", "rank"), ("rank", "outputs"))
    assert spec.shape({"outputs": 5, "rank": 2, "inputs": 3}) == (5, 2)
    tensor = np.arange(10, dtype="float32").reshape(5, 2)
    first, second = np.array([4, 0]), np.array([1, 3, 2])
    value = spec.read(tensor, {"outputs": first})
    assert value.tolist() == [[8, 0], [9, 1]]
    again = np.zeros_like(tensor)
    for outputs in (first, second):
        at = {"outputs": outputs, "rank": np.arange(2)}
        spec.write(again, spec.read(tensor, {"outputs": outputs}), at)
    assert np.array_equal(again, tensor)
