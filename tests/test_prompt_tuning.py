"""Prompt tuning on both families: virtual tokens in the input that behave as the tokens they are."""

import json
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from factories import ARCHITECTURES, SEQ2SEQ
from jobs import tiny_job

from softprompt.backbone import Backbone
from softprompt.batch import Batch, Encoded, collate, collate_seq2seq, make_batch, make_source_batch
from softprompt.config import DecodeConfig, load_recipe
from softprompt.decode import decode_texts
from softprompt.embed import virtual_tokens, vocabulary_size
from softprompt.errors import ConfigError
from softprompt.loss import target_nll
from softprompt.method_config import PromptTuning
from softprompt.methods import METHODS, PromptMethod, trained_count
from softprompt.prompt import Prompt
from softprompt.run import run_recipe

P = 5
NAMES = [*ARCHITECTURES, *SEQ2SEQ]
FEW = ["gpt2", "llama", "mistral_window", "gemma3", "bart", "t5"]


def made(bone: Backbone, **options: Any) -> PromptMethod:
    torch.manual_seed(1)
    method = METHODS["prompt"](bone, PromptTuning(**{"length": P, "init": "normal", "init_scale": 1.0, **options}))
    assert isinstance(method, PromptMethod)
    method.set_mode(False)
    return method


def padded(bone: Backbone, pairs: list[Encoded], side: str = "right") -> Batch:
    if bone.family == "causal":
        return collate(pairs, bone.pad_id, side=side)
    return collate_seq2seq(pairs, bone.pad_id, bone.shifted, side=side)


def nll(bone: Backbone, how: PromptMethod | Prompt, pairs: list[Encoded], side: str = "right") -> float:
    batch = padded(bone, [Encoded(how.place(bone, pair.source), pair.target) for pair in pairs], side)
    with torch.no_grad(), how.attach(bone):
        return float(target_nll(bone, batch))


def numbered_from_the_row(bone: Backbone) -> bool:
    """Whether pads count as positions: BART and its kin number the row, not the text."""
    return bone.family == "seq2seq" and getattr(bone.model.config, "relative_attention_num_buckets", None) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["before", "after_bos", "after"])
def test_padded_equals_unpadded_and_every_row_its_own(name: str, place: str) -> None:
    bone = factories.backbone(name)
    prompt = made(bone, place=place).fold()
    pairs = factories.pairs(4)
    alone = sum(nll(bone, prompt, [pair]) for pair in pairs)
    for side in ("right",) if numbered_from_the_row(bone) else ("right", "left"):
        assert nll(bone, prompt, pairs, side) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reparam", ["none", "mlp", "residual"])
def test_every_trainable_tensor_gets_a_gradient_and_the_backbone_none(name: str, reparam: str) -> None:
    bone = factories.backbone(name)
    before = bone.hash()
    method = made(bone, reparam=reparam, bottleneck=16)
    method.set_mode(True)
    with method.attach(bone):
        target_nll(bone, make_batch(bone, method, factories.pairs(3))).backward()
    for key, parameter in method.trainable().items():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), key
    assert bool((method.prompt.grad != 0).any(dim=1).all())
    assert all(parameter.grad is None for parameter in bone.model.parameters()) and bone.hash() == before


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("reparam", ["none", "mlp", "residual"])
def test_counts_folding_and_the_file(name: str, reparam: str, tmp_path: Path) -> None:
    bone = factories.backbone(name)
    method, embed = made(bone, reparam=reparam, bottleneck=16), bone.hidden_width()
    mlp = 2 * embed * 16 + 16 + embed
    assert trained_count(method) == P * embed + {"none": 0, "mlp": mlp, "residual": mlp + 2 * embed}[reparam]
    assert method.stored_count() == method.fold().numbers.numel() == P * embed
    method.fold().save(tmp_path / "prompt", backbone_id=name, backbone_hash=bone.hash())
    after = Prompt.load(tmp_path / "prompt", backbone_hash=bone.hash())
    pairs = factories.pairs(3)
    assert nll(bone, method, pairs) == nll(bone, method.fold(), pairs) == nll(bone, after, pairs)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("config", [DecodeConfig(strategy="greedy"), DecodeConfig(strategy="beam", beams=3)], ids=str)
def test_batched_decoding_equals_one_by_one(name: str, config: DecodeConfig) -> None:
    bone, config = factories.backbone(name), config.model_copy(update={"max_new_tokens": 8, "batch_size": 4})
    prompt, sources = made(bone).fold(), factories.texts(6, seed=3)
    together = decode_texts(bone, prompt, sources, config)
    for row, source in zip(together, sources, strict=True):
        (alone,) = decode_texts(bone, prompt, [source], config)
        assert (row.text, row.tokens) == (alone.text, alone.tokens)


@pytest.mark.parametrize("name", FEW)
def test_rows_with_different_prompts_and_lengths_equal_each_alone(name: str) -> None:
    bone = factories.backbone(name)
    first, second = made(bone, length=5).fold(), made(bone, length=2).fold()
    table, size = torch.cat([first.numbers, second.numbers]), vocabulary_size(bone.model)
    one, other = factories.pairs(2)
    placed = [
        Encoded((*range(size, size + 5), *one.source), one.target),
        Encoded((*range(size + 5, size + 7), *other.source), other.target),
    ]
    batch = padded(bone, placed)
    with torch.no_grad(), virtual_tokens(bone.model, table):
        together = float(target_nll(bone, batch))
    assert together == pytest.approx(nll(bone, first, [one]) + nll(bone, second, [other]), rel=1e-5)


@pytest.mark.parametrize("name", FEW)
def test_cached_greedy_decoding_equals_teacher_forcing(name: str) -> None:
    bone = factories.backbone(name)
    prompt = made(bone).fold()
    batch: Batch = make_source_batch(bone, prompt, [pair.source for pair in factories.pairs(3)])
    with torch.no_grad(), prompt.attach(bone):
        out = bone.model.generate(**batch.inputs(), max_new_tokens=6, min_new_tokens=6, do_sample=False)
        if bone.family == "seq2seq":
            logits = bone.model(**batch.inputs(), decoder_input_ids=out[:, :-1], use_cache=False).logits
            want = out[:, 1:]
        else:
            mask = torch.nn.functional.pad(batch.attention_mask_BT, (0, 5), value=1)
            positions = (mask.cumsum(1) - 1).clamp(min=0) * mask
            inputs = {"input_ids": out[:, :-1], "attention_mask": mask, "position_ids": positions}
            logits = bone.model(**inputs, use_cache=False).logits[:, -6:]
            want = out[:, -6:]
    logits[..., bone.eos_id] = -torch.inf
    assert torch.equal(logits.argmax(-1), want)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_peft_reads_the_folder_and_computes_the_same(name: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    bone = factories.backbone(name)
    prompt = made(bone).fold()
    prompt.save(tmp_path / "prompt", backbone_id=name, backbone_hash="x")
    theirs = peft.PeftModel.from_pretrained(factories.model(name), str(tmp_path / "prompt")).eval()
    pairs = factories.pairs(1)  # PEFT counts positions of padded rows in its own way
    plain = padded(bone, pairs)
    given = {"input_ids": plain.input_ids_BT, "attention_mask": plain.attention_mask_BT}
    if plain.decoder_input_ids_BT is not None:
        given["decoder_input_ids"] = plain.decoder_input_ids_BT
    with torch.no_grad(), prompt.attach(bone):
        want = theirs(**given).logits
        got = bone.model(**make_batch(bone, prompt, pairs).inputs(), use_cache=False).logits
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_virtual_tokens_stand_where_the_recipe_says() -> None:
    bone = factories.backbone("gpt2")
    size, bos = vocabulary_size(bone.model), bone.tokenizer.bos_token_id
    for place, source, want in (
        ("before", (7, 8, bos), (size, size + 1, 7, 8, bos)),
        ("after_bos", (bos, 8, bos), (bos, size, size + 1, 8, bos)),
        ("after_bos", (7, 8, bos), (size, size + 1, 7, 8, bos)),
        ("after", (7, 8, bos), (7, 8, size, size + 1, bos)),
    ):
        assert made(bone, length=2, place=place).place(bone, source) == want


def test_initialisers() -> None:
    bone = factories.backbone("llama")
    words = bone.model.get_input_embeddings().weight
    ids = bone.tokenizer("hot tea", add_special_tokens=False)["input_ids"]
    drawn = [row.tolist() for row in made(bone, init="vocabulary", init_top=20).prompt]
    assert all(row in words[:20].tolist() for row in drawn) and len({tuple(row) for row in drawn}) == P
    text = made(bone, init="text", init_text="hot tea").prompt
    assert torch.equal(text, words[torch.tensor((ids * P)[:P])])
    labels = made(bone, init="labels", labels=["hot tea", "pie"]).prompt
    torch.testing.assert_close(labels[0], words[torch.tensor(ids)].mean(dim=0))
    for init, low in (("uniform", -0.5), ("uniform_positive", 0.0)):
        rows = made(bone, init=init, init_scale=0.5, length=100).prompt
        assert (float(rows.detach().min()), float(rows.detach().max())) == pytest.approx((low, 0.5), abs=0.01)
    assert float(made(bone, init="normal", init_scale=2.0, length=100).prompt.std()) == pytest.approx(2, rel=0.05)


def test_papers_count_of_t5_base() -> None:
    method = METHODS["prompt"](Backbone.plan("google/t5-v1_1-base"), PromptTuning(length=100))
    assert trained_count(method) == method.stored_count() == 76_800


def test_texts_and_labels_go_with_their_init() -> None:
    for override in ("init=text", "init=labels", "labels=[a]", "init_text=a"):
        with pytest.raises(ConfigError, match="go together"):
            load_recipe("quickstart", ["method=prompt", f"method.{override}"])


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_whole_run(name: str, tmp_path: Path) -> None:
    path = str(tiny_job(tmp_path, architecture=name))
    recipe = load_recipe(path, ["method={name: prompt, length: 4}", "untuned=false"])
    (result,) = run_recipe(recipe, tmp_path / "run", quiet=True)
    bone = Backbone.load(str(tmp_path / "backbone"))
    assert result.parameters["stored"] == 4 * bone.hidden_width()
    prompt = Prompt.load(tmp_path / "run" / "prompt", backbone_hash=bone.hash())
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()]
    again = decode_texts(bone, prompt, [row["source"] for row in rows], recipe.decode, seed=recipe.seed)
    assert [row.text for row in again] == [row["prediction"] for row in rows]
