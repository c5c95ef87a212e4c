"""MultiRC: questions with several answer options, each right or wrong. Both scores times 100.

F1a is the F1 of "right" over all options of all questions; EM the share of questions with every option judged well.
A segment is a question, its text the labels of its options in order, white space between them: `1 0 0 1`.

Source: Khashabi et al. 2018, "Looking Beyond the Surface"; Wang et al. 2019, "SuperGLUE".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from softprompt.metrics.base import Metric, References, Sums, mean_of, ratio

RIGHT: Final = frozenset({"1", "yes", "true", "True"})


class _Questions(Metric):
    def __init__(self, references: References) -> None:
        """Reads the labels of all options.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self._options = [_right(group[0]) for group in references]

    def _pairs(self, hypotheses: Sequence[str]) -> list[tuple[list[bool], list[bool]]]:
        """(judged, true) of each question; an option without a judgement counts as judged wrong way round."""
        pairs = []
        for hypothesis, there in zip(hypotheses, self._options, strict=True):
            given = _right(hypothesis)[: len(there)]
            pairs.append((given + [not label for label in there[len(given) :]], there))
        return pairs


def _right(labels: str) -> list[bool]:
    return [label in RIGHT for label in labels.split()]


class MultiRcF1(_Questions):
    """F1 over all answer options."""

    name = "f1a"
    signature = f"F1a|multirc|positive:{'/'.join(sorted(RIGHT))}"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """Options rightly called right; called right; right."""
        rows = [
            (sum(a and b for a, b in zip(given, there, strict=True)), sum(given), sum(there))
            for given, there in self._pairs(hypotheses)
        ]
        return Sums(
            np.array(rows, dtype=np.float64),
            lambda sums_RK: 100.0 * ratio(2 * sums_RK[:, 0], sums_RK[:, 1] + sums_RK[:, 2]),
        )


class MultiRcExactMatch(_Questions):
    """Questions with all options judged well."""

    name = "exact_match"
    signature = "EM|multirc|question"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """1 or 0 for each question."""
        return mean_of(
            (float(_right(given) == there) for given, there in zip(hypotheses, self._options, strict=True)), scale=100.0
        )
