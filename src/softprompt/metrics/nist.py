"""NIST-5: BLEU's sibling that counts a matched n-gram by how much it tells.

    NIST = sum_{n=1..5} [ sum of info(w1..wn) over matched n-grams / n-grams of the hypotheses ] * penalty
    info(w1..wn) = log2( count(w1..wn-1) / count(w1..wn) ), counted over all references together
    penalty = exp(-beta * ln(min(1, c/r))^2), beta such that c/r = 2/3 gives 1/2

A match is clipped by the most any one reference of the segment has; c is the words of the hypotheses.

Source: Doddington 2002, "Automatic Evaluation of Machine Translation Quality Using N-gram Co-Occurrence Statistics".
Two official programs differ in r and in lower-casing, and their numbers must not be mixed:

* `mteval-v13a` (the E2E challenge's default): r is all words of all references by the mean number of references a
  segment. It takes a history that reads "0" for no history, and so do we.
* `pymteval` (the E2E scorer's `-p`): r is the sum over segments of the mean length of their references.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from softprompt.metrics.base import Array, Metric, References, Sums, ratio
from softprompt.metrics.mteval import Lowercase, tokenize_13a
from softprompt.metrics.ngrams import Ngram, count_ngrams, most_in_one

NistVariant = Literal["mteval-v13a", "pymteval"]

_ORDER: Final = 5
_BETA: Final = math.log(2) / math.log(1.5) ** 2


class Nist(Metric):
    """NIST over a test set; higher is better, without an upper bound that all test sets share.

    What an n-gram tells is taken from all references, also where a resample of the test set is scored.
    """

    name = "nist"

    def __init__(self, references: References, variant: NistVariant = "mteval-v13a") -> None:
        """Counts the n-grams of the references.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self.variant: Final[NistVariant] = variant
        self._lowercase: Lowercase = "ascii" if variant == "mteval-v13a" else "unicode"
        self._counts: Counter[Ngram] = Counter()
        self._most: list[dict[Ngram, int]] = []
        self._lengths_N3 = np.zeros((len(references), 3))  # references, their words, their mean length
        for row, group in zip(self._lengths_N3, references, strict=True):
            words = [tokenize_13a(reference, self._lowercase) for reference in group]
            counted = [count_ngrams(text, _ORDER) for text in words]
            for counts in counted:
                self._counts.update(counts)
            self._most.append(most_in_one(counted))
            num_words = sum(map(len, words))
            row[:] = len(group), num_words, num_words / len(group)
        self._num_words = int(self._lengths_N3[:, 1].sum())

    @property
    def signature(self) -> str:
        return f"NIST|order:{_ORDER}|case:lc-{self._lowercase}|tok:13a|variant:{self.variant}"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """Information matched and n-grams of each order; 1; references, their words, their mean length."""
        statistics_NK = np.ones((self.num_segments, 2 * _ORDER + 4))
        statistics_NK[:, :_ORDER] = 0.0
        statistics_NK[:, -3:] = self._lengths_N3
        for row, hypothesis, most in zip(statistics_NK, hypotheses, self._most, strict=True):
            words = tokenize_13a(hypothesis, self._lowercase)
            for ngram, count in count_ngrams(words, _ORDER).items():
                if ngram in most:
                    row[len(ngram) - 1] += min(count, most[ngram]) * self._information(ngram)
            row[_ORDER : 2 * _ORDER] = [max(len(words) - n, 0) for n in range(_ORDER)]
        return Sums(statistics_NK, self._combine)

    def _information(self, ngram: Ngram) -> float:
        history = ngram[:-1]
        no_history = not history or (history == ("0",) and self.variant == "mteval-v13a")
        return math.log2((self._num_words if no_history else self._counts[history]) / self._counts[ngram])

    def _combine(self, sums_RK: Array) -> Array:
        gains, totals = sums_RK[:, :_ORDER], sums_RK[:, _ORDER : 2 * _ORDER]
        segments, references, words, means = sums_RK[:, -4:].T
        reference_length = ratio(words * segments, references) if self.variant == "mteval-v13a" else means
        shortness = np.minimum(1.0, ratio(totals[:, 0], reference_length, otherwise=1.0))
        penalty = np.exp(-_BETA * np.log(np.where(shortness == 0, 1.0, shortness)) ** 2)
        scores: Array = ratio(gains, totals).sum(axis=1) * np.where(shortness == 0, 0.0, penalty)
        return scores
