"""How well do the scores of `rank_backbones` predict the accuracy on test data?

Claim: a ranking by the probe, LogME or the H-score agrees with the ranking by the
accuracy that is measured with a linear probe and after fine-tuning. The candidates are
MobileNetV2, EfficientNet-Lite0 and ResNet-20, each whole, cut at a third and at two
thirds of its blocks, and whole with random weights; for sentences, MiniLM cut at each
block. On CIFAR-10 there is no ResNet-20, because it was trained on CIFAR-10, and two
more cuts. Each candidate has its own preprocessing.

The labels are drawn by the seed, the same number of each class, and all scores come
from these examples only. The accuracies are those of a `TransferClassifier` after
`kt.fine_tune` with the strategies "probe" and "lp-ft", at AdamW(1e-3) and batches of
16, on at most 1,000 test examples, which are the same for each seed. The line of a
candidate ends in "head only" if fine-tuning hurt, so that `fine_tune` restored the
converged head. Random weights are the initial weights of Keras, and BatchNorm stays
frozen in all candidates. CPU seconds include tracing and compiling, but not loading
weights.

Tau is Kendall's tau-b. Weighted tau, as in the paper on LogME, gives the upper ranks
more weight. Intervals are 95 % percentiles of a bootstrap over candidates. Regret is
the accuracy of the best candidate minus that of the candidate with the largest score.
The real data are in $KERAS_TRANSFER_DATA.

    python benchmarks/rank_backbones.py [--data ...] [--labels 200] [--epochs 3]

Each finished candidate is a line in the file of `--results`, and is not repeated. The
41 candidates of all data sets take about an hour on two cores.
"""

import argparse
import gc
import json
import pathlib
import time
from typing import NamedTuple

import keras
import numpy as np
import outcomes
import outcomes_data
from scipy import stats

import keras_transfer as kt
from keras_transfer.backbones.block_outputs import block_outputs

DATA = ("mnist", "digits", "cifar", "chem")
SCORES = ("probe", "log_me", "h_score")
STRATEGIES = ("probe", "lp-ft")
NETWORKS = ("MobileNetV2", "EfficientNet-Lite0", "ResNet-20")
CUTS = {"1/3": 1 / 3, "1/2": 1 / 2, "2/3": 2 / 3}
RESAMPLES = 2_000


class Candidate(NamedTuple):
    """A network, the share of its blocks that is kept, and whether it is pretrained."""

    name: str
    network: str
    share: float = 1.0
    pretrained: bool = True


def candidates(data):
    """Return the candidates for a data set."""
    if data == "chem":
        count = 7  # with the embedding
        return [
            Candidate(f"MiniLM, {block} of 6 blocks", "MiniLM", (block + 1) / count)
            for block in range(count)
        ]
    found = []
    for name in NETWORKS[:2] if data == "cifar" else NETWORKS:
        found.append(Candidate(name, name))
        cuts = [cut for cut in CUTS if data == "cifar" or cut != "1/2"]
        found += [Candidate(f"{name}, {cut}", name, CUTS[cut]) for cut in cuts]
        found.append(Candidate(f"{name}, random", name, pretrained=False))
    return found


def build(candidate, seed):
    """Return a new copy of a candidate, which is the same for the same seed."""
    keras.utils.set_random_seed(seed)
    network = outcomes_data.NETWORKS[candidate.network].backbone()
    if not candidate.pretrained:
        return keras.models.clone_model(network)
    if candidate.share == 1:
        return network
    tensors = list(block_outputs(network).values())
    kept = tensors[round(candidate.share * len(tensors)) - 1]
    return keras.Model(network.input, kept, name=f"{network.name}_cut")


def parts(data, candidate, labels, seed):
    """Return the labeled and the test examples, as inputs of a candidate."""
    train, (x, y) = outcomes_data.raw_parts(data)
    per_class = labels // len(np.unique(y))
    chosen = np.random.default_rng(0).permutation(len(y))[: outcomes_data.TEST]
    few = kt.data.few_labels(train, per_class, seed=seed).labeled
    examples = [few, (x[chosen], y[chosen])]
    if data not in outcomes_data.TEXTS:
        examples = [(outcomes_data.to_32_pixels(x), y) for x, y in examples]
    prepare = outcomes_data.NETWORKS[candidate.network].prepare
    return [(prepare(x), y) for x, y in examples]


def measure(data, candidate, options):
    """Return the scores of a candidate, its accuracies, and CPU seconds."""
    keras.backend.clear_session()
    gc.collect()
    few, (x_test, y_test) = parts(data, candidate, options.labels, options.seed)
    backbone = build(candidate, options.seed)
    cpu = {"scores": -time.process_time()}
    row = kt.rank_backbones(
        {candidate.name: (backbone, few)}, scores=SCORES, seed=options.seed, verbose=0
    ).rows[0]
    cpu["scores"] += time.process_time()
    accuracy, hurt = {}, {}
    for strategy in STRATEGIES:
        keras.backend.clear_session()
        classes = len(np.unique(y_test))
        backbone = build(candidate, options.seed)
        model = kt.models.TransferClassifier(backbone, classes)
        model.compile(keras.optimizers.AdamW(1e-3), outcomes.LOSS, metrics=["accuracy"])
        cpu[strategy] = -time.process_time()
        history = kt.fine_tune(
            model,
            few,
            epochs=options.epochs,
            strategy=strategy,
            batch_size=outcomes.SIZE,
            verbose=0,
        )
        cpu[strategy] += time.process_time()
        logits = model.predict(x_test, batch_size=64, verbose=0)
        accuracy[strategy] = float((logits.argmax(-1) == y_test).mean())
        hurt[strategy] = history.hurt
    return {
        "scores": {name: float(value) for name, value in row.scores.items()},
        "probe_error": row.probe_error,
        "accuracy": accuracy,
        "hurt": hurt,
        "cpu": {name: round(value, 2) for name, value in cpu.items()},
        "score_seconds": {name: round(value, 2) for name, value in row.seconds.items()},
        "num_features": row.num_features,
        "parameters": row.parameters,
        "examples": len(y_test),
    }


def settings(data, candidate, options):
    """Return what makes a row different from all others."""
    return {
        "data": data,
        "candidate": candidate.name,
        "labels": options.labels,
        "epochs": options.epochs,
        "seed": options.seed,
    }


def run(data, options):
    """Measure the candidates that are not in the results, and return all rows."""
    path = pathlib.Path(options.results)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    results = [json.loads(line) for line in lines]
    found = []
    for candidate in candidates(data):
        wanted = settings(data, candidate, options)
        rows = [each for each in results if wanted.items() <= each.items()]
        if not rows and not options.report:
            rows = [wanted | measure(data, candidate, options)]
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(rows[0]) + "\n")
        found += [row | {"pretrained": candidate.pretrained} for row in rows[:1]]
    return found


def show_rows(data, rows):
    """Print a line for each candidate."""
    print(f"\n{data}, {rows[0]['labels']} labels, {rows[0]['examples']} test examples")
    print(
        f"{'':26}       score of labels            accuracy on test     CPU seconds\n"
        f"{'candidate':26}  probe         LogME  H-score  probe  lp-ft  "
        "scores  probe  lp-ft"
    )
    for row in rows:
        scores, accuracy, cpu = row["scores"], row["accuracy"], row["cpu"]
        print(
            f"{row['candidate']:26}  {scores['probe']:.3f} ± {row['probe_error']:.3f} "
            f"{scores['log_me']:6.3f}  {scores['h_score']:7.3f}  "
            f"{accuracy['probe']:.3f}  {accuracy['lp-ft']:.3f}  "
            f"{cpu['scores']:6.1f}  {cpu['probe']:5.1f}  {cpu['lp-ft']:5.1f}"
            + ("  head only" if row["hurt"]["lp-ft"] else "")
        )


def show_correlations(title, rows):
    """Print how well each score agrees with each accuracy."""
    print(
        f"\n{title}: {len(rows)} candidates\n"
        f"{'score':8} {'accuracy':8}  {'tau':24}  {'weighted tau':24}  regret  chosen"
    )
    for strategy in STRATEGIES:
        accuracy = np.array([row["accuracy"][strategy] for row in rows])
        for name in SCORES:
            score = np.array([row["scores"][name] for row in rows])
            taus = [
                with_interval(each, score, accuracy)
                for each in (stats.kendalltau, stats.weightedtau)
            ]
            best = score.argmax()
            print(
                f"{name:8} {strategy:8}  {taus[0]:24}  {taus[1]:24}  "
                f"{accuracy.max() - accuracy[best]:6.3f}  {rows[best]['candidate']}"
            )


def with_interval(correlation, x, y):
    """Return a rank correlation with its interval over candidates, as text."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(x), size=(RESAMPLES, len(x)))
    values = [correlation(x[draw], y[draw]).statistic for draw in draws]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return f"{correlation(x, y).statistic:+.2f} ({low:+.2f} to {high:+.2f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--labels", type=int, default=200, help="labels in all")
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
    parser.add_argument("--seed", type=int, default=0, help="chooses the labels")
    parser.add_argument("--results", default="rank_backbones.jsonl")
    parser.add_argument("--report", action="store_true", help="only print the tables")
    options = parser.parse_args()
    for data in options.data:
        rows = run(data, options)
        if not rows:
            continue
        show_rows(data, rows)
        groups = {"all": rows, "pretrained": [row for row in rows if row["pretrained"]]}
        if len(groups["pretrained"]) == len(rows):
            del groups["pretrained"]
        for title, group in groups.items():
            if len(group) > 2:
                show_correlations(f"{data}, {title}", group)


if __name__ == "__main__":
    main()
