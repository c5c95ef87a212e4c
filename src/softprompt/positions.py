"""Where text stands beside a prefix: positions, and the mark of an infix, seen to in the arguments of each forward.

Whoever calls the backbone (the loss, `generate`, a user's own loop) numbers its tokens 0, 1, 2, ... or not at all; a
hook in front of the forward moves them, so no caller needs to know that there is a prefix.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from softprompt.active import ARGUMENTS, Handle, hooked
from softprompt.embed import vocabulary_size
from softprompt.inject import for_each, limit_to

Arguments = dict[str, Any]


def text_starts_at(model: PreTrainedModel, position: int | Tensor, *, first: int = 0) -> AbstractContextManager[None]:
    """Inside the block every token of every row stands `position` later than it would.

    A tensor (B,) gives each row a position of its own; rows may come expanded by beams. `first` is where the
    backbone's own texts start, for callers who number nothing.
    """

    def move(arguments: Arguments) -> Arguments:
        start = for_each(position, len(arguments["input_ids"]))[:, None] if isinstance(position, Tensor) else position
        return arguments | {"position_ids": _positions(arguments, first) + start}

    return _changed_arguments(model, move)


def with_mark(model: PreTrainedModel, source: Sequence[int]) -> tuple[int, ...]:
    """A source whose last token is marked as the first that sees the infix: its id plus V."""
    return (*source[:-1], source[-1] + vocabulary_size(model))


def between(model: PreTrainedModel, length: int, *, shifted: bool, first: int = 0) -> AbstractContextManager[None]:
    """Inside the block the active prefix is seen from each row's marked token on, and by all of a row without a mark.

    A row without one is the continuation of a row that had it. Where `shifted`, what sees the infix stands `length`
    positions later. `first`: see `text_starts_at`.
    """
    size = vocabulary_size(model)

    def see(arguments: Arguments) -> Arguments:
        ids_BT: Tensor = arguments["input_ids"]
        if ids_BT.shape[1] == 1:  # one generated token, or a source of one: it sees the infix
            visible_BT = torch.ones_like(ids_BT, dtype=torch.bool)
            limit_to(model, None)
        else:
            marked_BT = ids_BT >= size
            visible_BT = (marked_BT.cumsum(1) > 0) | ~marked_BT.any(dim=1, keepdim=True)
            limit_to(model, visible_BT)
        words_BT = torch.where(ids_BT >= size, ids_BT - size, ids_BT)
        moved_BT = _positions(arguments, first) + (length * visible_BT.long() if shifted else 0)
        if arguments.get("attention_mask") is None and arguments.get("past_key_values") is None:
            # Without a mask transformers takes a jump in the positions for the seam of two packed texts.
            arguments = arguments | {"attention_mask": torch.ones_like(ids_BT)}
        return arguments | {"input_ids": words_BT, "position_ids": moved_BT}

    return _changed_arguments(model, see)


def _changed_arguments(
    model: PreTrainedModel, change: Callable[[Arguments], Arguments]
) -> AbstractContextManager[None]:
    def register(acts: Callable[[], bool]) -> list[Handle]:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: Arguments | None = None) -> Any:
            if kwargs is None or not acts():
                return None
            given = {"input_ids": args[0]} if args else {}
            return args[1:], change(given | kwargs)

        return [model.register_forward_pre_hook(before, with_kwargs=True)]

    return hooked(model, ARGUMENTS, register)


def _positions(arguments: Arguments, first: int) -> Tensor:
    """(B, T): as given; else from `first` on over each row's own tokens, behind those in the cache."""
    given: Tensor | None = arguments.get("position_ids")
    if given is not None:
        return given
    read = arguments["input_ids"] if arguments.get("input_ids") is not None else arguments["inputs_embeds"]
    time, mask = read.shape[1], arguments.get("attention_mask")
    if mask is not None and mask.ndim == 2:
        counted: Tensor = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -time:] + first
        return counted
    cache = arguments.get("past_key_values")
    past = cache.get_seq_length() if cache is not None else 0
    return torch.arange(first + past, first + past + time, device=read.device).expand(read.shape[0], -1)
