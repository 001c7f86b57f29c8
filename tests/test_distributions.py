"""The wheel and the source distribution can be built, installed and used alone."""

import os
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

import keras_transfer
from tests.public import blocks
from tests.public import ROOT

FOLDERS = (".ci", "benchmarks", "examples", "keras_transfer", "tests")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info", ".git")


def run(*command, cwd, path=""):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def files(folder):
    """Return the files that belong to the repository, by their path in it."""
    paths = [path for name in FOLDERS for path in (folder / name).rglob("*")]
    found = {str(path.relative_to(folder)) for path in paths if path.is_file()}
    return {name for name in found if "cache" not in name}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The unpacked source distribution, and a folder with the installed wheel."""
    work = tmp_path_factory.mktemp("built")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, work / "source" / name, ignore=LEFT_OUT)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, work / "source")
    # The wheel is built from the source distribution, which must be complete for this.
    run("-m", "build", "--outdir", str(work), cwd=work / "source")
    (archive,), (wheel,) = work.glob("*.tar.gz"), work.glob("*.whl")
    with tarfile.open(archive) as packed:
        packed.extractall(work, filter="data")
    install = ("-m", "pip", "install", "--no-deps", "--target", str(work / "site"))
    run(*install, str(wheel), cwd=work)
    return work / archive.name.removesuffix(".tar.gz"), work / "site"


@pytest.mark.slow
def test_the_source_distribution_contains_the_repository(built):
    source, _ = built
    assert files(source) == files(ROOT)
    top = {path.name for path in ROOT.iterdir() if path.suffix in (".md", ".cff")}
    assert {path.name for path in source.iterdir()} > top | {"setup.py", "LICENSE"}


@pytest.mark.slow
def test_the_wheel_contains_only_the_package(built):
    _, site = built
    (info,) = site.glob("*.dist-info")
    assert info.name.startswith(f"keras_transfer-{keras_transfer.__version__}.")
    assert {path.name for path in site.iterdir()} == {"keras_transfer", info.name}


@pytest.mark.slow
def test_the_readme_and_the_quickstart_run_on_the_installed_package(built, tmp_path):
    source, site = built
    quickstart = source / "examples" / "quickstart.py"
    code = [
        "import keras_transfer\nprint(keras_transfer.__file__)",
        *blocks((ROOT / "README.md").read_text()),
        f"import runpy\nrunpy.run_path({str(quickstart)!r})",
    ]
    (tmp_path / "readme.py").write_text("\n\n".join(code))
    # One process for both, because its imports take ten seconds.
    out = run("readme.py", "--smoke", cwd=tmp_path, path=site)
    assert out.startswith(str(site))
    assert "Verdict: " in out and "over zero-shot" in out
    assert (tmp_path / "verdict.html").is_file()
    assert (tmp_path / "quickstart.png").is_file()


def test_the_citation_has_the_current_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"(?m)^version: (.+)$", text)[1] == keras_transfer.__version__
    assert re.search(r"(?m)^license: (.+)$", text)[1] == "Apache-2.0"
