"""ROUGE-1, ROUGE-2 and ROUGE-L for summaries: F1 of stemmed words, mean over segments.

Computed by the package rouge-score (Google Research), which follows ROUGE-1.5.5 with `-m` (Porter's stemmer; words are
runs of a-z and 0-9, lower case). With several references, a segment counts with the one that gives the highest F1.
A text without such words scores 0, also against another such text.

Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
Differences: ROUGE-1.5.5 adds a bootstrap to its means; numbers of the two agree to about a tenth of a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, Final, Literal

from softprompt.metrics.base import Metric, MetricFactory, References, Sums, mean_of

Kind = Literal["rouge1", "rouge2", "rougeL"]
KINDS: Final[tuple[Kind, ...]] = ("rouge1", "rouge2", "rougeL")


class Rouge(Metric):
    """One of `KINDS`, times 100."""

    def __init__(self, references: References, kind: Kind) -> None:
        """Keeps the references; each is read when the first system is scored.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self.name = kind
        self._references = [tuple(group) for group in references]

    @property
    def signature(self) -> str:
        from importlib.metadata import version

        return f"{self.name.upper()}|F1|stem:porter|case:lc|refs:best|rouge-score:{version('rouge-score')}"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """F1 of each segment."""
        pairs = zip(hypotheses, self._references, strict=True)
        return mean_of((_f1(hypothesis, group)[self.name] for hypothesis, group in pairs), scale=100.0)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # slow to import

    return RougeScorer(list(KINDS), use_stemmer=True)


@cache
def _f1(hypothesis: str, references: tuple[str, ...]) -> dict[str, float]:
    """All kinds at once: the three metrics of a suite ask for the same segments."""
    scores = _scorer().score_multi(references, hypothesis)
    return {kind: float(scores[kind].fmeasure) for kind in KINDS}


def rouge(kind: Kind) -> MetricFactory:
    """The metric `kind`, as a suite names it."""
    return partial(Rouge, kind=kind)
