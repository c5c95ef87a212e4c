"""TER by hand."""

from __future__ import annotations

import pytest

from softprompt.metrics.ter import Ter, count_edits


def ter(hypotheses: list[str], references: list[list[str]]) -> float:
    return Ter(references).score(hypotheses).value


@pytest.mark.parametrize(
    ("hypothesis", "reference", "edits"),
    [
        ("a b c", "a b c", 0),
        ("a x c", "a b c", 1),
        ("a c", "a b c", 1),
        ("a b x c", "a b c", 1),
        ("c d a b", "a b c d", 1),  # one run moves, however long
        ("d a b x", "a b c d", 2),  # a move and a substitution
        ("e d c b a", "a b c d e", 4),
        ("", "a b", 2),
        ("a b", "", 2),
        ("", "", 0),
    ],
)
def test_edits(hypothesis: str, reference: str, edits: int) -> None:
    assert count_edits(hypothesis.split(), reference.split()) == edits


def test_edits_to_the_nearest_reference_by_the_mean_length_of_all() -> None:
    assert ter(["a b x", "p"], [["a b c", "d"], ["p q"]]) == pytest.approx((1 + 1) / ((3 + 1) / 2 + 2))


def test_case_does_not_count() -> None:
    assert ter(["The CAFÉ"], [["the café"]]) == 0


def test_blank_references_are_left_out() -> None:
    assert ter(["a b"], [["", "a c", " "]]) == pytest.approx(1 / 2)


def test_without_any_reference_word_everything_is_wrong_or_nothing() -> None:
    assert ter(["a b c"], [[""]]) == 1
    assert ter([""], [[""]]) == 0
