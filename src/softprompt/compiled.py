"""What lies between attentions, compiled by torch.compile for training passes: feed-forward parts and their norms.

Compiled code would not notice a prompt that comes and goes, so attention, embeddings and the hooks of methods stay
outside. Dev losses and texts come from the backbone as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from softprompt.backbone import Backbone
from softprompt.errors import ConfigError

BACKEND = "inductor"


@dataclass(frozen=True, slots=True)
class Compiled:
    """Modules of a backbone and what computes in their place."""

    forwards: Sequence[tuple[nn.Module, Callable[..., Any]]]

    @classmethod
    def of(cls, backbone: Backbone) -> "Compiled":
        """Nothing is compiled before the first pass; shapes are dynamic.

        Raises:
            ConfigError: torch finds no compiler here, or all of the model's layers are single modules.
        """
        found = parts(backbone)
        if not found:
            raise ConfigError(
                "train.compile: expected a backbone that has its feed-forward parts in modules of their own, got model "
                f"type {backbone.model.config.model_type!r}, which has not. Set train.compile=false."
            )
        _require_compiler(backbone.device)
        return cls([(part, torch.compile(part.forward, dynamic=True, backend=BACKEND)) for part in found])

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block they compute; behind it every module is what it was. The block must cover the backward."""
        before = [vars(module).get("forward") for module, _ in self.forwards]
        for module, forward in self.forwards:
            module.forward = forward
        try:
            yield
        finally:
            for (module, _), own in zip(self.forwards, before, strict=True):
                if own is None:
                    del module.forward
                else:
                    module.forward = own


def parts(backbone: Backbone) -> list[nn.Module]:
    """The largest modules with weights in several layers in which nothing attends and nothing is embedded."""
    modules = dict(backbone.model.named_modules())
    attends = {modules[site.name] for site in backbone.sites()}
    found: dict[nn.Module, None] = {}

    def search(module: nn.Module) -> None:
        inside = set(module.modules())
        if inside & attends:
            for child in [] if module in attends else module.children():
                search(child)
        elif sum(bool(list(one.parameters(recurse=False))) for one in inside) > 1 and not _embeds(inside):
            found[module] = None

    search(backbone.model)
    return list(found)


def _embeds(modules: set[nn.Module]) -> bool:
    return any(isinstance(one, nn.Embedding) for one in modules)


def _require_compiler(device: torch.device) -> None:
    from torch._dynamo.exc import TorchDynamoException

    try:
        torch.compile(torch.nn.functional.gelu, backend=BACKEND)(torch.zeros(8, device=device))
    except TorchDynamoException as error:
        said = str(getattr(error, "inner_exception", error)).strip().partition("\n")[0]
        raise ConfigError(
            f"train.compile: torch.compile cannot compile for {device.type} here ({said}). "
            "Install a C++ compiler such as g++ (for CUDA also triton), or set train.compile=false."
        ) from error
