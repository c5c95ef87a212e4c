"""LoRA by PEFT under this package's loop, and its folder in PEFT's hands."""

import json
from pathlib import Path

import factories
import pytest
import torch
from jobs import tiny_job

from softprompt.backbone import Backbone
from softprompt.batch import Encoded, make_batch
from softprompt.config import load_recipe
from softprompt.decode import decode_texts
from softprompt.errors import CheckpointError, ConfigError
from softprompt.loss import target_nll
from softprompt.method_config import LoRA
from softprompt.methods import METHODS, PeftMethod, trained_count
from softprompt.run import run_recipe

peft = pytest.importorskip("peft", reason="the extra `peft` is not installed")
FAMILIES = ["gpt2", "llama", "mistral_window", "gemma3", "bart", "t5"]


def moved(bone: Backbone, **options: object) -> PeftMethod:
    """LoRA whose second matrices are not 0 any more."""
    torch.manual_seed(0)
    method = METHODS["lora"](bone, LoRA(**{"rank": 3, "dropout": 0.2, **options}))
    assert isinstance(method, PeftMethod)
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    method.set_mode(False)
    return method


def nll(bone: Backbone, method: PeftMethod, pairs: list[Encoded]) -> float:
    with torch.no_grad(), method.attach(bone):
        return float(target_nll(bone, make_batch(bone, method, pairs)))


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_reach_what_is_trained_and_nothing_else(name: str) -> None:
    bone = factories.backbone(name)
    method = moved(bone)
    frozen = bone.frozen_hash()
    target_nll(bone, make_batch(bone, method, factories.pairs(3))).backward()
    for key, parameter in bone.model.named_parameters():
        assert (parameter.grad is not None and bool((parameter.grad != 0).any())) == ("lora_" in key), key
    assert bone.frozen_hash() == frozen


def test_counts_equal_the_formula() -> None:
    bone = factories.backbone("gpt2")
    method = METHODS["lora"](bone, LoRA(rank=3, targets=["c_attn"]))
    assert trained_count(method) == method.stored_count() == 2 * 3 * (32 + 96)


@pytest.mark.parametrize("name", FAMILIES)
def test_padded_equals_unpadded_and_no_start_changes_nothing(name: str) -> None:
    pairs = factories.pairs(4)
    bone = factories.backbone(name)
    plain = nll(bone, moved(factories.backbone(name)), pairs)
    untrained = METHODS["lora"](bone, LoRA(rank=3))
    assert isinstance(untrained, PeftMethod)
    untrained.set_mode(False)
    assert nll(bone, untrained, pairs) == plain
    bone = factories.backbone(name)
    method = moved(bone)
    assert nll(bone, method, pairs) == pytest.approx(sum(nll(bone, method, [pair]) for pair in pairs), rel=1e-5)
    assert nll(bone, method, pairs) != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_loaded_equals_before_here_and_in_peft(name: str, tmp_path: Path) -> None:
    bone, pairs = factories.backbone(name), factories.pairs(3)
    before = bone.hash()
    method = moved(bone)
    method.save(tmp_path / "adapter", backbone_id=name, backbone_hash=before)
    fresh = factories.backbone(name)
    assert nll(fresh, PeftMethod.load(fresh, tmp_path / "adapter"), pairs) == nll(bone, method, pairs)
    theirs = peft.PeftModel.from_pretrained(factories.model(name), str(tmp_path / "adapter")).eval()
    batch = make_batch(bone, method, pairs)
    inputs = batch.inputs()
    with torch.no_grad():
        want, got = theirs(**inputs).logits, bone.model(**inputs, use_cache=False).logits
    shown = batch.attention_mask_BT.bool() if bone.family == "causal" else batch.predicts_BT
    torch.testing.assert_close(got[shown], want[shown], rtol=1e-4, atol=1e-4)


def test_a_folder_of_another_backbone_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    bone = factories.backbone("gpt2")
    before = bone.hash()
    moved(bone).save(tmp_path / "adapter", backbone_id="gpt2", backbone_hash=before)
    with pytest.raises(CheckpointError, match="learned on backbone 'gpt2'"):
        PeftMethod.load(factories.backbone("gpt2", n_layer=3), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(CheckpointError):
        PeftMethod.load(factories.backbone("gpt2"), tmp_path / "adapter")


def test_targets_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method lora: PEFT cannot change backbone"):
        METHODS["lora"](factories.backbone("gpt2"), LoRA(targets=["nowhere"]))


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_whole_run(name: str, tmp_path: Path) -> None:
    path = str(tiny_job(tmp_path, "compare: {finetune: {method: {name: finetune, top: 1}}}", architecture=name))
    recipe = load_recipe(path, ["method={name: lora, rank: 2}"])
    results = {result.arm: result for result in run_recipe(recipe, tmp_path / "run", quiet=True)}
    bone = Backbone.load(str(tmp_path / "backbone"))
    assert results["main"].parameters["backbone"] == bone.parameter_count()
    assert (
        0 < results["main"].parameters["trained"] < results["finetune"].parameters["trained"] < bone.parameter_count()
    )
    method = PeftMethod.load(bone, tmp_path / "run" / "adapter")
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()]
    again = decode_texts(bone, method, [row["source"] for row in rows], recipe.decode, seed=recipe.seed)
    assert [row.text for row in again] == [row["prediction"] for row in rows]
