"""The tables of outcomes.py: accuracy, the regret of the default, and its cost."""

import collections
import statistics

import numpy as np

AUTO, LOGISTIC = "auto", "logistic"
SURE = 2  # standard errors of a clear difference


def to_hex(correct):
    """Return an array of bool as a string with four of them in each character."""
    return np.packbits(correct).tobytes().hex()


def from_hex(text, examples):
    """Return the array of bool that `to_hex` has written."""
    packed = np.frombuffer(bytes.fromhex(text), "uint8")
    return np.unpackbits(packed, count=examples).astype(bool)


def chosen(model, history):
    """Return the name of the strategy that trained the model."""
    named = getattr(history, "strategy", None)
    if named is not None:
        return str(getattr(named, "name", named))
    phases = len(set(history.history["phase"]))
    last = history.history["trainable_parameters"][-1]
    if last == sum(v.shape.num_elements() for v in model.layers[-1].weights):
        return "probe"
    if last < model.count_params() / 2:
        return "lora"
    return {1: "full", 2: "lp-ft"}.get(phases, "gradual")


def show(results, cells, rows):
    """Print all tables for a list of runs."""
    table = collections.defaultdict(dict)  # (cell, row) -> seed -> run
    impossible = {}
    for each in results:
        key = each["cell"], each["row"]
        if "not_possible" in each:
            impossible[key] = each["not_possible"]
        else:
            table[key][each["seed"]] = each
    impossible = {key: why for key, why in impossible.items() if key not in table}
    known = {cell for cell, _ in [*table, *impossible]}
    cells = [cell for cell in cells if cell in known]
    _accuracies(table, impossible, cells, rows)
    cells = [cell for cell in cells if (cell, AUTO) in table]
    if cells:
        _regrets(table, cells, rows)
        _differences(table, cells, rows)
        _costs(table, cells)


class Difference:
    """The accuracy of a row minus the accuracy of another row in a cell, in points.

    The standard error is that of the paired difference over the test examples, each of
    which is averaged over the seeds. The deviation is that of the seeds.
    """

    def __init__(self, row, other):
        seeds = sorted(set(row) & set(other))
        pairs = [_correct(row[seed]) - _correct(other[seed]) for seed in seeds]
        points = 100 * np.array(pairs)
        self.mean = float(points.mean())
        means = points.mean(axis=0)
        self.error = float(means.std(ddof=1) / len(means) ** 0.5)
        self.deviation = float(points.mean(axis=1).std())

    @property
    def verdict(self):
        if abs(self.mean) <= SURE * self.error:
            return "unclear"
        return "clearly above" if self.mean > 0 else "clearly below"

    def __str__(self):
        return f"{self.mean:+.1f} (standard error {self.error:.1f})"


def _correct(each):
    return from_hex(each["correct"], each["examples"]).astype(float)


def _mean(runs, name):
    return statistics.mean(each[name] for each in runs.values())


def _accuracies(table, impossible, cells, rows):
    print("\nAccuracy in %, mean ± deviation over the seeds")
    print(f"{'':20}" + "".join(f"{row:>10}" for row in rows))
    most = max((len(runs) for runs in table.values()), default=0)
    for cell in cells:
        line = f"{cell:20}"
        for row in rows:
            runs = table.get((cell, row))
            text = "no" if (cell, row) in impossible else "-"
            if runs:
                scores = [100 * each["accuracy"] for each in runs.values()]
                mean, deviation = statistics.mean(scores), statistics.pstdev(scores)
                text = f"{mean:.1f}±{deviation:.1f}" + "*" * (len(runs) < most)
            line += f"{text:>10}"
        print(line)
    print(f"{most} seeds. *: fewer seeds. -: not run. no: not possible.")
    for (cell, row), reason in impossible.items():
        print(f"not possible: {cell}, {row}: {reason}")


def _regrets(table, cells, rows):
    print("\nRegret of auto in points: the mean of the best other row minus its mean")
    print(f"{'':20}{'best row':>10}{'best':>8}{'auto':>8}{'regret':>8}", end="")
    print(f"{'error':>8}{'seeds':>8}")
    regrets = {}
    for cell in cells:
        auto, others = table[cell, AUTO], {}
        for row in rows:
            # A row with fewer seeds is not compared.
            if row != AUTO and set(auto) <= set(table.get((cell, row), ())):
                runs = table[cell, row]
                others[row] = {seed: runs[seed] for seed in auto}
        if not others:
            print(f"{cell:20} no other row has the seeds of auto")
            continue
        best = max(others, key=lambda row: _mean(others[row], "accuracy"))
        regrets[cell] = regret = Difference(others[best], auto)
        means = [100 * _mean(runs, "accuracy") for runs in (others[best], auto)]
        print(
            f"{cell:20}{best:>10}{means[0]:8.1f}{means[1]:8.1f}{regret.mean:8.1f}"
            f"{regret.error:8.1f}{regret.deviation:8.1f}"
            + "  clear loss"
            * (regret.verdict == "clearly above")
        )
    print("error: standard error over the test examples. seeds: deviation over seeds.")
    if not regrets:
        return
    mean = statistics.mean(each.mean for each in regrets.values())
    beyond = {cell: each.mean - each.error for cell, each in regrets.items()}
    worst = max(beyond, key=beyond.get)
    print(f"mean regret over {len(regrets)} cells: {mean:.2f} points")
    points = f"{regrets[worst].mean:.1f} points, {beyond[worst]:.1f} beyond"
    print(f"largest beyond its standard error: {worst}, {points}")


def _differences(table, cells, rows):
    print("\nauto minus another row in points: mean over cells, and clear cells")
    for row in rows:
        found = {
            cell: Difference(table[cell, AUTO], table[cell, row])
            for cell in cells
            if row != AUTO and set(table[cell, AUTO]) & set(table.get((cell, row), ()))
        }
        if not found:
            continue
        mean = statistics.mean(each.mean for each in found.values())
        counts = collections.Counter(each.verdict for each in found.values())
        print(
            f"{row:10}{mean:+6.1f} over {len(found)} cells, clearly above in "
            f"{counts['clearly above']}, clearly below in {counts['clearly below']}"
        )
        for cell, each in found.items():
            if each.verdict == "clearly below":
                print(f"{'':12}auto loses: {cell} {each}")
        if row == LOGISTIC and not counts["clearly below"]:
            print(f"{'':12}in no cell is auto clearly below it")
    print(f"clear: more than {SURE} standard errors of the paired difference")


def _costs(table, cells):
    print("\nCPU seconds of auto, and of the row that it chose")
    print(f"{'':20}{'auto':>8}{'chosen':>8}{'ratio':>8}{'full':>8}  chosen rows")
    for cell in cells:
        auto = table[cell, AUTO]
        counts = collections.Counter(each["strategy"] for each in auto.values())
        same = {
            seed: table[cell, each["strategy"]][seed]
            for seed, each in auto.items()
            if seed in table.get((cell, each["strategy"]), ())
        }
        seconds, texts = _mean(auto, "cpu"), [f"{'-':>8}"] * 3
        if len(same) == len(auto):
            rest = _mean(same, "cpu")
            texts[:2] = f"{rest:8.1f}", f"{seconds / rest:8.2f}"
        if (cell, "full") in table:
            texts[2] = f"{_mean(table[cell, 'full'], 'cpu'):8.1f}"
        names = ", ".join(f"{name} x {count}" for name, count in counts.items())
        print(f"{cell:20}{seconds:8.1f}{''.join(texts)}  {names}")
