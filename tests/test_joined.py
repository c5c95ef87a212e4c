"""Attention that joins one prefix and each row's tokens in one softmax, against that softmax written out."""

from dataclasses import replace

import factories
import pytest
import torch
from factories import ARCHITECTURES
from test_inject import random_numbers, shifted
from torch import Tensor

from softprompt import joined
from softprompt.batch import Batch
from softprompt.forms import split
from softprompt.inject import inject
from softprompt.joined import Call
from softprompt.precision import autocast

B, T, S, P, D = 3, 5, 7, 4, 8


def written_out(call: Call, added: Tensor | None) -> Tensor:
    """softmax(scale q [p; k] + added) [p_v; v], the prefix copied to each row."""
    groups, batch, length = call.query.shape[1] // call.key.shape[1], len(call.query), call.prefix_key.shape[1]
    keys = torch.cat([call.prefix_key.expand(batch, -1, -1, -1), call.key], dim=2).repeat_interleave(groups, dim=1)
    values = torch.cat([call.prefix_value.expand(batch, -1, -1, -1), call.value], dim=2)
    values = values.repeat_interleave(groups, dim=1)
    scores = call.query @ keys.transpose(2, 3) * (D**-0.5 if call.scaling is None else call.scaling)
    if added is not None:
        scores[..., length:] += added
    if call.visible is not None:
        scores[..., :length] = scores[..., :length].masked_fill(~call.visible, -torch.inf)
    return (scores.softmax(dim=3) @ values).transpose(1, 2)


def inputs(heads: int, kv_heads: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = ((B, heads, T, D), (B, kv_heads, S, D), (B, kv_heads, S, D), (kv_heads, P, D), (kv_heads, P, D))
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def masks() -> dict[str, Tensor | None]:
    """What is added to the tokens' scores; the last row of "padded" is a pad that sees no token at all."""
    lowest = torch.finfo(torch.float64).min
    causal = torch.zeros(1, 1, T, S, dtype=torch.float64).masked_fill(torch.ones(T, S).triu(S - T + 1).bool(), lowest)
    padded = causal.repeat(B, 1, 1, 1)
    padded[-1, :, :, :3] = lowest
    padded[-1, :, 0] = lowest
    return {"none": None, "causal": causal, "padded": padded, "bias": causal + torch.randn(1, 4, T, S).double()}


def seen() -> dict[str, Tensor | None]:
    some = torch.ones(B, 1, T, 1, dtype=torch.bool)
    some[0, :, :2] = False
    some[1] = False
    return {"all": None, "some": some}


CAPPED = ("gemma2",)
"""Its scores are capped: attention of its own, which is never joined."""


@pytest.mark.parametrize("visible", seen())
@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_outputs_and_gradients_are_those_of_one_softmax(
    kv_heads: int, scaling: float | None, mask: str, visible: str
) -> None:
    results: list[list[Tensor]] = []
    for attend in (written_out, joined.attend, joined.attend_by_token):
        tensors = inputs(4, kv_heads)
        call = Call(*tensors, scaling, seen()[visible])
        assert joined.has_fused(call)
        output = attend(call, masks()[mask])
        torch.manual_seed(1)
        output.backward(torch.randn(B, T, 4, D, dtype=torch.float64))
        results.append([output.detach(), *(tensor.grad for tensor in tensors if tensor.grad is not None)])
    want, fused, plain = results
    assert len(want) == len(fused) == len(plain) == 6
    torch.testing.assert_close(fused, want, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(plain, want, atol=1e-6, rtol=1e-6)  # its softmax is float32's


def test_the_gradient_of_a_sum_lies_nowhere_in_memory() -> None:
    gradients = []
    for attend in (written_out, joined.attend):
        tensors = inputs(4, 2)
        attend(Call(*tensors, None, None), None).sum().backward()
        gradients.append([tensor.grad for tensor in tensors])
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-10)


def test_bfloat16_is_as_near_as_bfloat16_gets() -> None:
    exact = written_out(Call(*inputs(4, 4), None, None), None)
    output = joined.attend(Call(*(tensor.detach().bfloat16() for tensor in inputs(4, 4)), None, None), None)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.double(), exact, atol=2e-2, rtol=2e-2)


def test_a_torch_without_the_kernel_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(*inputs(4, 4), None, None)
    assert joined.has_fused(call)
    monkeypatch.setattr(joined, "_FUSED", None)
    assert not joined.has_fused(call)


def test_what_the_fused_kernel_does_not_read_is_left_to_the_copying() -> None:
    call = Call(*inputs(4, 4), None, None)
    assert not joined.has_fused(replace(call, value=call.value[..., :4]))
    assert not joined.has_fused(replace(call, key=call.key.mT.contiguous().mT))
    assert not joined.has_fused(Call(*(tensor.to("meta") for tensor in inputs(4, 4)), None, None))


def last_columns(rows: Batch, count: int) -> Batch:
    names = ("input_ids_BT", "attention_mask_BT", "position_ids_BT")
    return replace(rows, **{name: getattr(rows, name)[:, -count:] for name in names})


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("length", [1, 6], ids=["one token", "text"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_computes_the_same_joined_and_copied(
    name: str, length: int, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joins: list[str] = []
    for way in ("attend", "attend_by_token"):
        inner = getattr(joined, way)
        monkeypatch.setattr(joined, way, lambda *given, way=way, inner=inner: joins.append(way) or inner(*given))
    bone, results = factories.backbone(name, attention=attention), []
    rows = last_columns(factories.batch(3), length)
    for shared in (False, True):
        assert not joins
        with torch.no_grad(), inject(bone.model, split(random_numbers(bone.sites()), bone.sites()), shared=shared):
            results.append(factories.logits(bone, shifted(rows))[rows.attention_mask_BT.bool()])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    by_itself = name in CAPPED or (length > 1 and attention == "eager")
    assert set(joins) == (set() if by_itself else {"attend_by_token" if length == 1 else "attend"})


@pytest.mark.parametrize(("attention", "precision"), [("sdpa", "float32"), ("sdpa", "bfloat16"), ("eager", "float32")])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_prefix_learns_the_same_joined_and_copied(name: str, attention: str, precision: str) -> None:
    bone, rows, gradients = factories.backbone(name, attention=attention), factories.batch(3), []
    for shared in (False, True):
        numbers = random_numbers(bone.sites()).requires_grad_()
        with inject(bone.model, split(numbers, bone.sites()), shared=shared), autocast(bone.device, precision):
            logits = factories.logits(bone, shifted(rows))
        logits[rows.attention_mask_BT.bool()].float().log_softmax(dim=-1)[:, 0].mean().backward()
        gradients.append(numbers.grad)
    scale, near = gradients[0].abs().max(), 1e-5 if precision == "float32" else 5e-2
    torch.testing.assert_close(gradients[1] / scale, gradients[0] / scale, atol=near, rtol=near)
