"""CIDEr-D by hand."""

from __future__ import annotations

import math

import pytest

from softprompt.metrics.cider import Cider


def cider(hypotheses: list[str], references: list[list[str]]) -> float:
    return Cider(references).score(hypotheses).value


def test_equal_texts_of_four_words_or_more_score_ten() -> None:
    assert cider(["a b c d", "e f g h i"], [["a b c d"], ["e f g h i"]]) == pytest.approx(10)


def test_orders_that_a_text_is_too_short_for_score_nothing() -> None:
    assert cider(["a b", "c d"], [["a b"], ["c d"]]) == pytest.approx(10 * 2 / 4)


def test_by_hand_with_the_length_penalty_in_bigrams() -> None:
    # Every n-gram occurs in one of the two segments, so all weigh ln 2, which cancels.
    cosines = 2 / math.sqrt(2 * 4) + 1 / math.sqrt(1 * 3)
    penalty = math.exp(-((1 - 3) ** 2) / (2 * 6**2))
    assert cider(["a b", ""], [["a b c d"], ["e f g h"]]) == pytest.approx(10 * cosines / 4 * penalty / 2)


def test_repeats_are_clipped() -> None:
    # One order only: hypothesis a a (weight 2), reference a b; min(2, 1) * 1 / (2 * sqrt 2); "a a" is not matched.
    assert cider(["a a", ""], [["a b"], ["c"]]) == pytest.approx(10 / 4 / (2 * math.sqrt(2)) / 2)


def test_words_in_every_segment_weigh_nothing() -> None:
    assert cider(["the", "the"], [["the a"], ["the b"]]) == 0


def test_mean_over_references() -> None:
    one = cider(["a b c d", ""], [["a b c d"], ["x"]])
    assert cider(["a b c d", ""], [["a b c d", "p q r s"], ["x"]]) == pytest.approx(one / 2)


def test_a_single_segment_scores_nothing() -> None:
    assert cider(["a b c d"], [["a b c d"]]) == 0


def test_the_score_depends_on_the_whole_set() -> None:
    """Which is why subsets must not be compared with the whole."""
    small = cider(["a b", "c d"], [["a b x"], ["c d"]])
    large = cider(["a b", "c d", "a"], [["a b x"], ["c d"], ["a"]])
    assert small != pytest.approx(large)
