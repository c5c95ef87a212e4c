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


def numbered(letter: str, count: int) -> str:
    return " ".join(f"{letter}{index}" for index in range(count))


@pytest.mark.parametrize(
    ("hypothesis", "reference", "edits"),
    [
        ("on the mat sat the cat", "the cat sat on the mat", 2),
        ("d b b e c", "c b d b a", 3),  # a run moves within itself
        ("e c b e e b b", "c b d c e e e", 5),
        ("a b c d e", f"{numbered('x', 25)} a b c d e", 30),  # farther than the beam of 20
        ("a b c d e", f"{numbered('x', 16)} a b c d e", 16),
        (f"{numbered('f', 52)} a b c", f"a b c {numbered('f', 52)}", 6),  # too far to move
        (f"{numbered('f', 48)} a b c", f"a b c {numbered('f', 48)}", 1),
        (f"a b {numbered('e', 20)} {numbered('f', 40)}", f"{numbered('f', 40)} a b", 24),  # how far: from its partner
        ("", "a b c", 3),
    ],
)
def test_edits_are_those_of_tercom(hypothesis: str, reference: str, edits: int) -> None:
    """Answers of tercom 0.7.25 and 0.10.0."""
    assert count_edits(hypothesis.split(), reference.split()) == edits


def test_a_search_that_is_too_much_work_stops_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Ter([["a b c d e f"]])
    assert "stopped" not in metric.score(["f e d c b a"]).signature
    monkeypatch.setattr("softprompt.metrics.ter._MOST_WORK", 1)
    assert metric.score(["f e d c b a"]).signature.endswith("|stopped-early:1")


def test_edits_to_the_nearest_reference_by_the_mean_length_of_all() -> None:
    assert ter(["a b x", "p"], [["a b c", "d"], ["p q"]]) == pytest.approx((1 + 1) / ((3 + 1) / 2 + 2))


def test_case_does_not_count() -> None:
    assert ter(["The CAFÉ"], [["the café"]]) == 0


def test_blank_references_are_left_out() -> None:
    assert ter(["a b"], [["", "a c", " "]]) == pytest.approx(1 / 2)


def test_without_any_reference_word_everything_is_wrong_or_nothing() -> None:
    assert ter(["a b c"], [[""]]) == 1
    assert ter([""], [[""]]) == 0
