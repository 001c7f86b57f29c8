"""Watch a served model: is what it gets still like what it was tested on?

Learned: how to keep a reference next to an exported model, and how to test what a
server gets later with `kt.ShiftMonitor`. A small network reads plain digits. On the
first two days it gets more of them. Then one class is missing, the camera gets noisy,
and on the last day the digits lie over photographs. The report of that day is written
to `watch_for_shift.html`, with plots. Data: digits of scikit-learn, with photographs
for the last day, without a download. Time: about 15 seconds of CPU. Expect no shift on
days 1 and 2, and a shift on days 3 to 5. The accuracy is 0.95, 0.96, 0.92, 0.86 and
0.50.

    python examples/watch_for_shift.py
"""

import argparse
import pathlib
import tempfile

import keras
import numpy as np

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument("--smoke", action="store_true", help="a short form, for tests")
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--page", default="watch_for_shift.html", help="path of the page")
options = parser.parse_args()
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# 1. Plain digits in parts: to train, for the reference, and for the days.
source, target = kt.data.digits.load_source(), kt.data.digits.load_target()
x = np.concatenate([source.train[0], source.test[0]])
y = np.concatenate([source.train[1], source.test[1]])
order = rng.permutation(len(x))
train, held_out, later = np.split(order, [350, 610])

# 2. A small network.
model = keras.Sequential(
    [
        keras.Input((16, 16, 3)),
        keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
        keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy")
epochs = 15 if options.smoke else options.epochs
model.fit(x[train], y[train], epochs=epochs, verbose=0)

# 3. The days after the export.
first, second, third = np.array_split(later, 3)
noisy = x[first] + rng.normal(0, 0.5, x[first].shape)
photographs = rng.permutation(len(target.test[0]))[:80]
days = {
    "more digits": (x[first], y[first]),
    "more digits again": (x[second], y[second]),
    "no zeros": (x[third][y[third] > 0], y[third][y[third] > 0]),
    "a noisy camera": (np.clip(noisy, 0, 1).astype("float32"), y[first]),
    "over photographs": tuple(each[photographs] for each in target.test),
}
rows = []
with tempfile.TemporaryDirectory() as folder:
    # 4. The reference: scores and reduced features of digits that the network has not
    # learned. Labels are needed to correct the shares of the classes.
    exported = pathlib.Path(folder, "digits")
    kt.export_serving(model, exported, reference=(x[held_out], y[held_out]))

    # 5. One report for each day. The levels of all reports add up to 0.05, so there is
    # no false alarm in 95 of 100 streams, however long they are.
    monitor = kt.ShiftMonitor.load(exported)
    for day, (images, labels) in days.items():
        monitor.update(images)
        report = monitor.report()
        predicted = model.predict(images, verbose=0).argmax(1)
        accuracy = np.mean(predicted == labels)  # a server does not know it
        smallest = min(report.table, key=lambda row: row["p_value"] / row["threshold"])
        shifted = "shift" if report.shifted else "-"
        rows.append((day, len(labels), accuracy, smallest, shifted))
report.save(options.page)

# 6. The last report, and a row for each day.
print(report)
print(f"\nThe page with its plots: {options.page}\n")
print(f"{'day':<20}  {'digits':>6}  {'accuracy':>8}  {'p':>8}  {'limit':>8}  verdict")
for day, count, accuracy, test, shifted in rows:
    numbers = f"{test['p_value']:>8.1e}  {test['threshold']:>8.1e}"
    print(f"{day:<20}  {count:>6}  {accuracy:>8.3f}  {numbers}  {shifted}")
