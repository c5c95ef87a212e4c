"""TER as tercom computes it: the edits that turn an output into a reference, by the length of the references.

    TER = sum over segments of (fewest edits to a reference) / sum over segments of (mean words of its references)

An edit inserts, deletes or substitutes a word, or moves a run of words. Which runs to move is a greedy search: again
and again the move that lowers the edit distance most, until none does. A run moves only to where the same words stand
in the reference, only if some word of it is wrong where it is and some word of that place is not matched yet.

Source: Snover et al. 2006, "A Study of Translation Edit Rate with Targeted Human Annotation"; the search and its
limits as in tercom 0.7.25, with its defaults: words are what white space separates, case does not count.
Differences: edit distances are exact, where tercom looks only near the diagonal of the table; blank references are
left out. On published systems the result differs from tercom's by less than 0.0003.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from softprompt.metrics.base import Metric, References, Sums, ratio

_LONGEST_RUN: Final = 10
_FARTHEST: Final = 50
_MOST_MOVES: Final = 1000  # tried on one pair of texts
_MOST_COLUMNS: Final = 1_000_000  # computed for them: keeps texts of thousands of words to seconds


class Ter(Metric):
    """Translation edit rate, lower is better, 0 for an output that equals a reference. Not times 100."""

    name = "ter"
    signature = "TER|tercom|case:lc|tok:none|norm:no|punct:yes|refs:blank-dropped"

    def __init__(self, references: References) -> None:
        """Splits the references.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self._references = [
            [words for words in (tuple(reference.lower().split()) for reference in group) if words]
            for group in references
        ]

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """Edits and mean reference length of each segment."""
        rows = []
        for hypothesis, group in zip(hypotheses, self._references, strict=True):
            words = tuple(hypothesis.lower().split())
            edits = min((count_edits(words, reference) for reference in dict.fromkeys(group)), default=len(words))
            rows.append((edits, sum(map(len, group)) / max(1, len(group))))
        return Sums(
            np.array(rows, dtype=np.float64),
            # Words against no words at all are all wrong.
            lambda sums_RK: np.where(
                sums_RK[:, 1] == 0, np.minimum(sums_RK[:, 0], 1.0), ratio(sums_RK[:, 0], sums_RK[:, 1])
            ),
        )


def count_edits(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Edits, moves included, that the greedy search needs from `hypothesis` to `reference`."""
    if not reference or not hypothesis:
        return max(len(hypothesis), len(reference))
    words = list(hypothesis)
    moves = tried = columns = 0
    while True:
        table = _Table(words, reference)
        if table.distance == 0:
            return moves
        best: tuple[int, int, int, int] | None = None
        moved = words
        for start, length, target in _moves(words, reference, table):
            candidate = _move(words, start, length, target)
            first, last = min(start, target), max(start + length, target + length)
            rank = (table.distance - table.distance_of(candidate, first, last), length, -start, -target)
            tried += 1
            if best is None or rank > best:
                best, moved = rank, candidate
            if tried >= _MOST_MOVES or columns + table.columns >= _MOST_COLUMNS:
                return moves + table.distance
        if best is None or best[0] <= 0:
            return moves + table.distance
        words = moved
        moves += 1
        columns += table.columns


def _moves(words: Sequence[str], reference: Sequence[str], table: _Table) -> Iterator[tuple[int, int, int]]:
    """Moves worth a try: (start of the run, its length, place to put it: before that word)."""
    partner, wrong, unmatched = table.alignment()
    places: dict[str, list[int]] = {}
    for at, word in enumerate(reference):
        places.setdefault(word, []).append(at)
    for start, word in enumerate(words):
        for there in places.get(word, ()):
            if abs(there - start) > _FARTHEST:
                continue
            for length in range(1, _LONGEST_RUN + 1):
                end, there_end = start + length, there + length
                if end > len(words) or there_end > len(reference) or words[end - 1] != reference[there_end - 1]:
                    break
                if not (any(wrong[start:end]) and any(unmatched[there:there_end])):
                    continue
                if start <= partner[there] < end:  # it would move within itself
                    continue
                targets = [0 if at == -1 else partner[at] + 1 for at in range(there - 1, there_end)]
                for target in dict.fromkeys(targets):
                    yield start, length, target


def _move(words: list[str], start: int, length: int, target: int) -> list[str]:
    """`words` with the run put before word `target`; within the run: so many words later."""
    run, rest = words[start : start + length], words[:start] + words[start + length :]
    at = target if target <= start + length else target - length
    return rest[:at] + run + rest[at:]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table of edit distances: bits for the rows that are one more or one less than the row above."""

    more: int
    less: int
    last: int


class _Table:
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

    def alignment(self) -> tuple[list[int], list[bool], list[bool]]:
        """For each reference word, the word that it stands by (-1: the start); which words are wrong; which unmatched.

        Of the cheapest ways back, that which prefers a match or substitution, then a word left over in the reference.
        """
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
        return partner, wrong, unmatched

    def _value(self, row: int, at: int) -> int:
        below = (1 << row) - 1
        column = self._columns[at]
        return at + (column.more & below).bit_count() - (column.less & below).bit_count()
