"""Which training pairs make up which optimiser step: batches of a fixed number of rows, or of a budget of positions."""

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice

MEGABATCH = 50
"""Batches that are sorted by length together: enough to pad little, few enough to stay random."""


@dataclass(frozen=True)
class Plan:
    """Which examples make up which optimiser step: a pure function of (step, seed), so a run resumes anywhere.

    Each epoch shuffles anew, sorts megabatches by length, and shuffles the batches; every example comes once an epoch.
    Of several tasks each is sorted by itself and spread evenly over its megabatch, so that batches mix them in the
    megabatch's proportions. `equal` repeats the examples of smaller tasks until all tasks come equally often.

    Under a `budget` a batch takes as many examples as fit; one that does not fit by itself is a batch of its own. How
    many steps an epoch has is then decided by its shuffle.
    """

    lengths: tuple[int, ...]
    batch_size: int
    seed: int
    tasks: tuple[str, ...] = ()
    """Each example's task; empty: all of one."""
    equal: bool = False
    budget: int | None = None
    """Positions of a batch at most: rows x the longest of each side. None: `batch_size` examples a batch."""
    sides: tuple[tuple[int, ...], ...] = ()
    """Under a budget, positions of each example: (all,), or (source, target) where they are read apart."""

    @cached_property
    def pairs_per_epoch(self) -> int:
        """Examples in an epoch, repeated ones counted again."""
        if not self.equal:
            return len(self.lengths)
        return pairs_per_epoch([len(task) for task in self._by_task().values()], equal=True)

    @cached_property
    def most_rows(self) -> int:
        """Examples in a batch at most."""
        return self.batch_size if self.budget is None else max(1, self.budget // min(map(sum, self.sides)))

    def start(self, epoch: int) -> int:
        """Optimiser steps before an epoch (0-based)."""
        if self.budget is None:  # the last batch of an epoch may be smaller; no example is dropped
            return epoch * -(-self.pairs_per_epoch // self.batch_size)
        while len(self._starts) <= epoch:
            self._starts.append(self._starts[-1] + len(self._made(len(self._starts) - 1)))
        return self._starts[epoch]

    def steps_in(self, epochs: float) -> int:
        """Optimiser steps of so many epochs, rounded up."""
        if self.budget is None:
            return math.ceil(epochs * self.start(1))
        whole = math.floor(epochs)
        rest = epochs - whole
        return self.start(whole) + (math.ceil(rest * (self.start(whole + 1) - self.start(whole))) if rest else 0)

    def passes(self, steps: int) -> float:
        """Epochs done after so many optimiser steps."""
        if self.budget is None:
            return steps / self.start(1)
        epoch = self._epoch_of(steps)
        return epoch + (steps - self.start(epoch)) / (self.start(epoch + 1) - self.start(epoch))

    def ends_epoch(self, steps: int) -> bool:
        """Whether an epoch is over after so many optimiser steps."""
        return self.start(self._epoch_of(steps)) == steps

    def from_step(self, step: int) -> Iterator[list[int]]:
        """Batches of example indices for optimiser steps `step` (0-based), `step + 1`, ... without end."""
        epoch = self._epoch_of(step)
        skip = step - self.start(epoch)
        while True:
            for batch in islice(self._made(epoch), skip, None):
                yield list(batch)
            epoch, skip = epoch + 1, 0

    @cached_property
    def _starts(self) -> list[int]:
        """The first step of each epoch, as far as they have been asked for."""
        return [0]

    def _epoch_of(self, step: int) -> int:
        """The epoch (0-based) of an optimiser step (0-based)."""
        if self.budget is None:
            return step // self.start(1)
        while self._starts[-1] <= step:
            self.start(len(self._starts))
        return bisect_right(self._starts, step) - 1

    @cached_property
    def _made(self) -> Callable[[int], list[list[int]]]:
        """`_epoch`, each made once: no more than two are asked for in turn, as a step's end is looked up in the next.

        A thread that makes batches ahead may ask as well.
        """
        return lru_cache(maxsize=2)(self._epoch)

    def _epoch(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, in work that grows with the training set."""
        generator = random.Random(f"{self.seed}/{epoch}")
        order = self._drawn(generator)
        generator.shuffle(order)
        chunk = MEGABATCH * self._usual_rows
        batches: list[list[int]] = []
        for start in range(0, len(order), chunk):
            batches += self._cut(self._bucketed(order[start : start + chunk]))
        generator.shuffle(batches)
        return batches

    @cached_property
    def _usual_rows(self) -> int:
        if self.budget is None:
            return self.batch_size
        return max(1, self.budget * len(self.sides) // sum(map(sum, self.sides)))

    def _cut(self, ordered: Sequence[int]) -> list[list[int]]:
        """Examples in order, as batches."""
        if self.budget is None:
            return [list(ordered[i : i + self.batch_size]) for i in range(0, len(ordered), self.batch_size)]
        batches: list[list[int]] = []
        longest: tuple[int, ...] = ()
        for index in ordered:
            grown = tuple(map(max, longest, self.sides[index]))
            if batches and (len(batches[-1]) + 1) * sum(grown) <= self.budget:
                batches[-1].append(index)
                longest = grown
            else:
                batches.append([index])
                longest = self.sides[index]
        return batches

    def _by_task(self) -> dict[str, list[int]]:
        """Task -> its examples."""
        groups: dict[str, list[int]] = {}
        for index, task in enumerate(self.tasks or [""] * len(self.lengths)):
            groups.setdefault(task, []).append(index)
        return groups

    def _drawn(self, generator: random.Random) -> list[int]:
        """The examples of an epoch in order; `equal` draws what a smaller task still lacks after whole repetitions."""
        if not self.equal:
            return list(range(len(self.lengths)))
        groups = self._by_task().values()
        most = max(map(len, groups))
        return [
            index
            for group in groups
            for index in (*group * (most // len(group)), *generator.sample(group, most % len(group)))
        ]

    def _bucketed(self, chunk: Sequence[int]) -> list[int]:
        """A megabatch by length; those of each task by themselves, then by rank: the shortest of all tasks first."""
        groups: dict[str, list[int]] = {}
        for index in sorted(chunk, key=self.lengths.__getitem__):
            groups.setdefault(self.tasks[index] if self.tasks else "", []).append(index)
        ranked = [((rank + 0.5) / len(group), index) for group in groups.values() for rank, index in enumerate(group)]
        return [index for _, index in sorted(ranked, key=lambda pair: pair[0])]


def pairs_per_epoch(sizes: Sequence[int], *, equal: bool) -> int:
    """Examples in an epoch over tasks of these sizes: each once, or as many of every task as the largest has."""
    return max(sizes) * len(sizes) if equal else sum(sizes)
