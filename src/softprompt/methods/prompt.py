"""Prompt tuning: learned input embeddings that stand before the text (Lester et al. 2021, arXiv:2104.08691).

Letters: P prompt length, E embedding width. Reparametrised or not: `none`, `mlp` (P = MLP(seed)), or `residual`
(Razdaibiedina et al. 2023: P + MLP(P), a bottleneck with layer norm); folded to P x E numbers after training.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softprompt.artefact import Facts
from softprompt.backbone import Backbone
from softprompt.forms import VirtualTokenForm
from softprompt.in_front import require_rows_as_words
from softprompt.init import length_of, prompt_rows
from softprompt.prompt import Prompt


class PromptMethod(nn.Module):
    """The trainable rows (P, E), through `reparam` where there is one."""

    kept_in = "prompt"

    def __init__(self, form: VirtualTokenForm, *, length: int, reparam: str = "none", bottleneck: int = 128) -> None:
        super().__init__()
        self.form, self.length = form, length
        self.residual = reparam == "residual"
        self.prompt = nn.Parameter(torch.empty(length, form.embed).uniform_(-0.5, 0.5))
        layers = [nn.Linear(form.embed, bottleneck), nn.ReLU(), nn.Linear(bottleneck, form.embed)]
        norm = [nn.LayerNorm(form.embed)] if self.residual else []
        self.mlp: nn.Sequential | None = None if reparam == "none" else nn.Sequential(*layers, *norm)

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "PromptMethod":
        """From the `method` part of a recipe, on the backbone's device, in float32.

        Raises:
            BackboneError: the backbone does not read virtual tokens as their rows alone.
            ConfigError: an initial text or a label has no tokens.
        """
        require_rows_as_words(backbone)
        form = VirtualTokenForm(backbone.hidden_width(), config.place, backbone.family)
        with torch.device(backbone.device):
            method = cls(form, length=length_of(backbone, config), reparam=config.reparam, bottleneck=config.bottleneck)
        if backbone.device.type != "meta":
            with torch.no_grad():
                method.prompt.copy_(prompt_rows(backbone, config, method.length))
        return method

    @property
    def position_offset(self) -> int:
        """0: the rows have positions of their own."""
        return 0

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        """The source's ids with P virtual ones among them."""
        return self.form.place(backbone, source, self.length)

    def forward(self) -> Tensor:
        """The rows (P, E) as the backbone reads them."""
        if self.mlp is None:
            return self.prompt
        made: Tensor = self.mlp(self.prompt)
        return self.prompt + made if self.residual else made

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        return self.form.attach(backbone, self(), shared=shared)

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    def set_mode(self, training: bool) -> None:
        self.train(training)

    def stored_count(self) -> int:
        """P x E."""
        return self.length * self.form.embed

    def live(self) -> Prompt:
        """The prompt as it is now; gradients flow from its numbers to the parameters."""
        return Prompt(self(), self.form)

    def fold(self) -> Prompt:
        """The rows without what made them."""
        with torch.no_grad():
            return Prompt(self().detach().clone(), self.form)

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: Facts | None = None) -> None:
        """See `Prompt.save`."""
        self.fold().save(folder, backbone_id=backbone_id, backbone_hash=backbone_hash, extra=extra)
