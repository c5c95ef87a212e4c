"""Cross-entropy behind a frozen LM head, a chunk of target positions at a time: the logits never exist all at once.

For each chunk logits, loss and d(loss)/d(hidden) are computed in the forward pass and only the gradient, (N, E), is
kept; the backward pass multiplies it. Exact, and nothing is computed twice. The idea is that of Liger Kernel's fused
linear cross-entropy (Hsu et al. 2024, arXiv:2410.10989), for a head that is not trained and in plain torch.

What an architecture does behind its head (bias, scale, soft cap) is not known here: the calls that its forward makes
on the logits of one position are recorded and made again for each chunk.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel

from softprompt.active import HEAD, Handle, hooked
from softprompt.sharding import is_sharded

LOGITS_AT_ONCE = 2**24
"""Logits that exist at once at most, in numbers: 64 MiB a copy in float32, 333 positions of GPT-2's vocabulary."""

_NOT_REPEATABLE: WeakSet[PreTrainedModel] = WeakSet()
"""Models behind whose heads something stands that cannot be made again for each chunk."""


def chunked_nll(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], at_N: Tensor, labels_N: Tensor, at_once: int
) -> Tensor | None:
    """Sum of -log p(label) over the positions `at_N` (see `Batch`), in nats, `at_once` logits at a time.

    None where all logits are to be computed together: they are few, the head is trained, the model is in parts, or what
    follows it is not a chain of calls on each position's logits. The last is found by one forward pass, and remembered
    as long as the model lives: no other pass is made for nothing.
    """
    head = model.get_output_embeddings()
    if head is None:
        return None
    rows = max(1, at_once // head.weight.shape[0])
    # In parts, a pass is a meeting of all processes, who have other numbers of targets: all take the plain way.
    few = len(labels_N) <= rows or is_sharded(model)
    if few or model in _NOT_REPEATABLE or any(parameter.requires_grad for parameter in head.parameters()):
        return None
    hidden: list[Tensor] = []
    rest = _Rest()
    with ExitStack() as stack:

        def register(acts: Callable[[], bool]) -> list[Handle]:
            def take_one(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
                if not acts() or args[0].ndim != 3:  # some heads read several streams
                    return None
                hidden.append(args[0].flatten(0, 1).index_select(0, at_N))
                return (hidden[-1][:1].detach(), *args[1:])

            def watch(_: nn.Module, args: tuple[Any, ...], logits_1V: Tensor) -> None:
                if acts():
                    rest.begin(logits_1V)
                    stack.enter_context(rest)

            return [head.register_forward_pre_hook(take_one), head.register_forward_hook(watch)]

        with hooked(model, HEAD, register):
            last = model(**inputs, use_cache=False).logits
    if len(hidden) != 1 or last.requires_grad or not rest.leads_to(last):
        _NOT_REPEATABLE.add(model)
        return None
    return _summed(lambda hidden_CE: rest.repeat(head(hidden_CE), last), hidden[0], labels_N, rows)


def _summed(to_logits: Callable[[Tensor], Tensor], hidden_NE: Tensor, labels_N: Tensor, rows: int) -> Tensor:
    """The loss with its gradient for `hidden_NE`, from `rows` positions at a time."""
    learning = torch.is_grad_enabled() and hidden_NE.requires_grad
    gradient_NE = torch.empty_like(hidden_NE) if learning else None
    total = torch.zeros((), device=hidden_NE.device)
    for start in range(0, len(labels_N), rows):
        chunk = slice(start, start + rows)
        piece_CE = hidden_NE[chunk].detach().requires_grad_(learning)
        logits_CV = to_logits(piece_CE).float()
        nll = nn.functional.cross_entropy(logits_CV, labels_N[chunk], reduction="sum")
        del logits_CV
        if gradient_NE is not None:
            gradient_NE[chunk] = torch.autograd.grad(nll, piece_CE)[0]
        total += nll.detach()
    if gradient_NE is None:
        return total
    loss: Tensor = _WithGradient.apply(hidden_NE, total, gradient_NE)  # type: ignore[no-untyped-call]
    return loss


class _WithGradient(torch.autograd.Function):
    """A scalar of `hidden_NE` whose gradient is there already."""

    @staticmethod
    def forward(ctx: Any, hidden_NE: Tensor, value: Tensor, gradient_NE: Tensor) -> Tensor:
        ctx.save_for_backward(gradient_NE)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient_NE,) = ctx.saved_tensors
        return gradient_NE * upstream, None, None


class _Rest(TorchFunctionMode):
    """Inside it the calls of torch that depend on the logits are noted down, to be made again on others."""

    def __init__(self) -> None:
        super().__init__()
        self._first: Tensor | None = None
        self._made: dict[int, Tensor] = {}
        self._calls: list[tuple[Callable[..., Any], Any, Any, Tensor | None]] = []
        self._whole = True

    def begin(self, logits: Tensor) -> None:
        """What follows depends on these; a second head is not foreseen."""
        self._whole = self._first is None
        self._first = logits
        self._made[id(logits)] = logits

    def leads_to(self, last: Tensor) -> bool:
        """Whether `last` comes from the first logits by noted calls alone."""
        return self._whole and id(last) in self._made

    def repeat(self, logits: Tensor, last: Tensor) -> Tensor:
        """What would be in the place of `last` if `logits` were in the place of the first."""
        now: dict[int, Any] = {id(self._first): logits}
        for function, args, kwargs, made in self._calls:
            given, named = tree_map(lambda leaf: now.get(id(leaf), leaf), (args, kwargs))
            result = function(*given, **named)
            if made is not None:
                now[id(made)] = result
        found: Tensor = now[id(last)]
        return found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if any(id(leaf) in self._made for leaf in tree_leaves((args, kwargs))):
            if result is None or isinstance(result, Tensor):  # None: an assignment to a part of them
                self._calls.append((function, args, kwargs, result))
                if result is not None:
                    self._made[id(result)] = result
            elif not isinstance(result, torch.dtype | torch.device):
                self._whole = False  # a number or a shape that was read from one position's logits
        return result
