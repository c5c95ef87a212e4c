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
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from softprompt.errors import ConfigError, TrainingError

Item = TypeVar("Item")

PATIENCE = timedelta(minutes=60)
"""How long one process may wait for another: the leader scores while the others wait."""

JOINING, JOINING_VARIABLE = 300.0, "SOFTPROMPT_JOIN_SECONDS"
"""Seconds that a process waits for the others of its job to start, and the variable that names another number."""

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
        return flag if self.size == 1 else self.sums([float(flag)])[0] > 0

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

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make every gradient the sum over all processes; one that no process has stays none."""
        if self.size > 1:
            self._sum_gradients(parameters)

    @torch.no_grad()
    def _sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
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
        ConfigError: the variables of `torchrun` are incomplete or no numbers, or there are fewer devices than
            processes.
        TrainingError: a process of the job has not started within `JOINING` seconds.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    _require_torchrun()
    patience, local = _joining(), _number("LOCAL_RANK", "0")
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"expected a CUDA device for each process, got {torch.cuda.device_count()} for process {local + 1} of "
                "this machine. Lower --nproc-per-node."
            )
        torch.cuda.set_device(local)
    try:
        store, rank, size = next(rendezvous("env://", timeout=patience))
    except (RuntimeError, ValueError, OSError) as error:  # torch's DistError is a RuntimeError
        raise _not_joined(patience, str(error).splitlines()[0][:200]) from error
    # torchrun keeps one store over its restarts and over our calls, with the addresses of those that are gone.
    attempt = PrefixStore(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_CALLS)}", store)
    wait_for_all(attempt, rank, size, patience)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=size, timeout=PATIENCE)
    yield World(rank, size)
    dist.destroy_process_group()  # not after an error: it might wait for the others, and they for this one's end


def _joining() -> timedelta:
    """How long to wait for all to start."""
    said = os.environ.get(JOINING_VARIABLE, str(JOINING))
    try:
        return timedelta(seconds=max(0.001, float(said)))
    except (ValueError, OverflowError):
        raise ConfigError(f"{JOINING_VARIABLE}: expected a number of seconds, got {said!r}.") from None


def _number(name: str, otherwise: str | None = None) -> int:
    """A variable of torchrun's."""
    said = os.environ.get(name, otherwise)
    try:
        return int(said or "")
    except ValueError:
        raise ConfigError(f"{name}: expected a number, as torchrun sets it, got {said!r}.") from None


def wait_for_all(store: Store, rank: int, size: int, patience: timedelta) -> None:
    """Meet all others in the store, for as long as may pass until all have started; later waits may be longer."""
    names = [f"started/{one}" for one in range(size)]
    try:
        store.set(names[rank], "here")
        store.wait(names, patience)
    except RuntimeError as error:
        try:
            absent = [str(one) for one, name in enumerate(names) if not store.check([name])]
        except RuntimeError:
            absent = ["0"]  # who keeps the store is gone
        raise _not_joined(patience, f"no sign of process {', '.join(absent[:8])} of {size}, from 0") from error


def _not_joined(patience: timedelta, reason: str) -> TrainingError:
    return TrainingError(
        f"waited {patience.total_seconds():g} s for all processes of the job to start: {reason.rstrip('.')}. Look at "
        "what they said and start the job again with --resume; where they need longer to start, set "
        f"{JOINING_VARIABLE} to more seconds."
    )


def _require_torchrun() -> None:
    absent = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if absent:
        raise ConfigError(
            f"WORLD_SIZE is set and {absent[0]} is not: expected torchrun's variables, all or none. "
            "Start with torchrun -m softprompt run ..., or unset WORLD_SIZE."
        )
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        _number(name)


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
