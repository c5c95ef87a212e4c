"""Optimisers (Muon for the matrices of the blocks, AdamW for the rest), the schedule, and the checkpoint."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn


@dataclass(slots=True)
class Progress:
    """Where the run stands; `decay_start` is the step at which the learning rate begins to fall."""

    step: int = 0
    tokens: int = 0
    decay_start: int = 0
    decay_steps: int = 1

    @property
    def last(self) -> int:
        """The number of steps in the whole run."""
        return self.decay_start + self.decay_steps

    def scale(self, warmup: int) -> float:
        """The factor on the learning rates: warmup, stable, linear decay to 0."""
        if self.step >= self.decay_start:
            return max(0.0, 1.0 - (self.step - self.decay_start) / self.decay_steps)
        return min(1.0, (self.step + 1) / warmup)


def optimizers(model: nn.Module, rate: float, matrix_rate: float, muon: bool) -> list[torch.optim.Optimizer]:
    """One or two optimisers that cover every parameter once."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".h." in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    decayed = [p for p in others if p.ndim == 2]
    plain = [p for p in others if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    if not muon:
        groups.append({"params": matrices, "weight_decay": 0.1, "lr": matrix_rate})
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.97), fused=True)]
    if muon:
        found.append(torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"))
    for optimizer in found:
        for group in optimizer.param_groups:
            group["base"] = group["lr"]
    return found


def save(path: Path, model: nn.Module, found: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Write weights, optimiser state and progress to one file, atomically."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"model/{name}"] = parameter.detach()
        for optimizer in found:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"state/{name}/{key}"] = value if torch.is_tensor(value) else torch.tensor(value)
    partial = path.with_suffix(".partial")
    save_file(
        {key: value.contiguous() for key, value in tensors.items()}, partial, {"progress": json.dumps(asdict(progress))}
    )
    os.replace(partial, path)


def load(path: Path, model: nn.Module, found: list[torch.optim.Optimizer] | None) -> Progress:
    """Read what `save` wrote into the model and, unless None, the optimisers."""
    owner = {id(p): o for o in found or [] for group in o.param_groups for p in group["params"]}
    with safe_open(path, framework="pt") as file:
        progress = Progress(**json.loads(file.metadata()["progress"]))
        names = set(file.keys())
        for name, parameter in model.named_parameters():
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"model/{name}"))
            prefix = f"state/{name}/"
            state = {key[len(prefix) :]: file.get_tensor(key) for key in names if key.startswith(prefix)}
            if state and found:
                owner[id(parameter)].state[parameter] = state
    return progress
