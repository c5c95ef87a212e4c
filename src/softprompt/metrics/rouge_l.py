"""ROUGE-L as the COCO caption scorer computes it, which the E2E challenge adopted.

    P = max over references of LCS / words of the hypothesis
    R = max over references of LCS / words of the reference
    F = (1 + beta^2) P R / (R + beta^2 P), beta = 1.2, then the mean over segments

LCS is the length of the longest common subsequence of words.

Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"; Chen et al. 2015, "Microsoft COCO Captions".
Differences from Lin's ROUGE-L, which summarisation papers report: beta is 1.2, no stemming, PTB words without
punctuation, and P and R are the best of *different* references where that is higher.
A blank reference beside another is left out, as absent. A text without words counts as one empty word, as in the
original: it agrees with another such text and with no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from softprompt.metrics.base import Metric, References, Sums, mean_of, there
from softprompt.metrics.ptb import tokenize_lines

_BETA: Final = 1.2
_EMPTY: Final = ("",)


class RougeL(Metric):
    """Sentence-level ROUGE-L, averaged over segments, times 100."""

    name = "rouge_l"
    signature = f"ROUGE-L|coco|beta:{_BETA}|case:lc|tok:ptb|punct:removed|refs:max-p-max-r"

    def __init__(self, references: References) -> None:
        """Tokenizes the references.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        groups = [there(group) for group in references]
        words = iter(tokenize_lines([text for group in groups for text in group]))
        self._references = [[next(words) or _EMPTY for _ in group] for group in groups]

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """F of each segment."""
        return mean_of(
            (
                segment_rouge_l(words or _EMPTY, group)
                for words, group in zip(tokenize_lines(hypotheses), self._references, strict=True)
            ),
            scale=100.0,
        )


def segment_rouge_l(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """F of one segment, from 0 to 1. No text may be empty."""
    positions: dict[str, int] = {}  # for each word, a bit for each place it has in the hypothesis
    for place, word in enumerate(hypothesis):
        positions[word] = positions.get(word, 0) | 1 << place
    common = [_lcs_length(positions, len(hypothesis), reference) for reference in references]
    precision = max(common) / len(hypothesis)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    if precision == 0.0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _lcs_length(positions: dict[str, int], length: int, other: Sequence[str]) -> int:
    """The LCS length, one row of the usual table at a time, a row being the bits of one integer.

    A zero bit marks a place where the row grows by one (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").
    """
    everywhere = (1 << length) - 1
    row = everywhere
    for word in other:
        matches = row & positions.get(word, 0)
        row = ((row + matches) | (row - matches)) & everywhere
    return length - row.bit_count()
