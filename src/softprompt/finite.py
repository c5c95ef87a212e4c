"""Whether numbers are numbers: one look at all that is trained, or kept, at once."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def first_unusable(tensors: Mapping[str, Tensor], *, squares: bool = False) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None where there is none.

    With `squares` numbers of float32 whose squares it does not hold (from 1.8e19) count as infinite: nothing can be
    computed with them. All norms are taken in a few fused calls, and read by the host once.
    """
    if _finite(tensors.values(), squares):
        return None
    return next((name for name, tensor in tensors.items() if not _finite([tensor], squares)), None)


def _finite(tensors: Iterable[Tensor], squares: bool) -> bool:
    groups: dict[float, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            # squares of half precision overflow where nothing is wrong
            order = 2.0 if squares and tensor.dtype in (torch.float32, torch.float64) else math.inf
            groups.setdefault(order, []).append(tensor.detach())
    return all(math.isfinite(float(nn.utils.get_total_norm(group, order))) for order, group in groups.items())
