"""What one tiny backbone does under prefix, prompt tuning and DePT: the promise in numbers, or the refusal."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import nn
from transformers import GenerationConfig

from softprompt.attached import Attached, attach
from softprompt.backbone import Backbone
from softprompt.batch import encode_pairs, make_source_batch
from softprompt.decode import generate
from softprompt.errors import SoftpromptError
from softprompt.in_front import differences, other_ways, whole_difference
from softprompt.labels import target_log_probs
from softprompt.method_config import DePT, PrefixTuning, PromptTuning
from softprompt.reach import reaches
from softprompt.types import Example

METHODS = {
    "prefix": lambda: PrefixTuning(length=3, reparam="none"),
    "prompt": lambda: PromptTuning(length=3),
    "dept": lambda: DePT(length=3, text_length=8, rank=2),
}
PAIRS = [("the red old inn", "sells tea"), ("a quiet river bank near ten guests", "is kind to cold guests and hot pie")]
NEW = 5
"""Tokens generated."""

Row = dict[str, Any]


def measure(name: str) -> Row:
    """`tiny`: why it cannot be built; `load`: why it is refused; and by method numbers or `refused`."""
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = tiny.folder(name, Path(place))
            return _of_folder(folder)
    except (tiny.NotText, ImportError) as error:
        return {"tiny": str(error).strip().splitlines()[0]}
    except SoftpromptError as error:
        return {"refused": _named(str(error))}


def _of_folder(folder: Path) -> Row:
    backbone = Backbone.load(str(folder), device="cpu")
    row: Row = {"family": backbone.family, "one_by_one": not backbone.promises.padded}
    for method, config in METHODS.items():
        try:
            row[method] = _of_method(backbone, method, config())
        except SoftpromptError as error:
            row[method] = {"refused": _named(str(error))}
        except Exception as error:  # what this table is there to find
            row[method] = {"traceback": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"}
    return row


def _named(text: str) -> str:
    """Without the name of the temporary folder."""
    return re.sub(r"'[^']*/tmp[^']*'", "'tiny'", text)


def _of_method(backbone: Backbone, method: str, config: Any) -> Row:
    attached = attach(backbone, config, seed=0)
    found: Row = {}
    if method == "prefix":
        sites = backbone.sites()
        reached = reaches(backbone.model, sites)
        found["reach"] = [str(one) for one in reached]
        found["front"] = max(differences(backbone, sites).values())
        if backbone.family == "causal" and backbone.promises.positions and not any(one.without for one in reached):
            found["front_logits"] = whole_difference(backbone, sites)
            found["said"] = other_ways(backbone, sites) is not None
    else:
        with torch.no_grad():
            for parameter in attached.method.trainable().values():  # type: ignore[union-attr]
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    checks: dict[str, Callable[[Attached], float]] = {"batched": batched, "padded": padded, "generated": generated}
    if not backbone.promises.padded:  # sources are not padded then
        del checks["padded"]
    return found | {name: check(attached) for name, check in checks.items()}


def batched(attached: Attached) -> float:
    """The largest difference of a target token's log probability (nats): both pairs in a batch, or each alone."""
    pairs = encode_pairs(attached.backbone, [Example(source, (target,)) for source, target in PAIRS])
    by_size = [target_log_probs(attached.backbone, attached.steering, pairs, batch_size=size) for size in (2, 1)]
    return max(float((one - other).abs().max()) for one, other in zip(*by_size, strict=True))


def padded(attached: Attached) -> float:
    """The same of the first token that follows a source: padded as in decoding, or not."""
    backbone = attached.backbone
    pairs = encode_pairs(backbone, [Example(source, (target,)) for source, target in PAIRS])
    sources = [pair.source for pair in pairs]
    together = _next(attached, sources)
    return max(
        float((_next(attached, [source])[0] - together[index]).abs().max()) for index, source in enumerate(sources)
    )


def generated(attached: Attached) -> float:
    """By how much (nats) a greedily generated token is below the likeliest one where all tokens are read at once."""
    backbone, model = attached.backbone, attached.backbone.model
    pair = encode_pairs(backbone, [Example(*PAIRS[1][:1], (PAIRS[1][1],))])[0]
    batch = make_source_batch(backbone, attached.steering, [pair.source])
    causal = backbone.family == "causal"
    start = None if causal else backbone.decoder_start_id
    options = GenerationConfig(
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=backbone.pad_id,
        decoder_start_token_id=start,
    )
    with torch.no_grad(), attached.steering.attach(backbone, shared=True):
        out = generate(backbone, batch, options)
        if causal:
            ids = out[:, :-1]
            first = backbone.promises.first_position
            inputs = {"input_ids": ids, "position_ids": torch.arange(first, first + ids.shape[1])[None]}
            inputs = inputs if backbone.promises.positions else {"input_ids": ids}
        else:
            inputs = {"input_ids": batch.input_ids_BT, "decoder_input_ids": out[:, :-1]}
        mask = torch.ones_like(inputs["input_ids"])
        logits = model(**inputs, attention_mask=mask, use_cache=False).logits[0, -NEW:].float()
    chosen = out[0, -NEW:, None]
    log_probs = nn.functional.log_softmax(logits, dim=-1)
    return float((log_probs.max(dim=-1).values - log_probs.gather(1, chosen)[:, 0]).max())


def _next(attached: Attached, sources: list[tuple[int, ...]]) -> torch.Tensor:
    backbone = attached.backbone
    batch = make_source_batch(backbone, attached.steering, sources)
    inputs = batch.inputs()
    if backbone.family == "seq2seq":
        inputs["decoder_input_ids"] = torch.full((len(sources), 1), backbone.decoder_start_id)
    with torch.no_grad(), attached.steering.attach(backbone):
        return backbone.model(**inputs, use_cache=False).logits[:, -1].float().log_softmax(dim=-1)
