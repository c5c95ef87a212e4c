"""How sure a score is: bootstrap intervals, and a paired test of two systems on one test set.

Test sets are drawn from the test set, segment by segment with replacement, and scored again. The interval holds the
middle 95% of these scores. For two systems both are scored on the same draws; the p-value is the share of draws whose
difference is at least as far from the mean difference of the draws as the observed difference is from 0 (two-sided,
the draw that is the test set itself counted in).

What a metric learned from the whole test set (what an n-gram tells in NIST, how rare it is in CIDEr) stays as it is.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap"; Koehn 2004, "Statistical Significance Tests for
Machine Translation Evaluation"; the centred form of the p-value is that of sacrebleu.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from softprompt.errors import ConfigError
from softprompt.metrics.base import Array, Segments

_LEVEL: Final = 0.95
_COUNTS_AT_ONCE: Final = 2_000_000  # entries of a block of draws, to bound memory


@dataclass(frozen=True, slots=True)
class Interval:
    """The middle of the scores of `resamples` draws."""

    low: float
    high: float
    level: float
    resamples: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """System B against system A: `difference` is B's score minus A's."""

    difference: float
    interval: Interval
    p_value: float


def interval(segments: Segments, num_segments: int, resamples: int, seed: int) -> Interval:
    """The bootstrap interval of one system's score."""
    return _middle(_draw(segments, num_segments, resamples, seed))


def paired(a: Segments, b: Segments, num_segments: int, resamples: int, seed: int) -> Comparison:
    """The paired bootstrap test of two systems."""
    whole = np.ones((1, num_segments))
    observed = float(b.scores(whole)[0] - a.scores(whole)[0])
    differences = _draw(b, num_segments, resamples, seed) - _draw(a, num_segments, resamples, seed)
    # Rounding must not decide about draws that are as far away as the observed difference.
    extreme = np.abs(differences - differences.mean()) >= abs(observed) * (1 - 1e-12)
    return Comparison(observed, _middle(differences), (int(extreme.sum()) + 1) / (resamples + 1))


def _draw(segments: Segments, num_segments: int, resamples: int, seed: int) -> Array:
    """(R,) scores; the draws depend on the number of segments, R and the seed only."""
    return np.concatenate([segments.scores(counts) for counts in _counts(num_segments, resamples, seed)])


def _counts(num_segments: int, resamples: int, seed: int) -> Iterator[Array]:
    if seed < 0 or resamples < 1:
        raise ConfigError(f"bootstrap: expected seed >= 0 and at least one resample, got {seed} and {resamples}.")
    generator = np.random.default_rng(seed)
    shares = np.full(num_segments, 1 / num_segments)
    at_once = max(1, _COUNTS_AT_ONCE // num_segments)
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        yield generator.multinomial(num_segments, shares, size=size).astype(np.float64)


def _middle(scores_R: Array) -> Interval:
    low, high = np.quantile(scores_R, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(float(low), float(high), _LEVEL, len(scores_R))
