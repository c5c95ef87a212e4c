"""Keys and values of words are the words in front, rows of words are the words: or the backbone is refused."""

from dataclasses import replace
from typing import Any

import factories
import pytest
import torch
from torch import nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from softprompt.backbone import Backbone
from softprompt.decode import decode_texts
from softprompt.decode_config import DecodeConfig
from softprompt.errors import BackboneError
from softprompt.forms import split
from softprompt.in_front import differences, require_rows_as_words, row_difference, whole_difference
from softprompt.init import activations
from softprompt.inject import inject, install, probe
from softprompt.method_config import DePT, PrefixTuning, PromptTuning
from softprompt.methods import METHODS, DeptMethod, PrefixMethod, PromptMethod, Untuned
from softprompt.positions import text_starts_at
from softprompt.promises import Promises
from softprompt.reach import reaches

EXPERTS = {**factories.LLAMA, "moe_intermediate_size": 32, "head_dim": 16}
OTHERS: dict[str, dict[str, Any]] = {
    "mixtral": {**EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**EXPERTS, "num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {**EXPERTS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {
        **EXPERTS,
        **{"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "head_dim": 8},
        **{"qk_nope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1},
        **{"topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1},
    },
    "jamba": {**factories.LLAMA, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2},
    "lfm2": {**factories.LLAMA, "layer_types": ["conv", "full_attention"]},
    "falcon_h1": {**factories.LLAMA, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
    "diffllama": factories.LLAMA,
    "doge": {**factories.LLAMA, "head_dim": 8},
    "gemma4_text": {
        **{**factories.LLAMA, "head_dim": 8, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0},
        **{"layer_types": ["sliding_attention", "full_attention"], "vocab_size_per_layer_input": 320},
        **{"global_head_dim": 8, "num_global_key_value_heads": 2},
    },
}
REACHED = {
    "jamba": "decoder: 1 of 2 layers (not model.layers.0)",
    "lfm2": "decoder: 1 of 2 layers (not model.layers.0)",
}
IN_LAYERS = ("falcon_h1",)
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3")


def bone(name: str) -> Backbone:
    """A tiny random backbone whose weights are large enough for every difference to show."""
    if name in factories.ARCHITECTURES | factories.SEQ2SEQ_CONFIGS:
        return factories.backbone(name)
    vocabulary = {"vocab_size": len(factories.tokenizer()), "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = AutoConfig.for_model(name, **{**vocabulary, **OTHERS[name]})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1 if parameter.ndim > 1 else 0.0)
    install(model)
    return Backbone(name, model.eval().requires_grad_(False), factories.tokenizer())


def weightless(backbone: Backbone) -> Backbone:
    auto = AutoModelForSeq2SeqLM if backbone.family == "seq2seq" else AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(backbone.model.config)
    install(model)
    return Backbone(backbone.id, model.eval().requires_grad_(False), None)


@pytest.mark.parametrize("name", [*factories.ARCHITECTURES, *factories.SEQ2SEQ_CONFIGS, *MIXTURES, *REACHED])
def test_keys_and_values_of_words_are_the_words_in_front_at_every_site(name: str) -> None:
    backbone = bone(name)
    found = differences(backbone, backbone.sites())
    assert found.keys() == {site.name for site in backbone.sites()} and max(found.values()) < 1e-5


@pytest.mark.parametrize("name", [*factories.ARCHITECTURES, *MIXTURES])
def test_a_prefix_of_real_words_has_the_logits_of_the_words_in_front(name: str) -> None:
    backbone = bone(name)
    words, text = torch.tensor([17, 88, 203, 45]), torch.tensor([[5, 77, 300, 41, 9]])
    sites = backbone.sites()
    kv = split(activations(backbone, words, sites), sites)
    with torch.no_grad():
        together = torch.cat([words[None], text], dim=1)
        whole = backbone.model(input_ids=together, attention_mask=torch.ones_like(together)).logits[:, len(words) :]
        with inject(backbone.model, kv), text_starts_at(backbone.model, len(words)):
            ours = backbone.model(input_ids=text, attention_mask=torch.ones_like(text)).logits
    if name != "mistral_window":  # its 8 tokens of window hide the first words, and never a prefix
        assert (whole - ours).abs().max() < 1e-4
    assert whole_difference(backbone, sites) < 1e-5


@pytest.mark.parametrize("name", [*MIXTURES, *REACHED, *IN_LAYERS])
def test_mixtures_and_hybrids_have_the_same_sites_without_weights(name: str) -> None:
    backbone = bone(name)
    plan = weightless(backbone)
    before = plan.model.get_experts_implementation()
    assert probe(plan.model) == backbone.sites()
    assert plan.model.get_experts_implementation() == before


@pytest.mark.parametrize("name", REACHED)
def test_layers_without_attention_are_said(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = bone(name)
    assert [str(one) for one in reaches(backbone.model, backbone.sites())] == [REACHED[name]]
    PrefixMethod.build(backbone, PrefixTuning(length=2, reparam="none"))
    assert f"does not reach all of backbone '{name}': {REACHED[name]}." in capsys.readouterr().err


def test_words_that_act_beside_attention_too_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    PrefixMethod.build(bone("falcon_h1"), PrefixTuning(length=2, reparam="none"))
    assert "but words in front act on a text in other ways as well" in capsys.readouterr().err


def test_nothing_is_said_where_a_prefix_reaches_all(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("llama", "bart", "t5"):
        PrefixMethod.build(bone(name), PrefixTuning(length=2, reparam="none"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("plan", [False, True])
def test_a_module_that_attends_twice_is_refused_for_a_prefix(plan: bool) -> None:
    backbone = weightless(bone("diffllama")) if plan else bone("diffllama")
    with pytest.raises(BackboneError, match=r"model\.layers\.0\.self_attn attends 2 times in a forward"):
        PrefixMethod.build(backbone, PrefixTuning(length=2))


def test_a_mask_made_of_values_is_refused_with_the_number() -> None:
    with pytest.raises(BackboneError, match=r"at model\.layers\.\d\.self_attn the outputs differ by [\d.e-]+ of their"):
        PrefixMethod.build(bone("doge"), PrefixTuning(length=2))


@pytest.mark.parametrize(
    "method", [PrefixTuning(length=2), PromptTuning(length=2), DePT(length=2, text_length=8, rank=1)]
)
def test_a_backbone_whose_forward_fails_is_refused_and_no_traceback(method: Any) -> None:
    backbone = bone("llama")
    backbone.model.model.layers[1].mlp.down_proj = nn.Linear(3, 3)
    with pytest.raises(BackboneError, match="'llama': expected a forward of a few tokens to run, got RuntimeError"):
        METHODS[method.name](backbone, method)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "t5", "bart"])
def test_rows_of_words_are_the_words(name: str) -> None:
    backbone = bone(name)
    assert max(row_difference(backbone), row_difference(backbone, indexed=True)) < 1e-6


def test_ids_that_are_read_in_other_places_are_refused() -> None:
    backbone = bone("gemma4_text")  # has embeddings of the ids in every layer
    with pytest.raises(BackboneError, match=r"cannot read virtual tokens.*IndexError.*in other places"):
        PromptMethod.build(backbone, PromptTuning(length=2))
    with pytest.raises(BackboneError, match="cannot read virtual tokens"):
        DeptMethod.build(backbone, DePT(length=2, text_length=8, rank=1))


def test_ids_that_are_read_in_other_places_without_an_error_are_refused_too() -> None:
    backbone, more = bone("llama"), nn.Embedding(2000, 32)
    ids: list[torch.Tensor] = []
    backbone.model.register_forward_pre_hook(lambda _, args, kwargs: ids.append(kwargs["input_ids"]), with_kwargs=True)
    backbone.model.model.layers[0].register_forward_hook(lambda _, args, output: output + more(ids[-1]))
    with pytest.raises(
        BackboneError, match=r"does not read virtual tokens as their rows alone.*by [\d.]+ of their size"
    ):
        require_rows_as_words(backbone)


@pytest.mark.parametrize("tokens", [1, 6])
def test_attention_beside_a_shared_prefix_lies_in_memory_as_torchs_own(tokens: int) -> None:
    backbone = bone("llama")  # some models (AFMoE) take views of it
    sites = backbone.sites()
    module = backbone.model.get_submodule(sites[0].name)
    query, key = torch.randn(2, 4, tokens, 8), torch.randn(2, 2, 6, 8)
    kv = split(torch.randn(3, sum(site.width for site in sites)), sites)
    with inject(backbone.model, kv, shared=True):
        attend = AttentionInterface()[backbone.model.config._attn_implementation]
        output, _ = attend(module, query, key, key, None, scaling=0.3)
    assert output.is_contiguous() and output.shape == (2, tokens, 4, 8)


def test_a_model_whose_own_code_cannot_generate_is_refused() -> None:
    backbone = bone("llama")

    def broken(*_: Any) -> None:
        raise RuntimeError("The size of tensor a (14) must match")

    backbone.model.model.norm.register_forward_hook(broken)
    config = DecodeConfig(strategy="greedy", beams=1, max_new_tokens=2)
    with pytest.raises(BackboneError, match=r"'llama' to generate, got RuntimeError: The size of tensor a \(14\)"):
        decode_texts(backbone, Untuned(), ["the red old inn"], config)


def test_pads_that_move_a_text_away_from_its_prefix_are_refused() -> None:
    backbone = replace(bone("llama"), promises=Promises(positions=False))
    with pytest.raises(BackboneError, match="takes no positions, and pads move a text away from its prefix"):
        PrefixMethod.build(backbone, PrefixTuning(length=2))
