"""Named entities with MiniLM: the head alone, LoRA and full fine-tuning.

Claim: a `TokenClassifier` learns named entities from the words and tags of a file, and
LoRA comes close to full fine-tuning. The data are BC5CDR (chemicals and diseases in
abstracts of PubMed) and WNUT-17 (rare entities; the test part is from later sources).
Each row trains on the training part for 3 epochs (the head alone for 10), at rates that
are usual for BERT, with linear warm-up and decay. Nothing is chosen on the test part.
The floor gives each word its most frequent tag in the training part. F1 is that of
seqeval, over whole entities.

    pip install -e ".[tagging]"
    KERAS_TRANSFER_DATA=<folder> python benchmarks/named_entities.py bc5cdr wnut17

Rows are `--rows floor head lora full` and seeds `--seeds 0`. One row of BC5CDR takes 5
to 20 minutes on one core.
"""

import argparse
import collections
import os
import pathlib
import time

from real_bert import folder  # first: it sets TF_CPP_MIN_LOG_LEVEL

import keras  # isort: skip
import keras_hub

import keras_transfer as kt

BATCH_SIZE = 16
LENGTH = 160  # tokens; longer sentences lose words in training, not in tests
SETTINGS = {"head": (1e-3, 10), "lora": (1e-3, 3), "full": (5e-5, 3)}


def floor(train, sentences):
    """Return the most frequent tag of each word; "O" for unknown words."""
    counts = collections.defaultdict(collections.Counter)
    for words, tags in zip(train.sentences, train.tags, strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    best = {word: each.most_common(1)[0][0] for word, each in counts.items()}
    return [[best.get(word, "O") for word in words] for words in sentences]


def trained(row, train, seed):
    """Return a TokenClassifier after training."""
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.BertBackbone.from_preset(folder())
    tokenizer = keras_hub.models.BertTokenizer.from_preset(folder())
    if row == "head":
        backbone = kt.backbones.FrozenBackbone(backbone)
    model = kt.models.TokenClassifier(
        backbone, train.names, tokenizer=tokenizer, sequence_length=LENGTH, dropout=0.1
    )
    if row == "lora":
        kt.adapters.LoRA(rank=8, alpha=16).attach(model, verbose=0)
    data = model.word_preprocessor.batches(
        train.sentences, train.tags, BATCH_SIZE, seed=seed
    )
    rate, epochs = SETTINGS[row]
    steps = epochs * len(data)
    schedule = kt.optimizers.LinearWarmupDecay(rate, steps, warmup_steps=steps // 10)
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    model.compile(keras.optimizers.AdamW(schedule), loss, jit_compile=False)
    model.fit(data, epochs=epochs, shuffle=False, verbose=2)
    return model


def main():
    """Print a line for each row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="*", default=["bc5cdr", "wnut17"])
    parser.add_argument("--rows", nargs="*", default=["floor", "head", "lora", "full"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    settings = parser.parse_args()
    path = pathlib.Path(os.environ.get("KERAS_TRANSFER_DATA", "../shared/data"))
    for name in settings.data:
        train = kt.data.from_conll(path / f"{name}_train.tsv")
        test = kt.data.from_conll(path / f"{name}_test.tsv", names=train.names)
        for row in settings.rows:
            for seed in settings.seeds[: 1 if row == "floor" else None]:
                began = time.process_time()
                if row == "floor":
                    predicted = floor(train, test.sentences)
                else:
                    predicted = trained(row, train, seed).tag(test.sentences)
                seconds = time.process_time() - began
                scores = kt.analysis.entity_scores(test.tags, predicted)
                print(f"{name}, {row}, seed {seed}: {seconds:.0f} CPU s")
                print(scores, flush=True)


if __name__ == "__main__":
    main()
