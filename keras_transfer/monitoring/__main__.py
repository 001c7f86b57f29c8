"""Test a log, JSON lines, a CSV or an npz file for a shift against a served model.

python -m keras_transfer.monitoring DIRECTORY FILE

The exit code is 0 without a shift, 1 with a shift, and 2 after an error.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import traceback
from collections.abc import Iterator
from collections.abc import Sequence

from keras_transfer._arguments import whole_number
from keras_transfer.monitoring.read_file import Batch
from keras_transfer.monitoring.read_file import Columns
from keras_transfer.monitoring.read_file import read_file
from keras_transfer.monitoring.shift_monitor import LEAST
from keras_transfer.monitoring.shift_monitor import ShiftMonitor
from keras_transfer.monitoring.shift_monitor import version_folder
from keras_transfer.monitoring.shift_report import ShiftReport

NO_SHIFT, SHIFT, ERROR = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code.

    Args:
        arguments: The words of the command line. Defaults to those of the process.
    """
    options = _parser().parse_args(arguments)
    try:
        reports = _reports(options)
        _print(reports, options)
        if options.save:
            worst = next((each for each in reports if each.shifted), reports[-1])
            worst.save(options.save)
    except (ValueError, TypeError, OSError, ImportError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return ERROR
    except Exception:  # Python would end with 1, the code of a shift
        traceback.print_exc()
        return ERROR
    return SHIFT if any(report.shifted for report in reports) else NO_SHIFT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m keras_transfer.monitoring",
        description="Test a file for a shift against the reference of a served model.",
        epilog="Exit code: 0 no shift found, 1 shift, 2 error.",
    )
    parser.add_argument(
        "directory",
        help="folder of kt.export_serving(..., reference=...), or of one version",
    )
    parser.add_argument(
        "file",
        type=pathlib.Path,
        help=".npz, .csv, .jsonl (bodies of the REST API), or else a request log of "
        "TensorFlow Serving",
    )
    parser.add_argument(
        "--save",
        metavar="PATH",
        help="also write a .html, .json, .md or .txt file: the first report that found "
        "a shift, or else the last one",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: an object, or with --window a list of objects",
    )
    parser.add_argument(
        "--alpha",
        type=float,
        default=0.05,
        help="probability of a false alarm in all reports together (default 0.05)",
    )
    parser.add_argument(
        "--window",
        type=int,
        help="examples of a report, after which the next one begins (default: all)",
    )
    parser.add_argument(
        "--looks",
        type=int,
        default=0,
        help="number of earlier reports about the same stream (default 0)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the permutations (default 0)"
    )
    parser.add_argument(
        "--outputs-only",
        action="store_true",
        help="do not load the model, so the file must have its outputs",
    )
    return parser


def _reports(options: argparse.Namespace) -> list[ShiftReport]:
    """Return the reports about the windows of the file."""
    if options.window is not None:
        whole_number("--window", options.window, 2)
    folder = version_folder(options.directory)
    monitor = ShiftMonitor.load(
        folder,
        outputs_only=options.outputs_only,
        alpha=options.alpha,
        looks=options.looks,
        seed=options.seed,
    )
    columns = Columns(
        monitor.reference.facts["output"],
        monitor.reference.class_names,
        monitor.reference.kind.size,
        monitor.inputs,
        int(folder.name) if folder.name.isdecimal() else None,
    )
    reports = []
    for batch in read_file(options.file, columns):
        for place, arguments in _parts(batch, options.window, monitor):
            try:
                monitor.update(**arguments)
            except ValueError as problem:
                raise ValueError(f"{place}: {problem}") from problem
            if monitor.rows == options.window:
                reports.append(monitor.report())
    if reports and 0 < monitor.rows < LEAST:
        print(f"Not tested: {monitor.rows} example at the end.", file=sys.stderr)
    elif monitor.rows or not reports:
        reports.append(monitor.report())
    return reports


def _parts(
    batch: Batch, window: int | None, monitor: ShiftMonitor
) -> Iterator[tuple[str, dict]]:
    """Yield arguments that do not go beyond the end of a window, and their place."""
    leaf = next(iter(batch.arguments.values()))
    leaf = next(iter(leaf.values())) if isinstance(leaf, dict) else leaf
    if window is None or not leaf.ndim:
        yield batch.place, dict(batch.arguments)
        return
    start = 0
    while start < len(leaf):
        part = slice(start, start + window - monitor.rows)
        rows = {
            name: {key: each[part] for key, each in value.items()}
            if isinstance(value, dict)
            else value
            if value is None
            else value[part]
            for name, value in batch.arguments.items()
        }
        yield f"{batch.place}, from row {start}", rows
        start = part.stop


def _print(reports: Sequence[ShiftReport], options: argparse.Namespace) -> None:
    if not options.json:
        print("\n\n".join(map(str, reports)))
    elif options.window is None:
        print(reports[0].to_json())
    else:
        content = [report.to_dict() for report in reports]
        print(json.dumps(content, indent=2, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
