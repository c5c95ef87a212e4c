"""MultiRC: questions with several answer options, each right or wrong. Both scores times 100.

F1a is the F1 of "right" over all options of all questions; EM the share of questions with every option judged well.
A segment is a question, its text the labels of its options in order, white space between them: `1 0 0 1`. What is no
label is a wrong judgement, whatever is right.

Source: Khashabi et al. 2018, "Looking Beyond the Surface"; Wang et al. 2019, "SuperGLUE".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from softprompt.metrics.base import Metric, References, Sums, Unavailable, mean_of, ratio

RIGHT: Final = frozenset({"1", "yes", "true", "True"})
WRONG: Final = frozenset({"0", "no", "false", "False"})


class _Questions(Metric):
    def __init__(self, references: References) -> None:
        """Reads the labels of all options.

        Raises:
            DataError: A segment has no reference.
            Unavailable: A reference is no label.
        """
        super().__init__(references)
        options = [[_judgement(label) for label in group[0].split()] for group in references]
        for number, labels in enumerate(options):
            if None in labels or not labels:
                raise Unavailable(
                    f"expected labels out of {', '.join(sorted(RIGHT | WRONG))}, one for each option, got "
                    f"{references[number][0][:40]!r} as the reference of question {number + 1}"
                )
        self._options = [[bool(label) for label in labels] for labels in options]

    def _pairs(self, hypotheses: Sequence[str]) -> list[tuple[list[bool], list[bool]]]:
        """(judged, true) of each question; an option without a judgement counts as judged wrong way round."""
        pairs = []
        for hypothesis, there in zip(hypotheses, self._options, strict=True):
            given = [_judgement(label) for label in hypothesis.split()][: len(there)]
            given += [None] * (len(there) - len(given))
            pairs.append(([not b if a is None else a for a, b in zip(given, there, strict=True)], there))
        return pairs


def _judgement(label: str) -> bool | None:
    """Right or wrong; None: no label."""
    return True if label in RIGHT else False if label in WRONG else None


class MultiRcF1(_Questions):
    """F1 over all answer options."""

    name = "f1a"
    signature = f"F1a|multirc|positive:{'/'.join(sorted(RIGHT))}"

    def __init__(self, references: References) -> None:
        """As `_Questions`; Unavailable too where no option of any question is right."""
        super().__init__(references)
        if not any(any(labels) for labels in self._options):
            raise Unavailable("no reference says that an option is right, so that there is nothing to find")

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
            (
                float([_judgement(label) for label in hypothesis.split()] == there)
                for hypothesis, there in zip(hypotheses, self._options, strict=True)
            ),
            scale=100.0,
        )
