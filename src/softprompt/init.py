"""Where training starts from: plain functions that methods share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.errors import ConfigError
from softprompt.inject import Site, record
from softprompt.prompt import join


def text_ids(backbone: Backbone, text: str, length: int) -> Tensor:
    """The tokens of `text`, again and again or cut to `length`: (P,).

    Raises:
        ConfigError: the text has no tokens.
    """
    assert backbone.tokenizer is not None
    ids: list[int] = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError(f"method.init_text: expected a text with tokens, got {text!r}.")
    return torch.tensor((ids * (length // len(ids) + 1))[:length], device=backbone.device)


def activations(backbone: Backbone, ids_P: Tensor, sites: Sequence[Site]) -> Tensor:
    """The keys and values that the frozen backbone computes for real words: (P, W), laid out as a prompt's numbers.

    Source: Li & Liang 2021, sec. 7.4: starting from the activations of real words.
    """
    return join(record(backbone.model, ids_P), sites)
