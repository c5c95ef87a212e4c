"""Pearson's and Spearman's correlation of numbers, times 100: STS-B.

An output that is not a number counts as the middle of the references' range, the guess that says nothing. If all
outputs are one number, or all references are, the correlation is 0. Ranks of equal numbers are their mean.

Source: Cer et al. 2017, "SemEval-2017 Task 1"; the numbers are those of SciPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from softprompt.errors import DataError
from softprompt.metrics.base import Array, Metric, References, Segments, Sums, ratio

_LARGEST: Final = 1e30  # what an output of digits without end would exceed


class _Numbers(Metric):
    """Shared part: one right number for each segment."""

    def __init__(self, references: References) -> None:
        """Reads the numbers.

        Raises:
            DataError: A segment has no reference, or one that is not a number.
        """
        super().__init__(references)
        numbers = [_number(group[0]) for group in references]
        for at, number in enumerate(numbers, start=1):
            if number is None:
                raise DataError(f"Expected a number as the reference of segment {at}, got {references[at - 1][0]!r}.")
        self._numbers_N: Array = np.array(numbers, dtype=np.float64)

    def _read(self, hypotheses: Sequence[str]) -> Array:
        middle = float(self._numbers_N.min() + self._numbers_N.max()) / 2
        read = (_number(hypothesis) for hypothesis in hypotheses)
        return np.array([middle if number is None else number for number in read], dtype=np.float64)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= _LARGEST else None


class Pearson(_Numbers):
    """Linear correlation, times 100."""

    name = "pearson"
    signature = "pearson|not-a-number:middle"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """Moments, about the means of the whole so that none is lost to rounding."""
        x, y = self._read(hypotheses), self._numbers_N
        x, y = x - x.mean(), y - y.mean()
        return Sums(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1), _correlation)


class Spearman(_Numbers):
    """Correlation of ranks, times 100."""

    name = "spearman"
    signature = "spearman|not-a-number:middle"

    def segments(self, hypotheses: Sequence[str]) -> Segments:
        """The numbers: every resample has ranks of its own."""
        return _Ranked(self._read(hypotheses), self._numbers_N)


@dataclass(frozen=True, slots=True)
class _Ranked:
    given_N: Array
    there_N: Array

    def scores(self, counts_RN: Array) -> Array:
        """See `Segments`."""
        return np.array([self._score(counts_N) for counts_N in counts_RN])

    def _score(self, counts_N: Array) -> float:
        x, y = _ranks(self.given_N, counts_N), _ranks(self.there_N, counts_N)
        moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
        return float(_correlation((counts_N @ moments)[None])[0])


def _ranks(values_N: Array, counts_N: Array) -> Array:
    """Rank of each value among all, a value with count c standing there c times; about the middle rank."""
    values, place = np.unique(values_N, return_inverse=True)
    many = np.bincount(place, weights=counts_N, minlength=len(values))
    ranks: Array = (np.cumsum(many) - many / 2)[place] - counts_N.sum() / 2
    return ranks


def _correlation(sums_RK: Array) -> Array:
    n, x, y, xx, yy, xy = sums_RK.T
    spread = np.maximum(n * xx - x * x, 0.0) * np.maximum(n * yy - y * y, 0.0)
    tiny = 1e-24 * n**4 * np.maximum(xx * yy, 1e-300)  # what rounding leaves of a spread of 0
    return 100.0 * ratio(n * xy - x * y, np.sqrt(np.where(spread <= tiny, 0.0, spread)))
