"""Forwards of a few tokens in which every attention call is heard: what a backbone attends with, on any device.

Without weights (the meta device) what reads values cannot run: experts then take all tokens at once, and where that is
not enough the weights are zeros that take no memory.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from softprompt.errors import BackboneError, SoftpromptError

Call = tuple[nn.Module, Tensor, Tensor, Tensor]
"""A module that attended, its query (B, H, T, D), its key and its value (B, H_kv, T', D)."""


@dataclass(slots=True)
class Listener:
    """Hears the attention calls of its thread."""

    unbiased: Mapping[nn.Module, int] = field(default_factory=dict)
    """Of these modules so many keys in front of the others get no position bias (T5's), as a prefix has none."""
    calls: list[Call] = field(default_factory=list)

    def hear(self, call: Call, options: dict[str, Any]) -> dict[str, Any]:
        """Keep a call; its options as they are to be."""
        self.calls.append(call)
        bias, without = options.get("position_bias"), self.unbiased.get(call[0], 0)
        if without and bias is not None:
            there = torch.arange(bias.shape[3], device=bias.device) >= without
            options = options | {"position_bias": bias * there}
        return options


_LISTENER: ContextVar[Listener | None] = ContextVar("softprompt_listener", default=None)


@contextmanager
def listening(unbiased: Mapping[nn.Module, int] | None = None) -> Iterator[Listener]:
    """Inside the block the calls are heard; `unbiased`: see `Listener`."""
    listener = Listener(unbiased or {})
    token = _LISTENER.set(listener)
    try:
        yield listener
    finally:
        _LISTENER.reset(token)


def listener() -> Listener | None:
    """Who listens here."""
    return _LISTENER.get()


def attention_calls(model: PreTrainedModel, ids_BT: Tensor, target_BT: Tensor) -> list[Call]:
    """The calls of one forward, under what steers the backbone here, without dropout or gradient.

    `target_BT` is read by a decoder beside an encoder alone.

    Raises:
        BackboneError: the model cannot run such a forward.
    """
    if not any(parameter.is_meta for parameter in model.parameters()):
        return _heard(model, ids_BT, target_BT)
    try:
        with _all_experts_at_once(model):
            return _heard(model, ids_BT, target_BT)
    except BackboneError:
        with _experts(model, "eager"):
            source, target = (torch.zeros_like(ids, device="cpu") for ids in (ids_BT, target_BT))
            return _heard(model, source, target, _zeros(model))


def forward(model: PreTrainedModel, ids_BT: Tensor, target_BT: Tensor, weights: dict[str, Tensor] | None = None) -> Any:
    """The model's output, unpadded and without a cache; of other weights where given.

    Raises:
        BackboneError: the forward failed, and why.
    """
    inputs = {"input_ids": ids_BT.contiguous(), "attention_mask": torch.ones_like(ids_BT), "use_cache": False}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = target_BT.contiguous()
    try:
        with torch.no_grad(), without_dropout(model):
            return model(**inputs) if weights is None else functional_call(model, weights, (), inputs)
    except SoftpromptError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise BackboneError(
            f"model type {model.config.model_type!r}: expected a forward of a few tokens to run, got "
            f"{type(error).__name__}: {reason[:200]}"
        ) from error


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Inside the block the model is in eval mode; behind it every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _heard(
    model: PreTrainedModel, ids_BT: Tensor, target_BT: Tensor, weights: dict[str, Tensor] | None = None
) -> list[Call]:
    with listening() as ears:
        forward(model, ids_BT, target_BT, weights)
    return ears.calls


def _all_experts_at_once(model: PreTrainedModel) -> Any:
    """Without weights nobody knows which experts a token takes, and grouped products want numbers."""
    return _experts(model, "batched_mm")


@contextmanager
def _experts(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Inside the block experts are computed so, where transformers lets one choose."""
    before = model.get_experts_implementation()
    try:
        model.set_experts_implementation(implementation)
    except ValueError:  # this one does not let choose
        before = None
    try:
        yield
    finally:
        if before is not None:
            model.set_experts_implementation(before)


def _zeros(model: nn.Module) -> dict[str, Tensor]:
    """Zeros in the place of all weights and buffers: one number each, read as often as needed."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: torch.zeros((), dtype=one.dtype).expand(one.shape) for name, one in named}
