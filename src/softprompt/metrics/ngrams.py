"""Counting n-grams, the step that NIST and CIDEr share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

Ngram: TypeAlias = tuple[str, ...]


def count_ngrams(words: Sequence[str], max_order: int) -> Counter[Ngram]:
    """How often each n-gram of 1 to `max_order` words occurs in `words`."""
    counts: Counter[Ngram] = Counter()
    for order in range(1, max_order + 1):
        counts.update(zip(*(words[start:] for start in range(order)), strict=False))
    return counts
