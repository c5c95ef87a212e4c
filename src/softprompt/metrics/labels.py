"""Scores of labels, as GLUE and SuperGLUE report them, all times 100. A label is the text of its word.

White space around labels does not count, case does. An output that is no label of the task is wrong, and for F1
counts as negative; F1 is of the class that the task calls positive, however its word is spelled, and is missing where
no reference is of that class; for macro-F1 and Matthews it is a class of its own that no reference has, which macro-F1
leaves out of its mean (scikit-learn: give it the labels of the task). A segment has one reference; of several, the
first.

    F1 = 2 tp / (2 tp + fp + fn)
    Matthews (of several classes: Gorodkin's R_K) = (c s - sum_k p_k t_k) / sqrt((s^2 - sum p_k^2)(s^2 - sum t_k^2))

s segments, c of them right, p_k given label k, t_k having it. Where a denominator is 0 the score is 0.

Source: Wang et al. 2018, "GLUE"; Wang et al. 2019, "SuperGLUE"; the numbers are those of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from softprompt.metrics.base import (
    Array,
    Metric,
    MetricFactory,
    References,
    Sums,
    Unavailable,
    mean_of,
    ratio,
    there,
)


@dataclass(frozen=True, slots=True)
class Classes:
    """What the labels of a task are: their words, as they are learned, and the one whose class F1 is about."""

    words: tuple[str, ...] = ()
    """Empty: not known."""
    positive: str | None = None
    """None: the task does not say."""


class _Labels(Metric):
    """Shared part: one right label for each segment."""

    def __init__(self, references: References) -> None:
        """Reads the labels.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self._labels = [there(group)[0].strip() for group in references]


class Accuracy(_Labels):
    """Share of segments with the right label, times 100."""

    name = "accuracy"
    signature = "accuracy"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """1 or 0 for each segment."""
        pairs = zip(hypotheses, self._labels, strict=True)
        return mean_of((float(given.strip() == label) for given, label in pairs), scale=100.0)


class F1(_Labels):
    """F1 of one class, times 100."""

    name = "f1"

    def __init__(self, references: References, positive: Collection[str]) -> None:
        """`positive`: the spellings of the label whose class is meant.

        Raises:
            DataError: A segment has no reference.
            Unavailable: No reference is of the class.
        """
        super().__init__(references)
        self._positive = frozenset(positive)
        if self._positive.isdisjoint(self._labels):
            raise Unavailable(
                f"no reference is of the positive class, {' or '.join(map(repr, sorted(self._positive)))}: "
                f"the labels there are {', '.join(map(repr, sorted(set(self._labels))[:5]))}. "
                "Name the label that F1 is about (data.labels.positive, or --positive), or take f1_macro."
            )

    @property
    def signature(self) -> str:
        return f"F1|binary|positive:{'/'.join(sorted(self._positive))}"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """True positives; positives given and positives there."""
        given = np.array([hypothesis.strip() in self._positive for hypothesis in hypotheses], dtype=np.float64)
        there = np.array([label in self._positive for label in self._labels], dtype=np.float64)
        return Sums(
            np.stack([given * there, given, there], axis=1),
            lambda sums_RK: 100.0 * ratio(2 * sums_RK[:, 0], sums_RK[:, 1] + sums_RK[:, 2]),
        )


def f1(*positive: str) -> MetricFactory:
    """F1 of the class that is spelled in one of these ways."""
    return partial(F1, positive=positive)


class _Classes(_Labels):
    """Shared part: for each segment, one-hot of the label given, of the label there, and of both where they agree."""

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """3 x classes indicators for each segment."""
        given = [hypothesis.strip() for hypothesis in hypotheses]
        known = {label: column for column, label in enumerate(dict.fromkeys(self._labels))}
        classes = len(known) + 1  # the last: no label of the references
        statistics_N3C = np.zeros((self.num_segments, 3, classes))
        rows = np.arange(self.num_segments)
        columns_given = np.array([known.get(label, len(known)) for label in given])
        columns_there = np.array([known[label] for label in self._labels])
        statistics_N3C[rows, 0, columns_given] = 1.0
        statistics_N3C[rows, 1, columns_there] = 1.0
        statistics_N3C[:, 2] = statistics_N3C[:, 0] * statistics_N3C[:, 1]
        return Sums(
            statistics_N3C.reshape(self.num_segments, -1),
            lambda sums_RK: 100.0 * self._combine(*sums_RK.reshape(len(sums_RK), 3, classes).swapaxes(0, 1)),
        )

    def _combine(self, given_RC: Array, there_RC: Array, both_RC: Array) -> Array:
        raise NotImplementedError


class MacroF1(_Classes):
    """Mean of the F1 of every class that the references have, times 100."""

    name = "f1_macro"
    signature = "F1|macro"

    def _combine(self, given_RC: Array, there_RC: Array, both_RC: Array) -> Array:
        known = slice(0, -1)
        scores = ratio(2 * both_RC[:, known], given_RC[:, known] + there_RC[:, known])
        there = (given_RC[:, known] + there_RC[:, known]) > 0
        return ratio(scores.sum(axis=1), there.sum(axis=1).astype(np.float64))


class Matthews(_Classes):
    """Matthews' correlation coefficient, times 100."""

    name = "matthews"
    signature = "MCC|R_K"

    def _combine(self, given_RC: Array, there_RC: Array, both_RC: Array) -> Array:
        segments, right = there_RC.sum(axis=1), both_RC.sum(axis=1)
        covariance = right * segments - (given_RC * there_RC).sum(axis=1)
        spread = (segments**2 - (given_RC**2).sum(axis=1)) * (segments**2 - (there_RC**2).sum(axis=1))
        return ratio(covariance, np.sqrt(spread))
