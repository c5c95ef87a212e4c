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

from softprompt.metrics.base import References, Score, check_hypotheses, check_references
from softprompt.metrics.mteval import Lowercase, tokenize_13a
from softprompt.metrics.ngrams import Ngram, count_ngrams

NistVariant = Literal["mteval-v13a", "pymteval"]

_ORDER: Final = 5
_BETA: Final = math.log(2) / math.log(1.5) ** 2


class Nist:
    """NIST over a test set; higher is better, without an upper bound that all test sets share."""

    def __init__(self, references: References, variant: NistVariant = "mteval-v13a") -> None:
        """Counts the n-grams of the references.

        Raises:
            DataError: A segment has no reference.
        """
        check_references(references)
        self.variant: Final[NistVariant] = variant
        self._lowercase: Lowercase = "ascii" if variant == "mteval-v13a" else "unicode"
        self._counts: Counter[Ngram] = Counter()
        self._most: list[dict[Ngram, int]] = []  # for each segment, the most of each n-gram in one reference
        self._num_words = 0
        sum_of_means = 0.0
        for group in references:
            most: dict[Ngram, int] = {}
            lengths = []
            for reference in group:
                words = tokenize_13a(reference, self._lowercase)
                lengths.append(len(words))
                counts = count_ngrams(words, _ORDER)
                self._counts.update(counts)
                for ngram, count in counts.items():
                    if count > most.get(ngram, 0):
                        most[ngram] = count
            self._most.append(most)
            self._num_words += sum(lengths)
            sum_of_means += sum(lengths) / len(lengths)
        mean_references = sum(map(len, references)) / len(references)
        self._reference_length = self._num_words / mean_references if variant == "mteval-v13a" else sum_of_means

    def score(self, hypotheses: Sequence[str]) -> Score:
        """NIST as it is. Hypotheses without a single word score 0.

        Raises:
            DataError: The number of hypotheses is not the number of segments.
        """
        check_hypotheses(hypotheses, len(self._most))
        matched: Counter[Ngram] = Counter()
        totals = [0] * _ORDER
        for hypothesis, most in zip(hypotheses, self._most, strict=True):
            words = tokenize_13a(hypothesis, self._lowercase)
            for index in range(_ORDER):
                totals[index] += max(len(words) - index, 0)
            for ngram, count in count_ngrams(words, _ORDER).items():
                if ngram in most:
                    matched[ngram] += min(count, most[ngram])
        gains: list[list[float]] = [[] for _ in totals]
        for ngram, count in matched.items():
            gains[len(ngram) - 1].append(count * self._information(ngram))
        value = sum(math.fsum(gain) / total for gain, total in zip(gains, totals, strict=True) if total)
        signature = f"NIST|order:{_ORDER}|case:lc-{self._lowercase}|tok:13a|variant:{self.variant}"
        return Score("nist", value * self._penalty(totals[0]), signature)

    def _information(self, ngram: Ngram) -> float:
        history = ngram[:-1]
        no_history = not history or (history == ("0",) and self.variant == "mteval-v13a")
        return math.log2((self._num_words if no_history else self._counts[history]) / self._counts[ngram])

    def _penalty(self, num_words: int) -> float:
        if num_words == 0:
            return 0.0
        if self._reference_length == 0:
            return 1.0
        ratio = min(1.0, num_words / self._reference_length)
        return math.exp(-_BETA * math.log(ratio) ** 2)
