"""The cost of a DANN step, compared with the cost of its parts.

Claim: a step costs at most 1.05 x the sum of its parts. The parts are timed separately:
forward and backward pass of the source through extractor and label head, of the target
through the extractor, and of the domain head on both domains, and one update of all
weights. The network is from Ganin et al. for MNIST-M, with 64 images of each domain.
The times are medians of process CPU time. The parts alternate.

    python benchmarks/dann_cost.py [steps: 60]
"""

import statistics
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from mnist_m import LOSS
from mnist_m import network

import keras_transfer as kt

SIZE = 64


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    keras.utils.set_random_seed(0)
    model = kt.models.DANN(*network())
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), LOSS)
    random = np.random.default_rng(0)
    source, target = random.random((2, SIZE, 28, 28, 3)).astype("float32")
    labels = random.integers(0, 10, SIZE)
    data = tf.data.Dataset.from_tensors(
        ({"source": source, "target": target}, labels)
    ).repeat()
    model.fit(data, steps_per_epoch=1, shuffle=False, verbose=0)
    source, target = tf.constant(source), tf.constant(target)
    extractor, head, domain = (
        model.feature_extractor,
        model.label_head,
        model.domain_head,
    )
    features = tf.constant(random.random((2 * SIZE, model.width)).astype("float32"))

    @tf.function
    def of_source():
        with tf.GradientTape() as tape:
            loss = LOSS(labels, head(extractor(source, training=True), training=True))
        variables = extractor.trainable_variables + head.trainable_variables
        return tape.gradient(loss, variables)

    @tf.function
    def of_target():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(extractor(target, training=True))
        return tape.gradient(loss, extractor.trainable_variables)

    @tf.function
    def of_domains():
        with tf.GradientTape() as tape:
            tape.watch(features)
            logits = domain(features, training=True)
            loss = kt.losses.DomainClassification()(logits[:SIZE], logits[SIZE:])
        return tape.gradient(loss, [features, *domain.trainable_variables])

    optimizer = model.optimizer
    zeros = [tf.zeros(each.shape) for each in model.trainable_variables]

    @tf.function
    def update():
        optimizer.apply(zeros, model.trainable_variables)

    iterator = iter(data)
    pieces = {
        "DANN": lambda: model.train_function(iterator),
        "source": of_source,
        "target": of_target,
        "domain head": of_domains,
        "update": update,
    }
    seconds = {name: [] for name in pieces}
    for step in range(steps + 5):
        for name, piece in pieces.items():
            began = time.process_time()
            piece()
            if step >= 5:  # the first steps trace and warm up
                seconds[name].append(time.process_time() - began)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, median in medians.items():
        print(f"{name:12} {1000 * median:8.1f} CPU ms")
    parts = sum(median for name, median in medians.items() if name != "DANN")
    print(f"DANN / its parts {medians['DANN'] / parts:.3f} (claim 1.05)")


if __name__ == "__main__":
    main()
