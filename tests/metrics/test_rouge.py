"""ROUGE of summaries by hand; the counting is the package's."""

from __future__ import annotations

import pytest

from softprompt.metrics.rouge import Kind, rouge


def score(kind: Kind, hypotheses: list[str], references: list[list[str]]) -> float:
    return rouge(kind)(references).score(hypotheses).value


def test_by_hand() -> None:
    texts = ["a b c d"], [["b a c"]]
    assert score("rouge1", *texts) == pytest.approx(100 * 2 * 3 / (4 + 3))
    assert score("rouge2", *texts) == 0
    assert score("rougeL", *texts) == pytest.approx(100 * 2 * 2 / (4 + 3))


def test_words_are_stemmed_and_punctuation_does_not_count() -> None:
    assert score("rouge1", ["The dogs running!"], [["the dog runs"]]) == pytest.approx(100)


def test_the_best_reference_counts_then_the_mean_over_segments() -> None:
    assert score("rouge1", ["a b", "x"], [["c", "a b"], ["y"]]) == pytest.approx(50)
