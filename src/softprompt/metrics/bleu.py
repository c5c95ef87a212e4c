"""BLEU-4 in the three forms that papers print.

    BLEU = min(1, exp(1 - r/c)) * exp(1/4 * sum_n ln p_n)

p_n is the share of the hypotheses' n-grams that also occur in a reference (clipped by the most any one reference has),
c the words of the hypotheses, r the words of each segment's closest reference (of two as close, the shorter).

* mteval-v13a (the E2E challenge, WMT): 13a words, lower case; an order without a match gets 1/2^k of a match, k
  counting such orders. `lowercase="no"` is sacrebleu's default.
* multi-bleu.perl (WebNLG 2017, DART): words are what white space separates, case counts, an order without a match
  makes the whole score 0.
* multi-bleu-detok.perl (WebNLG 2020): the same over 13a words.

A blank reference counts as a reference of length 0, as it does in those programs: where files of references are
padded with blank lines, it can make the brevity penalty milder. Drop blanks first if that is not wanted.

Source: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation"; Post 2018, "A Call for
Clarity in Reporting BLEU Scores".
Differences: mteval-v13a.pl lowers A-Z only; here, as in its Python port and in sacrebleu, every letter is lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal

import numpy as np

from softprompt.metrics.base import Array, Metric, References, Sums, ratio
from softprompt.metrics.mteval import Lowercase, tokenize_13a
from softprompt.metrics.ngrams import Ngram, count_ngrams, most_in_one

_ORDER: Final = 4


class Bleu(Metric):
    """Corpus BLEU times 100, any number of references a segment."""

    name = "bleu"

    def __init__(
        self,
        references: References,
        *,
        tokenizer: Literal["13a", "none"] = "13a",
        lowercase: Lowercase = "unicode",
        smoothing: Literal["exp", "none"] = "exp",
    ) -> None:
        """Counts the n-grams of the references.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self._tokenizer, self._lowercase, self._smoothing = tokenizer, lowercase, smoothing
        self._words: Callable[[str], Sequence[str]] = (
            partial(tokenize_13a, lowercase=lowercase) if tokenizer == "13a" else _by_space
        )
        self._most: list[dict[Ngram, int]] = []
        self._lengths: list[list[int]] = []
        for group in references:
            words = [self._words(reference) for reference in group]
            self._lengths.append([len(text) for text in words])
            self._most.append(most_in_one(count_ngrams(text, _ORDER) for text in words))
        counts = {len(group) for group in references}
        self._num_references = str(counts.pop()) if len(counts) == 1 else "var"

    @property
    def signature(self) -> str:
        case = {"no": "mixed", "unicode": "lc", "ascii": "lc-ascii"}[self._lowercase]
        return f"BLEU|nrefs:{self._num_references}|case:{case}|eff:no|tok:{self._tokenizer}|smooth:{self._smoothing}"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """Matches and n-grams of each order, words, words of the closest reference."""
        statistics_NK = np.zeros((self.num_segments, 2 * _ORDER + 2))
        for row, hypothesis, most, lengths in zip(statistics_NK, hypotheses, self._most, self._lengths, strict=True):
            words = self._words(hypothesis)
            for ngram, count in count_ngrams(words, _ORDER).items():
                if ngram in most:
                    row[len(ngram) - 1] += min(count, most[ngram])
            row[_ORDER : 2 * _ORDER] = [max(len(words) - n, 0) for n in range(_ORDER)]
            row[-2:] = len(words), min(lengths, key=lambda length: (abs(length - len(words)), length))
        return Sums(statistics_NK, self._combine)

    def _combine(self, sums_RK: Array) -> Array:
        matches, totals = sums_RK[:, :_ORDER].copy(), sums_RK[:, _ORDER : 2 * _ORDER]
        some = (matches[:, 0] > 0) & (totals[:, -1] > 0)
        if self._smoothing == "exp":
            missed = np.cumsum(matches == 0, axis=1)
            matches = np.where(matches == 0, 0.5**missed, matches)
        some &= (matches > 0).all(axis=1)
        precisions = np.where(some[:, None], ratio(matches, totals), 1.0)
        words, closest = sums_RK[:, -2], sums_RK[:, -1]
        penalty = np.minimum(0.0, 1.0 - ratio(closest, words, otherwise=1.0))
        scores: Array = np.where(some, 100.0 * np.exp(np.log(precisions).mean(axis=1) + penalty), 0.0)
        return scores


def _by_space(text: str) -> list[str]:
    return text.split()


def multi_bleu(references: References) -> Bleu:
    """BLEU as multi-bleu.perl computes it."""
    return Bleu(references, tokenizer="none", lowercase="no", smoothing="none")


def multi_bleu_detok(references: References) -> Bleu:
    """BLEU as multi-bleu-detok.perl computes it."""
    return Bleu(references, tokenizer="13a", lowercase="no", smoothing="none")
