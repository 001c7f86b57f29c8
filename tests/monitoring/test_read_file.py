import json

import numpy as np
import pytest

from keras_transfer.monitoring.read_file import Columns
from keras_transfer.monitoring.read_file import read_file
from tests.export import prediction_logs
from tests.monitoring import references

COLUMNS = Columns("outputs", ("cat", references.SCRIPT, "owl"), 3, {"inputs": False}, 1)
TEXT = COLUMNS._replace(inputs={"text": True, "age": False})
P = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])


def read(path, columns=COLUMNS):
    return [batch.arguments for batch in read_file(path, columns)]


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "header", ["outputs_0,outputs_1,outputs_2", f'cat,"{references.SCRIPT}",owl']
)
def test_csv_of_outputs(tmp_path, header):
    path = written(tmp_path, "a.csv", f"{header}\n0.2,0.3,0.5\n0.1,0.1,0.8\n")
    (found,) = read(path)
    np.testing.assert_array_equal(found["outputs"], P)
    assert found["features"] is None


def test_csv_of_outputs_and_features_in_another_order(tmp_path):
    header = "features_1,outputs_2,outputs_0,outputs_1,features_0"
    path = written(tmp_path, "a.csv", f"{header}\n7,0.5,0.2,0.3,6\n9,0.8,0.1,0.1,8\n")
    (found,) = read(path)
    np.testing.assert_array_equal(found["outputs"], P)
    np.testing.assert_array_equal(found["features"], [[6, 7], [8, 9]])


def test_csv_of_one_output(tmp_path):
    columns = COLUMNS._replace(classes=("no", "yes"), size=1)
    for header in ("outputs", "outputs_0", "yes"):
        path = written(tmp_path, "a.csv", f"{header}\n0.2\n0.9\n")
        (found,) = read(path, columns)
        np.testing.assert_array_equal(found["outputs"], [[0.2], [0.9]])


def test_csv_of_inputs_with_texts_that_look_like_numbers(tmp_path):
    text = 'text,age\n"a, ""b""\nc",3\n7,4.5\n<script>,1\n'
    (found,) = read(written(tmp_path, "a.csv", text), TEXT)
    assert found["inputs"]["text"].tolist() == ['a, "b"\nc', "7", "<script>"]
    assert found["inputs"]["age"].tolist() == [[3], [4.5], [1]]


def test_csv_of_inputs_that_take_whole_numbers(tmp_path):
    text = "text,age\na,3\nb,7.0\n"
    (found,) = read(written(tmp_path, "a.csv", text), TEXT)
    assert found["inputs"]["age"].dtype == "int64"
    assert found["inputs"]["age"].tolist() == [[3], [7]]
    (found,) = read(written(tmp_path, "a.csv", "text,age\na,1e300\n"), TEXT)
    assert found["inputs"]["age"].tolist() == [[1e300]]


def test_empty_lines_of_csv_are_left_out(tmp_path):
    text = "outputs_0,outputs_1,outputs_2\n0.2,0.3,0.5\n\n0.1,0.1,0.8\n\n"
    (found,) = read(written(tmp_path, "a.csv", text))
    np.testing.assert_array_equal(found["outputs"], P)


def test_a_long_csv_comes_in_batches(tmp_path):
    lines = "0.2,0.3,0.5\n" * 2500
    path = written(tmp_path, "a.csv", f"outputs_0,outputs_1,outputs_2\n{lines}")
    found = list(read_file(path, COLUMNS))
    assert [len(each.arguments["outputs"]) for each in found] == [1000, 1000, 500]
    assert found[1].place == "Lines 1002 to 2001"


HEADER = "outputs_0,outputs_1,outputs_2\n"


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "has no examples"),
        (HEADER, "has no examples"),
        (HEADER + "0.2,0.3,0.5\n0.2,x,0.5\n", "Line 3 has 'x'"),
        (HEADER + "0.2,nan,0.5\n", "Line 2 has 'nan'"),
        (HEADER + "0.2,0.3\n", "Line 2 has 2 cells, but the header has 3"),
        (HEADER + '0.2,"0.3,0.5\n', "not CSV"),
        ("cat,dog\n1,2\n", r"columns \['cat', 'dog'\], which are not of the model"),
        ("id," + HEADER + "1,0.2,0.3,0.5\n", r"columns \['id'\]"),
        ("outputs_0,outputs_0\n1,2\n", "a name twice"),
    ],
)
def test_broken_csv(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        read(written(tmp_path, "a.csv", text))


def test_csv_that_is_no_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not CSV in UTF-8"):
        read(path)


def test_json_lines_of_the_rest_api(tmp_path):
    bodies = [
        {"predictions": P.tolist()},
        {"predictions": [{"outputs": row, "features": [1, 2]} for row in P.tolist()]},
        {"outputs": {"outputs": P.tolist(), "features": [[1, 2]] * 2}},
        {"outputs": P.tolist()},
        {"instances": [[1, 2], [3, 4]]},
        {"inputs": {"inputs": [[1, 2], [3, 4]]}},
    ]
    text = "\n\n".join(map(json.dumps, bodies))
    found = read(written(tmp_path, "a.jsonl", text))
    for each in found[:4]:
        np.testing.assert_array_equal(each["outputs"], P)
    assert (
        found[1]["features"].tolist() == found[2]["features"].tolist() == [[1, 2]] * 2
    )
    for each in found[4:]:
        assert each["inputs"]["inputs"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", "not valid JSON"),
        ('{"predictions": [[NaN, 1, 1]]}', "not finite"),
        ('{"predictions": [[1e999, 1, 1]]}', "not finite"),
        ('{"error": "no model"}', "must be an object with one of"),
        ("[1]", "must be an object with one of"),
        ('{"predictions": []}', "has no rows"),
        ('{"predictions": [[1, 2], [1]]}', "differ in shape"),
        ('{"predictions": [{"outputs": 1}, {"o": 1}]}', "row 1 has other names"),
        ('{"predictions": [null]}', "not an array of numbers"),
        ('{"predictions": [{"other": [1, 2, 3]}]}', "not the output 'outputs'"),
        ("[" * 100_000, "nested too deeply|not valid"),
    ],
)
def test_broken_json_lines(tmp_path, line, words):
    good = json.dumps({"predictions": P.tolist()})
    with pytest.raises(ValueError, match=f"Line 2 .*({words})"):
        read(written(tmp_path, "a.jsonl", f"{good}\n{line}\n"))


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", outputs=P, features=P[:, :2])
    (found,) = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(found["outputs"], P)
    np.testing.assert_array_equal(found["features"], P[:, :2])
    np.savez(tmp_path / "b.npz", inputs=P)
    (found,) = read(tmp_path / "b.npz")
    np.testing.assert_array_equal(found["inputs"]["inputs"], P)
    np.savez(tmp_path / "c.npz", other=P)
    with pytest.raises(ValueError, match=r"\['other'\], but not the output 'outputs'"):
        read(tmp_path / "c.npz")


class Harmful:
    def __reduce__(self):
        return pytest.fail, ("A pickle was loaded.",)


def test_nothing_in_an_npz_is_unpickled(tmp_path):
    harmful = np.array([Harmful()], dtype=object)
    np.savez(tmp_path / "a.npz", outputs=harmful, allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read(tmp_path / "a.npz")
    harmful.dump(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path / "b.npz")


def test_a_log_of_answers_or_of_requests(tmp_path):
    records = [
        prediction_logs.record({"inputs": P}, {"outputs": P, "features": P}),
        prediction_logs.record({"inputs": P}),
        prediction_logs.record({"inputs": P}, {"label": ["cat", "dog"]}),
    ]
    found = read(prediction_logs.write(tmp_path / "requests.log", records))
    assert [sorted(each) for each in found] == [
        ["features", "outputs"],
        ["inputs"],
        ["inputs"],
    ]
    record = prediction_logs.record({"inputs": P}, {"outputs": P}, version=2)
    path = prediction_logs.write(tmp_path / "requests.log", [record])
    with pytest.raises(ValueError, match="Record 1 is of version 2"):
        read(path)
    record = prediction_logs.record({"other": P})
    path = prediction_logs.write(tmp_path / "requests.log", [record])
    with pytest.raises(ValueError, match=r"Record 1 has \['other'\]"):
        read(path)


def test_empty_and_missing_logs(tmp_path):
    path = prediction_logs.write(tmp_path / "requests.log", [])
    with pytest.raises(ValueError, match="has no examples"):
        read(path)
    with pytest.raises(ValueError, match="There is no file"):
        read(tmp_path / "missing.csv")
