"""A process with TensorFlow, but without Keras and this package, as on a server.

The first call starts the process for the whole session, because the import takes
seconds.
"""

import importlib.util
import multiprocessing
import pathlib
import sys
import traceback

_worker = {}


def serve(folder, requests, *, text=False):
    """Return the outputs of the SavedModel in `folder`, computed in the process.

    Args:
        folder: Folder of a version.
        requests: Pairs of a signature and its arrays by name.
        text: Whether to load the operations of tensorflow_text, for all later calls.
    """
    if not _worker:
        context = multiprocessing.get_context("spawn")
        _worker["pipe"], theirs = context.Pipe()
        _worker["process"] = context.Process(target=_serve, args=[theirs], daemon=True)
        _worker["process"].start()
        theirs.close()
    _worker["pipe"].send((str(folder), requests, text))
    answer = _worker["pipe"].recv()
    if isinstance(answer, str):
        raise AssertionError(f"plain TensorFlow could not serve {folder}:\n{answer}")
    return answer


def _serve(pipe):
    for name in ("keras", "keras_transfer", "keras_hub", "keras_cv"):
        sys.modules[name] = None  # importing it raises an error
    import tensorflow as tf

    operations = []
    while True:
        try:
            folder, requests, text = pipe.recv()
        except EOFError:
            return
        try:
            if text and not operations:
                # Not `import tensorflow_text`, which imports Keras.
                found = importlib.util.find_spec("tensorflow_text").origin
                ops = pathlib.Path(found).parent / "python" / "ops"
                operations += [tf.load_op_library(str(p)) for p in ops.glob("*.so")]
            loaded = tf.saved_model.load(folder)
            answers = []
            for signature, arrays in requests:
                function = loaded.signatures[signature]
                inputs = {k: tf.constant(v) for k, v in arrays.items()}
                answers.append({k: v.numpy() for k, v in function(**inputs).items()})
            pipe.send(answers)
        except Exception:
            pipe.send(traceback.format_exc())
