"""What is promised of a backbone, tried on the backbone at hand: a few tokens, two forward passes, nothing kept on it.

That a class of transformers loads says nothing of these: an encoder reads to the right, some decoders take no
positions, some no mask. What cannot be repaired is refused with the reason; the rest is in `Promises`.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from softprompt.errors import BackboneError, SoftpromptError
from softprompt.quantize import is_quantized

LENGTH = 6
"""T of the texts that are tried."""
_CUT = 4
"""T of the one that is tried behind (or in front of) pads."""


@dataclass(frozen=True, slots=True)
class Promises:
    """What holds of a backbone, where it may be otherwise."""

    padded: bool = True
    """A text behind pads is read as the text alone. Where not, texts are decoded one by one."""
    positions: bool = True
    """Its forward takes `position_ids`, so a text can stand elsewhere than at the start."""
    first_position: int = 0
    """Where a text's first token stands when nobody says so (RoBERTa's kin: behind the padding's own position)."""


def presumed(model: PreTrainedModel) -> Promises:
    """What the architecture says, without its weights."""
    if model.config.is_encoder_decoder:
        return Promises()
    return Promises(positions="position_ids" in _arguments(model), first_position=_behind_padding(model))


def tried(id: str, model: PreTrainedModel, pad_id: int, window: int | None) -> Promises:
    """What holds of the model, found by forward passes in its present mode and type of numbers.

    Raises:
        BackboneError: a later token moves an earlier one's logits; pads move a text's in an encoder; a text has other
            logits in a batch than alone; logits are not numbers; or the passes fail.
    """
    length = LENGTH if window is None else min(LENGTH, window)
    if length < _CUT:
        return presumed(model)
    try:
        with torch.no_grad():
            probe = _Probe(id, model, pad_id, length, _tolerance(model))
            return probe.encoder_decoder() if model.config.is_encoder_decoder else probe.causal(window)
    except SoftpromptError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"backbone {id!r}: expected logits for a text of {length} tokens, got {type(error).__name__}: {reason} "
            "Take a language model that reads text alone."
        ) from error


@dataclass(frozen=True, slots=True)
class _Tolerance:
    """Differences of logits, beside how far they reach, that are rounding."""

    causal: float
    """Of the same computation on the same shapes. In 16 bits a rounding can choose other experts of a mixture."""
    batch: float
    """Of a text in a batch and alone."""
    padded: float
    """Of a text behind pads and alone; beyond it is slower, not refused."""


@dataclass(frozen=True, slots=True)
class _Probe:
    id: str
    model: PreTrainedModel
    pad_id: int
    length: int
    tolerance: _Tolerance

    def causal(self, window: int | None) -> Promises:
        presumption = presumed(self.model)
        first = presumption.first_position
        words = _words(self.model, self.pad_id, 2 * self.length)
        text, other = words[: self.length], words[self.length :]
        half, gap = self.length // 2, self.length - _CUT
        jump = 4 if window is None else min(4, window - self.length)
        ids = [text, [*text[:-1], other[-1]], [*text[:half], *other[half:]], text, [self.pad_id] * gap + text[:_CUT]]
        mask = torch.ones(len(ids), self.length, dtype=torch.long)
        mask[-1, :gap] = 0
        places = (mask.cumsum(1) - 1 + first).clamp(min=0) * mask
        places[3, half:] += max(jump, 0)
        logits = self._logits(ids, mask, places if presumption.positions else None)
        alone = self._logits([text])[0]
        self._require_causal(logits[0], logits[1], self.length - 1)
        self._require_causal(logits[0], logits[2], half)
        if not _same(logits[0], alone, self.tolerance.batch):
            raise BackboneError(
                f"backbone {self.id!r}: expected a text to be read in a batch, its positions numbered from {first}, "
                f"as it is alone, got logits that differ by {_apart(logits[0], alone):.2g}. Take another backbone."
            )
        padded = _same(logits[-1, gap:], alone[:_CUT], self.tolerance.padded)
        if not padded:  # or is it the length that moves them?
            self._require_causal(self._logits([text[:_CUT]])[0], alone, _CUT, self.tolerance.batch)
        moved = _apart(logits[3], logits[0]) > 8 * torch.finfo(torch.float32).eps * _scale(logits[0])
        return Promises(padded, presumption.positions and (moved or jump < 1), first)

    def encoder_decoder(self) -> Promises:
        words = _words(self.model, self.pad_id, 2 * self.length)
        text, other = words[: self.length], words[self.length :]
        short = [*text[:_CUT], *[self.pad_id] * (self.length - _CUT)]
        mask = torch.ones(3, self.length, dtype=torch.long)
        mask[-1, _CUT:] = 0
        targets = [other, [*other[:-1], text[-1]], other]
        logits = self._logits([text, text, short], mask, targets=targets)
        self._require_causal(logits[0], logits[1], self.length - 1)
        alone = self._logits([text[:_CUT]], targets=[other[:_CUT]])[0]
        if not _same(logits[2, :_CUT], alone, self.tolerance.batch):
            raise BackboneError(
                f"backbone {self.id!r}: expected source and target to be read padded as they are alone, got logits "
                f"that differ by {_apart(logits[2, :_CUT], alone):.2g}: pads are not masked, or a decoder's logits "
                "depend on how long its text is. Take another backbone."
            )
        return Promises()

    def _logits(
        self,
        ids: Sequence[Sequence[int]],
        mask: Tensor | None = None,
        places: Tensor | None = None,
        *,
        targets: Sequence[Sequence[int]] | None = None,
    ) -> Tensor:
        """(B, T, V) in float32, of the decoder where there are `targets`."""
        device = self.model.device
        ids_BT = torch.tensor([list(row) for row in ids], device=device)
        given = {"attention_mask": torch.ones_like(ids_BT) if mask is None else mask.to(device)}
        if places is not None:
            given["position_ids"] = places.to(device)
        if targets is not None:
            given["decoder_input_ids"] = torch.tensor([list(row) for row in targets], device=device)
        logits: Tensor = self.model(input_ids=ids_BT, **given, use_cache=False).logits.float()
        if logits.isnan().any():
            raise BackboneError(
                f"backbone {self.id!r}: expected numbers as logits, got NaN. Its weights are damaged, or too large "
                "for their type: set backbone.dtype=float32."
            )
        return logits

    def _require_causal(self, a_TV: Tensor, b_TV: Tensor, upto: int, tolerance: float | None = None) -> None:
        """Refuse where the logits of the first `upto` tokens, which both texts share, differ."""
        apart = _apart(a_TV[:upto], b_TV[:upto])
        if apart > (tolerance or self.tolerance.causal) * _scale(a_TV):
            raise BackboneError(
                f"backbone {self.id!r}: expected a causal language model, got one in which a later token moves an "
                f"earlier one's logits (by {apart:.2g}): it would see the targets that it learns. {self._advice()}"
            )

    def _advice(self) -> str:
        if self.model.config.is_encoder_decoder:
            return "Take another backbone."
        return (
            'An encoder of BERT\'s kind reads from left to right with "is_decoder": true in its config.json; else take '
            "another backbone."
        )


def _words(model: PreTrainedModel, pad_id: int, count: int) -> list[int]:
    """Ids spread over the vocabulary, without the special ones that the config names."""
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    config, size = model.config, min(int(table.weight.shape[0]) for table in tables if table is not None)
    named = [getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "sep", "cls", "unk")]
    special = {pad_id, *(item for one in named for item in (one if isinstance(one, list) else [one]))}
    found = [id for id in range(1, size, max(1, size // (4 * count))) if id not in special] or [0]
    return [found[index % len(found)] for index in range(count)]


def _same(a_TV: Tensor, b_TV: Tensor, tolerance: float) -> bool:
    return _apart(a_TV, b_TV) <= tolerance * _scale(b_TV)


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest difference; infinities of one sign are no difference."""
    return float(torch.where(a == b, torch.zeros_like(a), (a - b).abs()).max())


def _scale(logits_TV: Tensor) -> float:
    """How far logits reach from their mean."""
    finite = torch.where(logits_TV.isinf(), torch.zeros_like(logits_TV), logits_TV)
    return float((finite - finite.mean(-1, keepdim=True)).abs().max())


def _tolerance(model: PreTrainedModel) -> _Tolerance:
    exact = model.device.type != "cuda" or torch.get_float32_matmul_precision() == "highest"
    if model.dtype == torch.float32 and exact and not is_quantized(model):
        return _Tolerance(causal=1e-4, batch=5e-4, padded=5e-4)
    return _Tolerance(causal=0.1, batch=0.2, padded=0.05)


def _arguments(model: PreTrainedModel) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _behind_padding(model: PreTrainedModel) -> int:
    """The position behind that of the padding, where the table of positions has a row for padding; else 0."""
    limit: Any = getattr(model.config, "max_position_embeddings", None)
    words = model.get_input_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not words and module.padding_idx is not None:
            name_fits = limit is not None and module.num_embeddings == limit
            if name_fits:
                return int(module.padding_idx) + 1
    return 0
