"""TaggingPreprocessor: tokens and labels of words, aligned for each tokenizer."""

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data import TaggingPreprocessor

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "sing", "##s", "!", "x"]
TAGS = ["O", "PER"]


def bert():
    import keras_hub

    return keras_hub.models.BertTokenizer(vocabulary=WORDS, lowercase=True)


def roberta():
    import keras_hub

    words = ["<s>", "<pad>", "</s>", "<mask>", "Ġ", "a", "d", "Ġa", "da", "Ġada", "s"]
    return keras_hub.models.RobertaTokenizer(
        vocabulary={word: i for i, word in enumerate(words)},
        merges=["Ġ a", "d a", "Ġa da"],
    )


def pieces(**kwargs):
    return TaggingPreprocessor(bert(), TAGS, **kwargs)


def test_positions_are_those_of_first_tokens():
    x, y, weight = pieces().encode(
        [["Ada", "sings", "!"], ["sings"]], [TAGS * 1 + ["O"], ["PER"]]
    )
    assert x["token_ids"].tolist() == [[2, 5, 6, 7, 8, 3], [2, 6, 7, 3, 0, 0]]
    assert x["padding_mask"].tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]
    assert x["segment_ids"].tolist() == [[0] * 6] * 2
    assert x["word_positions"].tolist() == [[1, 2, 4], [1, -1, -1]]
    assert y.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert weight.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert {each.dtype.name for each in x.values()} == {"int32"}


def test_a_word_of_unknown_or_no_tokens_keeps_its_place():
    x = pieces().encode([["Ada", "zzz", "\u200d\u0007", "Ada"]])
    assert x["token_ids"].tolist() == [[2, 5, 1, 1, 5, 3]]
    assert x["word_positions"].tolist() == [[1, 2, 3, 4]]


def test_byte_pairs_get_a_space_before_each_word():
    x = TaggingPreprocessor(roberta(), TAGS, segment_ids=False).encode([["ada", "ada"]])
    assert x["token_ids"].tolist() == [[0, 9, 9, 2]]
    assert set(x) == {"token_ids", "padding_mask", "word_positions"}


def test_a_graph_gives_what_python_gives():
    texts = ["Ada sings!", "x"]
    preprocessor = pieces()
    graph = tf.function(
        preprocessor, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    wanted = preprocessor.encode([["Ada", "sings", "!"], ["x"]])
    for found in (graph(tf.constant(texts)), preprocessor(tf.constant(texts))):
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_splits_at_punctuation_or_only_at_spaces():
    texts = ["don't, (x) é日本!", " a_b "]
    split = [[word.decode() for word in row] for row in pieces().words(texts).numpy()]
    assert split[0] == ["don", "'", "t", ",", "(", "x", ")", "é日本", "!"]
    assert split[1] == ["a", "_", "b"]
    kept = pieces(split_punctuation=False).words(texts).numpy()
    assert [word.decode() for word in kept[0]] == ["don't,", "(x)", "é日本!"]


def test_batches_have_each_sentence_once_and_few_lengths():
    sentences = [["Ada"] * n for n in (1, 2, 3, 9, 4, 1, 2, 8)]
    tags = [["PER"] * len(words) for words in sentences]
    data = pieces().batches(sentences, tags, 2, boundaries=[5, 11], seed=3)
    batches = list(data.as_numpy_iterator())
    assert len(batches) == len(data) == 5
    assert {x["token_ids"].shape[1] for x, _, _ in batches} == {5, 11}
    assert {y.shape[1] for _, y, _ in batches} == {9}
    counts = np.concatenate([weight.sum(1) for _, _, weight in batches])
    assert sorted(counts) == sorted(map(len, sentences))
    again = pieces().batches(sentences, tags, 2, boundaries=[5, 11], seed=3)
    for one, other in zip(batches, again.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(one[0]["token_ids"], other[0]["token_ids"])


def test_words_that_are_cut_off_are_counted():
    sentences = [["Ada", "sings", "Ada"], ["Ada"], ["sings"] * 3]
    preprocessor = pieces(sequence_length=5)  # room for 3 tokens
    tags = [["PER"] * len(words) for words in sentences]
    with pytest.warns(UserWarning, match="2 words at the end of 2 sentences"):
        x, y, weight = preprocessor.encode(sentences, tags)
    assert weight.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert y.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert x["token_ids"].tolist()[2] == [2, 6, 7, 6, 3]
    parts, origins = preprocessor.windows(sentences)
    assert parts == [
        ["Ada", "sings"],
        ["Ada"],
        ["Ada"],
        ["sings"],
        ["sings"],
        ["sings"],
    ]
    assert origins == [0, 0, 1, 2, 2, 2]


def test_one_word_that_is_too_long_keeps_its_first_tokens():
    preprocessor = pieces(sequence_length=3)
    x = preprocessor.encode([["sings"]])
    assert x["token_ids"].tolist() == [[2, 6, 3]]
    assert preprocessor.windows([["sings", "Ada"]])[0] == [["sings"], ["Ada"]]


@pytest.mark.parametrize(
    "sentences, tags, kind, message",
    [
        (["Ada sings"], None, TypeError, r"sentences\[0\] is the string 'Ada sings'"),
        ([["Ada", 3]], None, TypeError, r"sentences\[0\]\[1\] is 3, a int"),
        ([["Ada", " "]], None, ValueError, r"sentences\[0\]\[1\] is empty"),
        ([["Ada"], []], None, ValueError, r"sentences\[1\] is empty"),
        ([], None, ValueError, "`sentences` is empty"),
        ([["Ada"]], [], ValueError, "`tags` is empty"),
        ([["Ada"]], [["O"], ["O"]], ValueError, "1 sentences, but tags for 2"),
        ([["Ada"]], [["O", "O"]], ValueError, "Sentence 0 has 1 words, but 2 tags"),
        ([["Ada"]], [["ORG"]], ValueError, r"tags \['ORG'\], which are not in"),
    ],
)
def test_errors_name_the_place(sentences, tags, kind, message):
    with pytest.raises(kind, match=message):
        pieces().encode(sentences, tags)


def test_tokenizers_that_do_not_fit_are_refused():
    import keras_hub

    with pytest.raises(TypeError, match="a tokenizer of keras-hub"):
        TaggingPreprocessor(len, TAGS)
    plain = keras_hub.tokenizers.WordPieceTokenizer(vocabulary=WORDS)
    with pytest.raises(ValueError, match="has no .*start_token_id"):
        TaggingPreprocessor(plain, TAGS)
    padded = keras_hub.models.BertTokenizer(vocabulary=WORDS, sequence_length=8)
    with pytest.raises(ValueError, match="pads to sequence_length=8 itself"):
        TaggingPreprocessor(padded, TAGS)
    with pytest.raises(ValueError, match="sequence_length=2"):
        pieces(sequence_length=2)
