"""Attention masks as the kernels take them: boolean (True sees) or numbers that are added to scores (0 sees)."""

import torch
from torch import Tensor, nn


def added_up(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of what there is."""
    return b if a is None else a if b is None else a + b


def causal(query: Tensor, key: Tensor) -> Tensor:
    """(1, 1, T, T') boolean: the last query sees every key (aligned bottom right, unlike torch's `is_causal`)."""
    t, s = query.shape[2], key.shape[2]
    return torch.ones(t, s, dtype=torch.bool, device=query.device).tril(s - t)[None, None]


def widened(mask: Tensor | None, length: int, visible: Tensor | None) -> Tensor | None:
    """Put `length` columns in front of a mask (..., T, T'), boolean (True sees) or additive (0 sees).

    They are seen by all rows, or as `visible` says, which spreads over (B, 1, T, P).
    """
    if mask is None:
        return None
    if visible is None:
        return nn.functional.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)
    columns = visible if mask.dtype == torch.bool else as_added(visible, mask.dtype)
    batch, time = visible.shape[0], max(visible.shape[2], mask.shape[2])
    return torch.cat([columns.expand(-1, -1, time, length), mask.expand(batch, -1, time, -1)], dim=3)


def as_added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as numbers to add to scores: 0 where visible, the lowest number of `dtype` where not."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
