"""What every metric shares: the score with its signature, the shape of a metric, and the checks on its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from softprompt.errors import DataError

References: TypeAlias = Sequence[Sequence[str]]
"""For each segment, in the order of the hypotheses, its references: one or more."""


@dataclass(frozen=True, slots=True)
class Score:
    """One number over a whole test set.

    Attributes:
        name: The metric, as in `scores.json`: `bleu`, `nist`, `rouge_l`, ...
        value: In the papers' scale: BLEU and ROUGE times 100, NIST and CIDEr as they are.
        signature: How the number was made, `|` between the parts. Two values compare only if their signatures agree.
    """

    name: str
    value: float
    signature: str


class Metric(Protocol):
    """A metric that knows the references and scores any number of systems against them."""

    def score(self, hypotheses: Sequence[str]) -> Score:
        """The score of one system's outputs, one for each segment.

        Raises:
            DataError: There are more or fewer hypotheses than segments.
        """


MetricFactory: TypeAlias = Callable[[References], Metric]
"""Does the work that depends on the references only. May raise `Unavailable`."""


class Unavailable(Exception):
    """A metric cannot be computed here. The message is the reason that a suite reports in the metric's place."""


def check_references(references: References) -> None:
    """Refuses references that no metric can use.

    Raises:
        DataError: There is no segment, a segment has no reference, or a segment is a bare string.
    """
    if len(references) == 0:
        raise DataError("Expected references for at least one segment, got 0 segments. Is the references file empty?")
    for number, group in enumerate(references, start=1):
        if isinstance(group, str):
            raise DataError(
                f"Expected a list of references for each segment, got the string {group[:40]!r} for segment {number}. "
                "Put a single reference into a list of its own."
            )
        if len(group) == 0:
            raise DataError(
                f"Expected at least one reference for each segment, got 0 for segment {number} of {len(references)}. "
                "Remove the segment from references and hypotheses, or give it a reference."
            )


def check_hypotheses(hypotheses: Sequence[str], num_segments: int) -> None:
    """Refuses hypotheses that are not one for each segment.

    Raises:
        DataError: The counts differ (the message has both), or `hypotheses` is a bare string.
    """
    if isinstance(hypotheses, str):
        raise DataError(f"Expected a list of hypotheses, got the string {hypotheses[:40]!r}. Put it into a list.")
    if len(hypotheses) != num_segments:
        raise DataError(
            f"Expected one hypothesis for each segment, got {len(hypotheses)} hypotheses and {num_segments} groups of "
            "references. Check that both come from the same split and that identical inputs are grouped in both."
        )
