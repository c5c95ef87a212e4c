"""COCO's ROUGE-L by hand, and its LCS against the textbook table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.metrics.rouge_l import RougeL, segment_rouge_l

WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=80)


def f_measure(precision: float, recall: float) -> float:
    return (1 + 1.44) * precision * recall / (recall + 1.44 * precision)


def test_by_hand() -> None:
    value = RougeL([["a c d d"]]).score(["a b c"]).value
    assert value == pytest.approx(100 * f_measure(2 / 3, 2 / 4))


def test_precision_and_recall_come_from_different_references() -> None:
    value = RougeL([["a b x y z u v w", "a"]]).score(["a b c"]).value
    assert value == pytest.approx(100 * f_measure(2 / 3, 1))


def test_mean_over_segments() -> None:
    assert RougeL([["a"], ["b"]]).score(["a", "c"]).value == pytest.approx(50)


def test_punctuation_and_case_do_not_count() -> None:
    assert RougeL([["Cheap , isn't it ?"]]).score(["cheap is n't IT"]).value == pytest.approx(100)


def test_empty_texts() -> None:
    assert RougeL([["a"]]).score([""]).value == 0
    assert RougeL([["."]]).score(["a"]).value == 0
    assert RougeL([[""]]).score(["..."]).value == pytest.approx(100)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_agrees_with_the_textbook_table(hypothesis: list[str], references: list[list[str]]) -> None:
    lengths = [lcs(hypothesis, reference) for reference in references]
    precision = max(lengths) / len(hypothesis)
    recall = max(length / len(reference) for length, reference in zip(lengths, references, strict=True))
    expected = f_measure(precision, recall) if precision else 0.0
    assert segment_rouge_l(hypothesis, references) == pytest.approx(expected)


def lcs(first: list[str], second: list[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        previous = row
        row = [0]
        for place, other in enumerate(second):
            row.append(previous[place] + 1 if word == other else max(previous[place + 1], row[place]))
    return row[-1]
