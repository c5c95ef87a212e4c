"""METEOR 1.5: has its place in the suites; not computed yet.

The official program needs Java and a table of paraphrases of 60 MB. Other programs of that name (NLTK's, say) give
other numbers, so none of them stands in for it.
"""

from __future__ import annotations

from softprompt.metrics.base import Metric, References, Unavailable


def meteor(references: References) -> Metric:
    """Always answers that METEOR is missing.

    Raises:
        Unavailable: Always.
    """
    raise Unavailable("METEOR 1.5 needs Java; not computed")
