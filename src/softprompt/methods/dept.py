"""DePT: a short prompt and a low-rank change of the frozen word embeddings (Shi & Lipani 2024, arXiv:2309.05173).

Letters: P prompt length, S text length covered, R rank, E embedding width. The i-th word of a text is read as its
embedding plus scale x (A B)_i, the same for every text; A is (S, R), B (R, E). P E + (S + E) R numbers are trained and
kept. Prompt and low-rank part have learning rates of their own.

Differences from the reference code: words are counted in their own text, where it counts the pads of texts padded to
S. That is the same on encoder-decoders, padded on the right; on decoder-only backbones it pads on the left, and
`positions: reference` counts as it does in decoding, so that a text ends at S. (In training it counts the label's
tokens too, which puts a source elsewhere than in decoding.) A text longer than S keeps plain embeddings beyond, where
it demands texts of S; on a decoder-only backbone the change is on the source alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softprompt.active import alone
from softprompt.artefact import Facts, load_artefact, save_artefact
from softprompt.backbone import Backbone
from softprompt.embed import virtual_tokens, vocabulary_size, with_indices
from softprompt.errors import CheckpointError, ConfigError
from softprompt.in_front import require_rows_as_words
from softprompt.init import kept_tensors, length_of, prompt_rows

BUDGET = 100
"""Virtual tokens of prompt tuning that the paper's models have the parameters of."""
_ALPHA = 8
"""The reference code's scale is alpha / sqrt(R)."""


def rank_for(length: int, text_length: int, embed: int, budget: int = BUDGET) -> int:
    """The largest R for which P E + (S + E) R is at most budget x E."""
    return max(0, (budget - length) * embed // (text_length + embed))


class DeptMethod(nn.Module):
    """The trainable prompt (P, E), A (S, R) and B (R, E)."""

    position_offset, kept_in = 0, "adapter"

    def __init__(
        self, *, embed: int, length: int, text_length: int, rank: int, scale: str, positions: str = "own"
    ) -> None:
        super().__init__()
        self.positions = positions
        self.scale_name, self.text_length = scale, text_length
        self.scale = _ALPHA / math.sqrt(rank) if scale == "reference" else 1.0
        self.prompt = nn.Parameter(torch.empty(length, embed).uniform_(-0.5, 0.5))
        self.lowrank_a = nn.Parameter(torch.empty(text_length, rank))
        self.lowrank_b = nn.Parameter(torch.zeros(rank, embed))
        nn.init.kaiming_uniform_(self.lowrank_a, a=math.sqrt(5))
        self.lowrank_lr: float | None = None

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "DeptMethod":
        """From the `method` part of a recipe, on the backbone's device, in float32.

        Raises:
            BackboneError: the backbone does not read virtual tokens as their rows alone.
            ConfigError: the budget leaves no rank, or an initial text or label has no tokens.
        """
        require_rows_as_words(backbone, indexed=True)
        embed, length = backbone.hidden_width(), length_of(backbone, config)
        rank = config.rank or rank_for(length, config.text_length, embed)
        if rank < 1:
            raise ConfigError(
                f"method.length: a prompt of {length} leaves no rank within {BUDGET} x {embed} parameters. "
                "Shorten it, or set method.rank."
            )
        with torch.device(backbone.device):
            method = cls(
                embed=embed,
                length=length,
                text_length=config.text_length,
                rank=rank,
                scale=config.scale,
                positions=config.positions,
            )
        method.lowrank_lr = config.lowrank_lr
        if backbone.device.type != "meta":
            with torch.no_grad():
                method.prompt.copy_(prompt_rows(backbone, config, length))
                if config.init == "file":
                    method._start_lowrank(kept_tensors(config.init_file, backbone), config.init_file)
        return method

    def _start_lowrank(self, kept: Mapping[str, Tensor], file: str) -> None:
        """Take A and B too where the file is of DePT; a prompt has none."""
        for name, parameter in (("lowrank_a", self.lowrank_a), ("lowrank_b", self.lowrank_b)):
            if name not in kept:
                continue
            if kept[name].shape != parameter.shape:
                raise ConfigError(
                    f"method.init_file: expected {name} of shape {tuple(parameter.shape)}, got "
                    f"{tuple(kept[name].shape)} in {file}. Set method.text_length and method.rank to its own."
                )
            parameter.copy_(kept[name])

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        """The prompt's ids, then the source's with their indices."""
        first, length = vocabulary_size(backbone.model), len(self.prompt)
        from_end = self.positions == "reference" and backbone.family == "causal"
        start = max(0, self.text_length - len(source)) if from_end else 0
        return (*range(first, first + length), *with_indices(backbone.model, source, length, self.text_length, start))

    @contextmanager
    def attach(self, backbone: Backbone, *, shared: bool = False) -> Iterator[None]:
        with alone(backbone.model), virtual_tokens(backbone.model, self.prompt, self.change()):
            yield

    def change(self) -> Tensor:
        """What is added to the words of a text (S, E)."""
        return self.scale * (self.lowrank_a @ self.lowrank_b)

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    def rates(self) -> dict[str, float]:
        """Learning rates other than the recipe's."""
        return {} if self.lowrank_lr is None else {"lowrank_a": self.lowrank_lr, "lowrank_b": self.lowrank_lr}

    def set_mode(self, training: bool) -> None:
        self.train(training)

    def stored_count(self) -> int:
        """P E + (S + E) R."""
        return sum(parameter.numel() for parameter in self.parameters())

    def fold(self) -> "DeptMethod":
        """Itself: what is trained is what is kept."""
        return self

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: Facts | None = None) -> None:
        """The tensors, the facts and a manifest."""
        facts = {"method": "dept", "scale": self.scale_name, "positions": self.positions, **(extra or {})}
        save_artefact(folder, self.trainable(), facts, backbone_id=backbone_id, backbone_hash=backbone_hash)

    @classmethod
    def load(cls, backbone: Backbone, folder: str | Path) -> "DeptMethod":
        """Read a folder written by `save`.

        Raises:
            CheckpointError: missing, damaged, or trained on another backbone.
        """
        tensors, facts = load_artefact(Path(folder), ("dept",), backbone.hash())
        (length, embed), (text_length, rank) = tensors["prompt"].shape, tensors["lowrank_a"].shape
        require_width(backbone, Path(folder), embed)
        with torch.device(backbone.device):
            made = cls(
                embed=embed,
                length=length,
                text_length=text_length,
                rank=rank,
                scale=facts.scale,
                positions=facts.positions,
            )
        made.load_state_dict(tensors)
        return made.eval()


def require_width(backbone: Backbone, folder: Path, embed: int) -> None:
    """Raise `CheckpointError` where rows are not as wide as the backbone's embeddings."""
    if embed != backbone.hidden_width():
        raise CheckpointError(
            f"prompt {folder}: expected rows of {backbone.hidden_width()} numbers, the width of backbone "
            f"{backbone.id!r}, got {embed}. Load the backbone that it was learned on."
        )
