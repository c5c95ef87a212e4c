"""Optimisers and learning rates: what a recipe's `train` section asks for, and an optimiser's state as flat tensors."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from softprompt.adafactor import FullAdafactor
from softprompt.config import TrainConfig
from softprompt.errors import CheckpointError
from softprompt.methods import OwnRates, Trainable


def make_optimizer(method: Trainable, config: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's optimiser over the method's trainable tensors; a group for each rate, its peak under `highest`."""
    own = method.rates() if isinstance(method, OwnRates) else {}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in method.trainable().items():
        groups.setdefault(own.get(name, config.lr), []).append(parameter)
    listed = [{"params": parameters, "highest": rate} for rate, parameters in groups.items()]
    return OPTIMIZERS[config.optimizer](listed, config)


def _adamw(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW in one fused kernel (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
    )


def _adafactor(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """transformers' Adafactor under the recipe's own rate, or ours where nothing is to be factored."""
    if not config.factored:
        return FullAdafactor(
            groups,
            lr=config.lr,
            decay_rate=config.decay_rate,
            scale_parameter=config.scale_parameter,
            weight_decay=config.weight_decay,
        )
    from transformers.optimization import Adafactor

    made: torch.optim.Optimizer = Adafactor(
        groups,
        lr=config.lr,
        decay_rate=-config.decay_rate,
        weight_decay=config.weight_decay,
        scale_parameter=config.scale_parameter,
        relative_step=False,
    )
    return made


def _adafactor_torch(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """torch's Adafactor: always scaled by the tensor's RMS, and its rate at step t is 1/sqrt(t) at most."""
    return torch.optim.Adafactor(groups, lr=config.lr, beta2_decay=-config.decay_rate, weight_decay=config.weight_decay)


OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]], TrainConfig], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adafactor": _adafactor,
    "adafactor_torch": _adafactor_torch,
}


def learning_rate(config: TrainConfig, step: int, total: int, highest: float | None = None) -> float:
    """Rate of the 0-based `step`: linear warm-up, then the schedule; linear and cosine reach 0 after `total` steps.

    `highest` stands in for the recipe's rate where tensors have one of their own.
    """
    highest = config.lr if highest is None else highest
    if step < config.warmup_steps:
        return highest * step / config.warmup_steps
    left = max(0.0, (total - step) / max(1, total - config.warmup_steps))
    return highest * SCHEDULES[config.schedule](left)


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda left: left,
    "constant": lambda left: 1.0,
    "cosine": lambda left: 0.5 * (1 - math.cos(math.pi * left)),
}
"""Share of the steps after warm-up that are left -> share of the peak rate."""


def optimizer_state(method: Trainable, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors `<parameter>/<entry>`; empty before the first step.

    A count that the optimiser keeps as a Python int becomes a 0-d int64 tensor.
    """
    flat: dict[str, Tensor] = {}
    for name, parameter in method.trainable().items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            flat[f"{name}/{entry}"] = value.detach() if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def restore_optimizer(method: Trainable, optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_state`. Raises `CheckpointError` where the state is of other tensors.

    A tensor without state is one that no step has moved yet.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in flat.items():
        name, _, entry = key.rpartition("/")
        by_name.setdefault(name, {})[entry] = value
    odd = sorted(by_name.keys() - method.trainable().keys())
    if odd:
        raise CheckpointError(f"checkpoint does not fit the optimiser: names differ, first {odd[0]!r}.")
    for group in optimizer.param_groups:
        counts_on_host = not group.get("fused")
        named = {id(parameter): name for name, parameter in method.trainable().items()}
        for parameter in (one for one in group["params"] if named[id(one)] in by_name):
            optimizer.state[parameter] = {
                entry: _as_kept(value, parameter, on_host=entry == "step" and counts_on_host)
                for entry, value in by_name[named[id(parameter)]].items()
            }


def _as_kept(value: Tensor, parameter: Tensor, *, on_host: bool) -> Tensor | int:
    if value.ndim == 0 and value.dtype == torch.int64:
        return int(value)
    if value.dtype in (torch.float16, torch.bfloat16) and parameter.dtype == torch.float32:
        value = value.float()  # of a version that trained PEFT's tuners in the backbone's type
    return value.clone() if on_host else value.clone().to(parameter.device)
