"""The forward and backward passes of an optimiser step: shared among processes, cut to what memory holds, summed up."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from softprompt.ahead import ahead
from softprompt.backbone import Backbone
from softprompt.batch import Batch, Encoded, make_host_batch
from softprompt.compiled import Compiled
from softprompt.distributed import ALONE, World
from softprompt.errors import TrainingError, is_out_of_memory
from softprompt.graphs import Graphs, rounded
from softprompt.loss import target_nll
from softprompt.methods import Method
from softprompt.multitask import Learner, MultiTask, for_batch
from softprompt.per_row import PerRow
from softprompt.precision import autocast
from softprompt.sharding import is_sharded
from softprompt.train_config import TrainConfig

Ready = tuple[int, Sequence[Batch]]
"""Pairs per forward pass, and a step's batches of so many, collated before the step."""


@dataclass(frozen=True, slots=True)
class Passes:
    """What is the same for all steps of a run."""

    backbone: Backbone
    method: Learner
    config: TrainConfig
    world: World = ALONE
    graphs: Graphs | None = None
    compiled: Compiled | None = None

    def within_memory(
        self, chosen: Sequence[Encoded], rows: int, seed: int, step: int, ready: Ready | None = None
    ) -> tuple[float, float] | None:
        """`accumulate`, or None where memory ran out in any process and fewer rows may be tried.

        Nothing holds on to the failed pass. `seed` is that of torch's generators.
        """
        torch.manual_seed(seed)
        adapts = self.config.micro_batch == "auto"
        try:
            done = self.accumulate(chosen, rows, ready)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not adapts or rows == 1:
                ways = "" if adapts else "train.micro_batch=auto, or "
                raise TrainingError(
                    f"step {step + 1}: out of memory with {min(rows, self.most_rows(chosen))} pairs per forward pass, "
                    f"the longest of {max(map(len, chosen))} tokens. The update was not applied. "
                    f"Set {ways}train.gradient_checkpointing=true, or take shorter texts."
                ) from error
            done = None
        return None if adapts and self.world.any(done is None) else done

    def accumulate(self, chosen: Sequence[Encoded], rows: int, ready: Ready | None = None) -> tuple[float, float]:
        """Forward and backward over this process's share of a step, `rows` pairs at a time; its loss and positions.

        Over all passes of all processes gradients and losses add up to those of the whole batch.
        """
        target_tokens = sum(len(pair.target) for pair in chosen)
        weight = 1.0 / (target_tokens if self.config.loss == "token_mean" else len(chosen))
        loss, positions = 0.0, 0
        for number, (pairs, share) in enumerate(self._share(chosen, rows)):
            steering = for_batch(self.method, [pair.task for pair in pairs])
            there = ready is not None and ready[0] == rows
            batch = ready[1][number] if ready and there else make_host_batch(self.backbone, steering, pairs)
            if self.graphs is not None:
                batch = rounded(batch, self.backbone.pad_id, self.backbone.window)
                nll = self.graphs.add_gradients(batch, weight * share)
            else:
                nll = self._add_gradients(steering, batch, weight * share)
            loss += nll * weight * share
            positions += batch.positions
        return loss, positions

    def most_rows(self, chosen: Sequence[Encoded]) -> int:
        """Pairs of a batch that a process has at most."""
        return -(-len(chosen) // self.world.size)

    def collated(
        self, pairs: Sequence[Encoded], plan: Iterator[list[int]], rows: Callable[[], int]
    ) -> Iterator[tuple[list[int], Ready | None]]:
        """Each step's pairs, on a CUDA device with its batches, made and pinned by a thread while the device computes.

        Not those of several tasks: what stands in their rows is decided by the prompts as they are in the step.
        """
        method = self.method
        if isinstance(method, MultiTask) or not _computes_beside_the_host(self.backbone.device):
            return ((indices, None) for indices in plan)

        def made(indices: list[int]) -> tuple[list[int], Ready]:
            size = rows()
            passes = self._share([pairs[index] for index in indices], size)
            return indices, (size, [make_host_batch(self.backbone, method, part).pinned() for part, _ in passes])

        return ahead(map(made, plan))

    def _share(self, chosen: Sequence[Encoded], rows: int) -> list[tuple[Sequence[Encoded], float]]:
        """This process's share of a step's pairs by length, `rows` at a time, and what they weigh: 1.

        Where every pass is a meeting of all processes, one that has no pairs left passes another's, and they weigh 0.
        """
        ordered = sorted(chosen, key=len)
        own = self.world.share(ordered)
        count = self.most_rows(chosen) if is_sharded(self.backbone.model) else len(own)
        passes = (own[start : start + rows] for start in range(0, count, rows))
        return [(pairs, 1.0) if pairs else (ordered[:1], 0.0) for pairs in passes]

    def _add_gradients(self, steering: Method | PerRow, batch: Batch, weight: float) -> float:
        """Forward and backward of `weight` x the batch's loss, which is returned in nats."""
        bone = self.backbone
        compiled = nullcontext() if self.compiled is None else self.compiled.active()
        with steering.attach(bone, shared=True), compiled:
            with autocast(bone.device, self.config.precision, bone.model.dtype):
                nll = target_nll(bone, batch.to(bone.device))
            (nll * weight).backward()  # type: ignore[no-untyped-call]
        return float(nll.detach())


def _computes_beside_the_host(device: torch.device) -> bool:
    return device.type == "cuda"
