"""chrF++: the F-score of character n-grams and word n-grams together.

    chrF++ = 5 P R / (4 P + R): beta is 2, recall counts twice

P and R are means over eight orders (1 to 6 characters, white space left out, and 1 to 2 words) of the precision and
recall of the n-grams of the whole test set. A segment counts with the one of its references that it agrees with best.
An order of which the outputs or the references have no n-gram is left out of the means.

Of references agreed with equally well (not at all, say) the first counts.

Source: Popović 2017, "chrF++: Words Helping Character n-grams"; sacrebleu's `chrF2++` gives the same numbers, to the
last digit: sums go in its order.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from softprompt.metrics.base import Array, Metric, References, Sums, ratio
from softprompt.metrics.ngrams import Ngram, count_ngrams

_CHARACTERS: Final = 6
_WORDS: Final = 2
_ORDERS: Final = _CHARACTERS + _WORDS
_BETA: Final = 2
_PUNCTUATION: Final = frozenset(string.punctuation)


class ChrF(Metric):
    """chrF++ times 100."""

    name = "chrf"
    signature = f"chrF2++|case:mixed|eff:yes|nc:{_CHARACTERS}|nw:{_WORDS}|space:no|ties:first"

    def __init__(self, references: References) -> None:
        """Counts the n-grams of the references.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self._references = [[_orders(reference) for reference in group] for group in references]

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """For each order: n-grams of the output, of its best reference, and in both."""
        rows = []
        for hypothesis, group in zip(hypotheses, self._references, strict=True):
            counts = _orders(hypothesis)
            options_R3O = np.array([_agreement(counts, reference) for reference in group], dtype=np.float64)
            rows.append(options_R3O[_best(options_R3O)].ravel())
        return Sums(np.array(rows), lambda sums_RK: 100.0 * _f_score(sums_RK))


def _best(options_R3O: Array) -> int:
    """The reference agreed with best; of equals the first."""
    return int(_f_score(options_R3O.reshape(len(options_R3O), -1)).argmax())


def _orders(text: str) -> list[Counter[Ngram]]:
    """n-grams of `text`, one counter an order: characters, then words."""
    characters = count_ngrams("".join(text.split()), _CHARACTERS)
    words = count_ngrams(list(_split_punctuation(text)), _WORDS)
    return [*_by_order(characters, _CHARACTERS), *_by_order(words, _WORDS)]


def _by_order(counts: Counter[Ngram], orders: int) -> list[Counter[Ngram]]:
    parts: list[Counter[Ngram]] = [Counter() for _ in range(orders)]
    for ngram, count in counts.items():
        parts[len(ngram) - 1][ngram] = count
    return parts


def _split_punctuation(text: str) -> Iterator[str]:
    """Words, with one punctuation mark at the end, or else at the start, set apart."""
    for word in text.split():
        if len(word) > 1 and word[-1] in _PUNCTUATION:
            yield from (word[:-1], word[-1])
        elif len(word) > 1 and word[0] in _PUNCTUATION:
            yield from (word[0], word[1:])
        else:
            yield word


def _agreement(ours: Sequence[Counter[Ngram]], theirs: Sequence[Counter[Ngram]]) -> list[list[int]]:
    """n-grams of the output, of the reference, and in both, each for every order the reference has."""
    return [
        [mine.total() if other else 0 for mine, other in zip(ours, theirs, strict=True)],
        [other.total() for other in theirs],
        [
            sum(min(count, other[ngram]) for ngram, count in mine.items() if ngram in other)
            for mine, other in zip(ours, theirs, strict=True)
        ],
    ]


def _f_score(sums_RK: Array) -> Array:
    """(R, 3 x orders) -> (R,), from 0 to 1. Orders are added one by one: numpy's sum rounds in another order."""
    ours, theirs, both = (sums_RK[:, part * _ORDERS : (part + 1) * _ORDERS] for part in range(3))
    there = (ours > 0) & (theirs > 0)
    orders = there.sum(axis=1).astype(np.float64)
    precisions, recalls = ratio(both, ours) * there, ratio(both, theirs) * there
    precision, recall = np.zeros(len(sums_RK)), np.zeros(len(sums_RK))
    for order in range(_ORDERS):
        precision, recall = precision + precisions[:, order], recall + recalls[:, order]
    precision, recall = ratio(precision, orders), ratio(recall, orders)
    return ratio((1 + _BETA**2) * precision * recall, _BETA**2 * precision + recall)
