"""The time that `import keras_transfer` adds to `import keras`.

Claim: it adds less than 50 ms of CPU time. Each round starts two new processes.
One process imports only keras, and the other process imports both. The script prints
the difference of their medians. This is a small difference of two large numbers, so the
script also prints the time of the second import within its process.

    python benchmarks/import_time.py [rounds]
"""

import os
import statistics
import subprocess
import sys

CODE = """
import time
import keras
between = time.process_time()
{more}
print(between, time.process_time())
"""


def cpu_seconds(more):
    """Return the CPU seconds of a new process after `import keras` and at its end."""
    command = [sys.executable, "-c", CODE.format(more=more)]
    # Without bytecode files, each import would compile the package again.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, check=True, env=env)
    return [float(each) for each in done.stdout.split()]


def main(rounds=11):
    cpu_seconds("import keras_transfer")  # writes bytecode and fills the disk cache
    alone, both, added = [], [], []
    for _ in range(rounds):
        alone.append(cpu_seconds("")[1])
        between, end = cpu_seconds("import keras_transfer")
        both.append(end)
        added.append(end - between)
    alone, both, added = (1e3 * statistics.median(x) for x in (alone, both, added))
    print(
        f"import keras {alone:.0f} ms, with keras_transfer {both:.0f} ms of CPU time: "
        f"{both - alone:+.0f} ms; inside the process {added:+.1f} ms (claim: below 50)"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
