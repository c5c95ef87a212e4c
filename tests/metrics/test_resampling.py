"""Intervals and paired tests: what they must say, and that a resample scores as the test set that it is."""

from __future__ import annotations

import numpy as np
import pytest

from softprompt.metrics import MetricFactory, References
from softprompt.metrics.bleu import Bleu, multi_bleu
from softprompt.metrics.chrf import ChrF
from softprompt.metrics.correlation import Pearson, Spearman
from softprompt.metrics.labels import Accuracy, MacroF1, Matthews, f1
from softprompt.metrics.multirc import MultiRcExactMatch, MultiRcF1
from softprompt.metrics.resampling import interval, paired
from softprompt.metrics.rouge import rouge
from softprompt.metrics.rouge_l import RougeL
from softprompt.metrics.squad import AnswerF1, ExactMatch
from softprompt.metrics.ter import Ter

N = 40
GENERATOR = np.random.default_rng(0)


def sentence(words: str = "abcdef", low: int = 3) -> str:
    return " ".join(GENERATOR.choice(list(words), GENERATOR.integers(low, 10)))


def changed(text: str) -> str:
    """`text` with about one word in five replaced."""
    return " ".join(word if GENERATOR.random() < 0.8 else "x" for word in text.split())


SENTENCES: References = [[sentence() for _ in range(GENERATOR.integers(1, 4))] for _ in range(N)]
GOOD, BAD = [changed(group[0]) for group in SENTENCES], [sentence() for _ in range(N)]
LABELS: References = [[str(GENERATOR.integers(3))] for _ in range(N)]
OPTIONS: References = [[sentence("01")] for _ in range(N)]
NUMBERS: References = [[str(GENERATOR.integers(6))] for _ in range(N)]


def noisy(references: References, other: str) -> list[str]:
    return [group[0] if GENERATOR.random() < 0.6 else other for group in references]


CASES: dict[str, tuple[MetricFactory, list[str], References]] = {
    "bleu": (Bleu, GOOD, SENTENCES),
    "bleu, most of it wrong": (Bleu, BAD, SENTENCES),
    "multi-bleu": (multi_bleu, GOOD, SENTENCES),
    "rouge_l": (RougeL, GOOD, SENTENCES),
    "rouge1": (rouge("rouge1"), GOOD, SENTENCES),
    "ter": (Ter, BAD, SENTENCES),
    "chrf": (ChrF, BAD, SENTENCES),
    "f1 of answers": (AnswerF1, GOOD, SENTENCES),
    "exact match": (ExactMatch, GOOD, SENTENCES),
    "accuracy": (Accuracy, noisy(LABELS, "1"), LABELS),
    "f1": (f1("1"), noisy(LABELS, "1"), LABELS),
    "macro-f1": (MacroF1, noisy(LABELS, "1"), LABELS),
    "matthews": (Matthews, noisy(LABELS, "2"), LABELS),
    "spearman": (Spearman, noisy(NUMBERS, "0.5"), NUMBERS),
    "pearson": (Pearson, noisy(NUMBERS, "0.5"), NUMBERS),
    "multirc, f1": (MultiRcF1, [changed(group[0]) for group in OPTIONS], OPTIONS),
    "multirc, exact match": (MultiRcExactMatch, noisy(OPTIONS, "0 0 0"), OPTIONS),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resample_scores_as_the_test_set_that_it_is(case: str) -> None:
    factory, hypotheses, references = CASES[case]
    draws = np.random.default_rng(1).multinomial(N, np.full(N, 1 / N), size=5)
    direct = []
    for counts in draws:
        at = np.repeat(range(N), counts)
        direct.append(factory([references[i] for i in at]).score([hypotheses[i] for i in at]).value)
    assert len(set(direct)) > 1
    resampled = factory(references).segments(hypotheses).scores(draws.astype(float))
    assert list(resampled) == pytest.approx(direct, rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_interval_holds_the_score_and_comes_again_with_the_seed(case: str) -> None:
    factory, hypotheses, references = CASES[case]
    metric = factory(references)
    segments = metric.segments(hypotheses)
    found = interval(segments, N, 500, seed=1)
    assert found.low < metric.score(hypotheses).value < found.high
    assert (found.level, found.resamples) == (0.95, 500)
    assert found == interval(segments, N, 500, seed=1)


def test_another_seed_draws_other_test_sets() -> None:
    segments = RougeL(SENTENCES).segments(GOOD)
    assert interval(segments, N, 500, seed=1) != interval(segments, N, 500, seed=2)


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide() -> None:
    labels = ["1"] * 50 + ["0"] * 50
    segments = Accuracy([["1"]] * 100).segments(labels)
    found = interval(segments, 100, 5000, seed=1)
    assert (found.low, found.high) == pytest.approx((50 - 1.96 * 5, 50 + 1.96 * 5), abs=1.01)


def test_many_draws_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = Accuracy(LABELS).segments(noisy(LABELS, "1"))
    at_once = interval(segments, N, 100, seed=1)
    monkeypatch.setattr("softprompt.metrics.resampling._COUNTS_AT_ONCE", 7 * N)
    assert interval(segments, N, 100, seed=1) == at_once


@pytest.mark.parametrize("factory", [Bleu, Ter, ChrF, RougeL], ids=["bleu", "ter", "chrf", "rouge_l"])
def test_paired(factory: MetricFactory) -> None:
    metric = factory(SENTENCES)
    good, bad = metric.segments(GOOD), metric.segments(BAD)
    same = paired(good, metric.segments(GOOD), N, 200, seed=1)
    assert (same.difference, same.interval.low, same.interval.high, same.p_value) == (0, 0, 0, 1)
    better = paired(bad, good, N, 200, seed=1)
    assert better.difference == pytest.approx(metric.score(GOOD).value - metric.score(BAD).value)
    assert better.p_value == pytest.approx(1 / 201)
    assert better.interval.low < better.difference < better.interval.high
    assert better.interval.low * better.interval.high > 0
    back = paired(good, bad, N, 200, seed=1)
    assert back.difference == -better.difference and back.p_value == better.p_value


def test_systems_as_good_as_each_other_do_not_differ() -> None:
    metric = Accuracy([["1"]] * N)
    first, second = (metric.segments(labels) for labels in (["1", "0"] * (N // 2), ["0", "1"] * (N // 2)))
    assert paired(first, second, N, 500, seed=1).p_value == 1
    almost = metric.segments(["1", "1", *["0", "1"] * (N // 2 - 1)])
    assert paired(first, almost, N, 500, seed=1).p_value > 0.5


def test_a_single_segment_has_an_interval_of_no_width() -> None:
    found = interval(RougeL([["a b c"]]).segments(["a b"]), 1, 50, seed=1)
    assert found.low == found.high == pytest.approx(RougeL([["a b c"]]).score(["a b"]).value)
