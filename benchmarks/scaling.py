"""The scaling of training over replicas in one process, and over processes.

The peer is one device on one core. It is compared with one device on two cores
(TensorFlow's own threads), two replicas on two cores (MirroredStrategy over logical
CPUs), and two processes with one core each (MultiWorkerMirroredStrategy over loopback).
All rows make the same steps of one global batch, with MiniLM in float32. They train all
weights, or LoRA, whose gradients have only 0.3 % as many numbers to sum. Each row runs
in a new process or pair of processes, pinned to its cores. The first two steps do not
count. The script prints examples per second of wall time and per CPU second of all
processes, and the efficiency: the wall-time speed divided by twice the speed of one
core.

The script can show that the code for several replicas adds little to a step. It cannot
show how several GPUs or machines scale. Two cores share caches and memory bandwidth, so
the row of two cores is the best possible result here, and loopback is not a network. On
a machine with other work, the wall time has no meaning.

    python benchmarks/scaling.py [steps] [batch size] [length]
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

ROWS = {  # the cores of each process, and its number of logical CPUs
    "one core": ([[0]], 1),
    "two cores, one device": ([[0, 1]], 1),
    "two replicas": ([[0, 1]], 2),
    "two processes": ([[0], [1]], 1),
}
KINDS = ("full", "LoRA")
WARM = 2  # steps that trace and fill caches


class Clock:
    """Measure wall and CPU seconds of this process after the warm-up steps."""

    def __init__(self, steps):
        self.left = WARM
        self.steps = steps
        self.spent = None

    def tick(self):
        self.left -= 1
        if self.left == 0:
            self.start = time.perf_counter(), time.process_time()
        elif self.left == -self.steps:
            now = time.perf_counter(), time.process_time()
            self.spent = [a - b for a, b in zip(now, self.start, strict=True)]


def train(kind, devices, steps, size, length):
    """Train in this process, and return its wall and CPU seconds."""
    import keras
    import numpy as np
    import real_bert
    import tensorflow as tf

    import keras_transfer as kt
    from keras_transfer.distribute import connect
    from keras_transfer.distribute import multi_worker

    several = "TF_CONFIG" in os.environ
    cpu = tf.config.list_physical_devices("CPU")[0]
    if devices > 1:
        logical = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, logical)
    names = [f"CPU:{number}" for number in range(devices)]
    strategy = multi_worker() if several else connect(names)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = real_bert.classifier()
        if kind == "LoRA":
            kt.adapters.LoRA(rank=8).attach(model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(1e-5), loss, jit_compile=False)
    x, y = real_bert.batches(steps + WARM, size, length)
    x = {name: np.asarray(value) for name, value in x.items()}
    clock = Clock(steps)
    tick = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: clock.tick()
    )
    model.fit(x, y, batch_size=size, shuffle=False, verbose=0, callbacks=[tick])
    return clock.spent


def free_ports(count):
    """Return free ports."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def measure(kind, cores, devices, arguments):
    """Return the wall seconds, and the CPU seconds of all processes together."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(len(cores))]}
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for index, own in enumerate(cores):
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            environment.pop("TF_CONFIG", None)
            if len(cores) > 1:
                task = {"type": "worker", "index": index}
                config = {"cluster": cluster, "task": task}
                environment["TF_CONFIG"] = json.dumps(config)
            out = pathlib.Path(folder) / str(index)
            command = [sys.executable, __file__, "--train", str(out), kind]
            command += [",".join(map(str, own)), str(devices), *arguments]
            started = subprocess.Popen(command, env=environment, stdout=sys.stderr)
            processes.append((started, out))
        try:
            for process, _ in processes:
                if process.wait(timeout=1800):
                    raise RuntimeError(f"{kind}, cores {cores}: a process failed")
        finally:
            for process, _ in processes:
                process.kill()
        found = [json.loads(out.read_text()) for _, out in processes]
    wall = max(each[0] for each in found)
    return wall, sum(each[1] for each in found)


def main(steps="10", size="16", length="128"):
    examples = int(steps) * int(size)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    print(f"{steps} steps of {size} x {length} tokens")
    print(f"{'':28} per second  per CPU second  efficiency")
    for kind in KINDS:
        alone = None
        for row, (cores, devices) in ROWS.items():
            arguments = [steps, size, length]
            wall, cpu = measure(kind, cores, devices, arguments)
            alone = alone or wall
            twice = 1 if row == "one core" else 2
            print(
                f"{kind:5} {row:22} {examples / wall:10.2f} {examples / cpu:15.2f} "
                f"{alone / wall / twice:11.2f}",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        _, _, out, kind, cores, *numbers = sys.argv
        # Before the import of TensorFlow, which creates a thread for each allowed core.
        os.sched_setaffinity(0, set(map(int, cores.split(","))))
        found = train(kind, *map(int, numbers))
        pathlib.Path(out).write_text(json.dumps(found))
    else:
        main(*sys.argv[1:])
