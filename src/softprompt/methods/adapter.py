"""Adapters: small bottlenecks between the frozen layers, as the papers' baseline.

* `lin` (Lin et al. 2020, as Li & Liang's code has it): one behind every block, x + Up(ReLU(Down(LayerNorm(x)))).
* `houlsby` (Houlsby et al. 2019): two a block, behind self-attention and behind the feed-forward part, before their
  residuals, without layer norm: y + Up(ReLU(Down(y))).

Letters: E backbone width, K bottleneck. Up starts near 0, so training starts near the backbone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softprompt.active import BLOCKS, Handle, alone, hooked
from softprompt.artefact import Facts, load_artefact, save_artefact
from softprompt.backbone import Backbone
from softprompt.errors import BackboneError, CheckpointError, ConfigError
from softprompt.facts import AdapterFacts

_START = 1e-3
"""Standard deviation of Up at the start."""


class Bottleneck(nn.Module):
    """x + Up(ReLU(Down(x))), x normalised first where `norm`."""

    def __init__(self, embed: int, bottleneck: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed) if norm else None
        self.down, self.up = nn.Linear(embed, bottleneck), nn.Linear(bottleneck, embed)
        nn.init.normal_(self.up.weight, std=_START)
        nn.init.zeros_(self.up.bias)

    def forward(self, states_BTE: Tensor) -> Tensor:
        """Same shape and dtype."""
        inner = states_BTE.to(self.down.weight.dtype)
        inner = self.norm(inner) if self.norm is not None else inner
        changed: Tensor = states_BTE + self.up(torch.relu(self.down(inner))).to(states_BTE.dtype)
        return changed


class AdapterMethod(nn.Module):
    """One bottleneck behind each module of `places`."""

    position_offset, kept_in = 0, "adapter"
    acts_in_layers = True
    """A layer that is recomputed in the backward pass needs it attached again."""

    def __init__(self, places: Sequence[str], *, embed: int, bottleneck: int, design: str) -> None:
        super().__init__()
        self.places, self.design, self.bottleneck = tuple(places), design, bottleneck
        self.bottlenecks = nn.ModuleList(Bottleneck(embed, bottleneck, norm=design == "lin") for _ in places)

    @classmethod
    def build(cls, backbone: Backbone, config: Any) -> "AdapterMethod":
        """From the `method` part of a recipe, on the backbone's device, in float32.

        Raises:
            ConfigError: the share of parameters asked for is too small for a bottleneck of 1.
            BackboneError: a block has no feed-forward part that can be told from the rest (`houlsby`).
        """
        places, embed = _places(backbone, config.design), backbone.hidden_width()
        bottleneck = config.bottleneck or _bottleneck(backbone, config, len(places), embed)
        with torch.device(backbone.device):
            return cls(places, embed=embed, bottleneck=bottleneck, design=config.design)

    def place(self, backbone: Backbone, source: Sequence[int]) -> tuple[int, ...]:
        return tuple(source)

    @contextmanager
    def attach(self, backbone: Backbone, *, shared: bool = False) -> Iterator[None]:
        model = backbone.model
        modules = dict(model.named_modules())

        def register(acts: Callable[[], bool]) -> list[Handle]:
            def behind(bottleneck: nn.Module) -> Any:
                def change(_: nn.Module, args: Any, output: Any) -> Any:
                    if not acts():
                        return None
                    if isinstance(output, tuple):
                        return (bottleneck(output[0]), *output[1:])
                    return bottleneck(output)

                return change

            pairs = zip(self.places, self.bottlenecks, strict=True)
            return [modules[name].register_forward_hook(behind(bottleneck)) for name, bottleneck in pairs]

        with alone(model), hooked(model, BLOCKS, register):
            yield

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    def set_mode(self, training: bool) -> None:
        self.train(training)

    def stored_count(self) -> int:
        """What is trained is what is kept."""
        return sum(parameter.numel() for parameter in self.parameters())

    def fold(self) -> "AdapterMethod":
        """Itself: what is trained is what is kept."""
        return self

    def save(self, folder: Path, *, backbone_id: str, backbone_hash: str, extra: Facts | None = None) -> None:
        """The tensors, the facts and a manifest."""
        facts = {"method": "adapter", "design": self.design, "bottleneck": self.bottleneck, "places": list(self.places)}
        facts |= extra or {}
        save_artefact(folder, self.trainable(), facts, backbone_id=backbone_id, backbone_hash=backbone_hash)

    @classmethod
    def load(cls, backbone: Backbone, folder: str | Path) -> "AdapterMethod":
        """Read a folder written by `save`.

        Raises:
            CheckpointError: missing, damaged, or trained on another backbone.
        """

        folder = Path(folder)
        tensors, facts = load_artefact(folder, ("adapter",), backbone.hash())
        require_places(backbone, folder, facts, len(tensors["bottlenecks.0.up.bias"]))
        with torch.device(backbone.device):
            made = cls(
                facts.places,
                embed=backbone.hidden_width(),
                bottleneck=facts.bottleneck,
                design=facts.design,
            )
        made.load_state_dict(tensors)
        return made.eval()


def require_places(backbone: Backbone, folder: Path, facts: AdapterFacts, embed: int) -> None:
    """Raise `CheckpointError` unless bottlenecks of width `embed` stand where the design has them in this backbone."""
    places, width = _places(backbone, facts.design), backbone.hidden_width()
    if (facts.places, embed) != (places, width):
        raise CheckpointError(
            f"prompt {folder}: expected bottlenecks of width {width} behind {len(places)} modules of backbone "
            f"{backbone.id!r}, from {places[0]!r} on, got others (width {embed}, {len(facts.places)} modules). "
            "Load the backbone that it was learned on."
        )


def _places(backbone: Backbone, design: str) -> list[str]:
    """Modules to put a bottleneck behind, by dotted name."""
    names = {module: name for name, module in backbone.model.named_modules()}
    kinds = ("encoder", "decoder") if backbone.family == "seq2seq" else ("decoder",)
    blocks = [block for kind in kinds for block in backbone.blocks(kind)]
    if design == "lin":
        return [names[block] for block in blocks]
    attention = {site.name for site in backbone.sites()}
    selves = [site.name for site in backbone.sites() if site.kind != "cross"]
    places = []
    for block in blocks:
        name = names[block]
        places += [site for site in selves if site.startswith(f"{name}.")]
        places.append(_feed_forward(backbone, name, block, attention))
    return places


def _feed_forward(backbone: Backbone, name: str, block: nn.Module, attention: set[str]) -> str:
    """The matrix that ends the block's feed-forward part: into width E from another, outside of attention."""
    embed = backbone.hidden_width()
    found = []
    for inner, module in block.named_modules():
        weight = getattr(module, "weight", None)
        full = f"{name}.{inner}"
        outside = not any(full == site or full.startswith(f"{site}.") for site in attention)
        if outside and isinstance(weight, Tensor) and weight.ndim == 2 and weight.shape[0] != weight.shape[1]:
            into = weight.shape[0] if isinstance(module, nn.Linear) else weight.shape[1]  # GPT-2 keeps it transposed
            found += [full] if into == embed else []
    if len(found) != 1:
        raise BackboneError(
            f"method 'adapter', design houlsby: expected one matrix that ends the feed-forward part of {name}, found "
            f"{len(found)} in backbone {backbone.id!r}. Use design lin."
        )
    return found[0]


def _bottleneck(backbone: Backbone, config: Any, places: int, embed: int) -> int:
    """The widest bottleneck whose parameters are at most the share asked for."""
    budget = config.share * backbone.parameter_count() / places
    fixed = 3 * embed if config.design == "lin" else embed
    width = int((budget - fixed) / (2 * embed + 1))
    if width < 1:
        least = places * (fixed + 2 * embed + 1) / backbone.parameter_count()
        raise ConfigError(f"method.share: expected at least {least:.2g} (a bottleneck of 1), got {config.share:g}.")
    return width
