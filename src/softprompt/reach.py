"""How much of a backbone a prefix reaches: layers whose attention is a site, and layers that have none."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from softprompt.inject import Site


@dataclass(frozen=True, slots=True)
class Reach:
    """Of one kind of site: the layers that have one, of all layers where it could be."""

    kind: str
    reached: int
    without: tuple[str, ...]
    """Dotted names of the layers that have none."""

    @property
    def layers(self) -> int:
        """How many there are."""
        return self.reached + len(self.without)

    def __str__(self) -> str:
        """`decoder: 1 of 4 layers (not model.layers.0, model.layers.1, model.layers.2)`."""
        named = ", ".join(self.without[:3]) + (", ..." if len(self.without) > 3 else "")
        return f"{self.kind}: {self.reached} of {self.layers} layers" + (f" (not {named})" if named else "")


def reaches(model: PreTrainedModel, sites: Sequence[Site]) -> list[Reach]:
    """Of each kind that the model's family has: `encoder`, `decoder` and `cross`, or `decoder` alone."""
    apart = model.config.is_encoder_decoder
    encoder = model.get_encoder() if apart else None
    found = []
    for kind in ("encoder", "decoder", "cross") if apart else ("decoder",):
        layers = _layers(model, encoder, sites, inside=kind == "encoder")
        own = {site.name for site in sites if site.kind == kind}
        without = tuple(name for name in layers if not any(site.startswith(f"{name}.") for site in own))
        found.append(Reach(kind, len(layers) - len(without), without))
    return found


def _layers(model: nn.Module, encoder: nn.Module | None, sites: Sequence[Site], *, inside: bool) -> list[str]:
    """Names of the layers of the encoder (`inside`) or of what is not in it.

    They are the members of the outermost module lists that hold sites; where none does, of the largest one.
    """
    encoding = set() if encoder is None else set(encoder.modules())
    lists: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():  # outer modules come before what is in them
        nested = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and len(module) and not nested and (module in encoding) == inside:
            lists[name] = module
    holding = [name for name in lists if any(site.name.startswith(f"{name}.") for site in sites)]
    if not holding and lists:
        holding = [max(lists, key=lambda name: sum(one.numel() for one in lists[name].parameters()))]
    return [f"{name}.{index}" for name in holding for index in range(len(lists[name]))]
