"""The processes of one job under `torchrun`: who is who, what they agree on, how their gradients become one.

Every process reads the recipe and the data and knows every batch; each computes its share. Gradients are summed once
a step, in one message for a prompt: at 0.1% of a model there is nothing to hide it behind. All processes get the same
sum to the bit, so their optimisers stay equal without another word. Process 0 leads: it alone reads and writes the run
folder, and tells the others what they need of it.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from softprompt.errors import ConfigError, TrainingError

Item = TypeVar("Item")

PATIENCE = timedelta(minutes=60)
"""How long one process may wait for another: the leader scores while the others wait."""

MESSAGE = 1 << 25
"""Numbers in one message at most (128 MiB in float32): what summing gradients takes beside them."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of its job. Alone, all of it does nothing and waits for nobody."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process reads and writes the run folder."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Every `size`-th item: over all processes each item once."""
        return list(items[self.rank :: self.size])

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return self.sums([float(flag)])[0] > 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sums of each value over all processes, in float64."""
        if self.size == 1:
            return list(values)
        totals = torch.tensor(values, dtype=torch.float64)
        _sent(dist.all_reduce, totals)
        return [float(total) for total in totals]

    def agrees(self, facts: str) -> bool:
        """Whether all processes say what the leader says."""
        return not self.any(self.told(facts.encode()) != facts.encode())

    def told(self, data: bytes | None) -> bytes:
        """The leader's `data`, in every process; what the others give does not count."""
        if self.size == 1:
            return data or b""
        length = torch.tensor([len(data or b"") if self.leads else 0])
        _sent(dist.broadcast, length, 0)
        payload = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.leads and data else None
        if payload is None:
            payload = torch.empty(int(length), dtype=torch.uint8)
        if len(payload):
            _sent(dist.broadcast, payload, 0)
        return payload.numpy().tobytes()

    def gathered(self, rows: Sequence[Any]) -> list[Any]:
        """The rows of all processes, process by process, in every process. Rows are what JSON can say."""
        if self.size == 1:
            return list(rows)
        own = torch.frombuffer(bytearray(json.dumps(list(rows)).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.long) for _ in range(self.size)]
        _sent(dist.all_gather, lengths, torch.tensor([len(own)]))
        longest = max(int(length) for length in lengths)
        padded = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        _sent(dist.all_gather, padded, nn.functional.pad(own, (0, longest - len(own))))
        parts = (part[: int(length)].numpy().tobytes() for part, length in zip(padded, lengths, strict=True))
        return [row for part in parts for row in json.loads(part)]

    @torch.no_grad()
    def copy_leader(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite `tensors` by the leader's, in place."""
        if self.size > 1:
            for tensor in tensors:
                _sent(dist.broadcast, tensor, 0)

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make every gradient the sum over all processes; one that no process has stays none."""
        if self.size == 1:
            return
        there = self.sums([float(parameter.grad is not None) for parameter in parameters])
        gradients = []
        for parameter, having in zip(parameters, there, strict=True):
            if having:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for part in _messages(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in part])
            _sent(dist.all_reduce, flat)
            for gradient, numbers in zip(part, torch.split(flat, [one.numel() for one in part]), strict=True):
                gradient.copy_(numbers.view_as(gradient))


ALONE = World()
_CALLS = count()
"""Groups that this process has been in."""


@contextmanager
def joined() -> Iterator[World]:
    """The world that `torchrun` started this process in, joined for the length of the block; `ALONE` without it.

    Takes NCCL for tensors on CUDA devices, one device a process by `LOCAL_RANK`, and gloo for the rest. A process group
    that somebody else has made is used as it is.

    Raises:
        ConfigError: the variables of `torchrun` are incomplete, or there are fewer devices than processes.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    _require_torchrun()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"expected a CUDA device for each process, got {torch.cuda.device_count()} for process {local + 1} of "
                "this machine. Lower --nproc-per-node."
            )
        torch.cuda.set_device(local)
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun keeps one store over its restarts and over our calls, with the addresses of those that are gone.
    attempt = PrefixStore(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_CALLS)}", store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=size, timeout=PATIENCE)
    yield World(rank, size)
    dist.destroy_process_group()  # not after an error: it might wait for the others, and they for this one's end


def _require_torchrun() -> None:
    absent = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if absent:
        raise ConfigError(
            f"WORLD_SIZE is set and {absent[0]} is not: expected torchrun's variables, all or none. "
            "Start with torchrun -m softprompt run ..., or unset WORLD_SIZE."
        )


def _messages(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type and device together, up to `MESSAGE` numbers, or one that is longer alone."""
    part: list[Tensor] = []
    for gradient in gradients:
        alike = not part or (gradient.dtype, gradient.device) == (part[0].dtype, part[0].device)
        if part and (not alike or sum(map(torch.numel, part)) + gradient.numel() > MESSAGE):
            yield part
            part = []
        part.append(gradient)
    if part:
        yield part


def _sent(message: Callable[..., Any], *arguments: Any) -> None:
    """Call what sends, and say plainly what a broken line means."""
    try:
        message(*arguments)
    except RuntimeError as error:
        raise lost(error) from error


def lost(error: BaseException) -> TrainingError:
    """The error of a process whose partners are gone."""
    reason = str(error).splitlines()[0][:200]
    return TrainingError(
        f"lost the other processes of the job ({reason}). What was saved is kept: start the same command again with "
        "--resume."
    )
