"""DePT on both families: against the formula, its budget, its two rates."""

import json
from pathlib import Path

import factories
import pytest
import torch
from jobs import tiny_job

from softprompt.backbone import Backbone
from softprompt.batch import Encoded, collate, collate_seq2seq, make_batch
from softprompt.config import DecodeConfig, TrainConfig, load_recipe
from softprompt.decode import decode_texts
from softprompt.errors import CheckpointError, ConfigError
from softprompt.loss import target_nll
from softprompt.method_config import DePT
from softprompt.methods import METHODS, DeptMethod, trained_count
from softprompt.methods.dept import rank_for
from softprompt.optim import make_optimizer
from softprompt.run import run_recipe
from softprompt.train import training_steps

P, S = 3, 6
FAMILIES = ["gpt2", "llama", "mistral_window", "gemma3", "bart", "t5", "t5_v1_1"]


def moved(bone: Backbone, **options: object) -> DeptMethod:
    """DePT whose low-rank part is not 0 any more."""
    torch.manual_seed(0)
    method = METHODS["dept"](bone, DePT(**{"length": P, "text_length": S, "rank": 2, **options}))
    assert isinstance(method, DeptMethod)
    with torch.no_grad():
        method.lowrank_b.add_(torch.randn_like(method.lowrank_b))
    return method.eval()


def nll(bone: Backbone, method: DeptMethod, pairs: list[Encoded], side: str = "right") -> float:
    placed = [Encoded(method.place(bone, pair.source), pair.target) for pair in pairs]
    batch = (
        collate(placed, bone.pad_id, side=side)
        if bone.family == "causal"
        else collate_seq2seq(placed, bone.pad_id, bone.shifted, side=side)
    )
    with torch.no_grad(), method.attach(bone):
        return float(target_nll(bone, batch))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("scale", ["reference", "none"])
def test_equals_the_formula(name: str, scale: str) -> None:
    bone = factories.backbone(name)
    method = moved(bone, scale=scale)
    assert method.scale == (8 / 2**0.5 if scale == "reference" else 1)
    (pair,) = [pair for pair in factories.pairs(9) if len(pair.source) > S][:1]  # longer than what is changed
    source, target = torch.tensor([pair.source]), torch.tensor([pair.target])
    look_up = bone.model.get_input_embeddings()
    with torch.no_grad():
        words = look_up(source)
        words[:, :S] += method.scale * (method.lowrank_a @ method.lowrank_b)
        embeds = torch.cat([method.prompt[None], words], dim=1)
        if bone.family == "causal":
            want = bone.model(inputs_embeds=torch.cat([embeds, look_up(target)], dim=1)).logits
        else:
            want = bone.model(inputs_embeds=embeds, decoder_input_ids=bone.shifted(target)).logits
        with method.attach(bone):
            got = bone.model(**make_batch(bone, method, [pair]).inputs(), use_cache=False).logits
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_reference_positions_end_a_text_at_the_last(name: str, tmp_path: Path) -> None:
    """As the reference code decodes: a decoder-only text padded on the left to S, an encoder's on the right."""
    bone = factories.backbone(name)
    method = moved(bone, positions="reference")
    first = len(factories.tokenizer()) + P
    source = (5, 6, 7, bone.eos_id)
    start = S - len(source) if bone.family == "causal" else 0
    want = [first + (start + index) * len(factories.tokenizer()) + word for index, word in enumerate(source)]
    assert list(method.place(bone, source))[P:] == want
    assert list(method.place(bone, source * 3))[P:] == list(moved(bone).place(bone, source * 3))[P:]
    method.save(tmp_path / "kept", backbone_id=name, backbone_hash=bone.hash())
    assert DeptMethod.load(bone, tmp_path / "kept").place(bone, source) == method.place(bone, source)


@pytest.mark.parametrize("name", FAMILIES)
def test_padded_equals_unpadded_and_saved_and_loaded_equals_before(name: str, tmp_path: Path) -> None:
    bone, pairs = factories.backbone(name), factories.pairs(4)
    method = moved(bone)
    whole = nll(bone, method, pairs)
    for side in ("right",) if name == "bart" else ("right", "left"):
        alone = sum(nll(bone, method, [pair]) for pair in pairs)
        assert nll(bone, method, pairs, side) == pytest.approx(alone, rel=1e-5)
    method.save(tmp_path / "adapter", backbone_id=name, backbone_hash=bone.hash())
    assert nll(bone, DeptMethod.load(bone, tmp_path / "adapter"), pairs) == whole
    with pytest.raises(CheckpointError, match="learned on backbone"):
        DeptMethod.load(factories.backbone(name, seed=5), tmp_path / "adapter")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_trainable_tensor_gets_a_gradient_and_the_backbone_none(name: str) -> None:
    bone = factories.backbone(name)
    before, method = bone.hash(), moved(bone)
    with method.attach(bone):
        target_nll(bone, make_batch(bone, method, factories.pairs(3))).backward()
    for key, parameter in method.trainable().items():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), key
    assert all(parameter.grad is None for parameter in bone.model.parameters()) and bone.hash() == before


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("config", [DecodeConfig(strategy="greedy"), DecodeConfig(strategy="beam", beams=3)], ids=str)
def test_batched_decoding_equals_one_by_one(name: str, config: DecodeConfig) -> None:
    bone, config = factories.backbone(name), config.model_copy(update={"max_new_tokens": 6, "batch_size": 4})
    method, sources = moved(bone), factories.texts(5, seed=3)
    together = decode_texts(bone, method, sources, config)
    for row, source in zip(together, sources, strict=True):
        (alone,) = decode_texts(bone, method, [source], config)
        assert (row.text, row.tokens) == (alone.text, alone.tokens)


@pytest.mark.parametrize(
    ("length", "text_length", "rank"), [(40, 256, 45), (60, 256, 30), (80, 256, 15), (20, 256, 60)]
)
def test_budget_of_the_paper(length: int, text_length: int, rank: int) -> None:
    bone = Backbone.plan("t5-base")
    method = METHODS["dept"](bone, DePT(length=length, text_length=256))
    assert isinstance(method, DeptMethod) and method.lowrank_a.shape == (256, rank)
    assert trained_count(method) == method.stored_count() == 76_800
    assert rank_for(60, 512, 768) == 24


def test_a_prompt_that_leaves_no_rank_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.length: a prompt of 100 leaves no rank"):
        METHODS["dept"](factories.backbone("gpt2"), DePT(length=100))


def test_the_low_rank_part_learns_at_its_own_rate() -> None:
    bone = factories.backbone("gpt2")
    method = moved(bone, lowrank_lr=1e-3)
    config = TrainConfig(lr=0.1, max_steps=4, warmup_steps=2, batch_size=2, precision="float32")
    optimizer = make_optimizer(method, config)
    rates = []
    for record in training_steps(bone, method, optimizer, factories.pairs(6), config, seed=0):
        rates.append([group["lr"] for group in optimizer.param_groups])
        assert record.lr == rates[-1][0]
    assert rates == [[0.0, 0.0], [0.05, 0.0005], [pytest.approx(0.1), pytest.approx(1e-3)], [pytest.approx(0.05), 5e-4]]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 2]


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_whole_run(name: str, tmp_path: Path) -> None:
    method_text = "method={name: dept, length: 3, text_length: 8, rank: 2, lowrank_lr: 1e-3}"
    recipe = load_recipe(str(tiny_job(tmp_path, architecture=name)), [method_text, "untuned=false"])
    (result,) = run_recipe(recipe, tmp_path / "run", quiet=True)
    bone = Backbone.load(str(tmp_path / "backbone"))
    assert result.parameters["stored"] == 3 * bone.hidden_width() + (8 + bone.hidden_width()) * 2
    method = DeptMethod.load(bone, tmp_path / "run" / "adapter")
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()]
    again = decode_texts(bone, method, [row["source"] for row in rows], recipe.decode, seed=recipe.seed)
    assert [row.text for row in again] == [row["prediction"] for row in rows]
