"""The papers' ablations of the prefix against plain references: infix, embedding-only, attention beside, no-op."""

from typing import Any

import factories
import peft
import pytest
import torch
from factories import ARCHITECTURES
from peft import PrefixTuningConfig
from torch import Tensor

from softprompt import inject as module
from softprompt.backbone import Backbone
from softprompt.batch import Encoded, make_batch
from softprompt.config import TrainConfig
from softprompt.forms import PrefixForm
from softprompt.init import activations
from softprompt.inject import inject, record
from softprompt.loss import target_nll
from softprompt.method_config import PrefixTuning, PromptTuning
from softprompt.methods import METHODS, PrefixMethod, Untuned
from softprompt.optim import make_optimizer
from softprompt.prompt import Prompt
from softprompt.train import training_steps

P = 4
WITH_MLP = ("gpt2", "llama", "gemma3", "bart", "t5")
"""Where a start that an MLP makes is tried by default; one without an MLP is tried everywhere."""
WINDOWLESS = [name for name in ARCHITECTURES if name != "mistral_window"]  # a prefix does not slide out, words do


def made(bone: Backbone, **options: Any) -> PrefixMethod:
    torch.manual_seed(0)
    method = METHODS["prefix"](bone, PrefixTuning(**{"length": P, "reparam": "none", **options}))
    assert isinstance(method, PrefixMethod)
    method.set_mode(False)
    return method


def nll(bone: Backbone, how: Any, pairs: list[Encoded]) -> float:
    with torch.no_grad(), how.attach(bone):
        return float(target_nll(bone, make_batch(bone, how, pairs)))


@pytest.mark.parametrize("positions", ["shifted", "unshifted"])
@pytest.mark.parametrize("name", WINDOWLESS)
def test_an_infix_is_keys_and_values_between_source_and_target(name: str, positions: str) -> None:
    """Against one long row whose middle P tokens are words: their keys and values, recorded, are the infix.

    The source must not see it, the separator and the target must; shifted, they stand where they stood.
    """
    bone = factories.backbone(name)
    source, words, rest = [5, 6, 7, 8, 9], [30, 31, 32, 33], [40, 41, 42]
    row = torch.tensor([[*source, *words, bone.eos_id, *rest]])
    recorded = record(bone.model, row[0])
    start = len(source)
    method = made(bone, place="between", positions=positions)
    numbers = Prompt(
        torch.cat(
            [
                half[:, start : start + P].transpose(0, 1).flatten(1)
                for site in method.form.sites
                for half in (recorded[site.name].key, recorded[site.name].value)
            ],
            dim=1,
        ),
        PrefixForm(method.form.sites, positions, "between"),
    )
    pair = Encoded((*source, bone.eos_id), tuple(rest))
    shift = P if positions == "shifted" else 0
    places = torch.tensor([[*range(start + P), *range(start + shift, start + shift + 4)]])
    with torch.no_grad():
        inputs = {"input_ids": row, "attention_mask": torch.ones_like(row), "position_ids": places}
        logits = bone.model(**inputs, use_cache=False).logits[0, start + P : -1]
    want = -float(logits.log_softmax(dim=1)[range(3), rest].sum())
    assert nll(bone, numbers, [pair]) == pytest.approx(want, rel=1e-4)
    with torch.no_grad(), inject(bone.model, numbers.keys_and_values()):
        seen_by_all = float(target_nll(bone, make_batch(bone, Untuned(), [pair])))
    assert abs(seen_by_all - want) > 1e-3


@pytest.mark.parametrize("name", WINDOWLESS)
def test_embedding_only_is_a_prefix_of_what_the_backbone_makes_of_virtual_tokens(name: str) -> None:
    """Li & Liang's embedding-only ablation is `prompt`: virtual embeddings, run through the frozen backbone."""
    bone, pairs = factories.backbone(name), factories.pairs(3)
    torch.manual_seed(0)
    method = METHODS["prompt"](bone, PromptTuning(length=P, init="normal", init_scale=1.0, reparam="mlp"))
    first = len(factories.tokenizer())
    with torch.no_grad(), method.attach(bone):
        numbers = activations(bone, torch.arange(first, first + P), bone.sites())
    prefix = Prompt(numbers, PrefixForm(bone.sites(), "shifted"))
    assert nll(bone, prefix, pairs) == pytest.approx(nll(bone, method, pairs), rel=1e-5)
    assert nll(bone, prefix, pairs) != pytest.approx(nll(bone, Untuned(), pairs), rel=1e-3)


NOOPS = [
    pytest.param(reparam, name, marks=() if reparam == "none" or name in WITH_MLP else pytest.mark.slow)
    for reparam in ("none", "mlp", "deep")
    for name in (*ARCHITECTURES, *factories.SEQ2SEQ)
]


@pytest.mark.parametrize("place", ["before", "between"])
@pytest.mark.parametrize(("reparam", "name"), NOOPS)
def test_a_noop_start_is_the_backbone_to_the_bit_and_learns(name: str, place: str, reparam: str) -> None:
    bone, pairs = factories.backbone(name), factories.pairs(3)
    if place == "between" and bone.family == "seq2seq":
        pytest.skip("an encoder-decoder has no infix")
    options = {"attention": "beside", "init": "noop", "positions": "unshifted", "hidden": 8}
    method = made(bone, place=place, reparam=reparam, **options)
    assert nll(bone, method, pairs) == nll(bone, Untuned(), pairs)
    config = TrainConfig(batch_size=3, lr=5e-2, max_steps=6, precision="float32")
    for _ in training_steps(bone, method, make_optimizer(method, config), pairs, config, seed=0):
        pass
    method.set_mode(False)
    assert nll(bone, method, pairs) < nll(bone, Untuned(), pairs)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "t5"])
def test_attention_beside_is_the_sum_of_two_attentions(name: str, shared: bool) -> None:
    """Seen at one site: the module's output minus its own is softmax(q k) v over the prefix alone."""
    bone = factories.backbone(name)
    method = made(bone, attention="beside")
    kv = method.fold().keys_and_values()
    seen: dict[bool, Tensor] = {}
    site = method.form.sites[0]
    target = dict(bone.model.named_modules())[site.name]
    own, queries = module._attend, []

    def spy(base: Any, called: Any, query: Tensor, *rest: Any, **kwargs: Any) -> Any:
        output, weights = own(base, called, query, *rest, **kwargs)
        if called is target:
            queries.append((query, kwargs.get("scaling"), output))
        return output, weights

    module._attend = spy
    try:
        for steered in (False, True):
            with torch.no_grad(), inject(bone.model, kv if steered else {}, shared=shared, beside=True):
                target_nll(bone, make_batch(bone, Untuned(), factories.pairs(2)))
            query, scaling, seen[steered] = queries.pop()
    finally:
        module._attend = own
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    groups = query.shape[1] // site.kv_heads
    key, value = (part.repeat_interleave(groups, dim=0) for part in (kv[site.name].key, kv[site.name].value))
    weights = (torch.einsum("bhtd,hpd->bhtp", query * scale, key)).softmax(dim=-1)
    want = torch.einsum("bhtp,hpd->bthd", weights, value)
    torch.testing.assert_close(seen[True] - seen[False], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_a_decoder_prefix_equals_pefts(name: str) -> None:
    """Unpadded, where PEFT is right; on T5 it prefixes the decoder's self-attention alone.

    PEFT's prefix in a cache gets T5's bias of a distance to the text; here it has none, so the bias is 0 in both.
    """
    bone, pair = factories.backbone(name), factories.pairs(1, longest=6)[0]
    theirs_model = factories.model(name, attn_implementation="eager")
    with torch.no_grad():
        for model in (bone.model, theirs_model):
            for part, parameter in model.named_parameters():
                if "relative_attention_bias" in part:
                    parameter.zero_()
    sites = [site for site in bone.sites() if site.kind == "decoder"]
    heads, width = sites[0].kv_heads, sites[0].kv_heads * sites[0].key_dim
    task = "CAUSAL_LM" if bone.family == "causal" else "SEQ_2_SEQ_LM"
    config = PrefixTuningConfig(
        task_type=task,
        num_virtual_tokens=P,
        num_layers=len(sites),
        num_attention_heads=heads,
        token_dim=width,
    )
    theirs = peft.get_peft_model(theirs_model, config).eval()
    weight = theirs.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.normal_(generator=torch.Generator().manual_seed(0))
    positions = "shifted" if bone.family == "causal" else "unshifted"
    halves = weight.detach().view(P, 2 * len(sites), width)
    if bone.family == "seq2seq":
        # PEFT doubles its numbers and gives a layer four parts, of which two go to a cross attention that drops them:
        # so layer i has the parts 4i and 4i + 1 of the doubled row, and half of the numbers reach nothing.
        used = [(4 * layer + half) % (2 * len(sites)) for layer in range(len(sites)) for half in (0, 1)]
        halves = halves[:, used]
    mine = Prompt(halves.flatten(1).clone(), PrefixForm(tuple(sites), positions))
    if bone.family == "causal":
        ids, labels = torch.tensor([[*pair.source, *pair.target]]), [-100] * len(pair.source)
        inputs = {"input_ids": ids, "labels": torch.tensor([[*labels, *pair.target]])}
    else:
        inputs = {"input_ids": torch.tensor([pair.source]), "labels": torch.tensor([pair.target])}
    with torch.no_grad():
        want = float(theirs(**inputs, attention_mask=torch.ones_like(inputs["input_ids"])).loss) * len(pair.target)
    assert nll(bone, mine, [pair]) == pytest.approx(want, rel=1e-5)
    assert nll(bone, Untuned(), [pair]) != pytest.approx(want, rel=1e-3)
