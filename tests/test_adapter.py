"""Adapters on both families: counts, gradients, padding, saving, and both designs by hand."""

import json
from pathlib import Path

import factories
import pytest
import torch
from jobs import tiny_job

from softprompt.backbone import Backbone
from softprompt.batch import Encoded, make_batch
from softprompt.config import TrainConfig, load_recipe
from softprompt.decode import decode_texts
from softprompt.errors import CheckpointError, ConfigError
from softprompt.loss import target_nll
from softprompt.method_config import Adapter
from softprompt.methods import METHODS, AdapterMethod, trained_count
from softprompt.run import run_recipe
from softprompt.train import prepare_mode

FAMILIES = ["gpt2", "llama", "mistral_window", "gemma3", "opt", "bart", "t5", "t5_v1_1"]
DESIGNS = ["lin", "houlsby"]


def moved(bone: Backbone, design: str, **options: object) -> AdapterMethod:
    """An adapter far from its start."""
    torch.manual_seed(0)
    method = METHODS["adapter"](bone, Adapter(design=design, bottleneck=4, **options))
    assert isinstance(method, AdapterMethod)
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return method.eval()


def nll(bone: Backbone, method: AdapterMethod, pairs: list[Encoded]) -> float:
    with torch.no_grad(), method.attach(bone):
        return float(target_nll(bone, make_batch(bone, method, pairs)))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("design", DESIGNS)
def test_counts_places_and_gradients(name: str, design: str) -> None:
    bone = factories.backbone(name)
    method, embed = moved(bone, design), bone.hidden_width()
    blocks = len(bone.blocks()) + (len(bone.blocks("encoder")) if bone.family == "seq2seq" else 0)
    one = 2 * embed * 4 + 4 + embed + (2 * embed if design == "lin" else 0)
    assert trained_count(method) == method.stored_count() == blocks * (1 if design == "lin" else 2) * one
    before = bone.hash()
    with method.attach(bone):
        target_nll(bone, make_batch(bone, method, factories.pairs(3))).backward()
    for key, parameter in method.trainable().items():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), key
    assert all(parameter.grad is None for parameter in bone.model.parameters()) and bone.hash() == before


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("design", DESIGNS)
def test_padded_equals_unpadded_and_saved_and_loaded_equals_before(name: str, design: str, tmp_path: Path) -> None:
    bone, pairs = factories.backbone(name), factories.pairs(4)
    method = moved(bone, design)
    whole = nll(bone, method, pairs)
    assert whole == pytest.approx(sum(nll(bone, method, [pair]) for pair in pairs), rel=1e-5)
    method.save(tmp_path / "adapter", backbone_id=name, backbone_hash=bone.hash())
    assert nll(bone, AdapterMethod.load(bone, tmp_path / "adapter"), pairs) == whole
    with pytest.raises(CheckpointError, match="learned on backbone"):
        AdapterMethod.load(factories.backbone(name, seed=5), tmp_path / "adapter")


@pytest.mark.parametrize("design", DESIGNS)
def test_the_design_by_hand_on_gpt2(design: str) -> None:
    bone, plain = factories.backbone("gpt2"), factories.model("gpt2")
    method = moved(bone, design)
    ids = torch.randint(1, 300, (2, 7))
    with torch.no_grad(), method.attach(bone):
        got = bone.model(ids).logits
    parts = iter(method.bottlenecks)
    with torch.no_grad():
        states = plain.transformer.wte(ids) + plain.transformer.wpe(torch.arange(7))
        for block in plain.transformer.h:
            attended = block.attn(block.ln_1(states), attention_mask=None)[0]
            states = states + (next(parts)(attended) if design == "houlsby" else attended)
            fed = block.mlp(block.ln_2(states))
            states = states + (next(parts)(fed) if design == "houlsby" else fed)
            if design == "lin":
                part = next(parts)
                states = states + part.up(torch.relu(part.down(part.norm(states))))
        want = plain.lm_head(plain.transformer.ln_f(states))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("design", DESIGNS)
def test_gradient_checkpointing_changes_nothing(design: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        bone = factories.backbone("llama")
        method = moved(bone, design)
        if checkpointing:
            bone.enable_gradient_checkpointing()
        prepare_mode(bone, method, TrainConfig(gradient_checkpointing=checkpointing))
        with method.attach(bone):
            target_nll(bone, make_batch(bone, method, factories.pairs(3))).backward()
        gradients.append([parameter.grad for parameter in method.trainable().values()])
    for without, with_it in zip(*gradients, strict=True):
        torch.testing.assert_close(with_it, without, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("share", "least"), [(0.03, 0.0298), (0.001, 0.0008)])
def test_share_of_gpt2_mediums_parameters(share: float, least: float) -> None:
    """Li & Liang's Adapter 3% and 0.1%."""
    bone = Backbone.plan("gpt2-medium")
    method = METHODS["adapter"](bone, Adapter(share=share))
    assert least < trained_count(method) / bone.parameter_count() <= share
    bottleneck = METHODS["adapter"](bone, Adapter(bottleneck=256))
    assert trained_count(bottleneck) == 24 * (2 * 1024 * 256 + 256 + 1024 + 2 * 1024)


def test_a_share_too_small_and_two_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.share: expected at least"):
        METHODS["adapter"](factories.backbone("gpt2"), Adapter(share=1e-4))
    for override in ("method=adapter", "method={name: adapter, bottleneck: 3, share: 0.1}"):
        with pytest.raises(ConfigError, match="bottleneck or share, one of them"):
            load_recipe("quickstart", [override])


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_whole_run(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(
        str(tiny_job(tmp_path, architecture=name)), ["method={name: adapter, bottleneck: 4}", "untuned=false"]
    )
    run_recipe(recipe, tmp_path / "run", quiet=True)
    bone = Backbone.load(str(tmp_path / "backbone"))
    method = AdapterMethod.load(bone, tmp_path / "run" / "adapter")
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()]
    again = decode_texts(bone, method, [row["source"] for row in rows], recipe.decode, seed=recipe.seed)
    assert [row.text for row in again] == [row["prediction"] for row in rows]


def test_a_folder_of_another_method_is_refused(tmp_path: Path) -> None:
    bone = factories.backbone("gpt2")
    factories.prefix(bone).fold().save(tmp_path / "prompt", backbone_id="gpt2", backbone_hash=bone.hash())
    with pytest.raises(CheckpointError, match="expected one of method 'adapter', got 'prefix'"):
        AdapterMethod.load(bone, tmp_path / "prompt")
