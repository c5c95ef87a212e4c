"""Prefix-tuning: learned keys and values in front of every attention site (Li & Liang 2021, arXiv:2101.00190, sec. 4).

Letters: P prefix length, E backbone width, W numbers per virtual token over all sites (sum of `Site.width`).
As the paper's code (not its footnote 4) has it, the seed has the backbone's width and the MLP's hidden width is free:
Embedding(P, E) -> Linear(E, hidden) -> Tanh -> Linear(hidden, W). After training the MLP is folded away.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softprompt.backbone import Backbone
from softprompt.init import activations, text_ids
from softprompt.inject import Site, inject
from softprompt.prompt import Prompt, split


class PrefixTuning(nn.Module):
    """The trainable prefix; `reparam` is `mlp` or `none` (keys and values are the parameters themselves).

    Random initialisation follows the paper's code: the seed (or the direct prefix) is N(0, 1), the linear layers have
    torch's default; `start_from` replaces it by given keys and values. `dropout` acts on the produced keys and values
    during training only.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        *,
        embed: int,
        length: int,
        reparam: str = "mlp",
        hidden: int = 512,
        dropout: float = 0.0,
        positions: str = "shifted",
    ) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.positions = positions
        width = sum(site.width for site in sites)
        self.mlp: nn.Sequential | None = None
        if reparam == "mlp":
            self.prefix = nn.Parameter(torch.randn(length, embed))
            self.mlp = nn.Sequential(nn.Linear(embed, hidden), nn.Tanh(), nn.Linear(hidden, width))
        else:
            self.prefix = nn.Parameter(torch.randn(length, width))
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "PrefixTuning":
        """From the `method` part of a recipe, on the backbone's device, in float32."""
        with torch.device(backbone.device):
            method = cls(
                backbone.sites(),
                embed=backbone.hidden_width(),
                length=config.length,
                reparam=config.reparam,
                hidden=config.hidden,
                dropout=config.dropout,
                positions=config.positions,
            )
        if config.init == "text" and backbone.device.type != "meta":
            method.start_from(activations(backbone, text_ids(backbone, config.init_text, config.length), method.sites))
        return method

    @torch.no_grad()
    def start_from(self, numbers_PW: Tensor) -> None:
        """Make the prefix `numbers_PW`: directly, or by the smallest change of the MLP's last layer that does it.

        That change is where gradient descent on the squared error ends. It is exact while P is at most the hidden
        width, least squares beyond.
        """
        if self.mlp is None:
            self.prefix.copy_(numbers_PW)
            return
        hidden_PH = self.mlp[:2](self.prefix).double()
        missing_PW = numbers_PW.double() - self.mlp(self.prefix)
        self.mlp[2].weight += (torch.linalg.pinv(hidden_PH) @ missing_PW).T

    @property
    def length(self) -> int:
        """P, in virtual tokens."""
        return self.prefix.shape[0]

    @property
    def position_offset(self) -> int:
        """P where real tokens start after the prefix (GPT-2 in the paper's code), 0 where the prefix has no place."""
        return self.length if self.positions == "shifted" else 0

    def forward(self) -> Tensor:
        """All keys and values (P, W): sites in order; within a site keys then values, heads, dims."""
        produced: Tensor = self.prefix if self.mlp is None else self.mlp(self.prefix)
        dropped: Tensor = self.dropout(produced)
        return dropped

    @contextmanager
    def attach(self, backbone: Backbone, *, shared: bool = False) -> Iterator[None]:
        with inject(backbone.model, split(self(), self.sites), shared=shared):
            yield

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    def set_mode(self, training: bool) -> None:
        self.train(training)

    def stored_count(self) -> int:
        """P x W: 2 x E numbers a layer and virtual token for a backbone without grouped heads."""
        return self.length * sum(site.width for site in self.sites)

    def fold(self) -> Prompt:
        """The prompt without its MLP: what the paper keeps (sec. 4.3)."""
        training = self.training
        self.eval()
        with torch.no_grad():
            numbers_PW = self().detach().clone()
        self.train(training)
        return Prompt(numbers_PW, self.sites, self.positions)
