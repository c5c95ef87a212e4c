"""The field's metrics, each pinned to the numbers of its official program.

`score_suite("e2e", hypotheses, references)` scores one system; `prepare_suite` reads the references once for many.
Files are read by `softprompt.metrics.files`, scored and compared with confidence by `softprompt.metrics.scoring`.
"""

from softprompt.metrics.base import Metric, MetricFactory, References, Score, Unavailable
from softprompt.metrics.labels import Classes
from softprompt.metrics.suite import (
    METRICS,
    SUITES,
    PreparedSuite,
    Suite,
    SuiteResult,
    choose_suite,
    find_suite,
    prepare_suite,
    score_suite,
    with_bertscore,
    with_metrics,
)

__all__ = [
    "METRICS",
    "SUITES",
    "Classes",
    "Metric",
    "MetricFactory",
    "PreparedSuite",
    "References",
    "Score",
    "Suite",
    "SuiteResult",
    "Unavailable",
    "choose_suite",
    "find_suite",
    "prepare_suite",
    "score_suite",
    "with_bertscore",
    "with_metrics",
]
