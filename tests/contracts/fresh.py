"""A second Python process without any state, to load files that a test has saved.

The first call starts the process, and it serves the whole session because its imports
take seconds. It imports keras and keras_transfer. Keras imports keras_hub and keras_cv
when a file names them. Objects that a test defines do not exist there.
"""

import multiprocessing
import traceback
import warnings
from dataclasses import dataclass
from dataclasses import field
from typing import Any

_worker = {}


@dataclass
class Reloaded:
    """State of a saved model after loading, and after `fit` if it was requested."""

    outputs: Any
    weights: list
    trainable: list  # paths of the trainable variables
    iterations: int | None = None
    optimizer_variables: list = field(default_factory=list)
    optimizer_class: str = ""


def load(path, inputs=None, *, compile=True, fit=None, imports=(), policy="float32"):
    """Load the `.keras` file at `path` in the other process and return a Reloaded.

    `fit` is a dictionary of keyword arguments to call `fit` with after loading.
    `imports` names packages to import first, such as "keras_cv". `policy` is the
    global dtype policy of the process, because Keras wraps an optimizer in a
    LossScaleOptimizer only for a float16 policy.
    """
    if not _worker:
        context = multiprocessing.get_context("spawn")
        _worker["pipe"], theirs = context.Pipe()
        _worker["process"] = context.Process(target=_serve, args=[theirs], daemon=True)
        _worker["process"].start()
        theirs.close()
    _worker["pipe"].send((str(path), inputs, compile, fit, imports, policy))
    answer = _worker["pipe"].recv()
    if isinstance(answer, str):
        raise AssertionError(f"the fresh process could not reload {path}:\n{answer}")
    return answer


def _serve(pipe):
    import keras

    import keras_transfer  # noqa: F401  the names of saved classes

    # Keras only warns when it drops the optimizer's state.
    warnings.filterwarnings("error", message="Skipping variable loading")
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            keras.utils.clear_session()
            pipe.send(_answer(*request))
        except Exception:
            pipe.send(traceback.format_exc())


def _answer(path, inputs, compile, fit, imports, policy):
    import importlib

    import keras

    for name in imports:
        importlib.import_module(name)
    keras.config.set_dtype_policy(policy)
    model = keras.models.load_model(path, compile=compile)
    if fit:
        model.fit(**fit)
    convert = keras.ops.convert_to_numpy
    outputs = None
    if inputs is not None:
        outputs = keras.tree.map_structure(convert, model(inputs, training=False))
    answer = Reloaded(
        outputs=outputs,
        weights=[convert(weight) for weight in model.weights],
        trainable=[variable.path for variable in model.trainable_variables],
    )
    if getattr(model, "optimizer", None) is not None:
        answer.iterations = int(convert(model.optimizer.iterations))
        answer.optimizer_variables = [convert(v) for v in model.optimizer.variables]
        answer.optimizer_class = type(model.optimizer).__name__
    return answer
