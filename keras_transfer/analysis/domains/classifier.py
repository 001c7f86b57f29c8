"""A linear classifier that separates two domains."""

from __future__ import annotations

import warnings

import numpy as np

from keras_transfer.analysis.one_thread import one_thread

FOLDS = 5
INVERSE_PENALTIES = (1e-4, 1e-2, 1.0)  # C of LogisticRegression, on scaled features


def log_density_ratios(
    source: np.ndarray, target: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return estimates of log(p_target(x) / p_source(x)) for all examples.

    A logistic regression on standardized features is fitted on four fifths of both
    domains and evaluated on the rest. Each example is evaluated by the fit that was not
    trained on it. Three penalties are tried, and the penalty with the lowest log loss
    on the held-out examples is used.
    """
    from sklearn.model_selection import StratifiedKFold

    rows = np.concatenate([source, target])
    domain = np.repeat([0, 1], [len(source), len(target)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    splits = list(folds.split(rows, domain))
    scores = [_scores(rows, domain, splits, each) for each in INVERSE_PENALTIES]
    sign = np.where(domain == 1, 1.0, -1.0)
    # The log loss needs posterior odds. The prior odds come from the counts.
    prior = np.log(len(target) / len(source))
    losses = [np.logaddexp(0, -sign * (each + prior)).mean() for each in scores]
    best = scores[int(np.argmin(losses))]
    return best[: len(source)], best[len(source) :]


def balanced_error(source_ratios: np.ndarray, target_ratios: np.ndarray) -> float:
    """Return the error rate of the classifier, averaged over both domains.

    A ratio of exactly 1 counts as half an error.
    """
    wrong = np.mean(source_ratios > 0) + 0.5 * np.mean(source_ratios == 0)
    missed = np.mean(target_ratios < 0) + 0.5 * np.mean(target_ratios == 0)
    return float(wrong + missed) / 2


def _scores(
    rows: np.ndarray, domain: np.ndarray, splits: list, inverse_penalty: float
) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.zeros(len(rows))
    for seen, unseen in splits:
        classifier = make_pipeline(
            StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000)
        )
        with one_thread(), warnings.catch_warnings():
            # The held-out loss also evaluates a fit that stopped early.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(rows[seen], domain[seen])
        share = domain[seen].mean()
        odds = np.log(share / (1 - share))
        scores[unseen] = classifier.decision_function(rows[unseen]) - odds
    return scores
