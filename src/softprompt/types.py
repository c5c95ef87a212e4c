"""Plain values that travel along the flow data -> template -> batch -> ... and the letters used for shapes.

Shape letters, everywhere: B batch, T tokens, P prompt length, H attention heads (KV heads where they differ),
D head width, E model width, L layers, R rank, V vocabulary, N target tokens of a batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """One source with its reference targets, as text that the model will see (white space stripped)."""

    source: str
    targets: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Facts that scoring may group by: `category`, `seen`, `id`, ..."""
    references: tuple[str, ...] = ()
    """What a prediction is scored against, where that is not the targets; "" is a reference of no words."""
    at: int | str | None = field(default=None, compare=False)
    """Where its row stands in its file: a line, or a place such as `entry 7`. None: not read from a file."""

    def where(self, index: int) -> str:
        """`line 7`, `entry 7`, or for what was not read from a file `number 7`; `index` counts from 0."""
        return f"line {self.at}" if isinstance(self.at, int) else self.at or f"number {index + 1}"

    @property
    def scored_against(self) -> tuple[str, ...]:
        """The references."""
        return self.references or self.targets


@dataclass(frozen=True, slots=True)
class Splits:
    """The three parts of a task. Train examples are (source, one target) pairs; dev and test are grouped by source."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    merged: Mapping[str, "Merged"] = field(default_factory=dict, compare=False)
    """Part -> how many rows of the user's own files became references of another row's source."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Rows of one part that had the same source."""

    rows: int
    sources: int
    first: str
    """Where the first row stands whose source had been there before."""
