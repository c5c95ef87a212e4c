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
