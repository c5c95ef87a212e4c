"""How virtual tokens reach the model: ids from V on, looked up in a table of their own instead of the word embeddings.

Virtual tokens stand among the ids of a text, so padding, positions, generation, beams and caches treat them as the
tokens they are. Hooks on the input embedding do the look-up while the block lasts; nothing is stored on a module.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def vocabulary_size(model: PreTrainedModel) -> int:
    """V: the rows of the input embedding, and so the first virtual id."""
    return int(model.get_input_embeddings().weight.shape[0])


@contextmanager
def virtual_tokens(model: PreTrainedModel, table_PE: Tensor) -> Iterator[None]:
    """Inside the block ids V, V + 1, ... are the rows of `table_PE`; ids below V are words as ever.

    The rows stand where the embedding's output stands: after a scale that an embedding module applies (BART, Gemma 3),
    before one that the model applies to all inputs.
    """
    first = vocabulary_size(model)
    weight = model.get_input_embeddings().weight
    seen: list[Tensor] = []  # the ids of the look-up in progress, as they were

    def to_words(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(args[0])
        return (args[0].masked_fill(args[0] >= first, 0), *args[1:])

    def to_rows(_: nn.Module, args: tuple[Any, ...], words_BTE: Tensor) -> Tensor | None:
        ids_BT = seen.pop()
        virtual_BT = ids_BT >= first
        if not virtual_BT.any():
            return None
        rows_BTE = table_PE.to(words_BTE.dtype)[(ids_BT - first).clamp(min=0)]
        return torch.where(virtual_BT[..., None], rows_BTE, words_BTE)

    # Encoder and decoder of some architectures have embedding modules of their own with one weight.
    embeddings = [module for module in model.modules() if getattr(module, "weight", None) is weight]
    embeddings = [module for module in embeddings if isinstance(module, nn.Embedding)]
    handles = [module.register_forward_pre_hook(to_words) for module in embeddings]
    handles += [module.register_forward_hook(to_rows) for module in embeddings]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
