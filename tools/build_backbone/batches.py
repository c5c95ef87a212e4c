"""Packed token batches, a pure function of (seed, step), and the fixed validation sets."""

from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tools.build_backbone.documents import END, DocumentMaker, Segment

VALIDATION_KINDS = ("describe", "keys", "question", "another", "prose")


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` R x (T+1) and the loss weights R x T of the tokens `ids[:, 1:]`."""

    ids: Tensor
    weights: Tensor


def _encode(tokenizer: Tokenizer, documents: list[list[Segment]]) -> list[tuple[list[int], list[float]]]:
    encoded = iter(tokenizer.encode_batch_fast([text for document in documents for text, _ in document]))
    out: list[tuple[list[int], list[float]]] = []
    for document in documents:
        ids: list[int] = []
        weights: list[float] = []
        for _, weight in document:
            piece = next(encoded).ids
            ids += piece
            weights += [weight] * len(piece)
        out.append((ids, weights))
    return out


class Batcher:
    """Makes training batches of `rows` x `width` tokens, each row starting at a document's beginning."""

    def __init__(
        self, maker: DocumentMaker, tokenizer: Tokenizer, rows: int, width: int, seed: int, book_share: float = 0.35
    ) -> None:
        self.maker, self.tokenizer = maker, tokenizer
        self.rows, self.width, self.seed, self.book_share = rows, width, seed, book_share

    def batch(self, step: int) -> Batch:
        """The batch of a step; equal steps give equal batches."""
        stream = self.maker.stream(Random(f"{self.seed}/{step}"), self.book_share)
        ids = torch.zeros(self.rows, self.width + 1, dtype=torch.int64)
        weights = torch.zeros(self.rows, self.width)
        queue: list[tuple[list[int], list[float]]] = []
        for row in range(self.rows):
            tokens: list[int] = []
            values: list[float] = []
            while len(tokens) <= self.width:
                if not queue:
                    queue = _encode(self.tokenizer, [next(stream) for _ in range(32)])[::-1]
                more, weight = queue.pop()
                tokens += more
                values += weight
            ids[row] = torch.tensor(tokens[: self.width + 1])
            weights[row] = torch.tensor(values[1 : self.width + 1])
        return Batch(ids, weights)


def validation(maker: DocumentMaker, tokenizer: Tokenizer, width: int, count: int = 48) -> dict[str, Batch]:
    """Fixed held-out sets: continuations by kind without an instruction, described with one, and plain books."""
    sets: dict[str, Batch] = {}
    for name in (*VALIDATION_KINDS, "describe_asked", "books"):
        rng = Random(f"validation/{name}")
        ids = torch.zeros(count if name != "books" else 12, width + 1, dtype=torch.int64)
        weights = torch.zeros(len(ids), width)
        for row in range(len(ids)):
            if name == "books":
                document: list[Segment] = [(maker.books.passage(rng, width * 5), 1.0)]
            else:
                document = maker.record_document(rng, name.removesuffix("_asked"), free=not name.endswith("_asked"))
                document = [(document[0][0], 0.0), (END, 0.0), *document[2:]]
            ((tokens, values),) = _encode(tokenizer, [document])
            size = min(len(tokens), width + 1)
            ids[row, :size] = torch.tensor(tokens[:size])
            weights[row, : size - 1] = torch.tensor(values[1:size])
        sets[name] = Batch(ids, weights)
    return sets
