"""The loss behind a frozen head by chunks of positions: equal to all at once, without all logits at once."""

from collections.abc import Callable
from typing import Any

import factories
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from softprompt.backbone import Backbone
from softprompt.batch import make_batch
from softprompt.chunked import chunked_nll
from softprompt.loss import mean_token_nll, target_nll
from softprompt.method_config import Adapter, DePT, FineTuning, LoRA, MethodConfig, PromptTuning
from softprompt.methods import METHODS, Method
from softprompt.precision import autocast

FAMILIES = [*factories.ARCHITECTURES, *factories.SEQ2SEQ_CONFIGS]
V = len(factories.tokenizer())
WHOLE = 10**9
PAIRS = factories.pairs(5)


def learned(bone: Backbone, method: Method, at_once: int, precision: str = "float32") -> tuple[Tensor, Tensor]:
    """Loss, and the gradient of all that is learned."""
    parameters = list(method.trainable().values())
    for parameter in parameters:
        parameter.grad = None
    with method.attach(bone):
        with autocast(bone.device, precision):
            loss = target_nll(bone, make_batch(bone, method, PAIRS), at_once=at_once)
        (loss / 3).backward()
    return loss.detach(), nn.utils.parameters_to_vector([p.grad for p in parameters if p.grad is not None])


def assert_equal(bone: Backbone, method: Method, rows: int, precision: str = "float32", far: float = 1.0) -> None:
    whole, gradient = learned(bone, method, WHOLE, precision)
    loss, other = learned(bone, method, rows * V, precision)
    torch.testing.assert_close(loss, whole, rtol=1e-6 * far, atol=0)
    scale = gradient.abs().max()
    torch.testing.assert_close(other / scale, gradient / scale, rtol=1e-5 * far, atol=1e-6 * far)


def chunks(bone: Backbone, method: Method, rows: int) -> bool:
    """Whether the loss is taken by chunks."""
    batch = make_batch(bone, method, PAIRS)
    with method.attach(bone):
        return chunked_nll(bone.model, batch.inputs(), batch.at_N, batch.labels_N, rows * V) is not None


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradient_are_those_of_all_logits_at_once(name: str, rows: int) -> None:
    bone = factories.backbone(name)
    method = factories.prefix(bone)
    assert chunks(bone, method, rows)
    assert_equal(bone, method, rows)


def with_bias(model: nn.Module) -> None:
    head = nn.Linear(model.config.hidden_size, V)
    head.weight = model.get_output_embeddings().weight
    model.set_output_embeddings(head.requires_grad_(False))


def behind(model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    def changed(_: nn.Module, args: Any, out: Any) -> Any:
        out["logits"] = change(out.logits)
        return out

    model.register_forward_hook(changed)


def with_masked_words(model: nn.Module) -> None:
    def cut(logits: Tensor) -> Tensor:
        logits[..., :3] = -1e4
        return logits.mul_(0.5) + torch.linspace(0, 1, V)

    behind(model, cut)


def with_trained_scale(model: nn.Module) -> None:
    scale = nn.Parameter(torch.ones(V))
    behind(model, lambda logits: logits * scale)


def with_a_read_number(model: nn.Module) -> None:
    behind(model, lambda logits: logits / float(logits.norm()))


def with_logits_from_elsewhere(model: nn.Module) -> None:
    behind(model, lambda logits: torch.zeros(logits.shape, requires_grad=True) + 0)


@pytest.mark.parametrize("change", [with_bias, with_masked_words])
def test_whatever_follows_the_head_is_repeated(change: Any) -> None:
    bone = factories.backbone("gpt2")
    before = learned(bone, factories.prefix(bone), WHOLE)[0]
    change(bone.model)
    method = factories.prefix(bone)
    assert chunks(bone, method, 4) and learned(bone, method, WHOLE)[0] != before
    assert_equal(bone, method, 4)


@pytest.mark.parametrize("change", [with_trained_scale, with_a_read_number, with_logits_from_elsewhere])
def test_what_cannot_be_repeated_is_computed_all_at_once(change: Any) -> None:
    bone = factories.backbone("gpt2")
    change(bone.model)
    method = factories.prefix(bone)
    assert not chunks(bone, method, 4)


METHODS_TRIED: dict[str, tuple[MethodConfig, bool]] = {
    "prompt": (PromptTuning(length=4), True),
    "dept": (DePT(length=4, rank=2, text_length=6), True),
    "adapter": (Adapter(bottleneck=4), True),
    "lora": (LoRA(rank=2), True),
    "lora on the head": (LoRA(rank=2, targets=["lm_head"]), False),
    "finetune": (FineTuning(), False),
}


@pytest.mark.parametrize("which", METHODS_TRIED)
def test_a_trained_head_is_left_to_the_plain_path_and_every_method_learns_the_same(which: str) -> None:
    config, frozen = METHODS_TRIED[which]
    bone = factories.backbone("llama")
    torch.manual_seed(0)
    method = METHODS[config.name](bone, config)
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert chunks(bone, method, 4) == frozen
    assert_equal(bone, method, 4)


def test_in_bfloat16_it_comes_as_near_as_rounding_lets_it() -> None:
    bone = factories.backbone("gpt2")
    assert_equal(bone, factories.prefix(bone), 4, "bfloat16", far=1e4)


def test_the_dev_loss_is_the_same_by_chunks() -> None:
    bone = factories.backbone("gemma2")
    method = factories.prefix(bone).fold()
    whole = mean_token_nll(bone, method, PAIRS, batch_size=5)
    batch = make_batch(bone, method, PAIRS)
    with torch.no_grad(), method.attach(bone):
        part = target_nll(bone, batch, at_once=4 * V) / len(batch.labels_N)
    assert not part.requires_grad and float(part) == pytest.approx(whole, rel=1e-6)


class Largest(TorchDispatchMode):
    """The most rows of a tensor (rows, V) that is made inside, other than the head's weight turned round."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.rows = weight, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            words = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[-1] == V
            if words and leaf.untyped_storage().data_ptr() != self.weight.untyped_storage().data_ptr():
                self.rows = max(self.rows, leaf.numel() // V)
        return result


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "t5"])
def test_no_more_logits_exist_than_are_allowed(name: str) -> None:
    bone = factories.backbone(name)
    method = factories.prefix(bone)
    count = len(make_batch(bone, method, PAIRS).labels_N)
    for at_once, most in ((WHOLE, count), (5 * V, 5)):
        with Largest(bone.model.get_output_embeddings().weight) as seen:
            learned(bone, method, at_once)
        assert seen.rows == most, at_once


def test_the_head_is_whole_again_after_an_error() -> None:
    bone, batch = factories.backbone("gpt2"), factories.batch(3)
    hook = bone.model.transformer.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        target_nll(bone, batch, at_once=V)
    hook.remove()
    assert factories.logits(bone, batch).shape[:2] == batch.input_ids_BT.shape


def test_no_forward_is_made_for_nothing_once_it_is_known_that_a_head_cannot_be_repeated() -> None:
    bone = factories.backbone("gpt2")
    with_a_read_number(bone.model)
    method, counts, forwards = factories.prefix(bone), [], [0]
    bone.model.register_forward_pre_hook(lambda *_: forwards.__setitem__(0, forwards[0] + 1))
    for _ in range(3):
        before = forwards[0]
        learned(bone, method, 4 * V)
        counts.append(forwards[0] - before)
    assert counts == [2, 1, 1]
