"""The field's metrics, each pinned to the numbers of its official program.

`score_suite("e2e", hypotheses, references)` scores one system; `prepare_suite` reads the references once for many.
"""

from softprompt.metrics.base import Metric, MetricFactory, References, Score, Unavailable
from softprompt.metrics.suite import SUITES, PreparedSuite, SuiteResult, prepare_suite, score_suite

__all__ = [
    "SUITES",
    "Metric",
    "MetricFactory",
    "PreparedSuite",
    "References",
    "Score",
    "SuiteResult",
    "Unavailable",
    "prepare_suite",
    "score_suite",
]
