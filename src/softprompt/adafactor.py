"""Adafactor with a full second moment, as Google's prompt tuning trains its prompt (Lester et al. 2021).

Both library versions factor every tensor of two or more dimensions. Google's code switches factoring off for the
prompt, whose rows have no structure in common: one running mean of squares for each number (Shazeer & Stern 2018,
arXiv:1804.04235, algorithm 4 without the factors).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

FLOOR, SMALLEST_SCALE, CLIP = 1e-30, 1e-3, 1.0
"""The paper's epsilon 1 and 2, and the largest root mean square of an update before it is scaled by the rate."""


class FullAdafactor(torch.optim.Optimizer):
    """At step t = 1, 2, ... with rate lr, for a tensor X with gradient G:

    V = b V + (1 - b) (G^2 + 1e-30), b = 1 - t^-decay_rate;  U = G / sqrt(V), shrunk to a root mean square of 1 at most;
    X = X - lr * scale * (weight_decay * X + U), scale being 1 or, under `scale_parameter`, max(1e-3, RMS(X)).

    The decay is transformers'. Google's is weight_decay * X whatever the rate: its 1e-5 at lr 0.3 is 1e-5 / 0.3 here.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        decay_rate: float = 0.8,
        scale_parameter: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "decay_rate": decay_rate,
            "scale_parameter": scale_parameter,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every tensor that has a gradient. The state keeps V in float32 and the number of steps."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad.float(), group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        kept = self.state[parameter]
        kept["step"] = kept.get("step", 0) + 1
        if "exp_avg_sq" not in kept:
            kept["exp_avg_sq"] = torch.zeros_like(gradient)
        beta = 1 - math.pow(kept["step"], -group["decay_rate"])
        kept["exp_avg_sq"].mul_(beta).add_(gradient.square() + FLOOR, alpha=1 - beta)
        update = gradient * kept["exp_avg_sq"].rsqrt()
        update /= (_rms(update) / CLIP).clamp(min=1.0)
        value = parameter.float()
        rate = group["lr"] * (_rms(value).clamp(min=SMALLEST_SCALE) if group["scale_parameter"] else 1.0)
        parameter.copy_(value - rate * (group["weight_decay"] * value + update))


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()
