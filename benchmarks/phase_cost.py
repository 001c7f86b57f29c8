"""The cost of a step in each phase, compared with the forward pass and a full step.

Claim: frozen layers make the step cheaper. A head-only step costs at most 1.05 x the
forward pass and the head. A step that trains the top k of 6 blocks costs at most 1.10 x
(6 + 2k)/18 of the full step. The model is MiniLM with 16 x 64 tokens. The times are
process CPU times. The phases alternate in one fit.

    python benchmarks/phase_cost.py [rounds]
"""

import statistics
import sys
import time

import keras
import real_bert
import tensorflow as tf

import keras_transfer as kt


def main(rounds=4):
    model = real_bert.classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-5), loss)
    groups = kt.layer_groups(model)
    names = groups.names
    # By the number of trainable blocks. The last phase also trains the stem.
    sets = [names[-1 - k :] for k in range(7)] + [names]
    phases = [kt.callbacks.Phase(each, 1) for _ in range(rounds) for each in sets]
    unfreezing = kt.callbacks.GradualUnfreezing(groups, phases)
    steps = real_bert.StepTimes()

    x, y = real_bert.batches(steps=5)
    batch = {name: tf.constant(values[:16]) for name, values in x.items()}
    forward = tf.function(lambda: model(batch, training=True))
    spent_forward = []

    def time_forward(epoch, logs=None):
        for _ in range(3):
            start = time.process_time()
            forward()
            spent_forward.append(time.process_time() - start)

    between = keras.callbacks.LambdaCallback(on_epoch_end=time_forward)
    callbacks = [unfreezing, steps, between]
    model.fit(x, y, batch_size=16, epochs=len(phases), callbacks=callbacks, verbose=0)

    times = [steps.median(range(i, len(phases), len(sets))) for i in range(len(sets))]
    full = times[-1]
    print(f"{'blocks':>6} {'CPU-ms':>7} {'of full':>8} {'(6+2k)/18':>10} {'ratio':>6}")
    for i, spent in enumerate(times):
        k = min(i, 6)
        floor = (6 + 2 * k) / 18
        name = "all" if i == 7 else k
        print(
            f"{name:>6} {spent:7.0f} {spent / full:8.2f} {floor:10.2f} "
            f"{spent / full / floor:6.2f}"
        )
    ahead = 1e3 * statistics.median(spent_forward[1:])
    print(
        f"forward pass, dropout on: {ahead:.0f} CPU-ms; "
        f"head only is {times[0] / ahead:.2f} x of it"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
