"""BLEU by hand."""

from __future__ import annotations

import math

import pytest

from softprompt.metrics.bleu import Bleu


def bleu(hypotheses: list[str], references: list[list[str]]) -> float:
    return Bleu(references).score(hypotheses).value


def test_precisions_by_hand() -> None:
    assert bleu(["a b c d e"], [["a b c d f"]]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_an_order_without_a_match_gets_half_a_match() -> None:
    assert bleu(["a b c x"], [["a b c y"]]) == pytest.approx(100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)


def test_short_hypotheses_pay() -> None:
    assert bleu(["a b c d"], [["a b c d e f"]]) == pytest.approx(100 * math.exp(1 - 6 / 4))


def test_the_closest_reference_length_counts_and_of_two_the_shorter() -> None:
    assert bleu(["a b c d e"], [["a b c d e x", "a b c d"]]) == pytest.approx(100)


def test_matches_are_clipped_by_one_reference_not_by_their_sum() -> None:
    both = bleu(["a a a b c d"], [["a b c d", "a a b c d"]])
    assert both == pytest.approx(100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)


def test_case_does_not_count() -> None:
    assert bleu(["THE CAFÉ is OPEN"], [["the café IS open"]]) == pytest.approx(100)


def test_groups_of_different_size_are_padded_with_nothing() -> None:
    assert bleu(["a b c d", "e f g h"], [["x", "a b c d", "y z"], ["e f g h"]]) == pytest.approx(100)
