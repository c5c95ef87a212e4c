"""How virtual tokens reach the model: ids from V on, looked up in a table of their own instead of the word embeddings.

Virtual tokens stand among the ids of a text, so padding, positions, generation, beams and caches treat them as the
tokens they are. Hooks on the input embedding do the look-up while the block lasts; nothing is stored on a module.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from softprompt.active import TOKENS, Handle, hooked
from softprompt.backbone import Backbone
from softprompt.errors import BackboneError

_IDS: ContextVar[Tensor | None] = ContextVar("softprompt_ids", default=None)
"""The ids of the look-up in progress in this thread, as they were."""


def vocabulary_size(model: PreTrainedModel) -> int:
    """V: the rows of the input embedding, and so the first virtual id."""
    return int(model.get_input_embeddings().weight.shape[0])


def require_words(
    backbone: Backbone, rows: Sequence[tuple[int, ...]], *, targets: bool = False
) -> list[tuple[int, ...]]:
    """The rows as they are, if each id is a word of the backbone; from V on ids are virtual tokens and marks.

    `targets`: if each has a logit too.

    Raises:
        BackboneError: the first id that is none, with the tokenizer's name for it.
    """
    size = vocabulary_size(backbone.model)
    head = backbone.model.get_output_embeddings() if targets else None
    if head is not None:
        size = min(size, int(head.weight.shape[0]))
    worst = max((max(row, default=0) for row in rows), default=0)
    least = min((min(row, default=0) for row in rows), default=0)
    if worst >= size or least < 0:
        id = worst if worst >= size else least
        name = f" ({backbone.tokenizer.convert_ids_to_tokens(id)!r})" if backbone.tokenizer and id >= 0 else ""
        raise BackboneError(
            f"backbone {backbone.id!r}: expected token ids from 0 to {size - 1}, the rows of its embeddings, got "
            f"{id}{name}. Tokens were added without resizing the model: do so (resize_token_embeddings) and save it, "
            "or take the tokenizer that belongs to it."
        )
    return list(rows)


def with_indices(
    model: PreTrainedModel, words: Sequence[int], num_virtual: int, limit: int, start: int = 0
) -> tuple[int, ...]:
    """Ids that say which word of its text each is, from `start` and below `limit`: V + P + index * V + word."""
    size = vocabulary_size(model)
    first = size + num_virtual
    return tuple(first + index * size + word if index < limit else word for index, word in enumerate(words, start))


@contextmanager
def virtual_tokens(model: PreTrainedModel, table_PE: Tensor, change_SE: Tensor | None = None) -> Iterator[None]:
    """Inside the block ids V, V + 1, ... are the rows of `table_PE`; ids below V are words as ever.

    The rows stand where the embedding's output stands: after a scale that an embedding module applies (BART, Gemma 3),
    before one that the model applies to all inputs. With `change_SE`, ids from V + P on are words that say their index
    in the text (see `with_indices`); row `index` of it is added to their embedding.
    """
    weight = model.get_input_embeddings().weight
    size, count = vocabulary_size(model), len(table_PE)

    def to_words(args: tuple[Any, ...]) -> tuple[Any, ...]:
        ids_BT = args[0]
        _IDS.set(ids_BT)
        words_BT = torch.where(ids_BT >= size + count, (ids_BT - size - count) % size, ids_BT)
        return (words_BT.masked_fill((ids_BT >= size) & (ids_BT < size + count), 0), *args[1:])

    def to_rows(words_BTE: Tensor) -> Tensor:
        ids_BT = _IDS.get()
        assert ids_BT is not None
        _IDS.set(None)
        virtual_BT = (ids_BT >= size) & (ids_BT < size + count)
        rows_BTE = table_PE.to(words_BTE.dtype)[(ids_BT - size).clamp(0, count - 1)]
        words_BTE = torch.where(virtual_BT[..., None], rows_BTE, words_BTE)
        if change_SE is not None:
            indexed_BT = ids_BT >= size + count
            indices_BT = ((ids_BT - size - count) // size).clamp(min=0)
            added_BTE = change_SE.to(words_BTE.dtype)[indices_BT] * indexed_BT[..., None]
            words_BTE = words_BTE + added_BTE
        return words_BTE

    # Encoder and decoder of some architectures have embedding modules of their own with one weight.
    embeddings = [module for module in model.modules() if getattr(module, "weight", None) is weight]
    embeddings = [module for module in embeddings if isinstance(module, nn.Embedding)]

    def register(acts: Callable[[], bool]) -> list[Handle]:
        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            return to_words(args) if acts() else None

        def behind(_: nn.Module, args: tuple[Any, ...], words_BTE: Tensor) -> Tensor | None:
            return to_rows(words_BTE) if acts() else None

        handles: list[Handle] = [module.register_forward_pre_hook(before) for module in embeddings]
        return handles + [module.register_forward_hook(behind) for module in embeddings]

    with hooked(model, TOKENS, register):
        yield
