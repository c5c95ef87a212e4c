"""The injected prefix against transformers' own `past_key_values`, and that nothing of it stays behind."""

import copy
import threading
from collections.abc import Mapping
from dataclasses import replace

import factories
import pytest
import torch
from factories import ARCHITECTURES
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from softprompt import backbone as backbone_module
from softprompt.backbone import Backbone
from softprompt.batch import Batch
from softprompt.errors import BackboneError
from softprompt.forms import split
from softprompt.inject import PrefixKV, Site, inject, install, probe
from softprompt.masks import causal

P = 5
# A cache loses its prefix once it slides out of the window, so the two can only agree where everything fits.
CACHEABLE = [name for name in ARCHITECTURES if name != "mistral_window"]
# What each architecture computes itself, given these keys and values (torch's kernel knows no soft cap).
OWN_ATTENTION = {"gemma2": "eager"}


def own_model(name: str) -> PreTrainedModel:
    made = factories.model(name)
    made.set_attn_implementation(OWN_ATTENTION.get(name, "sdpa"))
    return made.requires_grad_(False)


def logits_with_cache(model: PreTrainedModel, kv: Mapping[str, PrefixKV], rows: Batch) -> Tensor:
    """The prefix where transformers itself would put it: in the cache, before the text, always visible."""
    cache = DynamicCache(
        [(p.key.expand(rows.rows, -1, -1, -1), p.value.expand(rows.rows, -1, -1, -1)) for p in kv.values()]
    )
    visible = torch.ones(rows.rows, P, dtype=torch.long)
    out: Tensor = model(
        input_ids=rows.input_ids_BT,
        attention_mask=torch.cat([visible, rows.attention_mask_BT], dim=1),
        position_ids=shifted(rows).position_ids_BT,
        past_key_values=cache,
    ).logits
    return out


def shifted(rows: Batch) -> Batch:
    """The same text at the positions behind P others."""
    return replace(rows, position_ids_BT=rows.position_ids_BT + P)


def random_numbers(sites: tuple[Site, ...]) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(P, sum(site.width for site in sites))


@pytest.mark.parametrize("name", CACHEABLE)
def test_prefix_equals_the_same_keys_and_values_in_a_cache_to_the_bit(name: str) -> None:
    bone, rows = factories.backbone(name), factories.batch(3)
    sites = bone.sites()
    mine, theirs = random_numbers(sites).requires_grad_(), random_numbers(sites).requires_grad_()
    real = rows.attention_mask_BT.bool()
    weights = torch.randn(int(real.sum()), len(factories.tokenizer()))

    with inject(bone.model, split(mine, sites)):
        got = factories.logits(bone, shifted(rows))[real]
    want = logits_with_cache(own_model(name), split(theirs, sites), rows)[real]
    assert torch.equal(got, want)

    (got * weights).sum().backward()
    (want * weights).sum().backward()
    assert mine.grad is not None and mine.grad.abs().min() > 0
    assert torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_prefix_changes_every_real_token_of_every_row(name: str) -> None:
    bone, rows = factories.backbone(name), factories.batch(3)
    with torch.no_grad():
        plain = factories.logits(bone, shifted(rows))
        with inject(bone.model, split(random_numbers(bone.sites()), bone.sites())):
            steered = factories.logits(bone, shifted(rows))
    change = (steered - plain).abs().amax(dim=2)[rows.attention_mask_BT.bool()]
    assert change.min() > 1e-3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_eager_and_fused_attention_agree(name: str) -> None:
    rows, results = factories.batch(3), []
    for attention in ("sdpa", "eager"):
        bone = factories.backbone(name, attention=attention)
        with torch.no_grad(), inject(bone.model, split(random_numbers(bone.sites()), bone.sites())):
            results.append(factories.logits(bone, shifted(rows))[rows.attention_mask_BT.bool()])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_with_nothing_active_the_backbone_is_its_own_self_to_the_bit(name: str, padded: bool) -> None:
    rows = factories.batch(3 if padded else 1)
    assert bool(rows.attention_mask_BT.all()) != padded
    own = own_model(name)
    want = factories.logits(Backbone(name, own, None), rows)[rows.attention_mask_BT.bool()]
    got = factories.logits(factories.backbone(name), rows)[rows.attention_mask_BT.bool()]
    assert torch.equal(got, want)


@pytest.mark.parametrize("shared", [True, False])
def test_nothing_stays_active_after_the_block(shared: bool) -> None:
    bone, rows = factories.backbone("llama"), factories.batch(3)
    kv = split(random_numbers(bone.sites()), bone.sites())
    with torch.no_grad():
        before = factories.logits(bone, rows)
        with inject(bone.model, kv, shared=shared):
            inside = factories.logits(bone, rows)
        after = factories.logits(bone, rows)
        with pytest.raises(ZeroDivisionError), inject(bone.model, kv, shared=shared):
            raise ZeroDivisionError
        after_error = factories.logits(bone, rows)
    assert torch.equal(before, after) and torch.equal(before, after_error) and not torch.equal(before, inside)


def test_blocks_nest_and_the_outer_prefix_comes_back() -> None:
    bone, rows = factories.backbone("gpt2"), factories.batch(2)
    sites = bone.sites()
    outer, inner = split(random_numbers(sites), sites), split(-random_numbers(sites), sites)
    with torch.no_grad():
        with inject(bone.model, inner):
            alone = factories.logits(bone, rows)
        with inject(bone.model, outer):
            first = factories.logits(bone, rows)
            with inject(bone.model, inner):
                nested = factories.logits(bone, rows)
            second = factories.logits(bone, rows)
    assert torch.equal(first, second) and torch.equal(nested, alone) and not torch.equal(first, nested)


def test_sites_left_out_keep_their_own_attention() -> None:
    bone, rows = factories.backbone("gpt2"), factories.batch(2)
    sites = bone.sites()
    kv = split(random_numbers(sites), sites)
    with torch.no_grad():
        plain = factories.logits(bone, rows)
        with inject(bone.model, {}):
            none = factories.logits(bone, rows)
        with inject(bone.model, {sites[0].name: kv[sites[0].name]}):
            first = factories.logits(bone, rows)
        with inject(bone.model, kv):
            both = factories.logits(bone, rows)
    real = rows.attention_mask_BT.bool()
    torch.testing.assert_close(none[real], plain[real], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first[real], plain[real], atol=1e-2)
    assert not torch.allclose(first[real], both[real], atol=1e-2)


def test_prefix_of_one_thread_is_not_seen_by_another() -> None:
    bone, rows = factories.backbone("gpt2"), factories.batch(2)
    seen: list[Tensor] = []
    with torch.no_grad():
        plain = factories.logits(bone, rows)
    kv = split(random_numbers(bone.sites()), bone.sites())

    def elsewhere() -> None:
        with torch.no_grad():
            seen.append(factories.logits(bone, rows))

    with inject(bone.model, kv):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert torch.equal(seen[0], plain)


@pytest.mark.parametrize("shared", [True, False])
def test_prefix_stays_visible_beyond_a_sliding_window(shared: bool) -> None:
    bone = factories.backbone("mistral_window", num_hidden_layers=1)
    assert bone.model.config.sliding_window == 8
    rows = factories.batch(1, longest=30, seed=2)
    assert rows.input_ids_BT.shape[1] > 24
    numbers = random_numbers(bone.sites())
    results = []
    for sign in (1, -1):
        with torch.no_grad(), inject(bone.model, split(sign * numbers, bone.sites()), shared=shared):
            results.append(factories.logits(bone, shifted(rows))[0])
    assert (results[0] - results[1]).abs().amax(dim=1).min() > 1e-3


def test_the_window_itself_still_hides_far_tokens() -> None:
    bone = factories.backbone("mistral_window", num_hidden_layers=1)
    rows = factories.batch(1, longest=30, seed=2)
    changed = rows.input_ids_BT.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 300
    kv = split(random_numbers(bone.sites()), bone.sites())
    with torch.no_grad(), inject(bone.model, kv):
        one = factories.logits(bone, shifted(rows))[0]
        rows.input_ids_BT.copy_(changed)
        other = factories.logits(bone, shifted(rows))[0]
    assert (one - other).abs().amax(dim=1)[:8].min() > 1e-4
    assert torch.equal(one[8:], other[8:])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_probe_finds_each_attention_module_once_with_its_widths(name: str) -> None:
    bone = factories.backbone(name)
    bone.model.train()
    sites = probe(bone.model)
    assert bone.model.training
    config = bone.model.config
    heads = 1 if name == "gpt_bigcode" else getattr(config, "num_key_value_heads", config.num_attention_heads)
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert len({site.name for site in sites}) == len(sites) == config.num_hidden_layers
    assert {(site.kind, site.kv_heads, site.key_dim, site.value_dim) for site in sites} == {
        ("decoder", heads, dim, dim)
    }
    assert all(bone.model.get_submodule(site.name) is not None for site in sites)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral_window", "gemma2"])
def test_probe_on_the_meta_device_finds_the_same_sites(name: str) -> None:
    bone = factories.backbone(name)
    with torch.device("meta"):
        weightless = AutoModelForCausalLM.from_config(bone.model.config)
    install(weightless)
    assert probe(weightless) == bone.sites()


def test_the_probe_is_made_once_for_all_backbones_that_are_built_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    bone, probed = factories.backbone("llama"), []
    monkeypatch.setattr(backbone_module, "probe", lambda model, **how: probed.append(model) or probe(model, **how))
    want = bone.sites(one_call=True)
    alike = replace(bone, model=copy.deepcopy(bone.model))
    assert bone.sites() == alike.sites() == alike.sites(one_call=True) == want == probe(alike.model)
    assert probed == [bone.model]
    wider, shorter = copy.deepcopy(bone.model), copy.deepcopy(bone.model)
    wider.model.layers[0].self_attn.k_proj = torch.nn.Linear(32, 32, bias=False)
    wider.model.layers[0].self_attn.v_proj = torch.nn.Linear(32, 32, bias=False)
    wider.model.layers[0].self_attn.num_key_value_groups = 1
    del shorter.model.layers[1]
    assert [site.kv_heads for site in replace(bone, model=wider).sites()] == [4, 2]
    assert [site.name for site in replace(bone, model=shorter).sites()] == ["model.layers.0.self_attn"]
    alike.model.set_attn_implementation("sdpa")
    with pytest.raises(BackboneError, match="made 0 such calls"):
        alike.sites()
    assert len(probed) == 4


def test_a_backbone_without_the_interface_is_refused_by_name() -> None:
    config = AutoConfig.for_model("mamba", vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(BackboneError, match=r"AttentionInterface.*'mamba' made 0 such calls"):
        probe(model)


def test_a_module_that_attends_twice_is_one_site() -> None:
    settings = {**factories.LLAMA, "vocab_size": 50}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("diffllama", **settings))
    install(model)
    assert [site.name for site in probe(model)] == ["model.layers.0.self_attn", "model.layers.1.self_attn"]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_a_half_precision_backbone_takes_a_full_precision_prefix(name: str, shared: bool) -> None:
    full, rows = factories.backbone(name), factories.batch(3)
    half = factories.backbone(name)
    half.model.to(torch.bfloat16)
    results = []
    for bone in (full, half):
        with torch.no_grad(), inject(bone.model, split(random_numbers(full.sites()), full.sites()), shared=shared):
            results.append(factories.logits(bone, shifted(rows))[rows.attention_mask_BT.bool()])
    assert results[1].dtype == torch.bfloat16
    assert (results[0] - results[1].float()).abs().mean() < 0.05 * results[0].abs().mean()


def test_a_mask_that_was_left_out_lets_the_last_query_see_every_key() -> None:
    mask = causal(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 4, 4))[0, 0]
    assert mask.tolist() == [[True, True, True, False], [True, True, True, True]]
