"""Edit distances of words for TER: the true ones, fast, and those of tercom's table, which looks near the best only.

Source of the second: the table of tercom 0.7.25 as its answers show it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BEAM: Final = 20
_BOTH, _OUTPUT, _REFERENCE = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Alignment:
    """A cheapest way from an output to a reference."""

    partner: list[int]
    """For each reference word the word of the output that it stands by; -1: the start."""
    wrong: list[bool]
    """For each word of the output."""
    unmatched: list[bool]
    """For each word of the reference."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table of edit distances: bits for the rows that are one more or one less than the row above."""

    more: int
    less: int
    last: int


class Table:
    """Edit distances of all prefixes of `words` to all prefixes of `reference`, a column of the table in two integers.

    Source: Hyyrö 2003, "A Bit-Vector Algorithm for Computing Levenshtein and Damerau Edit Distances".
    """

    def __init__(self, words: Sequence[str], reference: Sequence[str]) -> None:
        self._words, self._reference = words, reference
        self.columns = 0  # computed so far
        self._rows: dict[str, int] = {}
        for at, word in enumerate(reference):
            self._rows[word] = self._rows.get(word, 0) | 1 << at
        self._all = (1 << len(reference)) - 1
        self._columns = [_Column(self._all, 0, len(reference))]
        for word in words:
            self._columns.append(self._next(self._columns[-1], word))
        self.distance = self._columns[-1].last

    def _next(self, column: _Column, word: str) -> _Column:
        self.columns += 1
        equal = self._rows.get(word, 0)
        vertical = equal | column.less
        horizontal = (((equal & column.more) + column.more) ^ column.more) | equal
        more = column.less | (self._all & ~(horizontal | column.more))
        less = column.more & horizontal
        last = column.last
        end = len(self._reference) - 1
        if more >> end & 1:
            last += 1
        elif less >> end & 1:
            last -= 1
        more = (more << 1) | 1
        less <<= 1
        return _Column((less | ~(vertical | more)) & self._all, more & vertical & self._all, last)

    def distance_of(self, changed: Sequence[str], first: int, last: int) -> int:
        """The distance of `changed`, which differs from the table's words only between `first` and `last`."""
        column = self._columns[first]
        for at in range(first, len(changed)):
            known = self._columns[at]
            if at >= last and column.more == known.more and column.less == known.less:
                return self.distance + column.last - known.last  # from here on everything is as before
            column = self._next(column, changed[at])
        return column.last

    def alignment(self) -> Alignment:
        """Of the cheapest ways back that which prefers a match or substitution, then a word left over in the output."""
        partner = [-1] * len(self._reference)
        wrong, unmatched = [True] * len(self._words), [True] * len(self._reference)
        row, at = len(self._reference), len(self._words)
        value = self.distance
        while row or at:
            if row and at:
                cost = int(self._words[at - 1] != self._reference[row - 1])
                if self._value(row - 1, at - 1) + cost == value:
                    row, at, value = row - 1, at - 1, value - cost
                    partner[row] = at
                    wrong[at] = unmatched[row] = bool(cost)
                    continue
            if at and (not row or self._value(row, at - 1) + 1 == value):
                at -= 1
            else:
                row -= 1
                partner[row] = at - 1
            value -= 1
        return Alignment(partner, wrong, unmatched)

    def _value(self, row: int, at: int) -> int:
        below = (1 << row) - 1
        column = self._columns[at]
        return at + (column.more & below).bit_count() - (column.less & below).bit_count()


@dataclass(frozen=True, slots=True)
class BeamTable:
    """The table as tercom fills it, near the best cells of each column only: its distance may be above the true one.

    Where the true distance is at most `BEAM`, both are the same, as are the ways back.
    """

    distance: int
    _words: Sequence[str]
    _reference: Sequence[str]
    _steps: list[bytearray]
    """For each column (word of the output), the step that last wrote each row."""

    @classmethod
    def of(cls, words: Sequence[str], reference: Sequence[str]) -> BeamTable:
        """Column by column; a cell that costs more than `BEAM` above the column's best match is not gone on from."""
        rows, columns = len(reference), len(words)
        steps = [bytearray(rows + 1) for _ in range(columns + 1)]
        costs: list[int | None] = [0, *[None] * rows]
        limit: float = math.inf
        first = last = 0
        for at in range(columns + 1):
            inside = at < columns
            following: list[int | None] = [None] * (rows + 1)
            best: float = math.inf
            lowest, highest, row = -1, -1, first
            while row <= last:
                cost = costs[row]
                if cost is not None and not (inside and cost > limit + BEAM):
                    lowest, highest = row if lowest < 0 else lowest, row
                    if row < rows and inside:
                        equal = words[at] == reference[row]
                        there = following[row + 1]
                        if there is None or cost + (not equal) < there:
                            following[row + 1], steps[at + 1][row + 1] = cost + (not equal), _BOTH
                            best = min(best, cost + (not equal))
                        elif equal:
                            best = min(best, cost)
                    if inside:
                        there = following[row]
                        if there is None or cost + 1 < there:
                            following[row], steps[at + 1][row] = cost + 1, _OUTPUT
                    if row < rows:
                        there = costs[row + 1]
                        if there is None or cost + 1 < there:
                            costs[row + 1], steps[at][row + 1] = cost + 1, _REFERENCE
                            last = max(last, row + 1)
                row += 1
            if inside:
                costs, limit, first, last = following, best, lowest, min(highest + 1, rows)
        distance = costs[rows]
        assert distance is not None  # in the last column nothing is left out
        return cls(distance, words, reference, steps)

    def alignment(self) -> Alignment:
        """The way that was written last."""
        partner = [-1] * len(self._reference)
        wrong, unmatched = [True] * len(self._words), [True] * len(self._reference)
        row, at = len(self._reference), len(self._words)
        while row or at:
            step = self._steps[at][row]
            if step == _BOTH:
                row, at = row - 1, at - 1
                partner[row] = at
                wrong[at] = unmatched[row] = self._words[at] != self._reference[row]
            elif step == _OUTPUT:
                at -= 1
            else:
                row -= 1
                partner[row] = at - 1
        return Alignment(partner, wrong, unmatched)
