"""Where training starts from: plain functions that methods share. Letters: P prompt length, E width, V vocabulary."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.errors import ConfigError
from softprompt.forms import join
from softprompt.inject import Site, record


def text_ids(backbone: Backbone, text: str, length: int) -> Tensor:
    """The tokens of `text`, again and again or cut to `length`: (P,).

    Raises:
        ConfigError: the text has no tokens.
    """
    ids = _tokens(backbone, text, "method.init_text")
    return torch.tensor((ids * (length // len(ids) + 1))[:length], device=backbone.device)


def activations(backbone: Backbone, ids_P: Tensor, sites: Sequence[Site]) -> Tensor:
    """The keys and values that the frozen backbone computes for real words: (P, W), laid out as a prompt's numbers.

    Source: Li & Liang 2021, sec. 7.4: starting from the activations of real words.
    """
    return join(record(backbone.model, ids_P), sites)


def text_embeddings(backbone: Backbone, text: str, length: int) -> Tensor:
    """The word embeddings of `text`, again and again or cut to `length`: (P, E)."""
    return _embeddings(backbone)[text_ids(backbone, text, length)].clone()


def vocabulary_sample(backbone: Backbone, length: int, top: int) -> Tensor:
    """Word embeddings drawn from the `top` first (most frequent) entries of the vocabulary: (P, E).

    Without replacement unless P is more than `top`. Source: Lester et al. 2021, sec. 3.2 (5,000 entries).
    """
    table_VE = _embeddings(backbone)
    top = min(top, len(table_VE))
    chosen = torch.randint(top, (length,)) if length > top else torch.randperm(top)[:length]
    return table_VE[chosen.to(table_VE.device)].clone()


def label_embeddings(backbone: Backbone, labels: Sequence[str], length: int, top: int) -> Tensor:
    """One label a row, the mean of its tokens' embeddings; further rows from the vocabulary: (P, E).

    Source: Lester et al. 2021, sec. 3.2. Labels beyond P are left out.

    Raises:
        ConfigError: a label has no tokens.
    """
    rows_PE = vocabulary_sample(backbone, length, top)
    for row, label in enumerate(labels[:length]):
        ids = torch.tensor(_tokens(backbone, label, "method.labels"), device=backbone.device)
        rows_PE[row] = _embeddings(backbone)[ids].mean(dim=0)
    return rows_PE


def prompt_rows(backbone: Backbone, config: Any) -> Tensor:
    """Virtual tokens to start from, by the recipe's `init`: (P, E)."""
    shape = (config.length, backbone.hidden_width())
    if config.init == "vocabulary":
        return vocabulary_sample(backbone, config.length, config.init_top)
    if config.init == "text":
        return text_embeddings(backbone, config.init_text, config.length)
    if config.init == "labels":
        return label_embeddings(backbone, config.labels, config.length, config.init_top)
    scale: float = config.init_scale
    empty = torch.empty(shape, device=backbone.device)
    if config.init == "normal":
        return empty.normal_(0.0, scale)
    return empty.uniform_(0.0 if config.init == "uniform_positive" else -scale, scale)


def _embeddings(backbone: Backbone) -> Tensor:
    """(V, E) as the first layer reads them: after a scale that the embedding module applies."""
    module = backbone.model.get_input_embeddings()
    with torch.no_grad():
        rows: Tensor = module(torch.arange(module.weight.shape[0], device=backbone.device)).float()
    return rows


def _tokens(backbone: Backbone, text: str, key: str) -> list[int]:
    assert backbone.tokenizer is not None
    ids: list[int] = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError(f"{key}: expected a text with tokens, got {text!r}.")
    return ids
