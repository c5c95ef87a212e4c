"""Text to token ids, masks and labels; length buckets. The only place that tokenises and the only place that pads.

Frame of the causal family (Li & Liang's code): ` source <eos> target <eos>`, with a space on both sides of source and
target. The loss is on the target's tokens and the final end of text; the separator is part of what is given.

Frame of the seq2seq family: source and target each as the backbone's tokenizer frames a text (T5 `text </s>`, BART
`<s> text </s>`); the decoder reads the target shifted right behind its start token. The loss is on all of the target.
"""

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.embed import require_words
from softprompt.errors import ConfigError, DataError
from softprompt.framing import ended
from softprompt.methods import Steering
from softprompt.per_row import PerRow, placed
from softprompt.texts import Places, token_ids
from softprompt.types import Example

IGNORED = -100
"""Label of a position that carries no loss."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one (source, target) pair: `source` ends with the separator, `target` with the end of text.

    In the seq2seq family the source is as the tokenizer frames it.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    task: str = ""
    """Which of the tasks that are trained together it is of; empty where there is one."""

    def __len__(self) -> int:
        return len(self.source) + len(self.target)


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows. N counts target tokens over all rows."""

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    position_ids_BT: Tensor
    """0, 1, 2, ... over each row's own tokens, whatever the padding; 0 on pads."""
    at_N: Tensor
    """Positions whose next token carries loss, in order, counted through all rows: row x T + column. None without
    targets. In a seq2seq batch T is the decoder's."""
    labels_N: Tensor
    """The tokens to predict there."""
    decoder_input_ids_BT: Tensor | None = None
    """What a seq2seq decoder reads, right-padded. None in a batch without targets."""
    family: str = "causal"
    numbered: bool = True
    """Whether the backbone is told the positions: some take none."""

    @property
    def rows(self) -> int:
        return self.input_ids_BT.shape[0]

    @property
    def positions(self) -> int:
        """Tokens and pads that the backbone reads."""
        target = 0 if self.decoder_input_ids_BT is None else self.decoder_input_ids_BT.numel()
        return self.input_ids_BT.numel() + target

    @property
    def predicts_BT(self) -> Tensor:
        """Boolean: positions whose next token carries loss. False everywhere in a batch without targets."""
        read = self.input_ids_BT if self.decoder_input_ids_BT is None else self.decoder_input_ids_BT
        flat = torch.zeros(read.numel(), dtype=torch.bool, device=read.device)
        return flat.index_fill(0, self.at_N, True).view_as(read)

    def to(self, device: torch.device) -> "Batch":
        return self._changed(lambda part: part.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """In memory that a CUDA device copies from while the host goes on."""
        return self._changed(Tensor.pin_memory)

    def copied(self, device: torch.device) -> "Batch":
        """On `device`, in memory of its own."""
        return self._changed(lambda part: part.to(device, copy=True))

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are tensors, by name."""
        parts = {name: getattr(self, name) for name in self.__slots__}
        return {name: part for name, part in parts.items() if isinstance(part, Tensor)}

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[str, Any] = {name: change(part) for name, part in self.tensors().items()}
        return replace(self, **changed)

    def inputs(self) -> dict[str, Tensor]:
        """Arguments of the backbone's forward, and of `generate`."""
        given = {"input_ids": self.input_ids_BT, "attention_mask": self.attention_mask_BT}
        if self.family == "causal":
            return given | ({"position_ids": self.position_ids_BT} if self.numbered else {})
        return given if self.decoder_input_ids_BT is None else given | {"decoder_input_ids": self.decoder_input_ids_BT}


def encode_sources(
    backbone: Backbone, sources: Sequence[str], *, places: Places | None = None
) -> list[tuple[int, ...]]:
    """` source ` and the separator, after the tokenizer's own beginning-of-text where it has one.

    `places`: where the text of an index stands, for messages. Raises DataError as `token_ids`.
    """
    tokenizer, eos = backbone.tokenizer, backbone.eos_id
    assert tokenizer is not None
    if backbone.family == "seq2seq":
        return require_words(backbone, [tuple(row) for row in token_ids(tokenizer, sources, places=places)])
    rows = token_ids(tokenizer, [f" {source} " for source in sources], places=places)
    return require_words(backbone, [(*(row[:-1] if row and row[-1] == eos else row), eos) for row in rows])


def encode_targets(
    backbone: Backbone, targets: Sequence[str], *, places: Places | None = None
) -> list[tuple[int, ...]]:
    """` target ` and the end of text; `places` and errors as `encode_sources`."""
    tokenizer, eos = backbone.tokenizer, backbone.eos_id
    assert tokenizer is not None
    if backbone.family == "seq2seq":
        rows, special = token_ids(tokenizer, targets, target=True, places=places), set(tokenizer.all_special_ids)
        return require_words(backbone, [ended(row, eos, special) for row in rows], targets=True)
    rows = token_ids(tokenizer, [f" {target} " for target in targets], framed=False, places=places)
    return require_words(backbone, [(*row, eos) for row in rows], targets=True)


def encode_pairs(backbone: Backbone, examples: Sequence[Example], part: str = "") -> list[Encoded]:
    """One `Encoded` per (source, target), examples in order, their targets in order.

    `part` of the data, and the line, name a text in messages; errors as `encode_sources`.
    """
    first: dict[str, int] = {}  # E2E pairs a source with eight targets
    for index, example in enumerate(examples):
        first.setdefault(example.source, index)
    of_source, of_target = list(first.values()), [i for i, example in enumerate(examples) for _ in example.targets]
    encoded = encode_sources(backbone, list(first), places=_places(examples, of_source, part, "source"))
    sources = dict(zip(first, encoded, strict=True))
    flat = [target for example in examples for target in example.targets]
    targets = iter(encode_targets(backbone, flat, places=_places(examples, of_target, part, "target")))
    return [Encoded(sources[example.source], next(targets)) for example in examples for _ in example.targets]


def encode_given(backbone: Backbone, examples: Sequence[Example], part: str = "") -> list[tuple[int, ...]]:
    """The sources of examples, in order; `part` and errors as `encode_pairs`."""
    places = _places(examples, range(len(examples)), part, "source")
    return encode_sources(backbone, [example.source for example in examples], places=places)


def _places(examples: Sequence[Example], indices: Sequence[int], part: str, side: str) -> Places:
    start = f"{part}, " if part else ""
    return lambda at: f"{start}{examples[indices[at]].where(indices[at])}, {side}"


def encode_text(backbone: Backbone, text: str) -> tuple[int, ...]:
    """A text's own tokens, without a frame."""
    assert backbone.tokenizer is not None
    (row,) = require_words(backbone, [tuple(token_ids(backbone.tokenizer, [text], framed=False)[0])])
    return row


def require_fit(lengths: Sequence[int], limit: int | None, *, what: str, offset: int | Sequence[int] = 0) -> None:
    """Refuse token counts that do not fit the window beside `offset` positions of the prompt, or each beside its own.

    Raises:
        DataError: how many do not fit, which is the longest, and what there is room for.
    """
    if limit is None or not lengths:
        return
    offsets = [offset] * len(lengths) if isinstance(offset, int) else offset
    too_long = [index for index, length in enumerate(lengths) if length > limit - offsets[index]]
    if too_long:
        worst = max(too_long, key=lambda index: lengths[index])
        room = limit - offsets[worst]
        taken = f" beside {offsets[worst]} positions for the prompt and what is generated" if offsets[worst] else ""
        if room < 1:
            raise DataError(
                f"the window leaves no room for the {what}: expected fewer than {limit} positions for the prompt and "
                f"what is generated, got {offsets[worst]}. Lower method.length or decode.max_new_tokens."
            )
        raise DataError(
            f"{len(too_long)} of {len(lengths)} {what} are longer than the backbone's window: expected at most {room} "
            f"tokens ({limit}{taken}), got {lengths[worst]} in number {worst + 1}. "
            "Set data.truncate=source to cut sources at their end (targets are never cut), shorten or drop the texts, "
            "or take a backbone with a longer window."
        )


def require_pairs_fit(
    backbone: Backbone,
    pairs: Sequence[Encoded],
    *,
    what: str,
    offset: int | Sequence[int] = 0,
    most: int | None = None,
) -> None:
    """`require_fit` of pairs in the window, and in `most` positions where given; in an encoder-decoder, of both sides.

    There the prompt's positions are the source's.
    """
    limit = min((one for one in (backbone.window, most) if one is not None), default=None)
    if backbone.family == "causal":
        require_fit([len(pair) for pair in pairs], limit, what=what, offset=offset)
        return
    require_fit([len(pair.source) for pair in pairs], limit, what=f"sources of {what}", offset=offset)
    limit = min((one for one in (backbone.answer_window, most) if one is not None), default=None)
    require_fit([len(pair.target) for pair in pairs], limit, what=f"targets of {what}")


def require_answer_fits(backbone: Backbone, tokens: int) -> None:
    """Refuse answers that are longer than an encoder-decoder's decoder has positions; others share the window.

    Raises:
        ConfigError: with the number that fits.
    """
    most = backbone.answer_window
    if most is not None and tokens > most:
        raise ConfigError(
            f"decode.max_new_tokens: expected at most {most}, the positions of the decoder of backbone "
            f"{backbone.id!r}, got {tokens}. Lower it."
        )


def positions_taken(backbone: Backbone, pair: Encoded) -> int:
    """Positions of the window that a pair needs: all tokens in a row, or the longer side of an encoder-decoder."""
    return len(pair) if backbone.family == "causal" else max(len(pair.source), len(pair.target))


def sides(backbone: Backbone, steering: Steering, pair: Encoded) -> tuple[int, ...]:
    """Positions that the backbone computes for a pair, virtual tokens in the text included.

    (all,), or (source, target) of an encoder-decoder, which pads them apart.
    """
    source, target = len(steering.place(backbone, pair.source)), len(pair.target)
    return (source + target,) if backbone.family == "causal" else (source, target)


def batches_by_length(rows: Sequence[Sized], size: int) -> list[list[int]]:
    """Indices of `rows` in batches of similar lengths, the shortest first; ties in order."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), index))
    return [order[start : start + size] for start in range(0, len(order), size)]


def make_batch(backbone: Backbone, steering: Steering | PerRow, pairs: Sequence[Encoded]) -> Batch:
    """Pairs as `backbone` reads them in training under `steering`, on its device."""
    return make_host_batch(backbone, steering, pairs).to(backbone.device)


def make_host_batch(backbone: Backbone, steering: Steering | PerRow, pairs: Sequence[Encoded]) -> Batch:
    """The same, still on the CPU."""
    sources = placed(backbone, steering, [pair.source for pair in pairs])
    if backbone.family == "causal":
        promises, targets = backbone.promises, [pair.target for pair in pairs]
        return _padded(sources, targets, backbone.pad_id, first=promises.first_position, numbered=promises.positions)
    pairs = [Encoded(source, pair.target) for source, pair in zip(sources, pairs, strict=True)]
    return collate_seq2seq(pairs, backbone.pad_id, backbone.shifted)


def make_source_batch(backbone: Backbone, steering: Steering | PerRow, sources: Sequence[Sequence[int]]) -> Batch:
    """Sources as `backbone` reads them in decoding under `steering`, on its device; no targets."""
    sources = placed(backbone, steering, sources)
    if backbone.family == "causal":
        batch = collate_sources(sources, backbone.pad_id, first=backbone.promises.first_position)
        return replace(batch, numbered=backbone.promises.positions).to(backbone.device)
    batch = collate([Encoded(tuple(source), ()) for source in sources], backbone.pad_id)
    return replace(batch, family="seq2seq").to(backbone.device)


def collate(pairs: Sequence[Encoded], pad_id: int, *, side: str = "right", first: int = 0) -> Batch:
    """Pad pairs to the longest of them. `side` is where the pads go; the numbers of real tokens do not depend on it.

    `first` is the position of a row's first token.
    """
    return _padded([pair.source for pair in pairs], [pair.target for pair in pairs], pad_id, side=side, first=first)


def _padded(
    sources: Sequence[tuple[int, ...]],
    targets: Sequence[tuple[int, ...]],
    pad_id: int,
    *,
    side: str = "right",
    first: int = 0,
    numbered: bool = True,
) -> Batch:
    """See `collate`. With few calls of numpy, whose first ones in a step cost more than what they do; none of torch."""
    longest = max([len(source) + len(target) for source, target in zip(sources, targets, strict=True)])
    shape = len(sources), longest
    mask_BT, positions_BT = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    numbers_T = np.arange(first, first + longest)
    ids, at = list[int](), list[int]()
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        pads = [pad_id] * (longest - len(source) - len(target))
        ids += (*source, *target, *pads) if side == "right" else (*pads, *source, *target)
        start = 0 if side == "right" else len(pads)
        end = start + len(source) + len(target)
        mask_BT[row, start:end] = 1
        positions_BT[row, start:end] = numbers_T[: end - start]
        seen = max(len(source), 1)  # nothing stands before the first token of all to predict it
        at += range(row * longest + start + seen - 1, row * longest + end - 1)
    flat_ids, at_N = np.fromiter(ids, np.int64, len(ids)), np.fromiter(at, np.int64, len(at))
    arrays = flat_ids.reshape(shape), mask_BT, positions_BT, at_N, flat_ids[at_N + 1]
    ids_BT, mask, positions, predicting, labels = map(torch.from_numpy, arrays)
    return Batch(ids_BT, mask, positions, predicting, labels, numbered=numbered)


def collate_sources(sources: Sequence[Sequence[int]], pad_id: int, *, first: int = 0) -> Batch:
    """Left-padded sources for decoding; no targets."""
    return collate([Encoded(tuple(source), ()) for source in sources], pad_id, side="left", first=first)


def collate_seq2seq(
    pairs: Sequence[Encoded], pad_id: int, shifted: Callable[[Tensor], Tensor], *, side: str = "right"
) -> Batch:
    """Sources for the encoder, padded on `side`; targets for the decoder, moved right by `shifted`."""
    sources = collate([Encoded(pair.source, ()) for pair in pairs], pad_id, side=side)
    lengths = torch.tensor([len(pair.target) for pair in pairs])
    longest = int(lengths.max())
    targets_BT = torch.tensor([[*pair.target, *[pad_id] * (longest - len(pair.target))] for pair in pairs])
    predicts = _mask(lengths, longest, "right").bool()
    return Batch(
        sources.input_ids_BT,
        sources.attention_mask_BT,
        sources.position_ids_BT,
        _flat(predicts),
        targets_BT[predicts],
        shifted(targets_BT),
        "seq2seq",
    )


def _flat(marked_BT: Tensor) -> Tensor:
    """The marked positions, counted through all rows."""
    return marked_BT.flatten().nonzero()[:, 0]


def _mask(lengths: Tensor, longest: int, side: str) -> Tensor:
    steps = torch.arange(longest)[None]
    inside = steps < lengths[:, None] if side == "right" else steps >= longest - lengths[:, None]
    return inside.long()
