"""What every metric shares: the score with its signature, the shape of a metric, and the checks on its input.

Letters: N segments, K numbers a segment, R resamples of the test set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from softprompt.errors import DataError
from softprompt.yaml_text import surrogate_in

Array: TypeAlias = NDArray[np.float64]
References: TypeAlias = Sequence[Sequence[str]]
"""For each segment, in the order of the hypotheses, its references: one or more."""


@dataclass(frozen=True, slots=True)
class Score:
    """One number over a whole test set.

    Attributes:
        name: The metric, as in `scores.json`: `bleu`, `nist`, `rouge_l`, ...
        value: In the papers' scale: BLEU, METEOR and ROUGE times 100; NIST, CIDEr and TER as they are.
        signature: How the number was made, `|` between the parts. Two values compare only if their signatures agree.
    """

    name: str
    value: float
    signature: str


class Segments(Protocol):
    """One system's outputs taken apart, so that the score of any resample of the test set is cheap."""

    def scores(self, counts_RN: Array) -> Array:
        """(R,) scores; `counts_RN[r, i]` says how often segment i is in resample r."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Segments whose score depends on sums over them only."""

    statistics_NK: Array
    combine: Callable[[Array], Array]
    """(R, K) sums -> (R,) scores."""

    def scores(self, counts_RN: Array) -> Array:
        """See `Segments`."""
        return self.combine(counts_RN @ self.statistics_NK)


class Metric(ABC):
    """A metric that knows the references and scores any number of systems against them."""

    name: str

    def __init__(self, references: References) -> None:
        """Counts the segments.

        Raises:
            DataError: There is no segment, or a segment has no reference.
        """
        check_references(references)
        self.num_segments = len(references)

    @property
    @abstractmethod
    def signature(self) -> str:
        """How the number is made."""

    @abstractmethod
    def segments(self, hypotheses: Sequence[str]) -> Segments:
        """One system's outputs, one for each segment, taken apart. The count is already checked."""

    def score(self, hypotheses: Sequence[str]) -> Score:
        """The score of one system's outputs, one for each segment.

        Raises:
            DataError: There are more or fewer hypotheses than segments.
        """
        check_hypotheses(hypotheses, self.num_segments)
        return self.score_of(self.segments(hypotheses))

    def score_of(self, segments: Segments) -> Score:
        """The score of outputs that `segments` took apart."""
        value = segments.scores(np.ones((1, self.num_segments)))[0]
        return Score(self.name, float(value), self.signature)


MetricFactory: TypeAlias = Callable[[References], Metric]
"""Does the work that depends on the references only. May raise `Unavailable`."""


class Unavailable(Exception):
    """A metric cannot be computed here. The message is the reason that a suite reports in the metric's place."""


def mean_of(segment_scores: Iterable[float], scale: float = 1.0) -> Sums:
    """Segments whose score is `scale` times the mean of their own scores."""
    values_N = np.fromiter(segment_scores, dtype=np.float64)
    return Sums(
        np.stack([values_N, np.ones_like(values_N)], axis=1),
        lambda sums_RK: scale * ratio(sums_RK[:, 0], sums_RK[:, 1]),
    )


def ratio(numerator: Array, denominator: Array, otherwise: float = 0.0) -> Array:
    """Element-wise quotient, `otherwise` where the denominator is 0."""
    safe = np.where(denominator == 0, 1.0, denominator)
    quotient: Array = np.where(denominator == 0, otherwise, numerator / safe)
    return quotient


def check_references(references: References) -> None:
    """Refuses references that no metric can use.

    Raises:
        DataError: There is no segment, a segment has no reference or is a bare string, or a reference is no text.
    """
    if len(references) == 0:
        raise DataError("Expected references for at least one segment, got 0 segments. Is the references file empty?")
    for number, group in enumerate(references, start=1):
        if isinstance(group, str) or group is None:
            raise DataError(
                f"Expected a list of references for each segment, got {_shown(group)} for segment {number}. "
                "Put a single reference into a list of its own."
            )
        if len(group) == 0:
            raise DataError(
                f"Expected at least one reference for each segment, got 0 for segment {number} of {len(references)}. "
                "Remove the segment from references and hypotheses, or give it a reference."
            )
        _check_texts(group, "references", f"segment {number}")


def check_hypotheses(hypotheses: Any, num_segments: int) -> None:
    """Refuses hypotheses that are not one for each segment.

    Raises:
        DataError: The counts differ (the message has both), `hypotheses` is a bare string, or one of them is no text.
    """
    if isinstance(hypotheses, str):
        raise DataError(f"Expected a list of hypotheses, got the string {hypotheses[:40]!r}. Put it into a list.")
    if len(hypotheses) != num_segments:
        raise DataError(
            f"Expected one hypothesis for each segment, got {len(hypotheses)} hypotheses and {num_segments} groups of "
            "references. Check that both come from the same split and that identical inputs are grouped in both."
        )
    _check_texts(hypotheses, "hypotheses", f"{num_segments} segments")


def there(group: Sequence[str]) -> Sequence[str]:
    """The references of one segment that say something: a blank one beside them is an absent one, not an empty text.

    Where all of them are blank, all of them stay: then the empty text is the reference.
    """
    return [text for text in group if text.strip()] or group


def _check_texts(texts: Sequence[Any], what: str, where: str) -> None:
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise DataError(
                f"Expected texts as {what}, got {_shown(text)} as number {number} of {where}. What is absent is not "
                'an empty text: leave its segment out of both, or say "" for an output of no words.'
            )
        if flaw := surrogate_in(text):
            raise DataError(
                f"Expected texts as {what}, got {flaw} in number {number} of {where}: half of a character. Was it cut "
                "in its middle?"
            )


def _shown(value: Any) -> str:
    return f"the string {value[:40]!r}" if isinstance(value, str) else f"{value!r:.40}"
