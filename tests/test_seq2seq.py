"""The prefix on encoder-decoders: banks for encoder, decoder and cross attention (Li & Liang 2021, BART)."""

import json
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from factories import SEQ2SEQ
from jobs import tiny_job
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.batch import Encoded, collate_seq2seq, make_batch, make_source_batch
from softprompt.config import DecodeConfig, TrainConfig, load_recipe
from softprompt.decode import decode_texts
from softprompt.errors import ConfigError
from softprompt.inject import inject
from softprompt.loss import target_nll
from softprompt.method_config import PrefixTuning
from softprompt.methods import METHODS, Untuned
from softprompt.prompt import Prompt
from softprompt.run import run_recipe
from softprompt.train import prepare_mode

P = 5


def nll(bone: Backbone, pairs: list[Encoded], side: str = "right") -> float:
    batch = collate_seq2seq(pairs, bone.pad_id, bone.shifted, side=side)
    with torch.no_grad():
        return float(target_nll(bone, batch))


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_sites_are_found_with_their_kinds_and_depths(name: str) -> None:
    bone = factories.backbone(name)
    kinds = [site.kind for site in bone.sites()]
    encoder, decoder = SEQ2SEQ[name]
    assert (kinds.count("encoder"), kinds.count("decoder"), kinds.count("cross")) == (encoder, decoder, decoder)
    assert bone.family == "seq2seq" and Backbone(name, bone.model.to("meta"), bone.tokenizer).sites() == bone.sites()


@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.parametrize("reparam", ["mlp", "deep", "none"])
def test_counts_equal_the_formula(name: str, reparam: str) -> None:
    bone = factories.backbone(name)
    method = factories.prefix(bone, length=P, hidden=16, reparam=reparam)
    per_site = 2 * 4 * (bone.sites()[0].key_dim)
    sites = SEQ2SEQ[name][0] + 2 * SEQ2SEQ[name][1]
    assert method.stored_count() == method.fold().numbers.numel() == P * sites * per_site
    deeper = 16 * 16 + 16 if reparam == "deep" else 0
    trained = sum(parameter.numel() for parameter in method.trainable().values())
    embed = bone.hidden_width()
    mlp = 3 * (P * embed + embed * 16 + 16 + deeper) + (16 + 1) * sites * per_site
    assert trained == (P * sites * per_site if reparam == "none" else mlp)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_every_trainable_tensor_gets_a_gradient_in_every_place(name: str) -> None:
    bone = factories.backbone(name)
    method = factories.prefix(bone, length=P)
    method.set_mode(True)
    with method.attach(bone):
        target_nll(bone, make_batch(bone, method, factories.pairs(3))).backward()
    for key, parameter in method.trainable().items():
        assert parameter.grad is not None and bool((parameter.grad != 0).all()), key
    assert all(parameter.grad is None for parameter in bone.model.parameters())


@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("steered", [True, False])
def test_padded_equals_unpadded_on_both_sides(name: str, attention: str, steered: bool) -> None:
    bone = factories.backbone(name, attention=attention)
    how = factories.prefix(bone, length=P).fold() if steered else Untuned()
    pairs = factories.pairs(4)
    with how.attach(bone):
        alone = sum(nll(bone, [pair]) for pair in pairs)
        for side in ("right", "left") if relative(bone) else ("right",):
            assert nll(bone, pairs, side) == pytest.approx(alone, rel=1e-5)


def relative(bone: Backbone) -> bool:
    """Whether positions are relative: BART numbers its positions from the row's start, pads included."""
    return getattr(bone.model.config, "relative_attention_num_buckets", None) is not None


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_eager_equals_fused_and_the_joined_softmax_equals_concatenation(name: str) -> None:
    results = []
    for attention in ("sdpa", "eager"):
        bone = factories.backbone(name, attention=attention)
        prompt = factories.prefix(bone, length=P).fold()
        for shared in (False, True):
            with prompt.attach(bone, shared=shared):
                results.append(nll(bone, factories.pairs(4)))
    assert results == pytest.approx([results[0]] * 4, rel=1e-5)


@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
def test_each_bank_acts_and_can_be_alone(name: str, kind: str) -> None:
    bone = factories.backbone(name)
    torch.manual_seed(0)
    alone = METHODS["prefix"](bone, PrefixTuning(length=P, hidden=16, sites=[kind]))
    assert {site.kind for site in alone.fold().form.sites} == {kind}
    pairs = factories.pairs(3)
    with alone.fold().attach(bone):
        assert nll(bone, pairs) != pytest.approx(nll_untuned(bone, pairs), rel=1e-4)


def nll_untuned(bone: Backbone, pairs: list[Encoded]) -> float:
    with inject(bone.model, {}):
        return nll(bone, pairs)


@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.parametrize("config", [DecodeConfig(strategy="greedy"), DecodeConfig(strategy="beam", beams=3)], ids=str)
def test_batched_decoding_equals_one_by_one(name: str, config: DecodeConfig) -> None:
    bone = factories.backbone(name)
    prompt = factories.prefix(bone, length=P).fold()
    config = config.model_copy(update={"max_new_tokens": 8, "batch_size": 4})
    sources = factories.texts(6, seed=3)
    together = decode_texts(bone, prompt, sources, config)
    for row, source in zip(together, sources, strict=True):
        (alone,) = decode_texts(bone, prompt, [source], config)
        assert (row.text, row.tokens) == (alone.text, alone.tokens)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_cached_greedy_decoding_equals_teacher_forcing(name: str) -> None:
    bone = factories.backbone(name)
    prompt = factories.prefix(bone, length=P).fold()
    batch = make_source_batch(bone, prompt, [pair.source for pair in factories.pairs(3)])
    with torch.no_grad(), prompt.attach(bone, shared=True):
        out = bone.model.generate(**batch.inputs(), max_new_tokens=6, min_new_tokens=6, do_sample=False)
    with torch.no_grad(), prompt.attach(bone):
        logits = bone.model(**batch.inputs(), decoder_input_ids=out[:, :-1], use_cache=False).logits
    logits[..., bone.eos_id] = -torch.inf
    assert torch.equal(logits.argmax(-1), out[:, 1:])


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_saved_and_loaded_equals_before_and_folded_equals_unfolded(name: str, tmp_path: Path) -> None:
    bone = factories.backbone(name)
    method = factories.prefix(bone, length=P, dropout=0.5)
    method.set_mode(False)
    pairs = factories.pairs(3)
    method.fold().save(tmp_path / "prompt", backbone_id=name, backbone_hash=bone.hash())
    after = Prompt.load(tmp_path / "prompt", backbone_hash=bone.hash())
    values = []
    for how in (method, method.fold(), after):
        with how.attach(bone):
            values.append(nll(bone, pairs))
    assert values[0] == values[1] == values[2]
    assert not (tmp_path / "prompt" / "adapter_config.json").exists()  # PEFT has no encoder and cross banks


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        bone = factories.backbone(name)
        method = factories.prefix(bone, length=P)
        config = TrainConfig(gradient_checkpointing=checkpointing)
        if checkpointing:
            bone.enable_gradient_checkpointing()
        prepare_mode(bone, method, config)
        with method.attach(bone):
            target_nll(bone, make_batch(bone, method, factories.pairs(3))).backward()
        gradients.append([parameter.grad for parameter in method.trainable().values()])
    for without, with_it in zip(*gradients, strict=True):
        torch.testing.assert_close(with_it, without, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_the_loss_is_transformers_own(name: str) -> None:
    bone = factories.backbone(name)
    pairs = factories.pairs(4)
    batch = make_batch(bone, Untuned(), pairs)
    labels = torch.full(batch.predicts_BT.shape, -100)
    labels[batch.predicts_BT] = batch.labels_N
    with torch.no_grad():
        mean = bone.model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT, labels=labels).loss
    assert nll(bone, pairs) / len(batch.labels_N) == pytest.approx(float(mean), rel=1e-6)


def test_three_banks_of_bart_equal_plain_attention_over_longer_keys() -> None:
    """Against a reference that shares nothing with the package: hooks that compute each attention anew, by hand."""
    bone, plain = factories.backbone("bart"), factories.model("bart", attn_implementation="eager")
    prompt = factories.prefix(bone, length=P).fold()
    batch = make_batch(bone, prompt, factories.pairs(4))
    with torch.no_grad(), prompt.attach(bone):
        got = bone.model(**batch.inputs(), use_cache=False).logits
    modules = dict(plain.named_modules())
    for site, kv in zip(prompt.form.sites, prompt.keys_and_values().values(), strict=True):
        prefixed(modules[site.name], kv.key, kv.value)
    with torch.no_grad():
        want = plain(**batch.inputs(), use_cache=False).logits
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def prefixed(module: torch.nn.Module, key_HPD: Tensor, value_HPD: Tensor) -> None:
    """Replace a BART attention's forward by softmax over [prefix; keys], written out."""
    heads, length, dim = key_HPD.shape

    def cut(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], heads, dim).transpose(1, 2)

    def forward(hidden_states: Tensor, key_value_states: Tensor | None = None, **kwargs: Any) -> tuple[Tensor, None]:
        rows, time = hidden_states.shape[:2]
        read = hidden_states if key_value_states is None else key_value_states
        query, key, value = cut(module.q_proj(hidden_states)), cut(module.k_proj(read)), cut(module.v_proj(read))
        key = torch.cat([key_HPD.expand(rows, -1, -1, -1), key], dim=2)
        value = torch.cat([value_HPD.expand(rows, -1, -1, -1), value], dim=2)
        scores = query @ key.transpose(2, 3) / dim**0.5
        mask = kwargs["attention_mask"]
        if mask is not None:
            scores = scores + torch.nn.functional.pad(mask.expand(rows, 1, time, -1), (length, 0))
        mixed = scores.softmax(-1) @ value
        return module.out_proj(mixed.transpose(1, 2).reshape(rows, time, heads * dim)), None

    module.forward = forward


def test_papers_counts_of_bart_large() -> None:
    method = METHODS["prefix"](Backbone.plan("facebook/bart-large"), PrefixTuning(length=200, hidden=800))
    assert method.stored_count() == 14_745_600
    assert sum(parameter.numel() for parameter in method.trainable().values()) == 3 * (20_505_376 + 1024 * 200)


def test_sites_and_positions_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.sites: .*decoder, got 'encoder'"):
        METHODS["prefix"](factories.backbone("gpt2"), PrefixTuning(sites=["encoder"]))
    with pytest.raises(ConfigError, match=r"method.positions: expected unshifted"):
        METHODS["prefix"](factories.backbone("bart"), PrefixTuning(positions="shifted"))


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_whole_run_on_an_encoder_decoder(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path, "compare: {finetune: {method: finetune}}", name)))
    results = {result.arm: result for result in run_recipe(recipe, tmp_path / "run", quiet=True)}
    assert set(results) == {"untuned", "main", "finetune"}
    assert results["finetune"].parameters["trained_share"] == 1
    bone = Backbone.load(str(tmp_path / "backbone"))
    prompt = Prompt.load(tmp_path / "run" / "prompt", backbone_hash=bone.hash())
    assert {site.kind for site in prompt.form.sites} == {"encoder", "decoder", "cross"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()]
    again = decode_texts(bone, prompt, [row["source"] for row in rows], recipe.decode, seed=recipe.seed)
    assert [row.text for row in again] == [row["prediction"] for row in rows]
