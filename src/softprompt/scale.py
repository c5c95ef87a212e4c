"""What training a prompt sends, holds and computes on many processes, without any of them.

Bytes sent follow from the messages of `softprompt.distributed` and the parts of `softprompt.sharding`, which are read
from torch's fake process group; operations and what is kept from a step without memory (`softprompt.footprint`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from softprompt.backbone import Backbone
from softprompt.distributed import World
from softprompt.errors import ConfigError
from softprompt.footprint import Footprint, full_batch, measure, weightless
from softprompt.method_config import METHOD_CONFIGS
from softprompt.plan import BYTES
from softprompt.scale_setting import Setting
from softprompt.sharding import shard

TRAINED_BYTES = 4
"""What is trained is float32."""
SUM_BYTES = 8
"""Of a number in `World.sums`."""


@dataclass(frozen=True)
class Layout:
    """A split backbone: bytes by group of weights that is put together at once, `""` being what is in no block."""

    parts: dict[str, int]
    """Of one process."""
    whole: dict[str, int]
    """Of the message that puts the group together: the largest part once for every process."""


@dataclass(frozen=True)
class Cost:
    """One training step of one process: bytes, operations, seconds at the least."""

    backbone: str
    method: str
    length: int
    processes: int
    split: bool
    trained: int
    """Numbers."""
    flops: int
    summed: int
    """Bytes of the tensors that go through all-reduce: gradients, which of them are there, loss, signals."""
    gathered: int
    """Bytes of the weights that all-gathers put together, over forward and backward."""
    memory: dict[str, int]
    """Bytes on a device, by what they are of."""
    compute_seconds: float = 0.0
    bound_seconds: float = 0.0
    """Gathering beside computing, whichever is longer, and the sums behind it."""

    @property
    def sent_summing(self) -> float:
        """Bytes that a process sends to sum in a ring: every part goes round twice."""
        return 2 * self.summed * (self.processes - 1) / self.processes

    @property
    def sent_gathering(self) -> float:
        """Bytes that a process sends to gather in a ring: every part but its own goes round once."""
        return self.gathered * (self.processes - 1) / self.processes

    @property
    def memory_total(self) -> int:
        """Bytes."""
        return sum(self.memory.values())

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        derived = ("sent_summing", "sent_gathering", "memory_total")
        return asdict(self) | {name: getattr(self, name) for name in derived}


def costs(id: str, setting: Setting) -> list[Cost]:
    """For each method and length, replicated and split over each number of processes.

    Raises:
        BackboneError: no config of that name, or no blocks to split.
        DataError: the rows do not fit the backbone's window.
        ConfigError: the method cannot have that length, or this process is one of a job.
    """
    each = BYTES[setting.dtype]
    layouts = {size: layout(id, size, each) for size in setting.processes}
    found = []
    for name in setting.methods:
        for length in setting.lengths:
            config = METHOD_CONFIGS[name].model_validate({"length": length})
            backbone, method = weightless(id, config, getattr(torch, setting.dtype))
            batch = full_batch(backbone, method, rows=setting.rows, source=setting.source, target=setting.target)
            step = measure(backbone, method, batch)
            sizes = [parameter.numel() for parameter in method.trainable().values()]
            whole = backbone.parameter_count() * each
            own = trained_memory(sizes) | activations(step, step.predicted * backbone.model.config.vocab_size, each)
            same: dict[str, Any] = {
                "backbone": id,
                "method": name,
                "length": length,
                "trained": sum(sizes),
                "flops": step.flops,
            }
            for size, parts in layouts.items():
                once = {**same, "processes": size, "summed": summed(sizes)}
                held = {"weights": whole, "gathered": 0, **own}
                found.append(_timed(Cost(**once, split=False, gathered=0, memory=held), setting))
                held = {"weights": sum(parts.parts.values()), "gathered": in_use(parts), **own}
                found.append(_timed(Cost(**once, split=True, gathered=sum(gathers(parts)), memory=held), setting))
    return found


def _timed(cost: Cost, setting: Setting) -> Cost:
    compute = cost.flops / setting.device_flops
    bound = max(compute, cost.sent_gathering / setting.bandwidth) + cost.sent_summing / setting.bandwidth
    return replace(cost, compute_seconds=compute, bound_seconds=bound)


def summed(sizes: Sequence[int]) -> int:
    """Bytes of the tensors of one step's sums: what `World.sum_gradients` and the loop around it hand over.

    `sizes`: numbers in each trained tensor. First which gradients there are, then the gradients, then loss and
    positions, and at the end of the step whether a signal came.
    """
    return SUM_BYTES * len(sizes) + TRAINED_BYTES * sum(sizes) + SUM_BYTES * 2 + SUM_BYTES


def gathers(parts: Layout) -> list[int]:
    """Bytes of each all-gather of a forward and a backward: blocks come for both, the rest stays in between.

    The gradient goes through all blocks: the first one reads what is learned.
    """
    return [size for name, size in parts.whole.items() for _ in range(2 if name else 1)]


def in_use(parts: Layout) -> int:
    """Bytes of gathered weights at once, at the least: what is in no block, and the largest block with its message."""
    rest = parts.whole.get("", 0)
    return rest + 2 * max(size for name, size in parts.whole.items() if name)


def trained_memory(sizes: Sequence[int]) -> dict[str, int]:
    """Bytes of what is trained, its gradient, and AdamW's two moments and a count for each tensor."""
    trained = TRAINED_BYTES * sum(sizes)
    return {"trained": trained, "gradients": trained, "moments": 2 * trained + TRAINED_BYTES * len(sizes)}


def activations(step: Footprint, logits: int, each: int) -> dict[str, int]:
    """Bytes kept for the backward pass, and those of the logits: as computed, in float32, and as log-softmax.

    `logits`: how many numbers. Of the three the backward pass needs the last.
    """
    copied = 0 if each == 4 else 4 * logits
    return {"activations": step.kept - 4 * logits, "logits": each * logits + copied + 4 * logits}


def layout(id: str, size: int, each: int, rank: int = 0) -> Layout:
    """How `softprompt.sharding.shard` splits the backbone over `size` processes, seen by process `rank`.

    Read from a weightless model in torch's fake process group: no process is started and nothing is sent.
    """
    with _pretended(rank, size) as world:
        return split_up(Backbone.plan(id).model, world, each)


def split_up(model: PreTrainedModel, world: World, each: int) -> Layout:
    """Split `model` in place, at `each` bytes a number; process 0's part is as large as the largest."""
    shard(model, world, torch.device("cpu"))
    groups = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
    parts, whole = dict.fromkeys(groups, 0), dict.fromkeys(groups, 0)
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor)
        group = max((one for one in groups if not one or name.startswith(f"{one}.")), key=len)
        rows = -(-parameter.shape[0] // world.size)
        parts[group] += parameter.to_local().numel() * each
        whole[group] += world.size * rows * (parameter.numel() // parameter.shape[0]) * each
    return Layout(parts, whole)


@contextmanager
def _pretended(rank: int, size: int) -> Iterator[World]:
    """The world of a process that thinks it has partners."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise ConfigError("scale: expected one process alone, got one of a job. Start it without torchrun.")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    try:
        yield World(rank, size)
    finally:
        dist.destroy_process_group()
