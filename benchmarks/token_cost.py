"""What the tokens of padding cost: texts at a few lengths, at one, and torch + PEFT.

Claim: with `kt.data.bucket_by_length`, LoRA on 2,000 short sentences costs at most 0.55
of what it costs with all sentences padded to 64 tokens, and less than torch + PEFT with
the dynamic padding of Hugging Face, in CPU seconds and in wall seconds. MiniLM with
LoRA (rank 8, queries and values), mean pooling and a linear head on SST-2, 2 epochs in
batches of 16. All kinds run one after the other, each in a process of its own.
Preprocessing, tracing and compiling count; imports, loading weights and the evaluation
do not. OMP_WAIT_POLICY is PASSIVE, or threads that wait would count as work.

    python benchmarks/token_cost.py [labels] [kind ...]

torch + PEFT needs `pip install -e ".[peft]"`, or $PEER_PYTHON, the interpreter of
another environment that has torch, peft and transformers. SST-2 is looked for in
$KERAS_TRANSFER_DATA.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

SIZE, EPOCHS, RANK, RATE = 16, 2, 8, 1e-3
KINDS = {  # the arguments of `keras_run`
    "bucketed": {},
    "bucketed, no XLA": {"jit_compile": False},
    "fixed 64": {"length": 64},
    "fixed 64, no XLA": {"length": 64, "jit_compile": False},
    "fixed 128": {"length": 128},
    "torch + PEFT": None,
}


class Watch:
    """Seconds of this process since the watch was made: CPU and wall."""

    def __init__(self):
        self.start = time.process_time(), time.perf_counter()

    def seconds(self):
        now = time.process_time(), time.perf_counter()
        return [end - begin for begin, end in zip(self.start, now, strict=True)]


def keras_run(texts, labels, test, folder, length=None, jit_compile="auto"):
    """Return the seconds, the tokens of an epoch, and the accuracy."""
    import keras
    import keras_hub
    import numpy as np
    import real_bert

    import keras_transfer as kt

    keras.utils.set_random_seed(0)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor.from_preset(
        folder, sequence_length=length or 512
    )
    model = real_bert.classifier()
    kt.adapters.LoRA(rank=RANK, alpha=2 * RANK).attach(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(RATE, weight_decay=0.0)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit_compile)
    watch = Watch()
    if length is None:
        data = kt.data.bucket_by_length((texts, labels), preprocessor, SIZE)
        prepared = watch.seconds()
        tokens = sum(x["token_ids"].size for x, _ in data.as_numpy_iterator())
        watch = Watch()
        model.fit(data, epochs=EPOCHS, shuffle=False, verbose=0)
    else:
        x = keras.tree.map_structure(np.asarray, preprocessor(texts))
        prepared = watch.seconds()
        tokens = x["token_ids"].size
        watch = Watch()
        y = np.array(labels)
        model.fit(x, y, batch_size=SIZE, epochs=EPOCHS, verbose=0)
    fitted = watch.seconds()
    preprocessor.sequence_length = 64
    x = keras.tree.map_structure(np.asarray, preprocessor(test[0]))
    accuracy = model.evaluate(x, np.array(test[1]), batch_size=64, verbose=0)[1]
    return prepared, fitted, tokens, accuracy


def torch_run(texts, labels, test, folder):
    """Return the same of PyTorch, each batch padded to its longest text."""
    import peft
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bert = transformers.AutoModel.from_pretrained(folder)
    targets = ["query", "value"]
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets)
    bert = peft.get_peft_model(bert, config)
    head = torch.nn.Linear(384, 2)
    trained = [each for each in bert.parameters() if each.requires_grad]
    trained += list(head.parameters())
    optimizer = torch.optim.AdamW(trained, RATE, weight_decay=0.0)

    def batches(texts, labels, shuffle):
        rows = tokenizer(texts, truncation=True, max_length=512)
        keys = ("input_ids", "attention_mask", "token_type_ids")
        rows = [
            {key: rows[key][i] for key in keys} | {"labels": label}
            for i, label in enumerate(labels)
        ]
        return torch.utils.data.DataLoader(
            rows,
            SIZE,
            shuffle=shuffle,
            collate_fn=transformers.DataCollatorWithPadding(tokenizer),
        )

    def logits(batch):
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        hidden = bert(**inputs).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        return head((hidden * mask).sum(1) / mask.sum(1))

    watch = Watch()
    train = batches(texts, labels, shuffle=True)
    prepared = watch.seconds()
    watch = Watch()
    bert.train()
    tokens = 0
    for _ in range(EPOCHS):
        for batch in train:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(logits(batch), batch["labels"])
            loss.backward()
            optimizer.step()
            tokens += batch["input_ids"].numel()
    fitted = watch.seconds()
    bert.eval()
    right = 0
    with torch.no_grad():
        for batch in batches(*test, shuffle=False):
            right += int((logits(batch).argmax(-1) == batch["labels"]).sum())
    return prepared, fitted, tokens // EPOCHS, right / len(test[1])


def one(kind, path):
    """Print the result of one kind for the data in a file."""
    data = json.loads(pathlib.Path(path).read_text())
    arguments = KINDS[kind]
    run = torch_run if arguments is None else keras_run
    print("result", json.dumps(run(**data, **(arguments or {}))))


def main(labels=2000, *kinds):
    import numpy as np
    import real_bert

    import keras_transfer as kt

    root = pathlib.Path(os.environ["KERAS_TRANSFER_DATA"])
    texts, y, classes = kt.data.from_tsv(root / "sst2_train.tsv")
    chosen = np.random.default_rng(0).permutation(len(y))[: int(labels)]
    test = kt.data.from_tsv(root / "sst2_dev.tsv", classes=classes)
    data = {
        "texts": texts[chosen].tolist(),
        "labels": y[chosen].tolist(),
        "test": [test.texts.tolist(), test.labels.tolist()],
        "folder": real_bert.folder(),
    }
    found = {}
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(data, file)
        file.flush()
        for kind in kinds or KINDS:
            peer = KINDS[kind] is None
            python = os.environ.get("PEER_PYTHON", sys.executable)
            command = [python if peer else sys.executable, __file__, "--one", kind]
            done = subprocess.run(
                [*command, file.name],
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            if done.returncode:
                print(f"{kind}: did not run")
                continue
            found[kind] = json.loads(done.stdout.rpartition("result ")[2])
            print(kind, found[kind], flush=True)
    print(f"{labels} labels, {EPOCHS} epochs; seconds; CPU by that of fixed 64")
    print(f"{'':18} {'CPU':>7} {'wall':>7} {'ratio':>6} {'tokens':>8} {'accuracy':>9}")
    base = sum(each[0] for each in found.get("fixed 64", [[0], [0]])[:2])
    for kind, (prepared, fitted, tokens, accuracy) in found.items():
        cpu, wall = (sum(pair) for pair in zip(prepared, fitted, strict=True))
        ratio = cpu / base if base else float("nan")
        print(
            f"{kind:18} {cpu:7.1f} {wall:7.1f} {ratio:6.3f} {tokens:8} {accuracy:9.3f}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
