import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as kt
from keras_transfer.monitoring.__main__ import main
from tests import forked
from tests import tiny
from tests.export import files
from tests.export import prediction_logs
from tests.monitoring import references

LABELS = ["cat", references.SCRIPT, "owl"]


def rows(count=120, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, 6)) + shift).astype("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "animals"
    reference = rows(300), np.arange(300) % 3
    kt.export_serving(tiny.mlp(), folder, labels=LABELS, reference=reference)
    return folder


@pytest.fixture(scope="module")
def serve(folder):
    loaded = tf.saved_model.load(str(folder / "1"))
    yield lambda x: {
        k: v.numpy() for k, v in loaded.signatures["monitoring"](inputs=x).items()
    }


def log(path, serve, *, shift=0.0, version=1):
    """Write what a server logs for 30 requests of 5 examples."""
    records = []
    for seed in range(30):
        x = rows(5, seed=seed + 10, shift=shift)
        outputs = serve(tf.constant(x))
        records.append(prediction_logs.record({"inputs": x}, outputs, version=version))
    return prediction_logs.write(path, records)


def run(capsys, *words):
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_exit_code_is_the_verdict(folder, serve, tmp_path, capsys):
    same = log(tmp_path / "same.log", serve)
    code, out, err = run(capsys, folder, same, "--outputs-only")
    assert (code, err) == (0, "")
    assert out.startswith("Shift: no shift found")
    assert "150 examples of 'functional'" in out or "150 examples" in out
    other = log(tmp_path / "other.log", serve, shift=1.0)
    code, out, err = run(capsys, folder, other, "--outputs-only")
    assert (code, err) == (1, "")
    assert out.startswith("Shift: shift")


@pytest.mark.parametrize("suffix", ["html", "json", "md", "txt"])
def test_the_report_is_written(folder, serve, tmp_path, capsys, suffix):
    path = tmp_path / f"report.{suffix}"
    log_ = log(tmp_path / "x.log", serve, shift=1.0)
    code, _, _ = run(capsys, folder, log_, "--save", path)
    assert code == 1
    text = path.read_text()
    if suffix == "json":
        assert json.loads(text)["rows"] == 150
    if suffix == "html":
        assert "<script" not in text
        assert "&lt;script&gt;" in text


def test_json_of_one_report_and_of_windows(folder, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", inputs=rows(130, seed=1))
    code, out, _ = run(capsys, folder, tmp_path / "x.npz", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 130
    words = (folder, tmp_path / "x.npz", "--json", "--window", 50, "--looks", 2)
    code, out, _ = run(capsys, *words)
    assert [each["rows"] for each in json.loads(out)] == [50, 50, 30]
    assert [each["look"] for each in json.loads(out)] == [3, 4, 5]


def test_one_example_that_is_left_over_is_said(folder, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", inputs=rows(101, seed=1))
    code, out, err = run(capsys, folder, tmp_path / "x.npz", "--window", 50)
    assert code == 0
    assert out.count("50 examples") == 2
    assert err == "Not tested: 1 example at the end.\n"


def test_the_first_window_with_a_shift_is_saved(folder, tmp_path, capsys):
    x = np.concatenate([rows(60, seed=1), rows(60, shift=3.0), rows(60, seed=2)])
    np.savez(tmp_path / "x.npz", inputs=x)
    words = ("--window", 60, "--save", tmp_path / "x.json")
    code, _, _ = run(capsys, folder, tmp_path / "x.npz", *words)
    assert code == 1
    assert json.loads((tmp_path / "x.json").read_text())["look"] == 2


def test_csv_and_json_lines(folder, serve, tmp_path, capsys):
    outputs = serve(tf.constant(rows(100, seed=1)))["outputs"]
    lines = [",".join(map(str, row)) for row in outputs.tolist()]
    text = "\n".join(["outputs_0,outputs_1,outputs_2", *lines])
    (tmp_path / "x.csv").write_text(text)
    code, first, _ = run(capsys, folder, tmp_path / "x.csv")
    assert code == 0
    body = {"predictions": outputs.tolist()}
    (tmp_path / "x.jsonl").write_text(json.dumps(body))
    code, second, _ = run(capsys, folder, tmp_path / "x.jsonl")
    assert (code, second) == (0, first)


def test_errors_have_the_code_2(folder, serve, tmp_path, capsys):
    same = log(tmp_path / "same.log", serve)
    old = log(tmp_path / "old.log", serve, version=7)
    (tmp_path / "bad.csv").write_text("outputs_0,outputs_1,outputs_2\n1,2,x\n")
    np.savez(tmp_path / "nan.npz", inputs=rows() * np.nan)
    np.savez(tmp_path / "one.npz", inputs=rows(1))
    cases = [
        ((tmp_path, same), "is not an exported model"),
        ((folder, tmp_path / "none.csv"), "There is no file"),
        ((folder, tmp_path / "bad.csv"), "Line 2 has 'x'"),
        ((folder, tmp_path / "nan.npz"), "nan.npz: Row 0 of `outputs` has NaN"),
        ((folder, tmp_path / "one.npz"), "has 1 examples"),
        ((folder, old), "Record 1 is of version 7"),
        ((folder, same, "--alpha", 2), "alpha=2.0"),
        ((folder, same, "--window", 1), "--window"),
        ((folder, same, "--save", tmp_path / "x.exe"), "suffix"),
        ((folder, same, "--save", tmp_path / "no" / "x.html"), "does not exist"),
    ]
    for words, expected in cases:
        code, out, err = run(capsys, *words)
        assert code == 2
        assert err.startswith("error: ")
        assert expected in err
    with pytest.raises(SystemExit) as stopped:
        main([str(folder), str(same), "--unknown"])
    assert stopped.value.code == 2


def test_the_window_ends_where_it_should_in_large_batches(folder, serve, tmp_path):
    outputs = serve(tf.constant(rows(70, seed=1)))
    records = [prediction_logs.record({}, outputs)] * 3
    path = prediction_logs.write(tmp_path / "x.log", records)
    main([str(folder), str(path), "--window", "100", "--save", f"{tmp_path}/x.json"])
    assert json.loads((tmp_path / "x.json").read_text())["rows"] in (100, 10)


def test_an_unexpected_error_is_no_shift(folder, tmp_path, capsys, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("unexpected")

    monkeypatch.setattr("keras_transfer.monitoring.__main__.read_file", broken)
    code, _, err = run(capsys, folder, tmp_path / "x.csv")
    assert code == 2
    assert "RuntimeError: unexpected" in err


@pytest.mark.slow
def test_the_process_ends_with_the_exit_code(folder, serve, tmp_path):
    other = log(tmp_path / "other.log", serve, shift=1.0)
    found = [
        forked.run("keras_transfer.monitoring", folder, path, cwd=tmp_path)
        for path in (other, tmp_path / "none")
    ]
    assert [each.returncode for each in found] == [1, 2]
    assert found[0].stdout.startswith("Shift: shift")
    assert "error: There is no file" in found[1].stderr


@pytest.mark.slow
def test_a_text_model_runs_in_a_process_without_keras_hub(tmp_path):
    """The process must find the operations of the tokenizer by itself."""
    task = files.shaken(files.text_task(), 0.1)
    texts = [files.TEXTS[i % len(files.TEXTS)] for i in range(60)]
    folder = kt.export_serving(task, tmp_path / "news", reference=texts)
    (tmp_path / "x.csv").write_text("text\n" + "\n".join(f'"{t}"' for t in texts))
    done = subprocess.run(
        [sys.executable, "-m", "keras_transfer.monitoring", folder, tmp_path / "x.csv"],
        env=os.environ | {"PYTHONPATH": str(kt.__path__[0] + "/..")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "no shift found" in done.stdout
