"""What the processes of a small real job send and hold in one training step, counted where it happens."""

from pathlib import Path
from typing import Any
from unittest import mock

import factories
import torch
import torch.distributed as dist
from sittings import config
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from worlds import together

from softprompt import joined
from softprompt.batch import Encoded
from softprompt.distributed import World
from softprompt.method_config import MethodConfig, PrefixTuning, PromptTuning
from softprompt.methods import METHODS
from softprompt.optim import make_optimizer, optimizer_state
from softprompt.scale import costs
from softprompt.scale_setting import Setting
from softprompt.sharding import shard
from softprompt.train import training_steps

GATHERS = ("all_gather_single", "all_gather_into_tensor")
SCATTERS = ("reduce_scatter_single", "reduce_scatter_tensor")
"""What FSDP2 calls, the newer name first; the first argument is the output."""


def counted(*names: str) -> list[int]:
    """From here on: the bytes of the first tensor of every call of the first of these that torch.distributed has."""
    name = next(name for name in names if hasattr(dist, name))
    sizes, real = list[int](), getattr(dist, name)

    def counting(first: Tensor, *arguments: Any, **named: Any) -> Any:
        sizes.append(first.numel() * first.element_size())
        return real(first, *arguments, **named)

    setattr(dist, name, counting)
    return sizes


JOBS: list[tuple[str, MethodConfig, int, bool]] = [
    ("gpt2", PrefixTuning(length=5), 2, False),
    ("gpt2", PrefixTuning(length=5), 4, True),
    ("gpt2", PromptTuning(length=5), 4, False),
    ("t5", PrefixTuning(length=5), 2, True),
    ("t5", PromptTuning(length=5), 2, False),
    ("bart", PrefixTuning(length=5), 2, True),
    ("llama", PrefixTuning(length=5), 2, False),
    ("llama", PromptTuning(length=5), 4, True),
]
"""Family, method, processes, and whether the backbone is split."""
ROWS, SOURCE, TARGET = 2, 6, 4


def measured(job: tuple[str, MethodConfig, int, bool]) -> dict[str, int | None]:
    """What a real job sends and holds; all its processes agree, but for their parts of the weights."""
    family, method, size, split = job
    first, *others = together(size, one_step, family, method, split)
    same = ("trained, numbers", "moments", "summed", "gathered", "kept")
    assert all([other[name] for name in same] == [first[name] for name in same] for other in others)
    found: dict[str, int | None] = first
    return found


def predicted(job: tuple[str, MethodConfig, int, bool], folder: Path) -> dict[str, int]:
    """The same from `softprompt.scale`."""
    family, method, size, split = job
    factories.model(family).config.save_pretrained(folder)
    setting = Setting((method.name,), (5,), (size,), rows=ROWS, source=SOURCE, target=TARGET, dtype="float32")
    cost = next(cost for cost in costs(str(folder), setting) if cost.split == split)
    vocabulary = len(factories.tokenizer())
    return {
        "trained, numbers": cost.trained,
        "moments": cost.memory["moments"],
        "summed": cost.summed,
        "gathered": cost.gathered,
        "part": cost.memory["weights"],
        "kept": cost.memory["activations"] + 4 * ROWS * TARGET * vocabulary,
    }


def one_step(world: World, family: str, method: MethodConfig, split: bool) -> dict[str, int | None]:
    """The second step of `training_steps` and the agreement on signals behind it, as `fit` has them.

    The second: before the first, a method that looked for its sites has put weights together already.
    """
    bone = factories.backbone(family)
    if split:
        shard(bone.model, world, torch.device("cpu"))
    part = sum(own_parts(bone.model).values())
    torch.manual_seed(3)
    made = METHODS[method.name](bone, method)
    settings = config(max_steps=2, batch_size=ROWS * world.size)
    optimizer = make_optimizer(made, settings)
    pairs = [Encoded((1,) * SOURCE, (1,) * TARGET)] * (ROWS * world.size)
    steps = training_steps(bone, made, optimizer, pairs, settings, seed=7, world=world)
    next(steps)
    reduced, gathered, scattered = counted("all_reduce"), counted(*GATHERS), counted(*SCATTERS)
    saved: list[Tensor] = []
    with saved_tensors_hooks(lambda one: saved.append(one) or one, lambda one: one), copied():
        next(steps)
    world.any(False)
    assert not scattered  # frozen weights have no gradients
    return {
        "trained, numbers": sum(one.numel() for one in made.trainable().values()),
        "moments": sum(one.numel() * one.element_size() for one in optimizer_state(made, optimizer).values()),
        "summed": sum(reduced),
        "gathered": sum(gathered),
        "part": part,
        "kept": None if split else kept_bytes(saved, [*bone.model.parameters(), *made.trainable().values()]),
    }


def copied() -> Any:
    """What the pages on scale are about: devices on which each row has a copy of the prefix."""
    return mock.patch.object(joined, "has_fused", lambda call: False)


def kept_bytes(saved: list[Tensor], weights: list[nn.Parameter]) -> int:
    """Bytes of the memory that saved tensors lie in, that of weights excluded."""
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    kept = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in saved}
    return sum(size for place, size in kept.items() if place not in known)


def own_parts(model: nn.Module) -> dict[str, int]:
    """Bytes of this process's part of each group of weights; of weights that are not split, all."""
    groups = {name: module for name, module in model.named_modules() if isinstance(module, FSDPModule) or not name}
    sizes = dict.fromkeys(groups, 0)
    for parameter in model.parameters():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        owners = [name for name, module in groups.items() if any(parameter is own for own in module.parameters())]
        sizes[max(owners, key=len)] += local.numel() * local.element_size()
    return sizes


def parts_of(world: World, family: str) -> dict[str, int]:
    """`own_parts` of a real job."""
    model = factories.model(family)
    shard(model, world, torch.device("cpu"))
    return own_parts(model)
