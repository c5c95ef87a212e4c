"""TER as tercom computes it: the edits that turn an output into a reference, by the length of the references.

    TER = sum over segments of (fewest edits to a reference) / sum over segments of (mean words of its references)

An edit inserts, deletes or substitutes a word, or moves a run of words. Which runs to move is a greedy search: again
and again the move that lowers the edit distance most, until none lowers it. A run of up to 10 words moves only to where
the same words stand in the reference, only if some word of it is wrong where it is and some word of that place is not
matched yet, and not farther than 50 words.

Source: Snover et al. 2006, "A Study of Translation Edit Rate with Targeted Human Annotation"; the search, its limits
and its table of distances are tercom's (0.7.25 and 0.10.0), with its defaults: case does not count. The edits of each
segment, and so the score to its last digit, are tercom's.
Differences: words are what any white space separates, where tercom knows only that of ASCII; blank references are left
out, as those that prepare its files do. A pair of texts of thousands of words may be too much work: the search then
stops where it is, and the signature says for how many pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from softprompt.metrics.base import Array, Metric, References, ratio
from softprompt.metrics.ter_table import BEAM, Alignment, BeamTable, Table

_LONGEST_RUN: Final = 10
_FARTHEST: Final = 50
_MOST_WORK: Final = 1_000_000_000  # of one pair of texts, in about five nanoseconds
_COLUMN: Final = 300  # of it for a column of a table, besides one for each of its rows


class Ter(Metric):
    """Translation edit rate, lower is better, 0 for an output that equals a reference. Not times 100."""

    name = "ter"

    def __init__(self, references: References) -> None:
        """Splits the references.

        Raises:
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self._stopped = 0
        self._references = [
            [words for words in (tuple(reference.lower().split()) for reference in group) if words]
            for group in references
        ]

    @property
    def signature(self) -> str:
        stopped = f"|stopped-early:{self._stopped}" if self._stopped else ""
        return f"TER|tercom|beam:{BEAM}|case:lc|tok:none|norm:no|punct:yes|refs:blank-dropped{stopped}"

    def segments(self, hypotheses: Sequence[str]) -> _Edits:
        """Edits and mean reference length of each segment."""
        rows = []
        for hypothesis, group in zip(hypotheses, self._references, strict=True):
            words = tuple(hypothesis.lower().split())
            counts = [search_edits(words, reference) for reference in dict.fromkeys(group)]
            self._stopped += sum(not whole for _, whole in counts)
            edits = min((edits for edits, _ in counts), default=len(words))
            rows.append((edits, sum(map(len, group)) / max(1, len(group))))
        return _Edits(np.array(rows, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class _Edits:
    """Edits and mean reference length of each segment. They are added one after the other, as tercom rounds."""

    statistics_N2: Array

    def scores(self, counts_RN: Array) -> Array:
        """See `Segments`. Words against no words at all are all wrong."""
        edits_R, words_R = (np.cumsum(counts_RN * column_N, axis=1)[:, -1] for column_N in self.statistics_N2.T)
        return np.where(words_R == 0, np.minimum(edits_R, 1.0), ratio(edits_R, words_R))


def count_edits(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Edits, moves included, that the greedy search needs from `hypothesis` to `reference`."""
    return search_edits(hypothesis, reference)[0]


def search_edits(hypothesis: Sequence[str], reference: Sequence[str]) -> tuple[int, bool]:
    """Edits, and whether the search came to its end."""
    if not reference or not hypothesis:
        return max(len(hypothesis), len(reference)), True
    words = list(hypothesis)
    moves, left = 0, _MOST_WORK
    while True:
        table = Table(words, reference)
        distance, aligned = _near_the_best(table, words, reference)
        if distance == 0:
            return moves, True
        moved, left = _best_move(words, reference, table, distance, aligned, left)
        if moved is None or left <= 0:
            return moves + distance, left > 0
        words, moves = moved, moves + 1


def _near_the_best(table: Table, words: Sequence[str], reference: Sequence[str]) -> tuple[int, Alignment]:
    if table.distance <= BEAM:
        return table.distance, table.alignment()
    beam = BeamTable.of(words, reference)
    return beam.distance, beam.alignment()


def _best_move(
    words: list[str], reference: Sequence[str], table: Table, distance: int, aligned: Alignment, left: int
) -> tuple[list[str] | None, int]:
    """The output after the move that gains most, the longest and first of equals; and the work that is left.

    The first move that costs no more than it gains is taken, another one only if it gains more.
    """
    best, moved = distance + 1, None  # edits, the move included, that a move must stay below
    for length, start, target in _moves(words, reference, aligned):
        gained = distance - best if moved is not None else 0
        if gained > 2 * length or (moved is not None and gained == 2 * length):
            break  # a run of so many words cannot gain more
        candidate = _move(words, start, length, target)
        first, last = _changed(start, length, target)
        before = table.columns
        found = table.distance_of(candidate, first, last) + 1
        left -= (table.columns - before + 1) * (len(reference) + _COLUMN)
        if found < best and found > BEAM:
            found = BeamTable.of(candidate, reference).distance + 1
            left -= len(candidate) * 10 * _COLUMN
        if found < best:
            best, moved = found, candidate
        if left <= 0:
            break
    return moved, left


def _moves(words: Sequence[str], reference: Sequence[str], aligned: Alignment) -> Iterator[tuple[int, int, int]]:
    """Moves worth a try, the longest first: length of the run, its start, the word that it is put behind (-1: none)."""
    partner, wrong, unmatched = aligned.partner, aligned.wrong, aligned.unmatched
    places: dict[str, list[int]] = {}
    for at, word in enumerate(reference):
        places.setdefault(word, []).append(at)
    runs: list[list[tuple[int, int]]] = [[] for _ in range(_LONGEST_RUN + 1)]
    for start, word in enumerate(words):
        for there in places.get(word, ()):
            for length in range(1, _LONGEST_RUN + 1):
                end, there_end = start + length, there + length
                if end > len(words) or there_end > len(reference) or words[end - 1] != reference[there_end - 1]:
                    break
                if start <= partner[there] < end or abs(partner[there] - start) > _FARTHEST:
                    continue
                if any(wrong[start:end]) and any(unmatched[there:there_end]):
                    runs[length].append((start, there))
    for length in range(_LONGEST_RUN, 0, -1):
        for start, there in runs[length]:
            for at in range(there - 1, there + length):
                target = -1 if at == -1 else partner[at]
                if at == -1 or not (target == start or (at != there and target == partner[there])):
                    yield length, start, target


def _move(words: list[str], start: int, length: int, target: int) -> list[str]:
    """`words` with the run put behind word `target`; within the run: behind as many of the words that follow it."""
    end = start + length
    run = words[start:end]
    if target < start:
        return words[: target + 1] + run + words[target + 1 : start] + words[end:]
    goes_to = target + 1 if target >= end else end + target - start
    return words[:start] + words[end:goes_to] + run + words[goes_to:]


def _changed(start: int, length: int, target: int) -> tuple[int, int]:
    """The words that a move may change: the first, and one more than the last."""
    if target < start:
        return target + 1, start + length
    return start, max(target + 1, start + length + target - start)
