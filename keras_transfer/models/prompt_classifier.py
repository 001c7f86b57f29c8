"""PromptClassifier: a language model as a classifier, without training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer._arguments import unique_names
from keras_transfer._arguments import whole_number
from keras_transfer.data.texts import checked_texts
from keras_transfer.data.vocabulary import check_vocabulary
from keras_transfer.models.label_scorer import LabelScorer
from keras_transfer.models.prompt_template import PromptTemplate

BATCH_SIZE = 16
CONTENT_FREE = ("N/A", "[MASK]", "")  # as in Zhao et al. 2021


class PromptClassifier:
    """Classifies texts by the words that a language model expects after them.

    Nothing is trained: this is a baseline of zero labels, or of a few that are shown in
    the prompt. The text is put into a template, and the score of a class is the mean
    log-probability of the tokens of its label word at the place of the label,

        score_c = 1 / T_c sum_t log p(w_ct | prompt, w_c<t),

    so words of more tokens are not at a disadvantage. A masked language model gets one
    mask for each token of the word. The probabilities of the classes are the softmax of
    the scores. With `calibrate`, they are divided by those for texts without content
    (the mean over "N/A", "[MASK]" and ""), which removes what the model expects of any
    text: its frequent words, the last example.

    Whether this works depends on the size of the model. Models of some hundred million
    parameters, such as those that train on one machine, are often little better than
    guessing, and depend on the words of the template. Measure it, also next to a
    logistic regression on features: `predict` is a row of `kt.compare`, as
    `zero_shot=classifier.predict`.

    Args:
        task: `CausalLM` or `MaskedLM` of keras-hub. It does not change.
        template: String with `{text}` and `{label}`, once each, such as `"Review:
            {text} Sentiment: {label}"`. For a causal model, `{label}` is its end.
        labels: Dict from class names to label words, or list of class names that are
            the words themselves. Words must begin with different tokens.
        examples: Pairs `(text, class name)` that are shown before each text. Defaults
            to `()`, zero shots.
        calibrate: Whether to divide by the probabilities for texts without content.
            Defaults to `True`.
        tokenizer: Tokenizer of keras-hub. Defaults to None: that of the Task.

    Example:
        ```python
        import keras_hub
        import keras_transfer as kt

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        words += ["it", "was", "good", "bad"]
        tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
        backbone = keras_hub.models.BertBackbone(9, 1, 2, 8, 16, max_sequence_length=16)
        task = keras_hub.models.BertMaskedLM(backbone)
        classifier = kt.models.PromptClassifier(
            task, "{text} it was {label}", ["good", "bad"], tokenizer=tokenizer
        )
        assert classifier.predict(["good good", "bad"]).shape == (2, 2)
        ```

    Raises:
        TypeError: If `task` is not a language model of keras-hub, or a text is not a
            string.
        ValueError: If the template or a label does not fit, an example has an unknown
            class, there is no tokenizer, or the prompt is too long.

    Reference:
        Brown et al., 2020, "Language Models are Few-Shot Learners", arXiv:2005.14165;
        Zhao et al., 2021, "Calibrate Before Use: Improving Few-Shot Performance of
        Language Models", arXiv:2102.09690; Schick and Schütze, 2021, "Exploiting Cloze
        Questions for Few Shot Text Classification and Natural Language Inference",
        arXiv:2001.07676.
    """

    def __init__(
        self,
        task: keras.Model,
        template: str,
        labels: Mapping[str, str] | Sequence[str],
        *,
        examples: Sequence[tuple[str, str]] = (),
        calibrate: bool = True,
        tokenizer: keras.Layer | None = None,
    ):
        masked = _is_masked(task)
        if not isinstance(labels, Mapping):
            labels = {name: name for name in unique_names("labels", labels)}
        self.class_names = unique_names("labels", list(labels))
        if len(self.class_names) < 2:
            raise ValueError(f"labels={labels!r} has one class. Pass two or more.")
        words = unique_names("label words", list(labels.values()))
        tokenizer = _tokenizer(task, tokenizer)
        check_vocabulary(task.backbone, tokenizer)
        self.calibrate = bool(calibrate)
        self._template = PromptTemplate(
            template,
            words,
            [(text, self._number(name)) for text, name in examples],
            tokenizer=tokenizer,
            masked=masked,
            most=getattr(task.backbone, "max_sequence_length", None),
        )
        pad = getattr(tokenizer, "pad_token_id", None) or 0
        self._scorer = LabelScorer(task, masked=masked, pad=pad)
        self._prior: np.ndarray | None = None

    def predict(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Return the probability of each class.

        Args:
            texts: Strings. A text that is too long loses words at its end, and a
                warning tells their number.
            batch_size: Number of prompts that run at once: a text has one for each
                class. Defaults to 16.

        Returns:
            A float32 array `(texts, classes)`, in the order of `class_names`.

        Raises:
            TypeError: If a text is not a string.
            ValueError: If there is no text.
        """
        whole_number("batch_size", batch_size)
        found = self._probabilities(checked_texts(texts), batch_size)
        if not self.calibrate:
            return found
        if self._prior is None:
            free = self._probabilities(list(CONTENT_FREE), batch_size)
            self._prior = free.mean(0)
        found = found / self._prior
        return found / found.sum(1, keepdims=True)

    def classify(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> list[str]:
        """Return the name of the most probable class of each text.

        Args:
            texts: As in `predict`.
            batch_size: As in `predict`.

        Raises:
            TypeError: As in `predict`.
            ValueError: As in `predict`.
        """
        numbers = self.predict(texts, batch_size).argmax(1)
        return [self.class_names[number] for number in numbers]

    def _number(self, name: str) -> int:
        if name not in self.class_names:
            raise ValueError(
                f"An example has the class {name!r}, which is not in "
                f"{list(self.class_names)}. Correct it, or add a label."
            )
        return self.class_names.index(name)

    def _probabilities(self, texts: list[str], batch_size: int) -> np.ndarray:
        rows, lost = [], []
        for text in texts:
            found, cut = self._template.rows(text)
            rows += found
            lost.append(cut)
        if any(lost):
            warnings.warn(
                f"{sum(lost)} words at the end of {np.count_nonzero(lost)} texts do "
                "not fit into the positions of the model and were left out.",
                stacklevel=3,
            )
        scores = self._scorer(rows, batch_size).reshape(len(texts), -1)
        shifted = np.exp(scores - scores.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)


def _is_masked(task: object) -> bool:
    import keras_hub

    if isinstance(task, keras_hub.models.MaskedLM):
        return True
    inputs = getattr(task, "input", None)
    causal = isinstance(task, keras_hub.models.CausalLM) and isinstance(inputs, dict)
    if causal and set(inputs) == {"token_ids", "padding_mask"}:
        return False
    raise TypeError(
        f"task is a {type(task).__name__}, but a PromptClassifier needs a CausalLM of "
        "text or a MaskedLM of keras-hub, such as GPT2CausalLM or BertMaskedLM."
    )


def _tokenizer(task: keras.Model, tokenizer: keras.Layer | None) -> keras.Layer:
    import keras_hub

    if tokenizer is None:
        tokenizer = getattr(getattr(task, "preprocessor", None), "tokenizer", None)
    if not isinstance(tokenizer, keras_hub.tokenizers.Tokenizer):
        raise ValueError(
            f"'{task.name}' has no preprocessor with a tokenizer. Pass `tokenizer=`, a "
            "tokenizer of keras-hub."
        )
    return tokenizer
