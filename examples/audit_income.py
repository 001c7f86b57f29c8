"""Audit a tuned model by group: income of women and men, base next to tuned.

Learned: how to measure with `kt.analysis.fairness` what a model predicts for each group
and each intersection of groups, with intervals, next to the model before fine-tuning,
and what fine-tuning amplified. A network learns from people of whom nine in ten are
men, and is tuned with few labels of people of whom nine in ten are women. It is audited
on people in the mix of the file. The audit measures; whether a difference is justified
is for people to decide. Needs `pip install "keras_transfer[audit]"`. Data: Adult (UCI),
a TSV file with a header. Time: 1 minute of CPU for three seeds. Expect that the base
says >50K of 7 to 9 % of women and 25 to 29 % of men (labels: 10.6 and 30.6 %), and that
tuning lowers the second number more than the first, in one seed hardly and in another
by 8 points, and misses more of the men above 50K. `--smoke` runs on a generated table.

    python examples/audit_income.py --data adult.tsv
"""

import argparse

import keras
import numpy as np
import pandas as pd

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--data", help="adult.tsv, with a header")
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--pretrain", type=int, default=12_000, help="people, mostly men")
parser.add_argument("--labels", type=int, default=1_000, help="people, mostly women")
parser.add_argument("--share", type=float, default=0.9, help="of the main group")
parser.add_argument("--test", type=int, default=10_000)
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
LABEL, ABOVE = "income-per-year", ">50K"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def load():
    """Return a table of people."""
    if not options.smoke:
        return pd.read_csv(options.data, sep="\t")
    options.seeds, options.test = 1, 400
    options.pretrain, options.labels = 300, 100
    draw = np.random.default_rng(0)
    people = pd.DataFrame({"sex": draw.choice(["Female", "Male"], 2_000, p=[0.4, 0.6])})
    people["race"] = draw.choice(
        ["Black", "White", "Other"], 2_000, p=[0.3, 0.68, 0.02]
    )
    people["hours-per-week"] = draw.normal(38, 8, 2_000) + 4 * (people.sex == "Male")
    income = people["hours-per-week"] + draw.normal(0, 6, 2_000)
    people[LABEL] = np.where(income > 44, ABOVE, "<=50K")
    return people


def numbers(people):
    """Return standardized numbers, and a column of 0 and 1 for each word."""
    x = pd.get_dummies(people.drop(columns=LABEL), dtype="float32")
    spread = x.std().where(x.max() > 1, 1.0)
    return ((x - x.mean().where(x.max() > 1, 0.0)) / spread).to_numpy("float32")


def mix(rows, count, share_of_men, draw):
    """Return `count` of `rows` with a share of men, in random order."""
    men = people.sex.to_numpy()[rows] == "Male"
    wanted = round(count * share_of_men)
    parts = (rows[men], wanted), (rows[~men], count - wanted)
    return draw.permutation(
        np.concatenate([draw.choice(each, n, replace=False) for each, n in parts])
    )


def network():
    """Return a classifier on a small network."""
    layers = [keras.layers.Dense(size, "relu") for size in (64, 32)]
    backbone = keras.Sequential([keras.Input(x.shape[1:]), *layers], name="backbone")
    return kt.models.TransferClassifier(backbone, 2)


def compiled(model, rate):
    """Compile a model, and return it."""
    optimizer = keras.optimizers.Adam(rate)
    model.compile(optimizer, LOSS, metrics=["accuracy"], jit_compile=False)
    return model


people = load()
x, income = numbers(people), people[LABEL].to_numpy(str)
y = (income == ABOVE).astype("int64")
order = np.random.default_rng(0).permutation(len(y))
test, rest = order[: options.test], order[options.test :]
lines = []
for seed in range(options.seeds):
    draw = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    mostly_men = mix(rest, options.pretrain, options.share, draw)
    others = np.setdiff1d(rest, mostly_men)
    mostly_women = mix(others, options.labels, 1 - options.share, draw)
    base, tuned = compiled(network(), 1e-3), compiled(network(), 1e-3)
    base.fit(x[mostly_men], y[mostly_men], batch_size=64, epochs=8, verbose=0)
    tuned.set_weights(base.get_weights())
    few = x[mostly_women], income[mostly_women]
    kt.fine_tune(tuned, few, strategy="full", epochs=10, batch_size=32, verbose=0)
    audit = kt.analysis.fairness(
        tuned,
        (x[test], income[test]),
        people.iloc[test][["sex", "race"]],
        baseline=base,
        train=(*few, people.iloc[mostly_women][["sex", "race"]]),
    )
    for of, name in (("baseline", "base"), ("model", "tuned")):
        cells = []
        for measure in ("positive_rate", "false_negative_rate", "accuracy"):
            values = audit.values(measure, "sex", of=of)
            cells += [f"{values[group]:.3f}" for group in ("Female", "Male")]
        gap, low, high = audit.difference("positive_rate", "sex", of=of)
        cells.append(f"{gap:.3f} ({low:.3f} to {high:.3f})")
        lines.append((str(seed), name, *cells))

print(audit)
for name in ("audit_income.html", "audit_income.json"):
    audit.save(name)
audit.plot("audit_income.png")
print("\nsaved audit_income.html, .json and .png, the audit of the last seed\n")
sex = people.sex.to_numpy()[test]
labels = {group: np.mean(y[test][sex == group]) for group in ("Female", "Male")}
print(f"labels above 50K: {labels['Female']:.3f} of women, {labels['Male']:.3f} of men")
header = ("seed", "model", ">50K women", ">50K men", "missed women", "missed men")
header += ("accuracy women", "accuracy men", "difference of >50K")
widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
for line in (header, *lines):
    print("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)))
