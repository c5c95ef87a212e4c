"""Exact match and F1 of short answers, as the SQuAD v1.1 script and MRQA's compute them.

Texts are compared in lower case without punctuation, without the words a, an and the. F1 is that of the bags of words.
Both are the best over a question's answers, then the mean over questions.

Source: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text".
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Final

from softprompt.metrics.base import Metric, References, Sums, mean_of, there

_NO_PUNCTUATION: Final = {ord(mark): None for mark in string.punctuation}
_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")


def normalise(answer: str) -> list[str]:
    """The words of an answer that count."""
    return _ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split()


class _BestAnswer(Metric):
    """Shared part: answers in their normal form."""

    def __init__(self, references: References) -> None:
        """Normalises the answers.

        Raises:
            DataError: A question has no answer.
        """
        super().__init__(references)
        self._answers = [[normalise(answer) for answer in there(group)] for group in references]


class ExactMatch(_BestAnswer):
    """Share of questions answered with one of their answers, times 100."""

    name = "exact_match"
    signature = "EM|squad-1.1|answers:max"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """1 or 0 for each question."""
        pairs = zip(map(normalise, hypotheses), self._answers, strict=True)
        return mean_of((float(given in answers) for given, answers in pairs), scale=100.0)


class AnswerF1(_BestAnswer):
    """Mean overlap with the best answer, times 100. An answer without words scores 0, as in the script."""

    name = "f1"
    signature = "F1|squad-1.1|answers:max"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """F1 of each question."""
        pairs = zip(map(normalise, hypotheses), self._answers, strict=True)
        return mean_of((max(_f1(given, answer) for answer in answers) for given, answers in pairs), scale=100.0)


def _f1(given: Sequence[str], answer: Sequence[str]) -> float:
    common = (Counter(given) & Counter(answer)).total()
    return 2 * common / (len(given) + len(answer)) if common else 0.0
