"""What holds for every suite: the best score, the order of things, texts of every kind."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softprompt.errors import DataError
from softprompt.metrics import SUITES, prepare_suite, score_suite

pytestmark = pytest.mark.usefixtures("no_java")

GENERATION = ("text", "e2e", "webnlg", "webnlg2020", "dart", "summarization", "squad", "superglue/record")
SENTENCES = [
    ["The Mill is a cheap pub near Café Rouge .", "Near Café Rouge there is a cheap pub , The Mill ."],
    ["Blue Spice serves French food in the city centre .", "French food is what Blue Spice serves ."],
    ["Zizzi is a family - friendly place by the river , rated 5 out of 5 .", "By the river lies Zizzi ."],
    ["The Phoenix has a high price range .", "Expensive : The Phoenix !"],
]
WORSE = ["The Mill is a pub .", "French food", "A place by the river near Zizzi", "price range high is The Phoenix ."]
BEST = {"ter": 0.0, "cider": 10.0}
"""Of the others it is 100."""
SIGNED = {"matthews", "pearson", "spearman"}

ODD = {
    "empty": ["", "", "", ""],
    "some empty": ["", "1", "", "0"],
    "white space": [" \t", "\u2028", "\xa0", "\r"],
    "punctuation": [".", "...", "-", "?!"],
    "unicode": ["日本語 の パブ", "Zażółć gęślą jaźń 😀", "e\u0301 \u200b \ufeff", "İ ǅ ß \u202e"],
    "line breaks": ["The Mill\nis a pub", "-\n", "<skipped> &amp;", "a\r\nb"],
    "10,000 tokens": ["the " * 10_000, "1 " * 10_000, "1" * 10_000, "a"],
}


def references(suite: str) -> list[list[str]]:
    """Good ones for `suite`: two a segment for texts, one for labels and numbers."""
    if suite in GENERATION:
        return SENTENCES
    labels = {"glue/stsb": ["0.5", "3", "4.25", "5"], "superglue/multirc": ["1 0 1", "0 0", "1", "0 1 0"]}
    return [[label] for label in labels.get(suite, ["1", "0", "1", "0"])]


def values(suite: str, hypotheses: list[str], references: list[list[str]]) -> dict[str, float]:
    return {name: score.value for name, score in score_suite(suite, hypotheses, references).scores.items()}


def assert_defined(scores: dict[str, float]) -> None:
    for name, value in scores.items():
        assert math.isfinite(value) and value >= (-100 - 1e-9 if name in SIGNED else 0), name
        assert name in ("ter", "nist") or value <= BEST.get(name, 100) + 1e-9, name


@pytest.mark.parametrize("suite", SUITES)
def test_outputs_equal_to_their_references_score_the_best(suite: str) -> None:
    single = [group[:1] for group in references(suite)]
    best = values(suite, [group[0] for group in single], single)
    assert best and set(best) | {"meteor"} == set(SUITES[suite].metrics) | {"meteor"}
    worse = values(suite, WORSE if suite in GENERATION else [*single[1], *single[2], *single[3], *single[0]], single)
    for name, value in best.items():
        if name != "nist":
            assert value == pytest.approx(BEST.get(name, 100)), name
        assert (worse[name] > value) if name == "ter" else (worse[name] < value), name


@pytest.mark.parametrize("suite", GENERATION)
def test_one_equal_reference_of_several_is_enough(suite: str) -> None:
    best = values(suite, [group[1] for group in SENTENCES], SENTENCES)
    assert {name: value for name, value in best.items() if name not in ("nist", "cider")} == pytest.approx(
        {name: BEST.get(name, 100) for name in best if name not in ("nist", "cider")}
    )


@pytest.mark.parametrize("suite", SUITES)
def test_order_of_segments_and_references_does_not_matter(suite: str) -> None:
    groups = references(suite)
    hypotheses = WORSE if suite in GENERATION else [*groups[0], *groups[2], *groups[1], "nonsense"]
    back = values(suite, hypotheses[::-1], [group[::-1] for group in groups][::-1])
    assert back == pytest.approx(values(suite, hypotheses, groups), rel=1e-12)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("suite", SUITES)
def test_odd_outputs_have_defined_scores(suite: str, odd: str) -> None:
    assert_defined(values(suite, ODD[odd], references(suite)))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite != "glue/stsb"])
def test_odd_references_have_defined_scores(suite: str, odd: str) -> None:
    hypotheses = [group[0] for group in references(suite)]
    alone, beside = [[text] for text in ODD[odd]], [[text, "a cheap pub"] for text in ODD[odd]]
    assert_defined(values(suite, hypotheses, alone))
    assert_defined(values(suite, hypotheses, beside))
    if suite != "summarization" or odd != "10,000 tokens":  # a table of 10,000 by 10,000 is the package's affair
        assert_defined(values(suite, ODD[odd], alone))


@pytest.mark.parametrize("suite", GENERATION)
def test_empty_outputs_score_nothing(suite: str) -> None:
    worst = values(suite, [""] * 4, SENTENCES)
    assert {value for name, value in worst.items() if name != "ter"} == {0.0}


@settings(max_examples=15, deadline=None)
@given(st.data())
@pytest.mark.parametrize("suite", SUITES)
def test_any_text_has_a_defined_score_whatever_the_order_of_segments(suite: str, data: st.DataObject) -> None:
    text = st.text(max_size=20) | st.sampled_from(["0", "1", "1 0", "2.5", "a", "a b c d e"])
    right = st.sampled_from(["0", "1.5", "3", "5"]) if suite == "glue/stsb" else text
    group = st.lists(right, min_size=1, max_size=3 if suite in GENERATION else 1)
    segments = data.draw(st.lists(st.tuples(text, group), min_size=1, max_size=5))
    there, back = (
        values(suite, [hypothesis for hypothesis, _ in ordered], [group for _, group in ordered])
        for ordered in (segments, segments[::-1])
    )
    assert_defined(there)
    assert back == pytest.approx(there, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("suite", SUITES)
def test_counts_that_differ_are_refused(suite: str) -> None:
    with pytest.raises(DataError, match="got 2 hypotheses and 4 groups of references"):
        score_suite(suite, ["1", "0"], references(suite))
    prepared = prepare_suite(suite, references(suite))
    with pytest.raises(DataError, match="got 5 hypotheses and 4 groups of references"):
        prepared.score(["1"] * 5)
    for metric in prepared.metrics.values():
        with pytest.raises(DataError, match="got 1 hypotheses and 4 groups of references"):
            metric.score(["1"])
        with pytest.raises(DataError, match="got 0 segments"):
            SUITES[suite].metrics[metric.name]([])
        with pytest.raises(DataError, match="got 0 for segment 2 of 2"):
            SUITES[suite].metrics[metric.name]([["1"], []])
