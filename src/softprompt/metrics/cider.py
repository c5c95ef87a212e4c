"""CIDEr-D as the COCO caption scorer ships it: how like the consensus of the references, rare n-grams counting more.

    g(w) = tf(w) * (ln N - ln max(1, df(w)))
    CIDEr-D_n = sum_w min(g_hyp(w), g_ref(w)) g_ref(w) / (|g_hyp| |g_ref|) * exp(-(l_hyp - l_ref)^2 / (2 * 6^2))

and the score is 10 times the mean over n = 1..4, over a segment's references, over segments. N is the number of
segments and df the number of segments with w in a reference, both of the test set being scored: the score of a
subset does not compare with the score of the whole, and a single segment always scores 0.

Source: Vedantam et al. 2015, "CIDEr: Consensus-based Image Description Evaluation".
A blank reference beside another is left out, as absent.
Differences of the shipped program, which we follow, from the paper's CIDEr-D: l is the number of bigrams, not of
words, and words are not stemmed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from softprompt.metrics.base import Metric, References, Sums, mean_of, there
from softprompt.metrics.ngrams import Ngram, count_ngrams
from softprompt.metrics.ptb import tokenize_lines

_ORDER: Final = 4
_SIGMA: Final = 6.0


@dataclass(frozen=True, slots=True)
class _Vector:
    """A text as weighted n-grams of all orders, with the norm of each order."""

    weights: dict[Ngram, float]
    norms: tuple[float, ...]
    num_bigrams: int


class Cider(Metric):
    """CIDEr-D over a test set, from 0 (nothing shared) to 10 (each text equal to all its references).

    The rarity of an n-gram is that of the whole test set, also where a resample of it is scored.
    """

    name = "cider"
    signature = f"CIDEr-D|coco|n:1-{_ORDER}|sigma:{_SIGMA:g}|df:test-references|case:lc|tok:ptb|punct:removed"

    def __init__(self, references: References) -> None:
        """Counts and weighs the n-grams of the references.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        groups = [there(group) for group in references]
        lines = iter(tokenize_lines([text for group in groups for text in group]))
        words = [[next(lines) for _ in group] for group in groups]
        counts = [[count_ngrams(text, _ORDER) for text in group] for group in words]
        segments_with: Counter[Ngram] = Counter()
        for group in counts:
            segments_with.update(set().union(*group))
        self._log_segments = math.log(len(references))
        self._rarity = {ngram: self._log_segments - math.log(count) for ngram, count in segments_with.items()}
        self._references = [
            [self._vector(text, len(text_words)) for text, text_words in zip(*pair, strict=True)]
            for pair in zip(counts, words, strict=True)
        ]

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """Similarity of each segment to its references, the factor 10 included."""
        return mean_of(map(self._segment, tokenize_lines(hypotheses), self._references), scale=10.0)

    def _segment(self, words: Sequence[str], references: Sequence[_Vector]) -> float:
        vector = self._vector(count_ngrams(words, _ORDER), len(words))
        return math.fsum(_similarity(vector, reference) for reference in references) / len(references)

    def _vector(self, counts: Mapping[Ngram, int], num_words: int) -> _Vector:
        weights: dict[Ngram, float] = {}
        squares = [0.0] * _ORDER
        for ngram, count in counts.items():
            weight = count * self._rarity.get(ngram, self._log_segments)
            weights[ngram] = weight
            squares[len(ngram) - 1] += weight * weight
        return _Vector(weights, tuple(map(math.sqrt, squares)), max(num_words - 1, 0))


def _similarity(hypothesis: _Vector, reference: _Vector) -> float:
    """The clipped cosine of two texts with the length penalty, mean over orders."""
    products = [0.0] * _ORDER
    theirs = reference.weights
    for ngram, weight in hypothesis.weights.items():
        if ngram in theirs:
            other = theirs[ngram]
            products[len(ngram) - 1] += min(weight, other) * other
    norms = zip(products, hypothesis.norms, reference.norms, strict=True)
    cosines = (product / (ours * others) for product, ours, others in norms if ours and others)
    delta = hypothesis.num_bigrams - reference.num_bigrams
    return sum(cosines) / _ORDER * math.exp(-(delta**2) / (2 * _SIGMA**2))
