"""Suites: the metrics that a data set's papers report, in their order, scored in one call."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from softprompt.errors import ConfigError
from softprompt.metrics.base import (
    Metric,
    MetricFactory,
    References,
    Score,
    Unavailable,
    check_hypotheses,
    check_references,
)
from softprompt.metrics.bleu import Bleu
from softprompt.metrics.cider import Cider
from softprompt.metrics.meteor import meteor
from softprompt.metrics.nist import Nist
from softprompt.metrics.rouge_l import RougeL


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """The scores of one system, and the reasons for those that are missing, in the papers' order."""

    scores: dict[str, Score]
    missing: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, dict[str, float | str]]:
        """`{"bleu": {"score": 70.3, "signature": "..."}, ..., "meteor": {"missing": "..."}}`, full precision."""
        scored: dict[str, dict[str, float | str]] = {
            name: {"score": score.value, "signature": score.signature} for name, score in self.scores.items()
        }
        return scored | {name: {"missing": reason} for name, reason in self.missing.items()}


class PreparedSuite:
    """A suite's metrics made ready for one test set: the references are read once, then many systems are scored."""

    def __init__(self, metrics: Mapping[str, MetricFactory], references: References) -> None:
        """Prepares each metric; notes those that cannot be computed here.

        Raises:
            DataError: There is no segment, or a segment has no reference.
        """
        check_references(references)
        self._num_segments = len(references)
        self._metrics: dict[str, Metric] = {}
        self._missing: dict[str, str] = {}
        for name, factory in metrics.items():
            try:
                self._metrics[name] = factory(references)
            except Unavailable as reason:
                self._missing[name] = str(reason)

    def score(self, hypotheses: Sequence[str]) -> SuiteResult:
        """Scores one system, a hypothesis for each segment.

        Raises:
            DataError: The number of hypotheses is not the number of segments.
        """
        check_hypotheses(hypotheses, self._num_segments)
        scores = {name: metric.score(hypotheses) for name, metric in self._metrics.items()}
        return SuiteResult(scores, dict(self._missing))


SUITES: Final[Mapping[str, Mapping[str, MetricFactory]]] = MappingProxyType(
    {
        # Dušek et al. 2020, "Evaluating the State-of-the-Art of End-to-End Natural Language Generation": the columns
        # BLEU, NIST, METEOR, ROUGE-L, CIDEr of Li & Liang's Table 1.
        "e2e": MappingProxyType({"bleu": Bleu, "nist": Nist, "meteor": meteor, "rouge_l": RougeL, "cider": Cider}),
    }
)
"""For each suite, its metrics in the papers' order. To add a metric: write its file, name it here."""


def prepare_suite(name: str, references: References) -> PreparedSuite:
    """The suite `name`, ready to score systems against `references`.

    Raises:
        ConfigError: There is no such suite.
        DataError: There is no segment, or a segment has no reference.
    """
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "Choose one of these."
        raise ConfigError(f"Expected a metric suite out of {', '.join(SUITES)}, got {name!r}. {hint}")
    return PreparedSuite(SUITES[name], references)


def score_suite(name: str, hypotheses: Sequence[str], references: References) -> SuiteResult:
    """Scores one system by the suite `name`: `hypotheses[i]` against all of `references[i]`.

    Raises:
        ConfigError: There is no such suite.
        DataError: Nothing to score, unequal counts, or a segment without a reference.
    """
    if not isinstance(hypotheses, str) and len(references):
        check_hypotheses(hypotheses, len(references))  # before the slow part
    return prepare_suite(name, references).score(hypotheses)
