"""A frozen backbone split over the processes of a job (torch's FSDP2), for one that is larger than a device.

Each block's weights lie in equal parts on all devices and are put together while the block computes, forward and
backward. What a method trains is not split: it is small, and every process has all of it. Every forward pass is then a
meeting of all processes, so all of them make equally many.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from softprompt.distributed import World
from softprompt.errors import BackboneError, ConfigError


def shard(model: PreTrainedModel, world: World, device: torch.device) -> None:
    """Split `model`, which lies on the host, over the devices of `world`, block by block, in place.

    On a device there is at most one whole block at a time, the embeddings, and its part of the rest.

    Raises:
        ConfigError: no job of several processes.
        BackboneError: the model has no blocks that transformers marks as such.
    """
    if not torch.distributed.is_initialized():
        raise ConfigError(
            "backbone.shard: expected a job of several processes to split the backbone over, got one alone. "
            "Start with torchrun --nproc-per-node N -m softprompt run ..., or set backbone.shard=false."
        )
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise BackboneError(
            f"backbone.shard: model type {model.config.model_type!r} has no blocks of transformers' "
            "GradientCheckpointingLayer to split. Set backbone.shard=false."
        )
    mesh = init_device_mesh(device.type, (world.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "generate")  # it runs an encoder by itself, before any forward of the whole


def is_sharded(model: PreTrainedModel) -> bool:
    """Whether every forward pass is a meeting of all processes."""
    return isinstance(model, FSDPModule)


@contextmanager
def whole_embeddings(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block the embeddings of a split backbone can be read outside of a forward pass; all do it together."""
    if isinstance(model, FSDPModule):
        model.unshard()
    try:
        yield
    finally:
        in_parts(model)


def in_parts(model: PreTrainedModel) -> None:
    """Let go of what a forward pass left whole: the embeddings, for the backward pass that may not come."""
    if isinstance(model, FSDPModule):
        model.reshard()
