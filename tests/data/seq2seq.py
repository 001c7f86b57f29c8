"""A tiny T5 that reads and writes texts."""

import functools
import io

import keras
import keras_hub

TEXTS = ["a good film", "a bad film", "a good book", "a bad book"]
WORDS = ["review:", "topic:", "positive", "negative", "books", "films"]


@functools.cache
def proto():
    """Return a vocabulary of pieces for TEXTS and WORDS."""
    import sentencepiece

    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, *WORDS] * 8),
        model_writer=file,
        model_type="word",
        vocab_size=64,
        hard_vocab_limit=False,
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        minloglevel=2,
    )
    return file.getvalue()


def tiny_t5(encoder_sequence_length=8, decoder_sequence_length=4):
    """Return a T5Seq2SeqLM with random weights."""
    keras.utils.set_random_seed(0)
    tokenizer = keras_hub.models.T5Tokenizer(proto=proto())
    preprocessor = keras_hub.models.T5Seq2SeqLMPreprocessor(
        tokenizer,
        encoder_sequence_length=encoder_sequence_length,
        decoder_sequence_length=decoder_sequence_length,
    )
    size = tokenizer.vocabulary_size()
    backbone = keras_hub.models.T5Backbone(size, 1, 2, 16, 32, dropout=0.0)
    return keras_hub.models.T5Seq2SeqLM(backbone, preprocessor)
