"""Labels, correlations and MultiRC by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from softprompt.errors import ConfigError, DataError
from softprompt.metrics import Classes, MetricFactory, Unavailable, score_suite
from softprompt.metrics.correlation import Pearson, Spearman
from softprompt.metrics.labels import Accuracy, MacroF1, Matthews, f1
from softprompt.metrics.multirc import MultiRcExactMatch, MultiRcF1

# Right positive 3, wrong positive 1, wrong negative 2, right negative 4.
GIVEN = list("1111000000")
THERE = list("1110110000")


def score(metric: MetricFactory, given: list[str], there: list[str]) -> float:
    return metric([[label] for label in there]).score(given).value


def test_accuracy() -> None:
    assert score(Accuracy, GIVEN, THERE) == 70
    assert score(Accuracy, [" yes\n", "Yes", ""], ["yes", "yes", "no"]) == pytest.approx(100 / 3)


def test_f1_of_one_class() -> None:
    metric = f1("1", "equivalent")([[label] for label in THERE])
    assert metric.score(GIVEN).value == pytest.approx(100 * 2 * 3 / (2 * 3 + 1 + 2))
    assert metric.score(["equivalent" if label == "1" else "nonsense" for label in THERE]).value == 100
    assert metric.score(["0"] * 10).value == 0
    with pytest.raises(Unavailable, match="no reference is of the positive class, '1'"):
        f1("1")([["0"]])


def test_matthews_of_two_classes() -> None:
    expected = (3 * 4 - 1 * 2) / math.sqrt((3 + 1) * (3 + 2) * (4 + 1) * (4 + 2))
    assert score(Matthews, GIVEN, THERE) == pytest.approx(100 * expected)
    assert score(Matthews, [str(1 - int(label)) for label in THERE], THERE) == pytest.approx(-100)
    assert score(Matthews, ["1"] * 10, THERE) == 0


def test_matthews_of_several_classes_is_the_correlation_of_the_one_hot_tables() -> None:
    given, there = list("aabbccxab"), list("abbbcacca")
    x, y = (np.array([[label == other for other in "abcx"] for label in labels], float) for labels in (given, there))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    expected = (x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum())
    assert score(Matthews, given, there) == pytest.approx(100 * expected)


def test_macro_f1_is_the_mean_over_classes() -> None:
    # a: 1 right, given 2, there 1; b: 1 right, given 1, there 3; c is there once and never given.
    given, there = ["a", "a", "b", "nonsense", "nonsense"], ["a", "b", "b", "b", "c"]
    assert score(MacroF1, given, there) == pytest.approx(100 * (2 / 3 + 2 / 4 + 0) / 3)


def test_of_several_references_the_first_is_the_label() -> None:
    assert Accuracy([["a", "b"]]).score(["b"]).value == 0


def test_pearson() -> None:
    # Deviations -1.5 -0.5 0.5 1.5 and -2 0 -1 3.
    assert score(Pearson, ["1", "2", "3", "4.0"], ["1", "3", "2", "6"]) == pytest.approx(
        100 * (3 + 0 - 0.5 + 4.5) / math.sqrt(5 * 14)
    )


def test_spearman_with_ties() -> None:
    # Ranks 1 2.5 2.5 4 and 1 3 2 4.
    assert score(Spearman, ["0.1", "2", "2", "9"], ["1", "4", "3", "5"]) == pytest.approx(
        100 * 4.5 / math.sqrt(4.5 * 5)
    )


@pytest.mark.parametrize("metric", [Pearson, Spearman])
def test_correlation_of_odd_outputs(metric: MetricFactory) -> None:
    there = ["0", "1", "5"]
    assert score(metric, ["nonsense", "inf", "nan"], there) == 0
    assert score(metric, ["0", "nonsense", "5"], there) == pytest.approx(score(metric, ["0", "2.5", "5"], there))
    assert score(metric, ["3.3"] * 3, there) == 0
    assert score(metric, ["1", "2", "3"], ["4"] * 3) == 0
    assert -100 <= score(metric, ["1" * 200, "1e160", "2"], there) <= 100


@pytest.mark.parametrize("metric", [Pearson, Spearman])
def test_a_reference_that_is_no_number_is_refused(metric: MetricFactory) -> None:
    with pytest.raises(DataError, match="segment 2, got 'five'"):
        metric([["1"], ["five"]])


def test_multirc() -> None:
    given, there = ["1 0 1", "0 0", "1 1"], ["1 0 0", "0 0", "1 1"]
    assert score(MultiRcF1, given, there) == pytest.approx(100 * 2 * 3 / (4 + 3))
    assert score(MultiRcExactMatch, given, there) == pytest.approx(100 * 2 / 3)


def test_multirc_options_without_a_judgement_are_wrong() -> None:
    assert score(MultiRcF1, ["1"], ["1 1 0"]) == pytest.approx(100 * 2 * 1 / (2 + 2))
    assert score(MultiRcExactMatch, ["0"], ["0 0"]) == 0
    assert score(MultiRcExactMatch, ["yes no"], ["1 0"]) == 100


def test_f1_of_labels_is_of_the_class_that_is_named_or_refused() -> None:
    given, there = ["same", "same"], [["not same"], ["same"]]
    with pytest.raises(ConfigError, match=r"f1 of which class\? .*f1_macro.*squad_f1"):
        score_suite("accuracy", given, there, metrics=["f1", "accuracy"])
    with pytest.raises(ConfigError, match="Take accuracy"):
        score_suite("accuracy", given, there, metrics=["exact_match"])
    for suite in ("accuracy", "text", "glue/mrpc"):
        scores = score_suite(suite, given, there, metrics=["f1"], classes=Classes(("not same", "same"), "same")).scores
        assert scores["f1"].value == pytest.approx(200 / 3) and "positive:same" in scores["f1"].signature
    macro = score_suite("accuracy", given, there, metrics=["f1_macro"]).scores["f1_macro"].value
    assert macro == pytest.approx(100 / 3)
    with pytest.raises(ConfigError, match="f1 of which class"):
        score_suite("text", given, there, metrics=["f1"])
    assert score_suite("text", given, there, metrics=["squad_f1"]).scores["squad_f1"].value == pytest.approx(250 / 3)


def test_f1_of_other_words_than_the_published_is_missing_with_the_reason() -> None:
    result = score_suite("glue/mrpc", ["same", "other"], [["same"], ["other"]])
    assert result.scores["accuracy"].value == 100
    assert "no reference is of the positive class" in result.missing["f1"] and "--positive" in result.missing["f1"]


def test_what_is_absent_is_no_empty_text() -> None:
    with pytest.raises(DataError, match="got None as number 2 of 2 segments"):
        score_suite("accuracy", ["a", None], [["a"], [""]])  # type: ignore[list-item]
    with pytest.raises(DataError, match="got None as number 1 of segment 2"):
        score_suite("text", ["a", ""], [["a"], [None]])  # type: ignore[list-item]
    for suite, metric in (("squad", "exact_match"), ("squad", "f1"), ("e2e", "rouge_l")):
        scores = score_suite(suite, ["", "x"], [["the red inn", ""], ["x"]], metrics=[metric]).scores
        assert scores[metric].value == 50, metric
    assert score_suite("accuracy", ["", "b"], [["", "a"], ["b"]]).scores["accuracy"].value == 50


def test_multirc_what_is_no_label_is_wrong_whatever_is_right() -> None:
    there = ["0 0", "0", "1 0"]
    assert score(MultiRcExactMatch, ["some garbage", "-", "x y"], there) == 0
    assert score(MultiRcF1, ["some garbage", "-", "x y"], there) == 0
    assert score(MultiRcExactMatch, ["0 0", "0", "1 0"], there) == 100
    result = score_suite("superglue/multirc", ["1 0"], [["maybe 0"]])
    assert not result.scores and "maybe 0" in result.missing["exact_match"]
    assert list(score_suite("superglue/multirc", ["1 0"], [["0 0"]]).missing) == ["f1a"]
