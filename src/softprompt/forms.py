"""The two forms of a prompt's numbers: keys and values at attention sites, or virtual tokens in the input."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from softprompt.active import alone
from softprompt.backbone import Backbone
from softprompt.embed import virtual_tokens, vocabulary_size
from softprompt.errors import CheckpointError
from softprompt.facts import PrefixFacts, PromptFacts
from softprompt.inject import KINDS, PrefixKV, Site, inject
from softprompt.positions import between, text_starts_at, with_mark


class Form(Protocol):
    """What a table of numbers means to a backbone."""

    method: str
    """The method that learns it."""

    @property
    def width(self) -> int:
        """Numbers a virtual token."""

    def position_offset(self, length: int) -> int:
        """Positions of the window that P = `length` takes beside virtual tokens."""

    def place(self, backbone: Backbone, source: Sequence[int], length: int) -> tuple[int, ...]:
        """A source's ids with the virtual tokens among them, where there are any."""

    def attach(self, backbone: Backbone, numbers: Tensor, *, shared: bool) -> AbstractContextManager[None]:
        """Steer `backbone` by `numbers` (P, width) inside the block; `shared`: see `softprompt.inject.inject`."""

    def facts(self) -> dict[str, Any]:
        """What `softprompt.json` keeps of it."""

    def require_fits(self, backbone: Backbone) -> None:
        """Raise `CheckpointError` where it is not of a backbone like this one."""

    def peft_config(self, backbone_id: str, length: int) -> dict[str, Any] | None:
        """PEFT's adapter_config.json, or None where PEFT has no such form."""


@dataclass(frozen=True)
class PrefixForm:
    """Keys then values of every site (heads, dims): PEFT's order (layer, key | value, head, dim)."""

    sites: tuple[Site, ...]
    positions: str
    """`shifted`: what sees the prefix starts P positions later; `unshifted`: where it would without it."""
    place_name: str = "before"
    """`before` the text; `between` source and target (the paper's infix): seen from the separator on."""
    attention: str = "joined"
    """`joined`: one softmax over prefix and text, as in the paper; `beside`: one of its own, whose result is added."""
    method: str = "prefix"

    @property
    def width(self) -> int:
        """W."""
        return sum(site.width for site in self.sites)

    def position_offset(self, length: int) -> int:
        """See `Form`."""
        return length if self.positions == "shifted" else 0

    def place(self, backbone: Backbone, source: Sequence[int], length: int) -> tuple[int, ...]:
        """The source as it is, its separator marked for an infix."""
        return tuple(source) if self.place_name == "before" else with_mark(backbone.model, source)

    @contextmanager
    def attach(self, backbone: Backbone, numbers: Tensor, *, shared: bool) -> Iterator[None]:
        """See `Form`."""
        kv = split(numbers.to(backbone.device), self.sites)
        injected = inject(backbone.model, kv, shared=shared, beside=self.attention == "beside")
        with alone(backbone.model), injected, self._placed(backbone, len(numbers)):
            yield

    def _placed(self, backbone: Backbone, length: int) -> AbstractContextManager[None]:
        shifted, first = self.positions == "shifted", backbone.promises.first_position
        if self.place_name == "between":
            return between(backbone.model, length, shifted=shifted, first=first)
        return text_starts_at(backbone.model, length, first=first) if shifted else nullcontext()

    def facts(self) -> dict[str, Any]:
        """See `Form`."""
        names = {"positions": self.positions, "place": self.place_name, "attention": self.attention}
        return names | {"sites": [asdict(site) for site in self.sites]}

    @classmethod
    def from_facts(cls, facts: PrefixFacts) -> "PrefixForm":
        """Inverse of `facts`."""
        sites = tuple(Site(**site.model_dump()) for site in facts.sites)
        return cls(sites, facts.positions, facts.place, facts.attention)

    @classmethod
    def of_backbone(cls, backbone: Backbone, kinds: Sequence[str]) -> tuple[Site, ...]:
        """All sites of these kinds that the backbone has, in the order in which a prompt's numbers have them."""
        there = backbone.sites()
        return tuple(site for kind in KINDS if kind in kinds for site in there if site.kind == kind)

    def require_fits(self, backbone: Backbone) -> None:
        """See `Form`: the same sites in the same order, and nothing that its family has not."""
        there = self.of_backbone(backbone, [site.kind for site in self.sites])
        if self.sites != there:
            pairs = zip((*self.sites, None), (*there, None), strict=False)
            own, its = next(pair for pair in pairs if pair[0] != pair[1])
            raise CheckpointError(
                f"prefix: expected the attention sites of backbone {backbone.id!r}, among them {its}, got {own}. "
                "Load the backbone that it was learned on."
            )
        if backbone.family == "seq2seq" and (self.positions, self.place_name) != ("unshifted", "before"):
            raise CheckpointError(
                f"prefix: expected one that is unshifted and before the text for backbone {backbone.id!r}, an "
                f"encoder-decoder, got {self.positions} and {self.place_name}. It is none of ours."
            )

    def peft_config(self, backbone_id: str, length: int) -> dict[str, Any] | None:
        """Where all sites are alike and it stands before the text, which is shifted: decoder-only backbones."""
        alike = len({(s.kind, s.kv_heads, s.key_dim, s.value_dim) for s in self.sites}) == 1
        if not alike or (self.positions, self.place_name, self.attention) != ("shifted", "before", "joined"):
            return None
        site = self.sites[0]
        return {
            "base_model_name_or_path": backbone_id,
            "inference_mode": True,
            "num_attention_heads": site.kv_heads,
            "num_layers": len(self.sites),
            "num_transformer_submodules": 1,
            "num_virtual_tokens": length,
            "peft_type": "PREFIX_TUNING",
            "prefix_projection": False,
            "task_type": "CAUSAL_LM",
            "token_dim": site.kv_heads * site.key_dim,
        }


@dataclass(frozen=True)
class VirtualTokenForm:
    """Rows of input embeddings (P, E), standing as tokens in the source."""

    embed: int
    """E."""
    place_name: str = "before"
    """`before` the text; `after_bos`: behind its begin token; `after`: before its last token, the end of text."""
    family: str = "causal"
    method: str = "prompt"

    @property
    def width(self) -> int:
        """E."""
        return self.embed

    def position_offset(self, length: int) -> int:
        """0: virtual tokens have positions of their own."""
        return 0

    def place(self, backbone: Backbone, source: Sequence[int], length: int) -> tuple[int, ...]:
        """Ids V to V + P - 1 among the source's."""
        first = vocabulary_size(backbone.model)
        begins = bool(source) and backbone.tokenizer is not None and source[0] == backbone.tokenizer.bos_token_id
        at = {"before": 0, "after_bos": int(begins and len(source) > 1), "after": max(len(source) - 1, 0)}
        cut = at[self.place_name]
        return (*source[:cut], *range(first, first + length), *source[cut:])

    @contextmanager
    def attach(self, backbone: Backbone, numbers: Tensor, *, shared: bool) -> Iterator[None]:
        """See `Form`."""
        with alone(backbone.model), virtual_tokens(backbone.model, numbers.to(backbone.device)):
            yield

    def facts(self) -> dict[str, Any]:
        """See `Form`."""
        return {"place": self.place_name, "embed": self.embed, "family": self.family}

    @classmethod
    def from_facts(cls, facts: PromptFacts) -> "VirtualTokenForm":
        """Inverse of `facts`."""
        return cls(facts.embed, facts.place, facts.family)

    def require_fits(self, backbone: Backbone) -> None:
        """See `Form`: the same width and family."""
        want, got = (backbone.hidden_width(), backbone.family), (self.embed, self.family)
        if want != got:
            raise CheckpointError(
                f"prompt: expected one of width {want[0]} for a {want[1]} backbone, which {backbone.id!r} is, got one "
                f"of width {got[0]} for a {got[1]} one. Load the backbone that it was learned on."
            )

    def peft_config(self, backbone_id: str, length: int) -> dict[str, Any] | None:
        """Where the virtual tokens come first, as PEFT has them."""
        if self.place_name != "before":
            return None
        return {
            "base_model_name_or_path": backbone_id,
            "inference_mode": True,
            "num_attention_heads": 1,
            "num_layers": 1,
            "num_transformer_submodules": 1,
            "num_virtual_tokens": length,
            "peft_type": "PROMPT_TUNING",
            "prompt_tuning_init": "RANDOM",
            "task_type": "CAUSAL_LM" if self.family == "causal" else "SEQ_2_SEQ_LM",
            "token_dim": self.embed,
        }


METHODS_OF_FORMS = ("prefix", "prompt")
"""Methods whose artefact is one table of numbers."""


def form_of(facts: PrefixFacts | PromptFacts) -> PrefixForm | VirtualTokenForm:
    """What the numbers of an artefact mean."""
    return PrefixForm.from_facts(facts) if isinstance(facts, PrefixFacts) else VirtualTokenForm.from_facts(facts)


def split(numbers_PW: Tensor, sites: Sequence[Site]) -> dict[str, PrefixKV]:
    """Cut (P, W) into each site's keys and values (H, P, D)."""
    shapes = [shape for site in sites for shape in ((site.kv_heads, site.key_dim), (site.kv_heads, site.value_dim))]
    if len(set(shapes)) == 1:  # as in most backbones: one cut for all
        halves_HPD = iter(numbers_PW.reshape(-1, len(shapes), *shapes[0]).permute(1, 2, 0, 3).unbind())
    else:
        parts = torch.split(numbers_PW, [heads * dim for heads, dim in shapes], dim=1)
        halves_HPD = (part.reshape(-1, *shape).transpose(0, 1) for part, shape in zip(parts, shapes, strict=True))
    return {site.name: PrefixKV(next(halves_HPD), next(halves_HPD)) for site in sites}


def join(keys_and_values: Mapping[str, PrefixKV], sites: Sequence[Site]) -> Tensor:
    """Inverse of `split`: (P, W)."""
    parts = ((keys_and_values[site.name].key, keys_and_values[site.name].value) for site in sites)
    return torch.cat([half_HPD.transpose(0, 1).flatten(1) for pair in parts for half_HPD in pair], dim=1)
