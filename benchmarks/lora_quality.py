"""The accuracy of LoRA, compared with full fine-tuning and PEFT's LoRA.

Claim: the accuracy is within one point of PEFT's LoRA and of full fine-tuning. MiniLM
trains on SST-2 with texts of 64 tokens, 2,000 labels, 2 epochs and batches of 16. The
optimizer is AdamW without weight decay at a constant rate: 1e-3 for LoRA of rank 8 on
queries and values, 5e-5 for full fine-tuning. All models have mean pooling and a linear
head, and get the same examples in the same order. PEFT needs
`pip install -e ".[peft]"`. The folder of SST-2 is in $KERAS_TRANSFER_DATA.

    python benchmarks/lora_quality.py [seeds] [labels]
"""

import math
import statistics
import sys
import time

import keras
import numpy as np
import real_bert
from fine_tune import load

import keras_transfer as kt

SIZE, EPOCHS, RANK = 16, 2, 8


def keras_run(kind, train, test, order, change=None):
    """Return the test accuracy of a model trained in Keras.

    `change` is a function that changes the pretrained model first, as `kt.quantize`.
    """
    model = real_bert.classifier()
    if change is not None:
        change(model)
    if kind == "LoRA":
        kt.adapters.LoRA(rank=RANK, alpha=2 * RANK).attach(model)
    rate = 1e-3 if kind == "LoRA" else 5e-5
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.0)
    model.compile(optimizer, loss, metrics=["accuracy"])
    x, y = keras.tree.map_structure(lambda array: array[order], train)
    model.fit(x, y, batch_size=SIZE, shuffle=False, verbose=0)
    return model.evaluate(*test, batch_size=64, verbose=0)[1]


def peft_run(kind, train, test, order):
    """Return the test accuracy of the same model trained in PyTorch with PEFT."""
    import peft
    import torch
    import transformers

    torch.manual_seed(int(order[0]))
    bert = transformers.AutoModel.from_pretrained(real_bert.folder())
    targets = ["query", "value"]
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets)
    bert = peft.get_peft_model(bert, config)
    head = torch.nn.Linear(384, 2)
    trained = [each for each in bert.parameters() if each.requires_grad]
    trained += list(head.parameters())
    optimizer = torch.optim.AdamW(trained, 1e-3, weight_decay=0.0)

    def logits(x, rows):
        ids = torch.tensor(x["token_ids"][rows]).long()
        mask = torch.tensor(x["padding_mask"][rows].astype("int64"))
        hidden = bert(input_ids=ids, attention_mask=mask).last_hidden_state
        mask = mask[..., None].float()
        return head((hidden * mask).sum(1) / mask.sum(1))

    (x, y), (x_test, y_test) = train, test
    bert.train()
    for batch in np.array_split(order, math.ceil(len(order) / SIZE)):
        optimizer.zero_grad()
        wanted = torch.tensor(y[batch]).long()
        torch.nn.functional.cross_entropy(logits(x, batch), wanted).backward()
        optimizer.step()
    bert.eval()
    with torch.no_grad():
        found = [
            logits(x_test, rows).argmax(-1).numpy()
            for rows in np.array_split(np.arange(len(y_test)), 20)
        ]
    return float(np.mean(np.concatenate(found) == y_test))


def main(seeds=2, labels=2000):
    scores = {"LoRA": [], "PEFT LoRA": [], "full": []}
    for seed in range(seeds):
        train, test = load(labels, seed)
        for kind, found in scores.items():
            keras.utils.set_random_seed(seed)
            random = np.random.default_rng(seed)
            passes = [random.permutation(len(train[1])) for _ in range(EPOCHS)]
            run = peft_run if kind.startswith("PEFT") else keras_run
            start = time.process_time()
            found.append(run(kind, train, test, np.concatenate(passes)))
            spent = time.process_time() - start
            print(f"seed {seed} {kind}: {found[-1]:.4f}, {spent:.0f} CPU seconds")
    error = math.sqrt(0.84 * 0.16 / len(test[1]))
    print(f"{labels} labels; accuracy, standard error of each run {error:.4f}")
    for kind, found in scores.items():
        print(f"{kind:10} {statistics.mean(found):.4f}  {found}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
