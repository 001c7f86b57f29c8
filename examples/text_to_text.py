"""Text to text: one T5 takes several tasks, each with a prefix, and writes answers.

Learned: how to mix tasks whose inputs and answers are texts, how a model of keras-hub
learns them all with one loss, and how its generated answers are read and scored. Data:
TSV files with label and text, a training and a test file for each task. Time: perhaps
10 minutes of CPU. Expect an accuracy of 0.51 on SST-2 and 0.51 and 0.50 on two kinds of
reviews, which is guessing: the model has 2 blocks and random weights, because no
package has those of T5. All of its answers are answers, so it has learned only what
they look like. With `T5Seq2SeqLM.from_preset("t5_small_multi")` the rest stays as it
is.

    python examples/text_to_text.py --task sst2 train.tsv test.tsv \\
        --task books train.tsv test.tsv --words negative positive
"""

import argparse
import io
import pathlib
import tempfile

import keras
import keras_hub
import sentencepiece

import keras_transfer as kt

parser = argparse.ArgumentParser()
parser.add_argument(
    "--task", nargs=3, action="append", metavar=("NAME", "TRAIN", "TEST")
)
parser.add_argument("--words", nargs="+", help="answers, if classes are numbers")
parser.add_argument("--temperature", type=float, default=2.0)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument(
    "--alone", action="store_true", help="also train on each task alone"
)
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()
size = {"num_layers": 2, "num_heads": 4, "hidden_dim": 64, "intermediate_dim": 128}
vocabulary_size, length = 4000, 64


def make_smoke():
    """Write files of two tasks with generated sentences, and set the options."""
    folder = pathlib.Path(tempfile.mkdtemp())
    tones = {"0": ("bad", "dull"), "1": ("good", "fun")}
    nouns = {"books": ("novel", "poem"), "films": ("film", "actor")}
    for name, classes in (("tone", tones), ("topic", nouns)):
        lines = [
            f"{label}\tthe {noun} was {tone}\n"
            for each in (0, 1)
            for label in classes
            for tone in (classes[label] if name == "tone" else ("bad", "good"))
            for noun in (("novel", "film") if name == "tone" else classes[label])
        ]
        (folder / name).write_text("".join(lines))
    options.task = [[each, folder / each, folder / each] for each in ("tone", "topic")]
    options.words, options.epochs = ["negative", "positive"], 2
    size.update(num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=16)


def new_task(texts):
    """Return a T5 with random weights, and a vocabulary from the texts."""
    file = io.BytesIO()
    # Each answer is one token.
    symbols = {
        x for name in training for x in answers.get(name, training[name].classes)
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=file,
        vocab_size=vocabulary_size,
        hard_vocab_limit=False,
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        user_defined_symbols=sorted(symbols),
        minloglevel=2,
    )
    tokenizer = keras_hub.models.T5Tokenizer(proto=file.getvalue())
    preprocessor = keras_hub.models.T5Seq2SeqLMPreprocessor(
        tokenizer, encoder_sequence_length=length, decoder_sequence_length=6
    )
    backbone = keras_hub.models.T5Backbone(tokenizer.vocabulary_size(), **size)
    task = keras_hub.models.T5Seq2SeqLM(backbone, preprocessor)
    task.compile(keras.optimizers.Adam(2e-3), jit_compile=False)
    return task


def train(names):
    """Train on some of the tasks, and print the scores of what the model writes."""
    keras.utils.set_random_seed(0)
    mixture = kt.data.text_to_text(
        {name: training[name] for name in names},
        answers={name: answers[name] for name in names if name in answers},
        temperature=options.temperature,
    )
    task = new_task([text for each in training.values() for text in each.texts])
    task.fit(mixture.batches(task, 32), epochs=options.epochs, shuffle=False, verbose=0)
    print(f"\ntrained on {', '.join(names)}; shares {mixture.rates}")
    print(mixture.score(task, {name: test[name] for name in names}))


if options.smoke:
    make_smoke()
elif not options.task:
    parser.error("pass --task NAME TRAIN TEST once or more, or --smoke")
training = {name: kt.data.from_tsv(path) for name, path, _ in options.task}
test = {
    name: kt.data.from_tsv(path, classes=training[name].classes)
    for name, _, path in options.task
}
answers = {
    name: options.words
    for name, each in training.items()
    if options.words
    and len(each.classes) == len(options.words)
    and all(label.isdigit() for label in each.classes)
}
if options.alone:
    for name in training:
        train([name])
train(list(training))
