"""Attention over [one prefix for all rows; each row's tokens] in which no row has a copy of the prefix.

The softmax over both is joined exactly: the queries of all rows meet the prefix in one product a KV head, and keys and
values of the tokens are read where they lie. `attend` does so by torch's fused kernel where it hands out what its
softmax divides by, `attend_by_token` in plain operations, on any device.

Shapes: query (B, H, T, D), key and value (B, H_kv, T', D), the prefix's key and value (H_kv, P, D). Query heads that
share a KV head are folded into the time axis where the prefix is met. `added` (.., T, T') is put on the tokens' scores;
`visible`, boolean, spreads over (B, 1, T, P): who sees the prefix. Outputs are (B, T, H, D).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_FUSED: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_FUSED_BACKWARD: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)
"""Not part of torch's documented interface; without them a prefix is copied."""


def has_fused(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attend` is for these tensors: on a CPU, of one width, each token's numbers side by side."""
    if _FUSED is None or _FUSED_BACKWARD is None:
        return False
    one_width = query.shape[3] == key.shape[3] == value.shape[3]
    return one_width and query.device.type == "cpu" and query.stride(3) == key.stride(3) == value.stride(3) == 1


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    added: Tensor | None,
    prefix_key: Tensor,
    prefix_value: Tensor,
    scaling: float | None,
    visible: Tensor | None,
) -> Tensor:
    """In memory that grows with T + T' and not with their product: for texts, with gradients or without."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if added is not None:
        added = added.expand(*added.shape[:2], query.shape[2], key.shape[2])
        added = added.clamp(min=torch.finfo(dtype).min).to(dtype)  # not the -inf that float32's lowest would become
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    prefix = prefix_key.to(dtype), prefix_value.to(dtype)
    sees = None if visible is None else visible[..., 0]
    output: Tensor = _Joined.apply(query, key, value, *prefix, added, sees, scale)  # type: ignore[no-untyped-call]
    return output.transpose(1, 2)


class _Joined(torch.autograd.Function):
    """Two calls of the fused kernel, over the tokens and over the prefix, weighted as one softmax over both.

    With z the log of what a softmax divides by, the output is e^(z1 - z) o1 + e^(z2 - z) o2, z = log(e^z1 + e^z2). The
    kernel's backward computes its weights from scores and z again, so either part given the joined z and output has
    the gradients of the joined softmax (Dao et al. 2022, section 3.1 and appendix B; the same as over blocks of keys).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        added: Tensor | None,
        sees: Tensor | None,
        scale: float,
    ) -> Tensor:
        from_tokens, z_tokens = _FUSED(query, key, value, 0.0, False, attn_mask=added, scale=scale)
        from_prefix, z_prefix = _FUSED(
            _as_one_row(query, prefix_key), prefix_key[None], prefix_value[None], 0.0, False, scale=scale
        )
        from_prefix = _as_rows(from_prefix, query)
        z_prefix = _as_rows(z_prefix[..., None], query)[..., 0]
        if sees is not None:
            z_prefix = z_prefix.masked_fill(~sees, -torch.inf)
        z = torch.logaddexp(z_tokens, z_prefix)
        output = torch.lerp(from_prefix, from_tokens, (z_tokens - z).exp()[..., None].to(query.dtype))
        ctx.save_for_backward(query, key, value, prefix_key, prefix_value, added, sees, z, output)
        ctx.scale = scale
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, prefix_key, prefix_value, added, sees, z, output = ctx.saved_tensors
        gradient = gradient if gradient.stride(3) == 1 else gradient.contiguous()  # a sum's is expanded
        by_query, by_key, by_value = _FUSED_BACKWARD(
            gradient, query, key, value, output, z, 0.0, False, attn_mask=added, scale=ctx.scale
        )
        if sees is not None:
            z = z.masked_fill(~sees, torch.inf)  # weights of 0
        one_row = [_as_one_row(rows, prefix_key) for rows in (gradient, query, output, z[..., None])]
        gradient, query_row, output_row, z_row = one_row
        by_query_row, by_prefix_key, by_prefix_value = _FUSED_BACKWARD(
            gradient, query_row, prefix_key[None], prefix_value[None], output_row, z_row[..., 0], 0.0, False,
            scale=ctx.scale,
        )  # fmt: skip
        by_query = by_query + _as_rows(by_query_row, query)
        return by_query, by_key, by_value, by_prefix_key[0], by_prefix_value[0], None, None, None


def _as_one_row(rows: Tensor, prefix_key: Tensor) -> Tensor:
    """(B, H, T, X) -> (1, H_kv, B x H / H_kv x T, X): all that meets a KV head of the prefix."""
    batch, heads, time, width = rows.shape
    kv_heads = prefix_key.shape[0]
    folded = rows.reshape(batch, kv_heads, heads // kv_heads * time, width)
    return folded.transpose(0, 1).reshape(1, kv_heads, -1, width)


def _as_rows(one_row: Tensor, query: Tensor) -> Tensor:
    """Inverse of `_as_one_row`, for rows like those of `query`."""
    batch, heads, time, _ = query.shape
    kv_heads = one_row.shape[1]
    return one_row.view(kv_heads, batch, heads // kv_heads, time, -1).transpose(0, 1).flatten(1, 2)


def attend_by_token(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    added: Tensor | None,
    prefix_key: Tensor,
    prefix_value: Tensor,
    scaling: float | None,
    visible: Tensor | None,
) -> Tensor:
    """With all scores in memory: for decoding, where each row asks for one token."""
    batch, heads, time, dim = query.shape
    kv_heads, length = prefix_key.shape[:2]
    query = query * (dim**-0.5 if scaling is None else scaling)
    q_rows = query.reshape(batch, kv_heads, -1, dim)
    to_tokens = (q_rows @ key.transpose(2, 3)).view(batch, heads, time, key.shape[2])
    if added is not None:
        to_tokens = to_tokens + added
    scores = torch.cat([_prefix_scores(query, prefix_key, visible), to_tokens], dim=3)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    from_tokens = weights[..., length:].reshape(batch, kv_heads, -1, key.shape[2]) @ value
    output = from_tokens.view(batch, heads, time, -1) + _prefix_output(weights[..., :length], prefix_value)
    return output.transpose(1, 2)


def attend_to_prefix(
    query: Tensor, prefix_key: Tensor, prefix_value: Tensor, scaling: float | None, visible: Tensor | None
) -> Tensor:
    """Over the prefix alone; 0 for tokens that do not see it."""
    query = query * (query.shape[3] ** -0.5 if scaling is None else scaling)
    weights = _prefix_scores(query, prefix_key, None).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    output = _prefix_output(weights, prefix_value)
    return (output if visible is None else output * visible).transpose(1, 2)


def _prefix_scores(query: Tensor, prefix_key: Tensor, visible: Tensor | None) -> Tensor:
    """Scaled queries of all rows against the one prefix: (B, H, T, P)."""
    scores = _as_one_row(query, prefix_key) @ prefix_key.to(query.dtype).transpose(1, 2)
    scores = _as_rows(scores, query)
    return scores if visible is None else scores.masked_fill(~visible, torch.finfo(scores.dtype).min)


def _prefix_output(weights: Tensor, prefix_value: Tensor) -> Tensor:
    """The prefix's values under weights (B, H, T, P): (B, H, T, D)."""
    return _as_rows(_as_one_row(weights, prefix_value) @ prefix_value.to(weights.dtype), weights)
