"""Time to solve a head with one thread of BLAS and with all of them.

Claim: one thread is faster, because scikit-learn makes many products of small matrices.
Prints medians of CPU and wall seconds of alternating runs, and their ratios.

    python benchmarks/head_threads.py [--tries 3]
"""

import argparse
import contextlib
import time

import numpy as np

from keras_transfer.analysis import linear_solutions
from keras_transfer.analysis.one_thread import one_thread

SIZES = ((100, 384), (200, 1280), (1000, 384), (6000, 768))  # examples, features
CLASSES = 10
all_threads = contextlib.nullcontext


def seconds(features, labels, threads):
    """Return CPU and wall seconds of one solution."""
    linear_solutions.one_thread = threads
    cpu, wall = time.process_time(), time.perf_counter()
    linear_solutions.solve_classes(features, labels, None, CLASSES)
    return time.process_time() - cpu, time.perf_counter() - wall


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tries", type=int, default=3)
    options = parser.parse_args()
    print("examples  features   one: CPU, wall   all: CPU, wall   ratios")
    for count, size in SIZES:
        labels = np.arange(count) % CLASSES
        features = np.random.default_rng(0).normal(size=(count, size))
        features[np.arange(count), labels] += 3
        runs = [
            [seconds(features, labels, each) for each in (one_thread, all_threads)]
            for _ in range(options.tries)
        ]
        one, every = np.median(runs, axis=0)
        ratios = every / one
        print(
            f"{count:8}  {size:8}   {one[0]:8.2f} {one[1]:6.2f}  {every[0]:8.2f} "
            f"{every[1]:6.2f}   {ratios[0]:5.1f} {ratios[1]:5.1f}"
        )


if __name__ == "__main__":
    main()
