"""attach, save_adapter and load_adapter print one line each, or none if verbose=0."""

import pytest

import keras_transfer as kt
from tests import tiny


@pytest.mark.parametrize("file_format", ["keras_transfer", "peft"])
@pytest.mark.parametrize("verbose", [0, 1])
def test_each_step_prints_one_line_or_nothing(tmp_path, capsys, file_format, verbose):
    model = tiny.bert(num_layers=1, dropout=0.0)
    kt.backbones.match_huggingface(model, hidden_act="gelu")
    path = tmp_path / ("folder" if file_format == "peft" else "one.safetensors")
    capsys.readouterr()
    kt.adapters.LoRA(rank=2).attach(model, verbose=verbose)
    attached = capsys.readouterr().out
    kt.save_adapter(model, path, format=file_format, verbose=verbose)
    saved = capsys.readouterr().out
    kt.adapters.detach(model)
    kt.load_adapter(model, path, verbose=verbose)
    loaded = capsys.readouterr().out
    assert [text.count("\n") for text in (attached, saved, loaded)] == [verbose] * 3
    if verbose:
        assert f"saved to '{path.name}'" in saved or f"folder '{path.name}'" in saved
        assert path.name in loaded
