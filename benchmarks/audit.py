"""Audits of real models by group, and of a sentiment classifier by pronoun, by seed.

Questions: does fine-tuning on another mix of groups change the error rates by race in
COMPAS? Does the sentiment of MiniLM change with the pronoun of a sentence, and more
after fine-tuning?

COMPAS: a network predicts recidivism within two years from age, priors, juvenile
felonies and the degree of the charge, not from race or sex. It learns from 1,200 people
of whom 80 % are Caucasian (base), and is tuned with 600 of whom 80 % are
African-American (tuned). A third of the file is the test part.

Winogender: 240 pairs of sentences that differ in the pronoun, and three templates with
60 occupations. The classifier of SST-2 with 300 labels is a probe on MiniLM (base), or
MiniLM with LoRA (tuned).

    KERAS_TRANSFER_DATA=<folder> python benchmarks/audit.py compas [--seeds 0 1 2]
    KERAS_TRANSFER_DATA=<folder> python benchmarks/audit.py winogender [--seeds 0 1 2]
"""

import argparse
import csv

import keras
import numpy as np
import outcomes_data
import real_bert
from efficientnet_lite0 import data_folder

import keras_transfer as kt

LABELS = 300
MEASURES = ("positive_rate", "false_positive_rate", "false_negative_rate")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TOKENS = outcomes_data.NETWORKS["MiniLM"].prepare
TEMPLATES = [
    "{who} works as a {occupation}.",
    "The {occupation} said that {who} had finished the report.",
    "My friend is a {occupation}, and {who} told us about the day.",
]


def table(name):
    """Return a dict of the columns of a TSV file with a header."""
    with open(data_folder() / name, encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))


def mixed(rows, race, main, other, count, draw):
    """Return rows, 80 % of the race `main` and 20 % of `other`."""
    sizes = (main, round(0.8 * count)), (other, round(0.2 * count))
    parts = [
        draw.choice(rows[race[rows] == name], size, replace=False)
        for name, size in sizes
    ]
    return draw.permutation(np.concatenate(parts))


def recidivism():
    """Return a classifier on a small network."""
    hidden = [keras.layers.Dense(32, "relu") for _ in range(2)]
    return kt.models.TransferClassifier(
        keras.Sequential([keras.Input((4,)), *hidden]), 2
    )


def compas(seeds):
    """Print error rates by race, of base and tuned, and the changes."""
    columns = table("compas.tsv")
    race, y = columns["race"], columns["two_year_recid"].astype("int64")
    names = ("age", "priors_count", "juv_fel_count")
    x = np.stack([columns[name].astype("float32") for name in names], axis=1)
    x = np.c_[x, columns["c_charge_degree"] == "F"].astype("float32")
    x = (x - x.mean(0)) / x.std(0)
    black, white = "African-American", "Caucasian"
    lines = []
    for seed in seeds:
        draw = np.random.default_rng(seed)
        keras.utils.set_random_seed(seed)
        order = draw.permutation(len(y))
        test, rest = order[: len(y) // 3], order[len(y) // 3 :]
        first = mixed(rest, race, white, black, 1_200, draw)
        left = np.setdiff1d(rest, first)
        second = mixed(left, race, black, white, 600, draw)
        base, tuned = recidivism(), recidivism()
        for model, rows, rate in ((base, first, 1e-3), (tuned, second, 3e-4)):
            if model is tuned:
                model.set_weights(base.get_weights())
            model.compile(keras.optimizers.Adam(rate), LOSS, jit_compile=False)
            model.fit(x[rows], y[rows], batch_size=32, epochs=15, verbose=0)
        groups = {"race": race[test], "sex": columns["sex"][test]}
        train = (
            x[second],
            y[second],
            {"race": race[second], "sex": columns["sex"][second]},
        )
        audit = kt.analysis.fairness(
            tuned, (x[test], y[test]), groups, baseline=base, train=train
        )
        if seed == seeds[0]:
            print(audit)
        for of, name in (("baseline", "base"), ("model", "tuned")):
            cells = []
            for measure in MEASURES:
                values = audit.values(measure, "race", of=of)
                cells.append(f"{values[black]:.3f} / {values[white]:.3f}")
            if name == "tuned":
                change = audit.difference("positive_rate", "race", of="change")
                cells.append("{:+.3f} ({:+.3f} to {:+.3f})".format(*change))
            lines.append(f"{seed:4}  {name:5}  {'  '.join(cells)}")
    print("\nAfrican-American / Caucasian; change: of the largest difference by race")
    print("seed  of     predicted      false positives  false negatives  change")
    print("\n".join(lines))


def classifier(tuned, seed):
    """Return a classifier of sentiment: a probe on MiniLM, or MiniLM with LoRA."""
    cell = outcomes_data.Cell("sst2", LABELS, "MiniLM")
    keras.utils.set_random_seed(seed)
    train = outcomes_data.train_part(cell, seed)
    model = real_bert.classifier()
    optimizer = keras.optimizers.AdamW(1e-3)
    model.compile(optimizer, LOSS, metrics=["accuracy"], jit_compile=False)
    strategy = "lora" if tuned else "probe"
    kt.fine_tune(model, train, strategy=strategy, batch_size=16, epochs=4, verbose=0)
    x, y = outcomes_data.test_part(cell)
    x = {name: rows[:500] for name, rows in x.items()}
    return model, model.evaluate(x, y[:500], batch_size=64, verbose=0)[1]


def winogender(seeds, models):
    """Print flips and shifts between pronouns, and by occupation."""
    from scipy.stats import spearmanr

    found = table("winogender_sentences.tsv")
    by_id = dict(zip(found["sentid"], found["sentence"], strict=True))
    male = [name for name in by_id if name.endswith(".male.txt")]
    sets = {
        f"he, {word}": [
            (str(by_id[name]), str(by_id[name.replace(".male.", f".{kind}.")]))
            for name in male
        ]
        for word, kind in (("she", "female"), ("they", "neutral"))
    }
    jobs = table("winogender_occupations.tsv")
    occupations = [str(each) for each in jobs["occupation"]]
    women = jobs["bls_pct_female"].astype("float64")
    substitutions = {"who": ["he", "she"], "occupation": occupations}
    rows = []
    for seed in seeds:
        for name in models:
            model, accuracy = classifier(name == "tuned", seed)
            audits = {
                words: kt.analysis.counterfactual(model, pairs, preprocessor=TOKENS)
                for words, pairs in sets.items()
            }
            audits["templates"] = kt.analysis.counterfactual(
                model,
                TEMPLATES,
                substitutions=substitutions,
                change="who",
                preprocessor=TOKENS,
            )
            for words, audit in audits.items():
                facts = audit.to_dict()["comparisons"][0]
                (score,) = facts["scores"]
                toward = score["toward"]
                cells = (
                    f"{seed}  {name:5}  {accuracy:.3f}  {words:9}  "
                    f"{facts['flips']['count']:3} of {facts['pairs']}  "
                    f"{toward['only_first']:3} / {toward['only_second']:<3}  "
                    f"{_p(toward['mcnemar'])}  {score['shift'][0]:+.4f} "
                    f"({score['shift'][1]:+.4f} to {score['shift'][2]:+.4f})  "
                    f"{_p(score['t_test'])}  {_p(score['wilcoxon'])}"
                )
                if words == "templates":
                    by = {
                        row["value"]: row["shift"]
                        for row in facts["by_slot"][0]["values"]
                    }
                    shifts = [by[each] for each in occupations]
                    rank = spearmanr(shifts, women)
                    cells += f"  rho {rank.statistic:+.2f}, p {_p(rank.pvalue)}"
                rows.append(cells)
                print(cells, flush=True)
            if seed == seeds[0]:
                print(audits["he, she"], flush=True)
    print("\nseed, of, accuracy, pairs, flips, only first / second positive, McNemar, ")
    print("mean shift of p(positive), t-test, Wilcoxon; rho: shift and share of women")
    print("\n".join(rows))


def _p(value):
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("compas", "winogender"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=["base", "tuned"])
    options = parser.parse_args()
    if options.part == "compas":
        compas(options.seeds)
    else:
        winogender(options.seeds, options.models)
