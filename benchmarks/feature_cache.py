"""The cost of training a head on cached features, compared with backbone passes.

Claim: caching the features and training a head for five epochs cost at most 1.15 x one
pass of the backbone. Each further epoch costs less than 1 % of such a pass. The model
is MiniLM with texts of 64 tokens in batches of 32. The times are process CPU times. The
peer trains the same head for five epochs on the frozen backbone with plain `fit`. It
runs two epochs and counts the second epoch four times.

    python benchmarks/feature_cache.py [texts]
"""

import statistics
import sys
import tempfile
import time

import keras
import real_bert

import keras_transfer as kt

SIZE = 32


def spent(function):
    """Return the CPU seconds of a call and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


class EpochTimes(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.times = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        self.times.append(time.process_time() - self.start)


def main(texts=2000):
    import keras_hub

    x, y = real_bert.batches(steps=-(-texts // SIZE), size=SIZE)
    x, y = {name: values[:texts] for name, values in x.items()}, y[:texts]
    backbone = keras_hub.models.BertBackbone.from_preset(real_bert.folder())
    frozen = kt.backbones.features(kt.backbones.FrozenBackbone(backbone))
    frozen.predict({k: v[:SIZE] for k, v in x.items()}, verbose=0)  # warm caches

    def predict():
        # A new model, so the pass traces its function, like the cache.
        again = keras.Model(frozen.input, frozen.output)
        return again.predict(x, batch_size=SIZE, verbose=0)

    before, _ = spent(predict)
    epochs = EpochTimes()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    head = keras.Sequential([keras.Input((384,)), keras.layers.Dense(2)])
    head.compile("adam", loss)

    def cached_training(path=None):
        cached = kt.backbones.cache_features(frozen, (x, y), path, verbose=0)
        data = cached.shuffle(texts, seed=0).batch(SIZE)
        head.fit(data, epochs=5, shuffle=False, verbose=0, callbacks=[epochs])

    both, _ = spent(cached_training)
    further = statistics.median(epochs.times[1:])
    after, _ = spent(predict)
    one_pass = (before + after) / 2  # because the speed of the machine drifts

    with tempfile.TemporaryDirectory() as folder:
        written, _ = spent(lambda: cached_training(folder))
        from_shards = statistics.median(epochs.times[1:])
        reused, _ = spent(
            lambda: kt.backbones.cache_features(frozen, (x, y), folder, verbose=0)
        )

    live = keras.Sequential([frozen, keras.layers.Dense(2)])
    live.compile("adam", loss)
    live.fit(x, y, batch_size=SIZE, epochs=2, verbose=0, callbacks=[epochs])
    peer = epochs.times[0] + 4 * epochs.times[1]  # the first epoch traces

    rows = [
        ("one pass of the backbone (predict)", one_pass, 1.0, ""),
        ("cache in memory, 5 head epochs", both, both / one_pass, "at most 1.15"),
        ("a further epoch from memory", further, further / one_pass, "below 0.01"),
        ("cache in shards, 5 head epochs", written, written / one_pass, ""),
        ("a further epoch from shards", from_shards, from_shards / one_pass, ""),
        ("finding the shards again", reused, reused / one_pass, ""),
        ("5 epochs on the live backbone", peer, peer / one_pass, ""),
    ]
    print(f"{texts} texts of 64 tokens; CPU seconds, and by one pass")
    for name, seconds, ratio, claim in rows:
        print(f"{name:38} {seconds:8.2f} {ratio:8.4f}  {claim}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
