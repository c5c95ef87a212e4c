"""chrF++ by hand."""

from __future__ import annotations

import random

import pytest

from softprompt.metrics.chrf import ChrF


def chrf(hypotheses: list[str], references: list[list[str]]) -> float:
    return ChrF(references).score(hypotheses).value


def test_by_hand() -> None:
    # Characters: 2 of 3 and 1 of 2 pairs, no triple; the word is wrong; longer orders are in neither text.
    share = (2 / 3 + 1 / 2 + 0 + 0) / 4
    assert chrf(["abx"], [["abc"]]) == pytest.approx(100 * share)


def test_recall_counts_twice() -> None:
    # One word of two, both characters of the output out of four: P = 1, R below.
    precision, recall = (1 + 1 + 1) / 3, (2 / 4 + 1 / 3 + 1 / 2) / 3
    expected = 5 * precision * recall / (4 * precision + recall)
    assert chrf(["ab"], [["ab cd"]]) == pytest.approx(100 * expected)


def test_case_counts_and_white_space_does_not() -> None:
    assert chrf(["Ab"], [["ab"]]) < 100
    assert chrf(["ab \t cd"], [["ab cd"]]) == pytest.approx(100)


def test_the_best_reference_counts() -> None:
    assert chrf(["ab cd"], [["xy", "ab cd", "ab"]]) == pytest.approx(100)


def test_of_references_that_agree_as_well_the_first_counts() -> None:
    # Neither reference of "!" shares anything with it: the lengths of the first one count.
    assert chrf(["!", "a"], [["on the", "sat"], ["'", "mat !"]]) == pytest.approx(6.5789, abs=1e-4)
    assert chrf(["", "ab cd"], [["x", "a b c"], ["ab cd"]]) > chrf(["", "ab cd"], [["a b c", "x"], ["ab cd"]])


def test_equals_sacrebleu_to_the_last_digit() -> None:
    from sacrebleu.metrics import CHRF

    random.seed(3)
    words = ["the", "cat", "sat", "on", "a", "mat", ",", ".", "!", "'", '"', "café", "中文", "it's", "(see)", "3.5"]
    for _ in range(100):
        groups = [[" ".join(random.choices(words, k=random.randint(1, 6))) for _ in range(3)] for _ in range(4)]
        outputs = [" ".join(random.choices(words, k=random.randint(0, 6))) for _ in range(4)]
        theirs = CHRF(word_order=2).corpus_score(outputs, [list(column) for column in zip(*groups, strict=True)]).score
        assert chrf(outputs, groups) == theirs
