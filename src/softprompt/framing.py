"""How a target starts and ends in an encoder-decoder: one place for training and for decoding.

The decoder reads a start token and then the target; it is taught the target, whose last token is the end of text. The
start is what the architecture itself puts in front of a target that it learns (mBART: the language, which its tokenizer
writes behind the end), else the config's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SAMPLES = ("a", "of the")
"""Two texts that end differently: what stands in front of both is no part of them."""


def start_of_target(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """The token that the decoder reads first, in training and in decoding; None where nothing says it."""
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None and tokenizer is not None:
        starts = {_first_shifted(shift, row) for row in tokenizer(text_target=list(_SAMPLES))["input_ids"]}
        if len(starts) == 1 and None not in starts:
            return starts.pop()
    configs = (model.config, getattr(model.config, "decoder", None), model.generation_config)
    named = [getattr(config, "decoder_start_token_id", None) for config in configs if config is not None]
    return next((int(start) for start in named if isinstance(start, int)), None)


def _first_shifted(shift: Any, row: Sequence[int]) -> int | None:
    try:
        return int(shift(torch.tensor([list(row)]))[0, 0])
    except (ValueError, TypeError, IndexError, RuntimeError, AssertionError):  # a config without start or pad token
        return None


def shifted(targets_BT: Tensor, start: int) -> Tensor:
    """What the decoder reads to predict these targets: the start token, and each target but for its last token."""
    start_B1 = torch.full_like(targets_BT[:, :1], start)
    return torch.cat([start_B1, targets_BT[:, :-1]], dim=1)


def ended(row: Sequence[int], eos: int, special: set[int]) -> tuple[int, ...]:
    """A target's ids with the end of text at their end, once.

    What a tokenizer writes behind the end (mBART's language) falls away: nothing follows an end. So does an end in
    front, where a tokenizer begins texts with it: decoding would stop there.
    """
    end = len(row)
    while end and row[end - 1] in special and row[end - 1] != eos:
        end -= 1
    if not end or row[end - 1] != eos:
        return (*row, eos)
    while end > 1 and row[end - 2] == eos:
        end -= 1
    begin = 0
    while begin < end - 1 and row[begin] == eos:
        begin += 1
    return tuple(row[begin:end])
