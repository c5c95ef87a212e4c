"""How a prefix reaches the model: one attention function for every architecture that uses transformers' interface.

The function is registered under two names with `AttentionInterface` and `AttentionMaskInterface`. While a prefix is
active (see `inject`), it puts this site's keys and values, and P always-visible mask columns, in front of the
backbone's own; otherwise it is the backbone's own attention. Nothing is patched and nothing is stored on a module:
the active prefix lives in a context variable (`softprompt.active`). The cache holds tokens only.

This is the only module that imports transformers' attention interface.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from softprompt import joined
from softprompt.active import PREFIX, acting, alone, exchange, part_of, parts_in
from softprompt.errors import BackboneError
from softprompt.masks import added_up, as_added, causal, widened
from softprompt.probing import Call, attention_calls, listener

# Neither name may contain "sdpa": transformers looks for that substring and would refuse some models.
FUSED = "softprompt_fused"
EAGER = "softprompt_eager"


KINDS = ("encoder", "decoder", "cross")
"""What a site attends to: the source in an encoder, the text so far, the source from a decoder."""


@dataclass(frozen=True, slots=True)
class Site:
    """One attention module of the backbone, as the probe met it."""

    name: str
    """Dotted path of the module inside the model, the key of its prefix in files."""
    kind: str
    """One of `KINDS`."""
    kv_heads: int
    key_dim: int
    value_dim: int

    @property
    def width(self) -> int:
        """Numbers that one virtual token stores at this site: keys and values of all KV heads."""
        return self.kv_heads * (self.key_dim + self.value_dim)


@dataclass(frozen=True, slots=True)
class PrefixKV:
    """The prefix of one site, without a batch axis: key (H, P, D) and value (H, P, D), H counting KV heads."""

    key: Tensor
    value: Tensor

    @property
    def length(self) -> int:
        """P, in virtual tokens."""
        return self.key.shape[1]

    def rows(self, batch: int) -> tuple[Tensor, Tensor]:
        """Key and value (B, H, P, D)."""
        return self.key.expand(batch, -1, -1, -1), self.value.expand(batch, -1, -1, -1)

    def visible(self, batch: int, by_BT: Tensor | None) -> Tensor | None:
        """Who sees what, to be spread over (B, 1, T, P); None: all tokens all of it."""
        return None if by_BT is None else by_BT[:, None, :, None]

    def asked(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, options: Mapping[str, Any]
    ) -> joined.Call:
        """Attention to the prefix beside an attention call's tokens; `options` are the call's own."""
        return joined.Call(query, key, value, self.key, self.value, options.get("scaling"), visible)


@dataclass(frozen=True, slots=True)
class PrefixRows:
    """A prefix of its own for each row at one site: key and value (B, H, P, D), P that of the longest."""

    key: Tensor
    value: Tensor
    visible_BP: Tensor
    """Boolean: which of a row's P are its own; none in a row without a prefix."""

    @property
    def length(self) -> int:
        """P, in virtual tokens."""
        return self.key.shape[2]

    def rows(self, batch: int) -> tuple[Tensor, Tensor]:
        """See `PrefixKV`."""
        return for_each(self.key, batch), for_each(self.value, batch)

    def visible(self, batch: int, by_BT: Tensor | None) -> Tensor:
        """See `PrefixKV`."""
        return for_each(self.visible_BP, batch)[:, None, None]


@dataclass(frozen=True, slots=True)
class _Active:
    prefixes: Mapping[nn.Module, PrefixKV | PrefixRows]
    shared: bool
    beside: bool
    visible_BT: Tensor | None = None
    """Boolean: the tokens of the current forward that see the prefix; None: all."""


def inject(
    model: nn.Module, prefixes: Mapping[str, PrefixKV | PrefixRows], *, shared: bool = False, beside: bool = False
) -> AbstractContextManager[None]:
    """Make `prefixes` (site name -> keys and values) visible to every token of every row inside the block.

    Args:
        model: the backbone whose modules the site names refer to.
        prefixes: sites left out keep their own attention. Rows with prefixes of their own may come expanded by beams;
            `shared` and `beside` are of the one prefix for all.
        shared: score all rows against the one prefix and join the two softmaxes exactly, instead of copying the
            prefix in front of each row's keys: where one token is asked for, as in decoding, and for texts where
            `softprompt.joined` has a fused kernel. Equal up to rounding (1e-5 in float32). Off, the result is bit-equal
            to the same keys and values in a cache.
        beside: the prefix has a softmax of its own, whose result is added to the backbone's attention, instead of a
            part in its softmax: with values of 0 nothing changes.

    The block must cover the backward pass too where gradient checkpointing recomputes the forward.
    """
    known = {"": model}
    modules = {_module(name, known): kv for name, kv in prefixes.items()}
    return acting(model, PREFIX, _Active(modules, shared, beside))


def _module(path: str, known: dict[str, nn.Module]) -> nn.Module:
    """The module of a dotted path, which is added to the `known` ones, as are those on the way. KeyError: none there.

    Layers share most of their way, and an attribute of a module is slow to look up.
    """
    module = known.get(path)
    if module is None:
        parent, _, name = path.rpartition(".")
        module = _module(parent, known)._modules[name]
        assert module is not None
        known[path] = module
    return module


def for_each(values: Tensor, batch: int) -> Tensor:
    """Values of rows (R, ...) for a batch of those rows, each as often as it has beams: (B, ...)."""
    return values.repeat_interleave(batch // len(values), dim=0)


def limit_to(model: nn.Module, visible_BT: Tensor | None) -> None:
    """From here to the end of the innermost block the prefix is seen by these tokens alone; None: by all."""
    active = part_of(model, PREFIX)
    if active is not None:
        exchange(model, PREFIX, replace(active, visible_BT=visible_BT))


def install(model: PreTrainedModel, attention: str = "sdpa") -> None:
    """Route the attention of `model` through this module; `attention` is what runs below it: `sdpa` or `eager`.

    Always eager where the architecture has no fused attention: its modules do not say which of them are causal, so the
    fused one may not do without a mask.
    """
    name = FUSED if attention == "sdpa" and model._supports_sdpa else EAGER
    AttentionInterface.register(name, _fused_attention if name == FUSED else _eager_attention)
    AttentionMaskInterface.register(name, _fused_mask if name == FUSED else _eager_mask)
    model.set_attn_implementation(name)


def probe(model: PreTrainedModel, *, one_call: bool = False) -> tuple[Site, ...]:
    """Run one forward of a few tokens and return the attention sites that it met, in the order of their calls.

    Works on the meta device too. `one_call`: as a prefix needs it, a module attends to one thing in a forward.

    Raises:
        BackboneError: the model makes no call through the interface, the forward fails, or a module attends to several
            things where `one_call`.
    """
    names = {module: name for name, module in model.named_modules()}
    apart = model.config.is_encoder_decoder
    encoder = set(model.get_encoder().modules()) if apart else set()
    source, target = 2, 3  # tokens: what attends to the source from a decoder is told by its length
    ids = torch.zeros(1, target, dtype=torch.long, device=model.device)
    with alone(model):
        calls = attention_calls(model, ids[:, :source], ids)

    def kind(module: nn.Module, key: Tensor) -> str:
        if module in encoder:
            return "encoder"
        return "cross" if apart and key.shape[2] == source else "decoder"

    if not calls:
        raise BackboneError(
            "method 'prefix' needs attention that goes through transformers' AttentionInterface, but "
            f"model type {model.config.model_type!r} made 0 such calls in a probe forward. "
            "Use a backbone that does (gpt2, llama, mistral, qwen, gemma, opt, bart, t5, ...), or method 'finetune'."
        )
    if one_call:
        _require_one_call(model, calls, names)
    return tuple(
        Site(names[module], kind(module, key), key.shape[1], key.shape[3], value.shape[3])
        for module, _, key, value in {call[0]: call for call in calls}.values()
    )


def _require_one_call(model: PreTrainedModel, calls: list[Call], names: Mapping[nn.Module, str]) -> None:
    """Refuse a module that attends to several things in a forward: its prefix is one."""
    first: dict[nn.Module, Call] = {}
    for call in calls:
        module, _, key, value = call
        _, _, key_before, value_before = first.setdefault(module, call)
        if not (_same(key, key_before) and _same(value, value_before)):
            raise BackboneError(
                f"method 'prefix' gives each attention module one prefix, but in model type "
                f"{model.config.model_type!r} {names[module]} attends "
                f"{sum(other[0] is module for other in calls)} times in a forward, to different keys and values. "
                "Use method 'prompt', 'lora' or 'finetune', or another backbone."
            )


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or (not one.is_meta and torch.equal(one, other))


def record(model: PreTrainedModel, ids_T: Tensor) -> dict[str, PrefixKV]:
    """Site name -> the keys and values (H, T, D) that the model computes for a text: what a cache would hold of it.

    An encoder-decoder reads the text on both sides. What steers the model here has its part in it.
    """
    names = {module: name for name, module in model.named_modules()}
    calls = attention_calls(model, ids_T[None], ids_T[None])
    return {names[module]: PrefixKV(key[0], value[0]) for module, _, key, value in calls}


AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


def _fused_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The interface's signature; query (B, H, T, D), key and value (B, H_kv, T', D) -> output (B, T, H, D)."""
    # Soft-capped scores and attention sinks are outside what torch's fused kernel computes.
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        if attention_mask is None and _is_causal(module, query, kwargs):
            attention_mask = causal(query, key)  # it was left out for a kernel that is told `is_causal`
        added = None if attention_mask is None else as_added(attention_mask, query.dtype)
        return _eager_attention(module, query, key, value, added, **kwargs)
    return _attend(sdpa_attention_forward, module, query, key, value, attention_mask, **kwargs)


def _eager_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The model's own eager attention, below the prefix."""
    own = sys.modules[type(module).__module__].eager_attention_forward
    return _attend(own, module, query, key, value, attention_mask, **kwargs)


def _attend(
    base: AttentionFunction,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    ears = listener()
    if ears is not None:
        kwargs = ears.hear((module, query, key, value), kwargs)
    active = next((one for one in parts_in(PREFIX) if module in one.prefixes), None)
    if active is None:
        return base(module, query, key, value, mask, **kwargs)
    prefix: PrefixKV | PrefixRows = active.prefixes[module]
    batch = query.shape[0]
    visible = prefix.visible(batch, active.visible_BT)
    if active.beside and isinstance(prefix, PrefixKV):
        output, weights = base(module, query, key, value, mask, **kwargs)
        return output + joined.attend_to_prefix(prefix.asked(query, key, value, visible, kwargs)), weights
    if mask is None and _is_causal(module, query, kwargs):
        mask = causal(query, key)
    bias = kwargs.get("position_bias")  # relative positions (T5) are of the tokens alone; the prefix has none
    if active.shared and isinstance(prefix, PrefixKV) and _plain(kwargs):
        call, by_token = prefix.asked(query, key, value, visible, kwargs), query.shape[2] == 1
        if by_token or (base is sdpa_attention_forward and joined.has_fused(call)):
            added = added_up(None if mask is None else as_added(mask, query.dtype), bias)
            output = (joined.attend_by_token if by_token else joined.attend)(call, added)
            return output.contiguous(), None  # as torch's kernel gives it: some models take views of it
    if bias is not None:
        kwargs["position_bias"] = nn.functional.pad(bias, (prefix.length, 0))
    if mask is None and visible is not None:
        mask = query.new_zeros(1, 1, query.shape[2], key.shape[2])
    prefix_key, prefix_value = prefix.rows(batch)
    key = torch.cat([prefix_key.to(key.dtype), key], dim=2)
    value = torch.cat([prefix_value.to(value.dtype), value], dim=2)
    return base(module, query, key, value, widened(mask, prefix.length, visible), **kwargs)


def _is_causal(module: nn.Module, query: Tensor, options: Mapping[str, Any]) -> bool:
    """Whether a call without a mask is causal, as torch's kernel is told it."""
    said = options.get("is_causal")
    return query.shape[2] > 1 and bool(getattr(module, "is_causal", True) if said is None else said)


def _plain(kwargs: Mapping[str, Any]) -> bool:
    """Whether this call is softmax(q k / scale + mask + bias) v and nothing else."""
    extras = ("softcap", "s_aux")
    return all(kwargs.get(name) is None for name in extras) and not kwargs.get("dropout")


def _fused_mask(**kwargs: Any) -> Tensor | None:
    if not parts_in(PREFIX) and listener() is None:  # deciding to skip reads values, which the meta device lacks
        mask: Tensor | None = sdpa_mask(**kwargs)
        return mask
    whole: Tensor = sdpa_mask(**{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})
    return whole


def _eager_mask(**kwargs: Any) -> Tensor | None:
    mask: Tensor | None = eager_mask(**{**kwargs, "allow_is_bidirectional_skip": False})
    return mask
