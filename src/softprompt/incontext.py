"""In-context prompting: an instruction and some solved examples before each source; nothing is trained or stored.

Brown et al. 2020 (arXiv:2005.14165), where it needs no gradient; the baseline of prompts that cost no training. The
examples are drawn from the training pairs by the recipe's seed and are the same for every source.

Causal family: ` instruction <eos>`, then each example framed as the pairs of training are, ` source <eos> target
<eos>`, then the source; behind the source's begin token where the tokenizer puts one. Seq2seq family: one text in the
encoder, `instruction source target source target ... source`, parted by single spaces; the last source keeps the
tokens that it has alone.
"""

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from softprompt.active import alone
from softprompt.backbone import Backbone
from softprompt.batch import encode_pairs, encode_sources, encode_text
from softprompt.errors import ConfigError
from softprompt.types import Example


@dataclass(frozen=True)
class InContext:
    """The tokens that stand before every source."""

    context: tuple[int, ...]
    position_offset: int = 0

    @classmethod
    def build(cls, backbone: Backbone, config: Any, examples: Sequence[Example], seed: int) -> "InContext":
        """From the `method` part of a recipe and its training pairs.

        Raises:
            ConfigError: more examples asked for than there are, or more tokens than the window has.
        """
        if config.shots > len(examples):
            raise ConfigError(
                f"method.shots: expected at most {len(examples)}, the number of training pairs, got {config.shots}. "
                "Lower it, or give more training pairs."
            )
        drawn = random.Random(seed).sample(examples, config.shots)
        context = (_text if backbone.family == "seq2seq" else _frames)(backbone, config.instruction, drawn)
        if backbone.window is not None and len(context) >= backbone.window:
            raise ConfigError(
                f"method.shots: the instruction and {config.shots} examples take {len(context)} tokens; expected fewer "
                f"than the window of {backbone.window} of backbone {backbone.id!r}. Lower it, or shorten the texts."
            )
        return cls(context)

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        """The source's ids behind the context's; a begin token stays in front."""
        cut = _begin(backbone, source)
        return (*source[:cut], *self.context, *source[cut:])

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        """Nothing to do: all of it stands in the source."""
        return alone(backbone.model)


def _frames(backbone: Backbone, instruction: str | None, drawn: Sequence[Example]) -> tuple[int, ...]:
    given = encode_sources(backbone, [instruction] if instruction else [])
    rows = [*given, *(pair.source + pair.target for pair in encode_pairs(backbone, drawn))]
    return tuple(token for row in rows for token in row[_begin(backbone, row) :])


def _text(backbone: Backbone, instruction: str | None, drawn: Sequence[Example]) -> tuple[int, ...]:
    parts = [instruction] if instruction else []
    for example in drawn:
        parts += [example.source, *example.targets]
    return encode_text(backbone, "".join(f"{part} " for part in parts))


def _begin(backbone: Backbone, row: Sequence[int]) -> int:
    """1 where the row opens with the tokenizer's begin token, else 0."""
    assert backbone.tokenizer is not None
    return int(len(row) > 1 and row[0] == backbone.tokenizer.bos_token_id)
