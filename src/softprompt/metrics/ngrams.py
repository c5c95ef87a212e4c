"""Counting n-grams, the step that BLEU, NIST, CIDEr and chrF share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Ngram: TypeAlias = tuple[str, ...]


def count_ngrams(words: Sequence[str], max_order: int) -> Counter[Ngram]:
    """How often each n-gram of 1 to `max_order` words occurs in `words`."""
    counts: Counter[Ngram] = Counter()
    for order in range(1, max_order + 1):
        counts.update(zip(*(words[start:] for start in range(order)), strict=False))
    return counts


def most_in_one(references: Iterable[Mapping[Ngram, int]]) -> dict[Ngram, int]:
    """For each n-gram, the most that any one of a segment's references has: what a match is clipped by."""
    most: dict[Ngram, int] = {}
    for counts in references:
        for ngram, count in counts.items():
            if count > most.get(ngram, 0):
                most[ngram] = count
    return most
