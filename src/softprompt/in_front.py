"""Whether a prefix and virtual tokens are on this backbone what they are meant to be, checked when they are put on it.

**A prefix**: keys and values of words equal those words in front. A text is read behind two words; then alone, each
attention module given the inputs that it had behind the words, and the words' keys and values as its prefix. What comes
out of the module has to be the same, copied in front of the keys and beside them. Attention whose mask is made of its
values, that mixes neighbouring keys, or that is computed otherwise than asked, does not pass.

**Virtual tokens**: rows that are the embeddings of words equal those words. A model that reads ids in other places than
its word embeddings does not pass.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softprompt.active import BLOCKS, Handle, alone, hooked
from softprompt.backbone import Backbone
from softprompt.embed import virtual_tokens, vocabulary_size, with_indices
from softprompt.errors import BackboneError
from softprompt.inject import PrefixKV, Site, inject
from softprompt.positions import text_starts_at
from softprompt.probing import Call, forward, listening, without_dropout
from softprompt.quantize import is_quantized
from softprompt.sharding import whole_embeddings

WORDS, TEXT, SOURCE = 2, 3, 4
"""Tokens in front, of the text behind them, and of an encoder's text behind them."""
_EXACT, _ROUNDED = 1e-3, 5e-2
"""Largest differences beside the largest number that comes out: in float32, and in fewer bits."""

Seen = Mapping[str, Any]


def require_words_in_front(backbone: Backbone, sites: Sequence[Site]) -> None:
    """Refuse a backbone on which the prefix of `sites` is not what words in front would be.

    Raises:
        BackboneError: which module differs, and by how much.
    """
    if backbone.device.type == "meta":
        return
    limit = _limit(backbone)
    found = differences(backbone, sites)
    for name, difference in found.items():
        if not difference <= limit:
            raise BackboneError(
                f"method 'prefix': on backbone {backbone.id!r} keys and values of words are not what the words in "
                f"front are: at {name} the outputs differ by {difference:.2g} of their size (expected at most "
                f"{limit:g}). Its attention does more than weigh values by keys, so a prefix would not act as one. "
                "Use method 'prompt', 'lora' or 'finetune', or another backbone."
            )

    if backbone.family == "causal" and backbone.promises.padded and not backbone.promises.positions:
        difference = padded_difference(backbone, sites)
        if not difference <= limit:
            raise BackboneError(
                f"method 'prefix': backbone {backbone.id!r} takes no positions, and pads move a text away from its "
                f"prefix: logits of a padded text differ by {difference:.2g} of their size (expected at most "
                f"{limit:g}). Use method 'prompt', 'lora' or 'finetune', or another backbone."
            )


def other_ways(backbone: Backbone, sites: Sequence[Site]) -> float | None:
    """How far words in front act otherwise than through attention at `sites`, or None: not at all, or not known.

    Not known of an encoder-decoder, of one whose forward takes no positions, and without weights.
    """
    known = backbone.family == "causal" and backbone.promises.positions and backbone.device.type != "meta"
    if not known:
        return None
    difference = whole_difference(backbone, sites)
    return None if difference <= _limit(backbone) else difference


def require_rows_as_words(backbone: Backbone, *, indexed: bool = False) -> None:
    """Refuse a backbone on which virtual tokens are more than their rows; `indexed`: DePT's words too.

    Raises:
        BackboneError: logits differ from those of the words, and by how much, or the model cannot read virtual ids.
    """
    if backbone.device.type == "meta":
        return
    reads = "It reads ids in other places than its word embeddings. Use method 'prefix', 'lora' or 'finetune'."
    try:
        difference = row_difference(backbone, indexed=indexed)
    except BackboneError as error:
        raise BackboneError(f"backbone {backbone.id!r} cannot read virtual tokens: {error} {reads}") from error
    if not difference <= _limit(backbone):
        raise BackboneError(
            f"backbone {backbone.id!r} does not read virtual tokens as their rows alone: rows that are embeddings of "
            f"words give other logits than the words, by {difference:.2g} of their size (expected at most "
            f"{_limit(backbone):g}). {reads}"
        )


@torch.no_grad()
def differences(backbone: Backbone, sites: Sequence[Site]) -> dict[str, float]:
    """Site -> the largest difference of its output beside the largest number in it; see the module's text.

    In an encoder-decoder the words stand in front of the target for sites of kind `decoder`, of the source for others.
    """
    texts = _ids(backbone, WORDS + TEXT), _ids(backbone, WORDS + SOURCE)
    if backbone.family == "causal":
        return _differences(backbone, sites, texts[0], texts[0], WORDS, WORDS)
    own = [site for site in sites if site.kind == "decoder"]
    others = [site for site in sites if site.kind != "decoder"]
    in_target = _differences(backbone, own, texts[1], texts[0], 0, WORDS)
    return in_target | _differences(backbone, others, texts[1], texts[0], WORDS, 0)


def _differences(
    backbone: Backbone, sites: Sequence[Site], source: Tensor, target: Tensor, cut_source: int, cut_target: int
) -> dict[str, float]:
    """The words in front are the first `cut_source` tokens of the source, `cut_target` of the target."""
    model, modules = backbone.model, _modules(backbone, sites)
    unbiased = dict.fromkeys(modules.values(), WORDS)
    with alone(model), listening(unbiased) as ears, _watched(backbone, modules, {}) as (inputs, whole):
        forward(model, source, target)
    words, worst = _of_words(ears.calls, modules), dict.fromkeys(modules, 0.0)
    for shared in (False, True):
        with alone(model), inject(model, words, shared=shared), _watched(backbone, modules, inputs) as (_, text):
            forward(model, source[:, cut_source:], target[:, cut_target:])
        for name, expected in whole.items():
            got = text.get(name)
            behind = expected if got is None else expected[:, expected.shape[1] - got.shape[1] :]
            worst[name] = _larger(worst[name], _off(got, behind, expected))
    return worst


@torch.no_grad()
def whole_difference(backbone: Backbone, sites: Sequence[Site]) -> float:
    """The same of the logits of a decoder-only backbone, the text standing behind the words' positions."""
    model, ids = backbone.model, _ids(backbone, WORDS + TEXT)
    with alone(model), listening() as ears:
        expected = forward(model, ids, ids).logits
    words = _of_words(ears.calls, _modules(backbone, sites))
    with alone(model), inject(model, words), text_starts_at(model, WORDS, first=backbone.promises.first_position):
        got = forward(model, ids[:, WORDS:], ids[:, WORDS:]).logits
    return _off(got, expected[:, WORDS:], expected)


@torch.no_grad()
def padded_difference(backbone: Backbone, sites: Sequence[Site]) -> float:
    """Of the logits of a text behind pads and alone, both under keys and values of words."""
    model, ids = backbone.model, _ids(backbone, WORDS + TEXT)
    with alone(model), listening() as ears:
        forward(model, ids, ids)
    words = _of_words(ears.calls, _modules(backbone, sites))
    mask = torch.ones_like(ids)
    mask[:, :WORDS] = 0
    with alone(model), inject(model, words), without_dropout(model):
        expected = forward(model, ids[:, WORDS:], ids[:, WORDS:]).logits
        got = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, WORDS:]
    return _off(got, expected, expected)


@torch.no_grad()
def row_difference(backbone: Backbone, *, indexed: bool = False) -> float:
    """Of the logits, with virtual tokens whose rows are words' embeddings in the words' place."""
    model, ids = backbone.model, _ids(backbone, WORDS + TEXT)
    first = vocabulary_size(model)
    with alone(model):
        expected = forward(model, ids, ids[:, :TEXT]).logits
    with alone(model), whole_embeddings(model):
        rows_PE = model.get_input_embeddings()(ids[0, :WORDS]).clone()
    text = ids[0, WORDS:].tolist()
    placed = [*range(first, first + WORDS), *(with_indices(model, text, WORDS, TEXT) if indexed else text)]
    unchanged = torch.zeros(TEXT, rows_PE.shape[1], device=ids.device) if indexed else None
    with alone(model), virtual_tokens(model, rows_PE, unchanged):
        got = forward(model, torch.tensor([placed], device=ids.device), ids[:, :TEXT]).logits
    return _off(got, expected, expected)


def _limit(backbone: Backbone) -> float:
    return _ROUNDED if backbone.model.dtype.itemsize < 4 or is_quantized(backbone.model) else _EXACT


def _modules(backbone: Backbone, sites: Sequence[Site]) -> dict[str, nn.Module]:
    return {site.name: backbone.model.get_submodule(site.name) for site in sites}


def _of_words(calls: Sequence[Call], modules: Mapping[str, nn.Module]) -> dict[str, PrefixKV]:
    """Site name -> the keys and values of the words in front."""
    heard = {module: (key, value) for module, _, key, value in calls}
    halves = {name: [half[0, :, :WORDS].contiguous() for half in heard[module]] for name, module in modules.items()}
    return {name: PrefixKV(key, value) for name, (key, value) in halves.items()}


def _off(got: Tensor | None, expected: Tensor, scale: Tensor) -> float:
    """The largest difference beside the largest number of `scale`; 1 where there is nothing to compare."""
    if got is None or got.shape != expected.shape:
        return 1.0
    return float((got - expected).abs().max() / scale.abs().max().clamp(min=1e-6))


def _larger(one: float, other: float) -> float:
    """Not a number is larger than all."""
    return other if math.isnan(other) else max(one, other)


def _ids(backbone: Backbone, count: int) -> Tensor:
    """Different words (1, count), none of which the config names as something else."""
    config = backbone.model.config.get_text_config()
    special = {value for key, value in config.to_dict().items() if key.endswith("_token_id") and isinstance(value, int)}
    size = int(backbone.model.get_input_embeddings().weight.shape[0])
    plain = [index for index in range(size - 1, -1, -1) if index not in special] or [0]
    return torch.tensor([(plain[size // 3 :] + plain * count)[:count]], device=backbone.device)


@contextmanager
def _watched(
    backbone: Backbone, modules: Mapping[str, nn.Module], given: Seen
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Inside the block inputs and outputs of `modules` are kept; of `given` inputs they get the part of the text."""
    inputs: dict[str, Any] = {}
    outputs: dict[str, Tensor] = {}

    def register(acts: Callable[[], bool]) -> list[Handle]:
        def watch(name: str, module: nn.Module) -> list[Handle]:
            def before(_: nn.Module, args: Any, kwargs: Any = None) -> Any:
                if kwargs is None or not acts():
                    return None
                inputs[name] = (args, dict(kwargs))
                if name not in given:
                    return None
                args_before, kwargs_before = given[name]
                new = {key: _of_text(kwargs_before.get(key), value) for key, value in kwargs.items()}
                return _of_text(args_before, args), new

            def behind(_: nn.Module, args: Any, output: Any) -> None:
                if acts():
                    outputs[name] = output[0] if isinstance(output, tuple) else output

            return [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(behind)]

        return [handle for name, module in modules.items() for handle in watch(name, module)]

    with hooked(backbone.model, BLOCKS, register):
        yield inputs, outputs


def _of_text(whole: Any, alone_: Any) -> Any:
    """`alone_`, or where `whole` is the same with the words in front, its part behind them."""
    if isinstance(whole, tuple | list) and isinstance(alone_, tuple | list) and len(whole) == len(alone_):
        return type(alone_)(_of_text(one, other) for one, other in zip(whole, alone_, strict=True))
    if not isinstance(whole, Tensor) or not isinstance(alone_, Tensor) or whole.ndim != alone_.ndim:
        return alone_
    if whole.shape == alone_.shape:
        return whole
    longer = [dim for dim in range(whole.ndim) if whole.shape[dim] != alone_.shape[dim]]
    if len(longer) != 1 or whole.shape[longer[0]] != alone_.shape[longer[0]] + WORDS:
        return alone_
    return whole.narrow(longer[0], WORDS, alone_.shape[longer[0]])
