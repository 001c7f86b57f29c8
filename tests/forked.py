"""New Python processes that begin with TensorFlow, Keras and keras_transfer imported.

The first call starts a server process that only imports, which takes ten seconds. Each
process is a fork of it, which takes milliseconds.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["keras_hub", "keras_transfer", "sklearn", "matplotlib"])


def run(code, *words, cwd):
    """Run a script or a module in a folder, like `python` and `python -m`.

    `code` is the path of a script or the name of a module. Return what
    `subprocess.run` returns if it captures the output as text.
    """
    logs = [cwd / "forked_stdout.txt", cwd / "forked_stderr.txt"]
    words = [str(word) for word in words]
    process = CONTEXT.Process(target=_run, args=(code, words, cwd, logs))
    process.start()
    process.join(600)
    if process.exitcode is None:
        process.kill()
        process.join()
    out, err = (log.read_text() for log in logs)
    for log in logs:
        log.unlink()
    return subprocess.CompletedProcess([code, *words], process.exitcode, out, err)


def _run(code, words, cwd, logs):
    for stream, log in zip((sys.stdout, sys.stderr), logs, strict=True):
        with open(log, "w") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(cwd)
    sys.argv = [str(code), *words]
    if os.path.exists(code):
        sys.path.insert(0, os.path.dirname(code))
        runpy.run_path(str(code), run_name="__main__")
    else:
        runpy.run_module(code, run_name="__main__", alter_sys=True)
