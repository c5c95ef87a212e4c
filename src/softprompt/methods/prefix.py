"""Prefix-tuning: learned keys and values in front of every attention site (Li & Liang 2021, arXiv:2101.00190, sec. 4).

Letters: P prefix length, E backbone width, W numbers per virtual token over the sites of a bank (sum of `Site.width`).
One bank for each kind of site that the backbone has (encoder, decoder, cross), with parameters of its own. As the
paper's code (not its footnote 4) has it, a bank's seed has the backbone's width and the MLP's hidden width is free:
Embedding(P, E) -> Linear(E, hidden) -> Tanh -> Linear(hidden, W). After training the MLP is folded away.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softprompt.artefact import Facts
from softprompt.backbone import Backbone
from softprompt.console import say
from softprompt.errors import ConfigError
from softprompt.forms import PrefixForm
from softprompt.in_front import other_ways, require_words_in_front
from softprompt.init import activations, length_of, numbers_from, text_ids
from softprompt.inject import KINDS, Site
from softprompt.prompt import Prompt
from softprompt.reach import reaches


class Bank(nn.Module):
    """The trainable keys and values of all sites of one kind.

    `reparam` is `mlp`, `deep` (one hidden layer more, an ablation of the paper's code) or `none` (keys and values are
    the parameters themselves). Random initialisation follows the paper's code: the seed (or the direct prefix) is
    N(0, 1), the linear layers have torch's default; `start_from` replaces it by given keys and values.
    """

    def __init__(self, width: int, *, embed: int, length: int, reparam: str, hidden: int) -> None:
        super().__init__()
        self.mlp: nn.Sequential | None = None
        if reparam == "none":
            self.prefix = nn.Parameter(torch.randn(length, width))
            return
        self.prefix = nn.Parameter(torch.randn(length, embed))
        deeper = [nn.Linear(hidden, hidden), nn.Tanh()] if reparam == "deep" else []
        self.mlp = nn.Sequential(nn.Linear(embed, hidden), nn.Tanh(), *deeper, nn.Linear(hidden, width))

    def forward(self) -> Tensor:
        """Keys and values (P, W)."""
        produced: Tensor = self.prefix if self.mlp is None else self.mlp(self.prefix)
        return produced

    @torch.no_grad()
    def start_from(self, numbers_PW: Tensor) -> None:
        """Make the prefix `numbers_PW`: directly, or by the smallest change of the MLP's last layer that does it.

        That change is where gradient descent on the squared error ends. It is exact while P is at most the hidden
        width, least squares beyond.
        """
        if self.mlp is None:
            self.prefix.copy_(numbers_PW)
            return
        last = self._last()
        hidden_PH = self.mlp[:-1](self.prefix).double()
        missing_PW = numbers_PW.double() - self.mlp(self.prefix)
        last.weight += (torch.linalg.pinv(hidden_PH) @ missing_PW).T

    @torch.no_grad()
    def silence(self, numbers: Sequence[int]) -> None:
        """Make these of the W numbers 0 at every virtual token."""
        if self.mlp is None:
            self.prefix[:, numbers] = 0.0
        else:
            self._last().weight[numbers] = 0.0
            self._last().bias[numbers] = 0.0

    def _last(self) -> nn.Linear:
        assert self.mlp is not None and isinstance(self.mlp[-1], nn.Linear)
        return self.mlp[-1]


class PrefixMethod(nn.Module):
    """The trainable prefix. `dropout` acts on the produced keys and values during training only."""

    kept_in = "prompt"

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
        place: str = "before",
        attention: str = "joined",
    ) -> None:
        super().__init__()
        self.length = length
        """P, in virtual tokens."""
        kinds = [kind for kind in KINDS if any(site.kind == kind for site in sites)]
        ordered = tuple(site for kind in kinds for site in sites if site.kind == kind)
        self.form = PrefixForm(ordered, positions, place, attention)
        widths = {kind: sum(site.width for site in sites if site.kind == kind) for kind in kinds}
        self.banks = nn.ModuleDict(
            {
                kind: Bank(width, embed=embed, length=length, reparam=reparam, hidden=hidden)
                for kind, width in widths.items()
            }
        )
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "PrefixMethod":
        """From the `method` part of a recipe, on the backbone's device, in float32.

        Says where layers of the backbone have no attention that a prefix could be in.

        Raises:
            BackboneError: the backbone's attention cannot have a prefix, or one would not act as words in front do.
            ConfigError: the recipe names sites that the backbone has not, shifts positions where there are none, or
                wants an infix where source and target are not one text.
            CheckpointError: the prompt to start from is damaged, or of another backbone.
        """
        positions = _positions(backbone, config.positions)
        if config.init == "noop" and positions == "shifted":
            raise ConfigError(
                "method.init: noop leaves the backbone as it is, which a text that starts at position `length` does "
                "not (method.positions=shifted, the default here). Set method.positions=unshifted."
            )
        with torch.device(backbone.device):
            method = cls(
                _chosen(backbone, config.sites),
                embed=backbone.hidden_width(),
                length=length_of(backbone, config),
                reparam=config.reparam,
                hidden=config.hidden,
                dropout=config.dropout,
                positions=positions,
                place=_place(backbone, config.place),
                attention=config.attention,
            )
        if backbone.device.type != "meta":
            method._start(backbone, config)
        return method

    def _start(self, backbone: Backbone, config: Any) -> None:
        if config.init == "text":
            ids = text_ids(backbone, config.init_text, self.length)
            self.start_from(activations(backbone, ids, self.form.sites))
        elif config.init == "file":
            self.start_from(numbers_from(backbone, config.init_file, (self.length, self.form.width)))
        elif config.init == "noop":
            self.silence_values()

    def start_from(self, numbers_PW: Tensor) -> None:
        """Start every bank from its part of `numbers_PW`, laid out as `forward` gives it; see `Bank.start_from`."""
        widths = [sum(site.width for site in self.form.sites if site.kind == kind) for kind in self.banks]
        for bank, part_PW in zip(self._banks(), torch.split(numbers_PW, widths, dim=1), strict=True):
            bank.start_from(part_PW)

    def silence_values(self) -> None:
        """Start from values of 0: beside the backbone's own attention, they change nothing until they are trained.

        The keys stay random, so the values get a gradient at once. Source: the zero-initialised attention of Zhang et
        al. 2023, LLaMA-Adapter, arXiv:2303.16199, whose gate is folded into the values here.
        """
        for kind, bank in zip(self.banks, self._banks(), strict=True):
            start, values = 0, list[int]()
            for site in (site for site in self.form.sites if site.kind == kind):
                values += range(start + site.kv_heads * site.key_dim, start + site.width)
                start += site.width
            bank.silence(values)

    def _banks(self) -> list[Bank]:
        return [bank for bank in self.banks.values() if isinstance(bank, Bank)]

    @property
    def position_offset(self) -> int:
        """P where real tokens start after the prefix (GPT-2 in the paper's code), 0 where the prefix has no place."""
        return self.form.position_offset(self.length)

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        """The source as it is: the prefix is in no row."""
        return self.form.place(backbone, source, self.length)

    def forward(self) -> Tensor:
        """All keys and values (P, W): sites in order; within a site keys then values, heads, dims."""
        dropped: Tensor = self.dropout(torch.cat([bank() for bank in self._banks()], dim=1))
        return dropped

    def attach(self, backbone: Backbone, *, shared: bool = False) -> AbstractContextManager[None]:
        return self.form.attach(backbone, self(), shared=shared)

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    def set_mode(self, training: bool) -> None:
        self.train(training)

    def stored_count(self) -> int:
        """P x W: 2 x E numbers a site and virtual token for a backbone without grouped heads."""
        return self.length * self.form.width

    def live(self) -> Prompt:
        """The prompt as it is now, dropout included; gradients flow from its numbers to the parameters."""
        return Prompt(self(), self.form)

    def fold(self) -> Prompt:
        """The prompt without its MLP: what the paper keeps (sec. 4.3)."""
        training = self.training
        self.eval()
        with torch.no_grad():
            numbers_PW = self().detach().clone()
        self.train(training)
        return Prompt(numbers_PW, self.form)

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: Facts | None = None) -> None:
        """See `Prompt.save`."""
        self.fold().save(folder, backbone_id=backbone_id, backbone_hash=backbone_hash, extra=extra)


def _chosen(backbone: Backbone, kinds: Sequence[str] | None) -> tuple[Site, ...]:
    """The backbone's sites of the kinds asked for; None: all."""
    sites = backbone.sites(one_call=True)
    there = list(dict.fromkeys(site.kind for site in sites))
    absent = [kind for kind in kinds or [] if kind not in there]
    if absent:
        raise ConfigError(
            f"method.sites: backbone {backbone.id!r} has sites of kind {', '.join(there)}, got {absent[0]!r}. Drop it."
        )
    chosen = tuple(site for site in sites if kinds is None or site.kind in kinds)
    require_words_in_front(backbone, chosen)
    _say_reach(backbone, sites, kinds)
    return chosen


def _say_reach(backbone: Backbone, sites: Sequence[Site], kinds: Sequence[str] | None) -> None:
    """Say where a prefix does less than words in front would, which is no fault of the recipe."""
    missed = [
        str(one) for one in reaches(backbone.model, sites) if one.without and (kinds is None or one.kind in kinds)
    ]
    if missed:
        say(
            f"warning: method 'prefix' does not reach all of backbone {backbone.id!r}: {'; '.join(missed)}. The "
            "other layers have no attention that goes through transformers' AttentionInterface."
        )
    elif (difference := other_ways(backbone, sites)) is not None:
        say(
            f"warning: method 'prefix' reaches all attention of backbone {backbone.id!r}, but words in front act on a "
            f"text in other ways as well: without them logits differ by {difference:.2g} of their size."
        )


def _place(backbone: Backbone, asked: str) -> str:
    if asked == "between" and backbone.family == "seq2seq":
        raise ConfigError(
            f"method.place: expected before for backbone {backbone.id!r}, got between: an encoder-decoder reads source "
            "and target apart. Drop the key; method.sites chooses which attention has the prefix."
        )
    return asked


def _positions(backbone: Backbone, asked: str | None) -> str:
    """Where text starts: as the paper's code has it for the family, unless the recipe says otherwise."""
    if backbone.family == "seq2seq" and asked == "shifted":
        raise ConfigError(
            f"method.positions: expected unshifted for backbone {backbone.id!r}, got shifted: "
            "an encoder-decoder numbers its own positions. Drop the key."
        )
    if asked == "shifted" and not backbone.promises.positions:
        raise ConfigError(
            f"method.positions: expected unshifted for backbone {backbone.id!r}, got shifted: its forward takes no "
            "positions, so a text cannot start elsewhere. Drop the key."
        )
    return asked or ("shifted" if backbone.family == "causal" and backbone.promises.positions else "unshifted")
