"""BLEU, chrF++ and TER against an independent implementation, on texts that hypothesis makes up."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from softprompt.metrics import MetricFactory
from softprompt.metrics.bleu import Bleu, multi_bleu, multi_bleu_detok
from softprompt.metrics.chrf import ChrF
from softprompt.metrics.ter import Ter

Segments = list[tuple[str, list[str]]]

WORDS = st.lists(st.sampled_from(["a", "b", "B", "c", "É", "d.", "1.5,", "-", "2-x", "(e)", "日本"]), max_size=9).map(
    " ".join
)
GLUED = st.text("aAbÉ 1.,-&;'\"/(!\t\u2028", max_size=15)
FEW = st.lists(st.sampled_from("abcD"), min_size=1, max_size=12).map(" ".join)


def test_sets(texts: st.SearchStrategy[str], most_references: int = 3) -> st.SearchStrategy[Segments]:
    group = st.lists(texts, min_size=1, max_size=most_references)
    return st.lists(st.tuples(texts, group), min_size=1, max_size=4)


test_sets.__test__ = False  # type: ignore[attr-defined]


def theirs(metric: str, segments: Segments, **settings: Any) -> float:
    import sacrebleu.metrics

    streams = list(zip_longest(*(group for _, group in segments)))
    scorer = getattr(sacrebleu.metrics, metric)(**settings)
    return float(scorer.corpus_score([hypothesis for hypothesis, _ in segments], streams).score)


def ours(metric: MetricFactory, segments: Segments) -> float:
    return metric([group for _, group in segments]).score([hypothesis for hypothesis, _ in segments]).value


@settings(deadline=None, max_examples=100)
@given(test_sets(WORDS | GLUED))
def test_bleu(segments: Segments) -> None:
    assert ours(Bleu, segments) == pytest.approx(theirs("BLEU", segments, lowercase=True, force=True), abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(test_sets(WORDS | GLUED))
def test_bleu_with_case(segments: Segments) -> None:
    there = theirs("BLEU", segments, smooth_method="none", force=True)
    assert ours(multi_bleu_detok, segments) == pytest.approx(there, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(test_sets(WORDS | GLUED))
def test_bleu_of_words_as_given(segments: Segments) -> None:
    there = theirs("BLEU", segments, tokenize="none", smooth_method="none", force=True)
    assert ours(multi_bleu, segments) == pytest.approx(there, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(test_sets(WORDS | GLUED, most_references=2))
def test_chrf(segments: Segments) -> None:
    there = theirs("CHRF", segments, word_order=2)
    # Of references that agree as well, the other implementation takes the first: no case to compare.
    for number, (text, group) in enumerate(segments):
        turned = [*segments[:number], (text, group[::-1]), *segments[number + 1 :]]
        assume(there == theirs("CHRF", turned, word_order=2))
    assert ours(ChrF, segments) == pytest.approx(there, abs=1e-9)


def distance(a: list[str], b: list[str]) -> int:
    """Insertions, deletions and substitutions between two lists of words."""
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


@settings(deadline=None, max_examples=50)
@given(FEW, FEW)
def test_ter_is_plain_edit_distance_less_what_shifts_save(hypothesis: str, reference: str) -> None:
    """sacrebleu's differs from tercom's, which ours is (test_official.py), where shifts are as good as others."""
    words = reference.split()
    edits = ours(Ter, [(hypothesis, [reference])]) * len(words)
    plain = distance(hypothesis.lower().split(), reference.lower().split())
    assert edits <= plain + 1e-9
    if len(set(words)) == 1:  # whatever is shifted, it stands as before
        assert edits == pytest.approx(theirs("TER", [(hypothesis, [reference])]) / 100 * len(words), abs=1e-9)
