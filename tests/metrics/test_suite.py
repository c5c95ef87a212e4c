"""The suite as a whole: its shape, its refusals, and texts that real systems put out on a bad day."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softprompt.errors import ConfigError, DataError
from softprompt.metrics import SUITES, Score, prepare_suite, score_suite

pytestmark = pytest.mark.usefixtures("no_java")

REFERENCES = [
    ["The Mill is a cheap pub near Café Rouge .", "Near Café Rouge there is a cheap pub , The Mill ."],
    ["Blue Spice serves French food in the city centre ."],
    ["Zizzi is a family - friendly place by the river , rated 5 out of 5 ."],
]
HYPOTHESES = [
    "The Mill is a pub near Café Rouge .",
    "Blue Spice has French food in the centre .",
    "Zizzi is a place by the river .",
]


def test_scores_are_in_the_order_of_the_papers_and_meteor_is_missing_with_a_reason() -> None:
    result = score_suite("e2e", HYPOTHESES, REFERENCES)
    assert list(result.scores) == ["bleu", "nist", "rouge_l", "cider"]
    assert list(result.missing) == ["meteor"]
    assert "needs Java" in result.missing["meteor"]
    assert [score.name for score in result.scores.values()] == list(result.scores)
    assert list(SUITES["e2e"].metrics) == ["bleu", "nist", "meteor", "rouge_l", "cider"]


def test_signatures_say_how_the_number_was_made() -> None:
    signatures = {name: score.signature for name, score in score_suite("e2e", HYPOTHESES, REFERENCES).scores.items()}
    assert signatures["bleu"] == "BLEU|nrefs:var|case:lc|eff:no|tok:13a|smooth:exp"
    assert signatures["nist"] == "NIST|order:5|case:lc-ascii|tok:13a|variant:mteval-v13a"
    assert signatures["rouge_l"] == "ROUGE-L|coco|beta:1.2|case:lc|tok:ptb|punct:removed|refs:max-p-max-r"
    assert signatures["cider"] == "CIDEr-D|coco|n:1-4|sigma:6|df:test-references|case:lc|tok:ptb|punct:removed"


def test_a_score_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Score("bleu", 1.0, "").value = 2.0  # type: ignore[misc]


def test_hypotheses_equal_to_their_references_give_the_maximum() -> None:
    best = score_suite("e2e", [group[0] for group in REFERENCES], [group[:1] for group in REFERENCES]).scores
    assert best["bleu"].value == pytest.approx(100)
    assert best["rouge_l"].value == pytest.approx(100)
    assert best["cider"].value == pytest.approx(10)
    worse = score_suite("e2e", HYPOTHESES, [group[:1] for group in REFERENCES]).scores
    assert all(worse[name].value < best[name].value for name in best)


def test_one_preparation_serves_many_systems() -> None:
    suite = prepare_suite("e2e", REFERENCES)
    first = suite.score(HYPOTHESES)
    suite.score(["nothing like it"] * 3)
    assert suite.score(HYPOTHESES) == first == score_suite("e2e", HYPOTHESES, REFERENCES)


def test_every_count_that_differs_is_refused_with_both_counts() -> None:
    with pytest.raises(DataError, match="got 2 hypotheses and 3 groups of references"):
        score_suite("e2e", HYPOTHESES[:2], REFERENCES)
    with pytest.raises(DataError, match="got 0 hypotheses and 3 groups of references"):
        score_suite("e2e", [], REFERENCES)
    suite = prepare_suite("e2e", REFERENCES)
    with pytest.raises(DataError, match="got 4 hypotheses and 3 groups of references"):
        suite.score([*HYPOTHESES, "one more"])
    for metric in suite.metrics.values():
        with pytest.raises(DataError, match="got 1 hypotheses and 3 groups"):
            metric.score(["one"])


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(DataError, match="got 0 segments"):
        score_suite("e2e", [], [])
    with pytest.raises(DataError, match="got 0 segments"):
        score_suite("e2e", HYPOTHESES, [])
    with pytest.raises(DataError, match="got 0 for segment 2 of 3"):
        score_suite("e2e", HYPOTHESES, [["a"], [], ["b"]])


def test_bare_strings_are_refused() -> None:
    with pytest.raises(DataError, match="Expected a list of references"):
        score_suite("e2e", ["a", "b"], ["a", "b"])
    with pytest.raises(DataError, match="Expected a list of hypotheses"):
        score_suite("e2e", "abc", [["a"], ["b"], ["c"]])


def test_an_unknown_suite_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"got 'e2e_'.*Did you mean 'e2e'"):
        score_suite("e2e_", HYPOTHESES, REFERENCES)
    with pytest.raises(ConfigError, match="out of e2e"):
        prepare_suite("nonsense", REFERENCES)


@pytest.mark.parametrize(
    "hypotheses",
    [
        ["", "", ""],
        ["", "Blue Spice serves French food .", ""],
        [" \t", ".", "..."],
        ["日本語 の パブ", "Zażółć gęślą jaźń 😀", "e\u0301 \u200b \ufeff"],
        ["the " * 10_000, "the", "a"],
        ["The Mill\nis a pub", "-\n", "<skipped> &amp;"],
    ],
    ids=["all empty", "some empty", "no words", "unicode", "10,000 tokens", "line breaks"],
)
def test_odd_hypotheses_have_defined_scores(hypotheses: list[str]) -> None:
    for score in score_suite("e2e", hypotheses, REFERENCES).scores.values():
        assert math.isfinite(score.value)
        assert score.value >= 0


@pytest.mark.parametrize("reference", ["", " ", ".", "😀", "the " * 10_000])
def test_odd_references_have_defined_scores(reference: str) -> None:
    for references in ([[reference], ["a b"]], [[reference, "a pub"], ["a b"]], [[reference], [reference]]):
        for score in score_suite("e2e", ["a pub", ""], references).scores.values():
            assert math.isfinite(score.value)
            assert score.value >= 0


def test_all_empty_hypotheses_score_nothing() -> None:
    assert {score.value for score in score_suite("e2e", ["", "", ""], REFERENCES).scores.values()} == {0.0}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.lists(st.text(max_size=30), min_size=1, max_size=3)), min_size=1))
def test_any_text_has_a_defined_score_whatever_the_order(segments: list[tuple[str, list[str]]]) -> None:
    there = score_suite("e2e", [text for text, _ in segments], [group for _, group in segments]).scores
    segments = segments[::-1]
    back = score_suite("e2e", [text for text, _ in segments], [group[::-1] for _, group in segments]).scores
    for name, score in there.items():
        assert math.isfinite(score.value)
        assert back[name].value == pytest.approx(score.value, rel=1e-9, abs=1e-9)


def test_importing_the_metrics_is_light() -> None:
    slow = {"torch", "transformers", "sacrebleu", "nltk", "rouge_score", "anyascii"}
    code = f"import sys, softprompt.metrics.scoring; print(*{slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
