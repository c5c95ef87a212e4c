"""Attention over [one prefix for all rows; each row's tokens] in which no row has a copy of the prefix.

The softmax over both is joined exactly: the queries of all rows meet the prefix in one product a KV head, and keys and
values of the tokens are read where they lie. `attend` does so by torch's fused kernel where it hands out what its
softmax divides by, `attend_by_token` in plain operations, on any device.

Query heads that share a KV head are folded into the time axis where the prefix is met. Outputs are (B, T, H, D).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_FUSED: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_FUSED_BACKWARD: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)
"""Not part of torch's documented interface; without them a prefix is copied."""


@dataclass(frozen=True, slots=True)
class Call:
    """What attends to what."""

    query: Tensor
    """(B, H, T, D)."""
    key: Tensor
    """Of the tokens, (B, H_kv, T', D); so is their value."""
    value: Tensor
    prefix_key: Tensor
    """Of the prefix, (H_kv, P, D); so is its value."""
    prefix_value: Tensor
    scaling: float | None
    """Of the scores; None: D^-1/2."""
    visible: Tensor | None
    """Boolean, spreads over (B, 1, T, P): who sees the prefix; None: all."""

    @property
    def scale(self) -> float:
        """Of the scores."""
        return float(self.query.shape[3] ** -0.5 if self.scaling is None else self.scaling)


def has_fused(call: Call) -> bool:
    """Whether `attend` is for these tensors: on a CPU, of one width, each token's numbers side by side."""
    if _FUSED is None or _FUSED_BACKWARD is None:
        return False
    tensors = call.query, call.key, call.value
    alike = len({one.shape[3] for one in tensors}) == 1 and all(one.stride(3) == 1 for one in tensors)
    return alike and call.query.device.type == "cpu"


def attend(call: Call, added: Tensor | None) -> Tensor:
    """In memory that grows with T + T' and not with their product: for texts, with gradients or without.

    `added` (.., T, T') is put on the tokens' scores.
    """
    query, key, value = call.query, call.key, call.value
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if added is not None:
        added = added.expand(*added.shape[:2], query.shape[2], key.shape[2])
        added = added.clamp(min=torch.finfo(dtype).min).to(dtype)  # not the -inf that float32's lowest would become
    tensors = [one.to(dtype) for one in (query, key, value, call.prefix_key, call.prefix_value)]
    sees = None if call.visible is None else call.visible[..., 0]
    output: Tensor = _Joined.apply(*tensors, added, sees, call.scale)  # type: ignore[no-untyped-call]
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


def attend_by_token(call: Call, added: Tensor | None) -> Tensor:
    """With all scores in memory: for decoding, where each row asks for one token. `added`: see `attend`."""
    batch, heads, time, dim = call.query.shape
    kv_heads, length = call.prefix_key.shape[:2]
    tokens = call.key.shape[2]
    query = call.query * call.scale
    q_rows = query.reshape(batch, kv_heads, -1, dim)
    to_tokens = (q_rows @ call.key.transpose(2, 3)).view(batch, heads, time, tokens)
    if added is not None:
        to_tokens = to_tokens + added
    scores = torch.cat([_prefix_scores(query, call.prefix_key, call.visible), to_tokens], dim=3)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    from_tokens = weights[..., length:].reshape(batch, kv_heads, -1, tokens) @ call.value
    output = from_tokens.view(batch, heads, time, -1) + _prefix_output(weights[..., :length], call.prefix_value)
    return output.transpose(1, 2)


def attend_to_prefix(call: Call) -> Tensor:
    """Over the prefix alone; 0 for tokens that do not see it."""
    query = call.query * call.scale
    weights = _prefix_scores(query, call.prefix_key, None).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    output = _prefix_output(weights, call.prefix_value)
    return (output if call.visible is None else output * call.visible).transpose(1, 2)


def _prefix_scores(query: Tensor, prefix_key: Tensor, visible: Tensor | None) -> Tensor:
    """Scaled queries of all rows against the one prefix: (B, H, T, P)."""
    scores = _as_one_row(query, prefix_key) @ prefix_key.to(query.dtype).transpose(1, 2)
    scores = _as_rows(scores, query)
    return scores if visible is None else scores.masked_fill(~visible, torch.finfo(scores.dtype).min)


def _prefix_output(weights: Tensor, prefix_value: Tensor) -> Tensor:
    """The prefix's values under weights (B, H, T, P): (B, H, T, D)."""
    return _as_rows(_as_one_row(weights, prefix_value) @ prefix_value.to(weights.dtype), weights)
