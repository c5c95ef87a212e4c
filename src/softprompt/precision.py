"""The arithmetic of forward passes: what bfloat16 is asked for, and what the hardware has."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from softprompt.errors import ConfigError


def autocast(device: torch.device, precision: str, weights: torch.dtype = torch.float32) -> AbstractContextManager[Any]:
    """bfloat16 autocast where `precision` asks for it, or is `auto` and the hardware multiplies bfloat16.

    `weights` is the backbone's type: under `auto`, float16 ones compute as they are.

    Raises:
        ConfigError: bfloat16 is asked for beside float16 weights, which not every device computes together.
    """
    half = weights == torch.float16
    if half and precision == "bfloat16":
        raise ConfigError(
            "train.precision: expected auto or float32 beside float16 weights, got bfloat16. "
            "Change it, or set backbone.dtype=bfloat16."
        )
    if precision == "bfloat16" or (precision == "auto" and not half and has_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def has_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32.

    Not on x86 processors with AVX-512's instructions for it alone: steps of GPT-2 small took 1.7 times as long.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("bf16"))
    return False
