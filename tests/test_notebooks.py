"""Every notebook runs from top to bottom on a CPU, and is stored without outputs."""

import importlib
import json
import os
import re

import pytest

from tests.conftest import skip_or_fail
from tests.public import ROOT

FOLDER = ROOT / "examples" / "notebooks"
NOTEBOOKS = {path.name: path for path in sorted(FOLDER.glob("*.ipynb"))}
HEADER = {
    "what is learned": r"Learned:",
    "which data": r"Data:",
    "how many minutes": r"Time:[^.]*\d[\d.]* (minutes?|seconds?)",
    "the expected number": r"Expect:(?s:.)*\d\.\d",
    "what was not run": r"[Nn]othing was run on a\s+TPU or a GPU",
}
LARGEST = 100 * 1024  # bytes of a stored output
# Folders of a machine with Linux, macOS or Windows, and of Colab.
MACHINE_PATH = r"(?<![\w.:/])/(home|Users|root|tmp|work|content|opt|mnt)/|[A-Z]:\\\\"
SECONDS = 300  # of a cell


def read(name):
    return json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))


def source_of(cell):
    return "".join(cell["source"])


def modules(*names):
    """Return the modules, or skip the test if they are not installed."""
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        skip_or_fail(f"notebooks are not run: {error}; pip install -e '.[test]'")


def test_the_notebooks_exist():
    assert set(NOTEBOOKS) == {
        "colab_entities_lora.ipynb",
        "colab_tpu_bert_lora.ipynb",
        "colab_vision_gradual_unfreezing.ipynb",
        "dann.ipynb",
    }


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cell_says_what_to_expect(name):
    first = read(name)["cells"][0]
    assert first["cell_type"] == "markdown"
    header = source_of(first).replace("**", "")
    lacks = [what for what, words in HEADER.items() if not re.search(words, header)]
    assert lacks == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_is_stored_without_traces_of_a_run(name):
    notebook = read(name)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    for cell in notebook["cells"]:
        assert not re.search(MACHINE_PATH, json.dumps(cell)), source_of(cell)
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["execution_count"] is None
            assert all(len(json.dumps(x)) <= LARGEST for x in cell["outputs"])
    assert NOTEBOOKS[name].stat().st_size <= LARGEST


@pytest.mark.parametrize("path", ["/home/me/x", "('/tmp/a')", "C:\\\\Users"])
def test_a_path_of_a_machine_is_found(path):
    assert re.search(MACHINE_PATH, path)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_is_valid(name):
    (nbformat,) = modules("nbformat")
    notebook = nbformat.read(NOTEBOOKS[name], nbformat.NO_CONVERT)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    nbformat.validate(notebook)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs_in_its_short_form(name, tmp_path, monkeypatch):
    printed = run_short("tensorflow", name, tmp_path, monkeypatch)
    assert "keras_transfer: one replica on" in printed  # connect() says where


@pytest.mark.slow
@pytest.mark.jax
def test_the_notebook_for_a_tpu_runs_on_jax(tmp_path, monkeypatch):
    modules("jax")
    name = "colab_tpu_bert_lora.ipynb"
    printed = run_short("jax", name, tmp_path, monkeypatch)
    assert "keras_transfer: one device on JAX" in printed


def run_short(backend, name, tmp_path, monkeypatch):
    """Run a notebook in its short form, and return what it prints."""
    nbformat, nbclient, _ = modules("nbformat", "nbclient", "ipykernel")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # Jupyter's own backend shows the plots, and only Colab installs packages.
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "KERAS_TRANSFER_SMOKE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    for variable in ("MPLBACKEND", "COLAB_RELEASE_TAG"):
        env.pop(variable, None)
    notebook = nbformat.read(NOTEBOOKS[name], nbformat.NO_CONVERT)
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute(env=env)  # a cell that fails raises CellExecutionError
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [x for x in outputs if x.output_type == "error"] == []
    plots = [x for x in outputs if "image/png" in x.get("data", {})]
    printed = "".join(x.text for x in outputs if x.output_type == "stream")
    assert len(plots) >= 2
    return printed
