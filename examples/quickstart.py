"""What is transfer worth? A small ResNet meets a new domain with 100 labels.

Learnt: frozen features, full fine-tuning, and gradual unfreezing with discriminative
rates, each beside training from scratch. Data: plain digits of scikit-learn are the
source; other digits blended over photographs are the target, with 10 labels a class
and 550 test images; no download. Time: about 1.5 minutes on 2 cores. Expect 0.60
from scratch and 0.80 with transfer. `--smoke` only shows that all of it runs.
"""

import math
import sys
import time

import keras
import keras_hub
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import train_test_split

import keras_transfer as kt

SMOKE = "--smoke" in sys.argv
SEEDS = (0, 1) if SMOKE else (0, 1, 2)
RATES = (1e-3,) if SMOKE else (3e-4, 1e-3, 3e-3, 1e-2)  # the same for every row
COPIES = 1 if SMOKE else 6  # of each image in an epoch, each of another contrast
ROWS = ("from scratch", "frozen features", "full fine-tuning", "gradual unfreezing")


def build(row, source_model=None):
    """Return the compiled model of a row, and its callbacks."""
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    if row == "frozen features":
        backbone = kt.backbones.FrozenBackbone(backbone)
    model = kt.models.TransferClassifier(backbone, num_classes=10)
    if row != "from scratch":  # the head comes along: source and target share classes
        model.set_weights(source_model.get_weights())
    optimizer, callbacks = keras.optimizers.AdamW(), []
    if row == "gradual unfreezing":
        optimizer = kt.optimizers.discriminative(optimizer, model, decay=0.7)
        # Photographs have statistics of their own, so BatchNorm must learn with us.
        callbacks = [kt.callbacks.GradualUnfreezing(model, batch_norm="train")]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model, callbacks


def fit(model, x, y, **kwargs):
    """Train on images of random contrast and brightness, and return the seconds."""
    x, y = np.concatenate([x] * COPIES), np.concatenate([y] * COPIES)
    shape = (len(x), 1, 1, 1)
    contrast = np.random.choice([-1, 1], shape) * np.random.uniform(0.4, 1.6, shape)
    middle = np.random.uniform(0.2, 0.8, shape)
    x = np.clip(middle + contrast * (x - 0.5), 0, 1)
    began = time.perf_counter()
    model.fit(x, y, epochs=4, **kwargs)
    return time.perf_counter() - began


def compare(row, source_model, targets):
    """Return test accuracies by seed, seconds of a fit, and parameters trained."""
    model, callbacks = build(row, source_model)
    for callback in callbacks:
        print(callback.phases)
    model.optimizer.build(model.trainable_variables)
    variables = [*model.weights, *model.optimizer.variables]
    optimizer_start = [variable.numpy() for variable in model.optimizer.variables]

    def learn(train, test, rate, seed):
        keras.utils.set_random_seed(seed)
        start = [*build(row, source_model)[0].get_weights(), *optimizer_start]
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)  # one model serves all runs, so it is traced once
        model.optimizer.learning_rate = rate
        seconds = fit(model, *train, batch_size=25, callbacks=callbacks, verbose=0)
        loss, accuracy = model.evaluate(*test, batch_size=550, verbose=0)
        return accuracy, -loss, seconds

    runs = []
    for seed, target in zip(SEEDS, targets, strict=True):
        x, y = target.train  # the rate is chosen on these labels alone
        split = train_test_split(x, y, test_size=0.3, stratify=y, random_state=seed)
        rates = {learn(split[::2], split[1::2], rate, seed)[:2]: rate for rate in RATES}
        rate = rates[max(rates)]
        runs.append(learn(target.train, target.test, rate, seed))
        print(f"{row}, seed {seed}: rate {rate:g}, accuracy {runs[-1][0]:.3f}")
    accuracy, _, seconds = np.transpose(runs)
    trained = sum(math.prod(each.shape) for each in model.trainable_variables)
    return accuracy, seconds.mean(), trained


def verdict(accuracy, scratch):
    """Return the gain over scratch in points; it is clear beyond 2 standard errors."""
    gain = 100 * (accuracy - scratch)
    clear = abs(gain.mean()) > 2 * gain.std(ddof=1) / math.sqrt(len(gain))
    word = ("helps" if gain.mean() > 0 else "hurts") if clear else "no clear gain"
    return "" if accuracy is scratch else f"{gain.mean():+.1f}  {word}"


def show(results):
    """Print the table."""
    heads = ("test accuracy", "points over scratch", "seconds a fit", "parameters")
    table = Table("", *heads, title="10 labels a class")
    for row, (accuracy, seconds, trained) in results.items():
        score = f"{accuracy.mean():.3f} ± {accuracy.std(ddof=1):.3f}"
        gain = verdict(accuracy, results["from scratch"][0])
        table.add_row(row, score, gain, f"{seconds:.1f}", f"{trained:,}")
    Console(width=100).print(table)


def plot(results, domains):
    """Save bars of the accuracies, beside some images of each domain."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    for place, (name, images) in enumerate(domains.items()):
        left.imshow(np.hstack(images[:8]), extent=(0, 8, place + 0.95, place + 0.05))
        left.text(-0.2, place + 0.5, name, ha="right", va="center")
    left.set(xlim=(-2, 8), ylim=(len(domains), 0))
    left.axis("off")
    scores = np.array([accuracy for accuracy, _, _ in results.values()])
    means, deviations = scores.mean(1), scores.std(1, ddof=1)
    bars = right.barh(list(results), means, xerr=deviations, capsize=4)
    right.bar_label(bars, [f"{mean:.2f}" for mean in means], padding=4)
    right.set(xlim=(0, 1), title="Accuracy on the target, 10 labels a class")
    right.invert_yaxis()
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig("quickstart.png", dpi=150)


keras.utils.set_random_seed(0)
began = time.perf_counter()
source = kt.data.digits.load_source()
targets = [kt.data.digits.load_target(seed=seed) for seed in SEEDS]
source_model, _ = build("from scratch")
fit(source_model, *source.train, batch_size=50, verbose=2)
accuracy = source_model.evaluate(*source.test, verbose=0)[1]
print(f"source model: accuracy {accuracy:.3f} on the source's own test part")
accuracy = source_model.evaluate(*targets[0].test, verbose=0)[1]
results = {"source model as it is": (np.full(len(SEEDS), accuracy), 0, 0)}
results |= {row: compare(row, source_model, targets) for row in ROWS}
show(results)
images = {"source": source.train[0], "target": targets[0].train[0]}
plot(results, images | {"target, test": targets[0].test[0]})
print(f"saved quickstart.png, {time.perf_counter() - began:.0f} s in all")
