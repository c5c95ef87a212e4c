"""Negative log-likelihood of the targets, with logits only where there is a target."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from softprompt.backbone import Backbone, target_logits
from softprompt.batch import Batch, Encoded, make_batch
from softprompt.chunked import LOGITS_AT_ONCE, chunked_nll
from softprompt.distributed import ALONE, World
from softprompt.errors import is_out_of_memory
from softprompt.methods import Steering
from softprompt.sharding import is_sharded


def target_nll(backbone: Backbone, batch: Batch, *, at_once: int = LOGITS_AT_ONCE) -> Tensor:
    """Sum over all target tokens of -log p(token | what came before), in nats; a float32 scalar.

    Must be called inside `steering.attach(backbone)`. The final hidden states are selected before the LM head, so no
    logits exist at source tokens and pads; behind a frozen head no more than `at_once` of them exist at a time.
    """
    loss = chunked_nll(backbone.model, batch.inputs(), batch.at_N, batch.labels_N, at_once)
    if loss is not None:
        return loss
    logits_NV = target_logits(backbone.model, batch.inputs(), batch.at_N)
    return torch.nn.functional.cross_entropy(logits_NV.float(), batch.labels_N, reduction="sum")


def mean_token_nll(
    backbone: Backbone,
    steering: Steering,
    pairs: Sequence[Encoded],
    *,
    batch_size: int,
    autocast: AbstractContextManager[None] | None = None,
    world: World = ALONE,
    between: Callable[[], None] = lambda: None,
) -> float:
    """Mean negative log-likelihood per target token over `pairs`, in nats: the dev loss. Sorted by length, no grad.

    The processes of `world` take turns at the batches, and all get the mean over all of them. Each calls `between` as
    often as the others, before each of its batches; what that raises ends it. A batch for which memory runs out is
    taken by halves.
    """
    batches = by_length(pairs, batch_size)
    total, tokens = 0.0, 0
    with torch.no_grad(), autocast or nullcontext(), steering.attach(backbone, shared=True):
        for turn in range(0, len(batches), world.size):
            between()
            own = batches[turn : turn + world.size][world.rank :][:1]
            if own or is_sharded(backbone.model):  # there every pass is a meeting of all processes
                nll, count = _within_memory(backbone, steering, (own or batches)[0])
                total, tokens = (total + nll, tokens + count) if own else (total, tokens)
    total, counted = world.sums([total, tokens])
    return total / max(counted, 1)


def _within_memory(backbone: Backbone, steering: Steering, pairs: Sequence[Encoded]) -> tuple[float, int]:
    """Sum of the loss in nats over a batch and its target tokens, by halves where memory runs out.

    In a split backbone every pass is a meeting of all processes, who would have to halve together: there it is raised,
    and so it is of a single pair.
    """
    try:
        batch = make_batch(backbone, steering, pairs)
        return float(target_nll(backbone, batch)), len(batch.labels_N)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(pairs) == 1 or is_sharded(backbone.model):
            raise
    torch.cuda.empty_cache()
    middle = len(pairs) // 2
    halves = [_within_memory(backbone, steering, half) for half in (pairs[:middle], pairs[middle:])]
    return sum(nll for nll, _ in halves), sum(count for _, count in halves)


def by_length(pairs: Sequence[Encoded], batch_size: int) -> list[Sequence[Encoded]]:
    """Batches of similar lengths; the order is fixed, so the sum is reproducible."""
    ordered = sorted(pairs, key=len)
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
