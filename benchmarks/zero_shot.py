"""Classes from descriptions and from 16 labels, with a frozen MiniLM.

Question: what are descriptions of the classes worth without labels, next to the
majority, and to a probe and prototypes of 8 labels per class? The descriptions and
templates were written before the first run, and none was left out. The test texts are
the SST-2 dev set, and 1,000 sentences of the test set of bc5cdr_has_chemical, drawn
with seed 0. Rows with labels are the mean and the standard deviation over 5 draws. The
folder of the data is in $KERAS_TRANSFER_DATA.

    KERAS_TRANSFER_DATA=<folder> PYTHONPATH=. python benchmarks/zero_shot.py
"""

import os
import pathlib
import time

import keras
import keras_hub
import numpy as np
import real_bert
from sklearn.linear_model import LogisticRegression

import keras_transfer as kt

TESTED, DRAWS, LABELS = 1000, 5, 8
TEMPLATES = ("This text is about {}.", "A sentence with {}.", "{}")
# For each data set: its files, and for each row the descriptions of classes 0 and 1.
TASKS = {
    "SST-2": (
        ("sst2_train.tsv", "sst2_dev.tsv"),
        {
            "names": ("negative", "positive"),
            "descriptions": ("a bad movie", "a good movie"),
            "lists": (
                ("a bad movie", "boring", "I hated this film"),
                ("a good movie", "wonderful", "I loved this film"),
            ),
        },
    ),
    "has chemical": (
        ("bc5cdr_has_chemical_train.tsv", "bc5cdr_has_chemical_test.tsv"),
        {
            "names": ("no chemical", "chemical"),
            "descriptions": ("patients and diseases", "drugs and chemicals"),
            "lists": (
                ("patients and diseases", "symptoms", "a medical study"),
                ("drugs and chemicals", "a drug", "treatment with a drug"),
            ),
        },
    ),
}


def load(names):
    """Return the training and test texts with labels 0 and 1."""
    folder = os.environ.get("KERAS_TRANSFER_DATA")
    if not folder:
        raise SystemExit(f"KERAS_TRANSFER_DATA is not set.\n{__doc__}")
    parts = []
    for name in names:
        texts, y, _ = kt.data.from_tsv(pathlib.Path(folder) / name)
        order = np.random.default_rng(0).permutation(len(y))
        count = TESTED if name == names[1] else 4000
        parts.append((np.asarray(texts, object)[order[:count]], y[order[:count]]))
    return parts


def main():
    backbone = keras_hub.models.BertBackbone.from_preset(real_bert.folder())
    preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(
        real_bert.folder(), sequence_length=128
    )

    def classifier(classes=(), **kwargs):
        settings = dict(preprocessor=preprocessor, **kwargs)
        return kt.models.ZeroShotClassifier(backbone, classes, **settings)

    for task, (files, rows) in TASKS.items():
        train, (texts, y) = load(files)
        start = time.process_time()
        vectors = classifier().embed(texts)
        spent = time.process_time() - start
        error = 100 * np.sqrt(0.25 / len(y))
        print(f"{task}: {len(y)} test texts in {spent:.0f} CPU seconds; the standard")
        print(f"error of an accuracy is {error:.1f} or less")
        share = np.bincount(y).max() / len(y)
        print(f"  {'majority':34} {100 * share:5.1f}", flush=True)
        for name, pair in rows.items():
            for templates in (("{}",), TEMPLATES):
                classes = dict(zip("01", pair, strict=True))
                model = classifier(classes, templates=templates)
                found = (vectors @ model.class_embeddings.T).argmax(1)
                right = 100 * (found == y).mean()
                label = f"zero-shot, {name}, {len(templates)} template(s)"
                print(f"  {label:34} {right:5.1f}", flush=True)
        scores = {"probe": [], "prototypes": []}
        for seed in range(DRAWS):
            few, labels = kt.data.few_labels(train, LABELS, seed=seed).labeled
            rows_few = classifier().embed(few)
            inputs = keras.Input((rows_few.shape[1],))
            model = kt.models.PrototypicalNetwork(keras.Model(inputs, inputs))
            for number in (0, 1):
                model.add_class(str(number), rows_few[labels == number])
            found = np.array(model.classify(vectors)).astype(int)
            scores["prototypes"].append(100 * (found == y).mean())
            probe = LogisticRegression(max_iter=1000).fit(rows_few, labels)
            scores["probe"].append(100 * probe.score(vectors, y))
        for name, found in scores.items():
            label = f"{name}, {2 * LABELS} labels"
            print(f"  {label:34} {np.mean(found):5.1f} ± {np.std(found, ddof=1):.1f}")


if __name__ == "__main__":
    main()
