"""Where training starts from: plain functions that methods share. Letters: P prompt length, E width, V vocabulary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.lib.format import read_array
from torch import Tensor

from softprompt.artefact import kept_in, load_artefact, read_facts
from softprompt.backbone import Backbone
from softprompt.embed import require_words
from softprompt.errors import CheckpointError, ConfigError
from softprompt.forms import join
from softprompt.inject import Site, record
from softprompt.sharding import whole_embeddings
from softprompt.texts import token_ids

STARTS = ("prefix", "prompt", "dept")
"""Methods whose artefact another run can start from."""


def length_of(backbone: Backbone, config: Any) -> int:
    """P: the recipe's `length`, or as many virtual tokens as what it starts from has.

    Raises:
        ConfigError: the text has no tokens, or the file has another length than asked for.
        CheckpointError: the file is not there or not a prompt.
    """
    if config.init == "file":
        there = len(kept_numbers(config.init_file))
        if config.length not in (None, there):
            raise ConfigError(
                f"method.init_file: expected {config.length} virtual tokens (method.length), got {there} in "
                f"{config.init_file}. Set method.length={there} or null."
            )
        return there
    if config.length is not None:
        length: int = config.length
        return length
    return len(_tokens(backbone, config.init_text, "method.init_text"))


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


def numbers_from(backbone: Backbone, file: str, shape: tuple[int, int]) -> Tensor:
    """The numbers of a kept prompt, for another run to start from (prompt transfer): `shape`, (P, width).

    Source: Vu et al. 2022, SPoT, arXiv:2110.07904. A folder must have been learned on this backbone; a .npy file, the
    format of google-research/prompt-tuning, says nothing of its backbone.

    Raises:
        CheckpointError: not a prompt, damaged, or learned on another backbone.
        ConfigError: of another shape.
    """
    numbers = kept_numbers(file, backbone)
    if tuple(numbers.shape) != shape:
        raise ConfigError(
            f"method.init_file: expected numbers of shape {shape}, got {tuple(numbers.shape)} in {file}. "
            "Set method.length to its length, and take a prompt of the same method."
        )
    return numbers.to(backbone.device)


def kept_numbers(file: str, backbone: Backbone | None = None) -> Tensor:
    """(P, width) of a run folder, a prompt folder, or a .npy file; checked to be of `backbone` where it is given."""
    tensors = kept_tensors(file, backbone)
    numbers = tensors.get("prompt_embeddings", tensors.get("prompt"))
    if numbers is None or numbers.ndim != 2:
        raise CheckpointError(f"prompt {file}: expected a prefix, a prompt or DePT, got neither. Take such a run.")
    return numbers.float()


def kept_tensors(file: str, backbone: Backbone | None = None) -> dict[str, Tensor]:
    """All tensors of it, by name; those of a .npy file are called as a prompt's."""
    path = Path(file).expanduser()
    if path.suffix == ".npy" and (path.is_file() or not path.exists()):  # a fifo would wait for ever
        try:
            with path.open("rb") as opened:
                return {"prompt_embeddings": torch.from_numpy(read_array(opened, allow_pickle=False))}
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"prompt {file}: not an array in numpy's format ({error}).") from error
    if not path.is_dir():
        raise CheckpointError(f"method.init_file: expected a run or prompt folder, or a .npy file, got {file!r}.")
    if (method := read_facts(kept_in(path)).method) not in STARTS:
        raise CheckpointError(f"prompt {file}: expected a prefix, a prompt or DePT, got {method!r}. Take such a run.")
    return load_artefact(kept_in(path), STARTS, backbone.hash() if backbone is not None else None)[0]


def prompt_rows(backbone: Backbone, config: Any, length: int) -> Tensor:
    """Virtual tokens to start from, by the recipe's `init`: (P, E)."""
    shape = (length, backbone.hidden_width())
    if config.init == "vocabulary":
        return vocabulary_sample(backbone, length, config.init_top)
    if config.init == "text":
        return text_embeddings(backbone, config.init_text, length)
    if config.init == "labels":
        return label_embeddings(backbone, config.labels, length, config.init_top)
    if config.init == "file":
        return numbers_from(backbone, config.init_file, shape)
    scale: float = config.init_scale
    empty = torch.empty(shape, device=backbone.device)
    if config.init == "normal":
        return empty.normal_(0.0, scale)
    return empty.uniform_(0.0 if config.init == "uniform_positive" else -scale, scale)


def _embeddings(backbone: Backbone) -> Tensor:
    """(V, E) as the first layer reads them: after a scale that the embedding module applies."""
    module = backbone.model.get_input_embeddings()
    ids = torch.arange(module.weight.shape[0], device=backbone.device)
    with torch.no_grad(), whole_embeddings(backbone.model):
        rows: Tensor = module(ids).float().clone()
    return rows


def _tokens(backbone: Backbone, text: str, key: str) -> list[int]:
    if backbone.tokenizer is None:
        raise ConfigError(f"{key}: needs the tokenizer of backbone {backbone.id!r}. Give method.length a number.")
    rows = token_ids(backbone.tokenizer, [text], framed=False, places=lambda index: key)
    (ids,) = require_words(backbone, [tuple(rows[0])])
    if not ids:
        raise ConfigError(f"{key}: expected a text with tokens, got {text!r}.")
    return list(ids)
