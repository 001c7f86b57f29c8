import numpy as np
import pytest
from scipy import stats

import keras_transfer as kt
from keras_transfer.analysis.shift.score_kind import ScoreKind
from keras_transfer.export.shift_reference import make_reference
from keras_transfer.monitoring.window import Window
from tests.monitoring import references


def monitor(rows=0, *, labeled=True, features=True, count=300, **arguments):
    rng = np.random.default_rng(rows)
    made = references.reference(rng, count, labeled=labeled, features=features)
    return kt.ShiftMonitor(made, **arguments), rng


def test_examples_of_the_same_distribution_are_no_shift():
    watch, rng = monitor()
    scores, x, _ = references.outputs(rng, 200)
    watch.update(outputs=scores[:50], features=x[:50])
    watch.update(outputs=scores[50:], features=x[50:])
    assert watch.rows == 200
    report = watch.report()
    assert not report.shifted
    assert watch.rows == 0
    assert [row["test"] for row in report.table] == [
        "class scores, Kolmogorov-Smirnov",
        "features, Kolmogorov-Smirnov",
        "features, MMD",
    ]
    level = 0.05 * 6 / np.pi**2
    assert {row["threshold"] for row in report.table} == {level / 3}


def test_scores_alone_are_tested_at_the_whole_level():
    watch, rng = monitor(alpha=0.1)
    scores, _, _ = references.outputs(rng, 200, shares=(8, 1, 1))
    watch.update(outputs=scores)
    report = watch.report()
    assert report.shifted
    (row,) = report.table
    np.testing.assert_allclose(row["threshold"], 0.1 * 6 / np.pi**2)
    odds = watch.reference.kind.compared
    alone = [
        stats.ks_2samp(a, b).pvalue
        for a, b in zip(odds(watch.reference.scores).T, odds(scores).T, strict=True)
    ]
    np.testing.assert_allclose(row["p_value"], 3 * min(alone), rtol=1e-6)


def test_each_test_finds_its_shift():
    watch, rng = monitor()
    scores, x, _ = references.outputs(rng, 300)
    x[:, 2] += 1.5  # the scores do not depend on this feature
    watch.update(outputs=scores, features=x)
    found = [row["shifted"] for row in watch.report().table]
    assert found == [False, True, True]


def test_class_shares_are_corrected():
    watch, rng = monitor(count=5000)
    scores, x, y = references.outputs(rng, 5000, shares=(7, 1, 2))
    watch.update(outputs=scores, features=x)
    rows = watch.report().class_shares
    assert [row["class"] for row in rows] == ["cat", "dog", "owl"]
    true = np.bincount(y) / len(y)
    error = {
        key: max(abs(row[key] - share) for row, share in zip(rows, true, strict=True))
        for key in ("predicted", "bbse", "em")
    }
    assert error["predicted"] > 0.08
    assert error["bbse"] < 0.04
    assert error["em"] < 0.03


def test_without_labels_only_the_scores_correct_the_shares():
    watch, rng = monitor(labeled=False)
    watch.update(outputs=references.outputs(rng, 100)[0])
    report = watch.report()
    assert {row["bbse"] for row in report.class_shares} == {None}
    assert "reference=(x, y)" in str(report)


def test_the_second_report_has_a_smaller_level_and_its_own_window():
    watch, rng = monitor()
    for look in (1, 2, 3):
        scores, _, _ = references.outputs(rng, 30)
        watch.update(outputs=scores)
        report = watch.report()
        assert report.to_dict()["look"] == watch.looks == look
        assert report.to_dict()["rows"] == 30
        threshold = report.table[0]["threshold"]
        np.testing.assert_allclose(threshold, 0.05 * 6 / (np.pi * look) ** 2)
    assert watch.report() is report  # nothing new, so no level is spent
    later, _ = monitor(looks=3)
    later.update(outputs=scores)
    assert later.report().to_dict()["look"] == 4


def test_mmd_stops_when_its_level_is_too_small_for_permutations():
    watch, rng = monitor(looks=13)
    for look in (14, 15):
        scores, x, _ = references.outputs(rng, 30)
        watch.update(outputs=scores, features=x)
        report = watch.report()
        ran = "features, MMD" in [row["test"] for row in report.table]
        assert ran == (look == 14)
        assert ("MMD test did not run" in str(report)) == (look == 15)
    level = report.to_dict()["level"]
    assert {row["threshold"] for row in report.table} == {level / 2}


def test_the_alarms_of_many_reports_keep_alpha():
    """40 streams of 20 reports, each with its own reference, at alpha = 0.1."""
    rng = np.random.default_rng(0)
    alarms, naive = 0, 0
    for _ in range(40):
        made = references.reference(rng, 60, labeled=False, features=False)
        watch = kt.ShiftMonitor(made, alpha=0.1)
        tables = []
        for _ in range(20):
            watch.update(outputs=references.outputs(rng, 20)[0])
            tables += watch.report().table
        alarms += any(row["shifted"] for row in tables)
        naive += any(row["p_value"] <= 0.1 for row in tables)
    assert alarms <= stats.binom.ppf(0.999, 40, 0.1)
    assert naive > 20  # without smaller levels, most streams have a false alarm


@pytest.mark.slow
def test_the_alarms_of_all_tests_keep_alpha():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        made = references.reference(rng, 90, labeled=False, size=2)
        watch = kt.ShiftMonitor(made, alpha=0.1)
        found = False
        for _ in range(4):  # most of the level; later ones need many permutations
            scores, x, _ = references.outputs(rng, 30, size=2)
            watch.update(outputs=scores, features=x)
            found |= watch.report().shifted
        alarms += found
    assert alarms <= stats.binom.ppf(0.999, 100, 0.1)


def test_the_reduction_alone_is_no_shift():
    """Components that are fitted on the kept examples would be found as a shift."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(15):
        scores, _, _ = references.outputs(rng, 150)
        x = rng.normal(size=(150, 300))
        made = references.make_reference(
            references.ScoreKind("classes", False, 3),
            scores,
            x,
            None,
            references.NAMES,
            0,
            {},
        )
        watch = kt.ShiftMonitor(made, alpha=0.1)
        scores, _, _ = references.outputs(rng, 100)
        watch.update(outputs=scores, features=rng.normal(size=(100, 300)))
        alarms += watch.report().shifted
    assert alarms <= stats.binom.ppf(0.999, 15, 0.1)


def test_the_same_seed_gives_the_same_report():
    found = []
    for _ in range(2):
        watch, rng = monitor(3)
        scores, x, _ = references.outputs(rng, 50)
        watch.update(outputs=scores, features=x)
        found.append(watch.report().to_json())
    assert found[0] == found[1]


def test_a_large_window_keeps_a_random_part():
    rng = np.random.default_rng(0)
    window = Window(rng)
    for start in range(0, 50_000, 10_000):
        rows = np.arange(start, start + 10_000, dtype="float32")[:, None]
        window.add(rows, rows + 0.5, np.array([10_000, 0]))
    assert window.seen == 50_000
    assert window.counts.tolist() == [50_000, 0]
    assert window.scores.shape == window.features.shape == (10_000, 1)
    assert (window.features == window.scores + 0.5).all()
    assert len(np.unique(window.scores)) == 10_000
    assert stats.kstest(window.scores[:, 0] / 50_000, "uniform").pvalue > 0.001


def test_bad_input_adds_nothing():
    watch, rng = monitor()
    scores, x, _ = references.outputs(rng, 5)
    wrong = scores.copy()
    wrong[3] = np.nan
    cases = [
        ({}, "needs either inputs or outputs"),
        ({"inputs": x, "outputs": scores}, "but got both"),
        ({"inputs": x}, "has no model"),
        ({"inputs": x, "features": x}, "belongs to outputs"),
        ({"outputs": wrong}, "Row 3 of `outputs` has NaN"),
        ({"outputs": scores * 2}, "outside of 0 to 1|the sum"),
        ({"outputs": scores[:, :2]}, r"\(5, 2\)"),
        ({"outputs": scores, "features": x[:, :2]}, r"`features` has the shape"),
        ({"outputs": scores, "features": x[:3]}, "5 rows of outputs, but 3 of feat"),
    ]
    for arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            watch.update(**arguments)
    assert watch.rows == 0
    with pytest.raises(ValueError, match="has 0 examples"):
        watch.report()
    watch.update(outputs=scores[:1])
    with pytest.raises(ValueError, match="has 1 examples"):
        watch.report()
    with pytest.raises(ValueError, match="with features, but the others .* without"):
        watch.update(outputs=scores, features=x)
    assert watch.rows == 1
    assert watch.looks == 0


def test_features_without_features_in_the_reference():
    watch, rng = monitor(features=False)
    scores, x, _ = references.outputs(rng, 5)
    with pytest.raises(ValueError, match="the reference has none"):
        watch.update(outputs=scores, features=x)


def test_features_that_are_always_the_same():
    rng = np.random.default_rng(0)
    scores, x, y = references.outputs(rng, 200)
    kind = ScoreKind("classes", False, 3)
    facts = {"output": "outputs", "model": "animals"}
    made = make_reference(kind, scores, np.ones_like(x), y, references.NAMES, 0, facts)
    watch = kt.ShiftMonitor(made)
    watch.update(outputs=scores, features=np.ones_like(x))
    assert not watch.report().shifted
    watch.update(outputs=scores, features=x)
    assert watch.report().shifted


@pytest.mark.parametrize(
    "arguments", [{"alpha": 0}, {"alpha": 1}, {"looks": -1}, {"seed": 0.5}]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        monitor(**arguments)
