"""Backbones in 8 and 4 bits. What needs bitsandbytes (extra `quant`) is skipped where it is not installed."""

import importlib.util
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from jobs import tiny_job

from softprompt import quantize
from softprompt.backbone import Backbone
from softprompt.batch import make_batch
from softprompt.config import DecodeConfig, load_recipe
from softprompt.decode import decode_texts
from softprompt.errors import BackboneError, CheckpointError, ConfigError
from softprompt.loss import target_nll
from softprompt.method_config import Adapter, DePT, FineTuning, LoRA, PrefixTuning, PromptTuning
from softprompt.methods import METHODS, Untuned, load
from softprompt.plan import dry_run
from softprompt.quantize import weight_bytes
from softprompt.run import run_recipe

SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64},
    "llama": {"hidden_size": 64, "intermediate_size": 128},
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 128},
    "bart": {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128},
}
HOWS = ["8bit", "4bit"]
LIBRARY = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes (extra `quant`) is not installed"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("backbones")
    return {name: factories.backbone_folder(place / name, name, **changes) for name, changes in SIZES.items()}


def test_a_missing_library_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    recipe = load_recipe(str(tiny_job(tmp_path)), ["backbone.quantize=8bit"])
    with pytest.raises(
        BackboneError, match=r"8bit needs bitsandbytes and accelerate.*pip install 'softprompt\[quant\]'"
    ):
        run_recipe(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(BackboneError, match="expected 8bit or 4bit, got '3bit'"):
        Backbone.load(str(tmp_path / "backbone"), quantize="3bit")
    assert Backbone.load(str(tmp_path / "backbone")).model.dtype == torch.float32


def test_fine_tuning_of_a_quantised_backbone_is_refused() -> None:
    for overrides in (["method=finetune"], ["compare={full: {method: finetune}}"]):
        with pytest.raises(ConfigError, match=r"method finetune trains the weights themselves.*or take method lora"):
            load_recipe("own-data", ["backbone.quantize=4bit", *overrides])
    with pytest.raises(ConfigError, match=r"backbone.quantize: expected one of 8bit, 4bit"):
        load_recipe("own-data", ["backbone.quantize=2bit"])


def test_a_dry_run_counts_the_bits() -> None:
    whole, eight, four = (
        dry_run(load_recipe("e2e-gpt2-medium", [f"backbone.quantize={how}"])).memory["weights"]
        for how in ("null", "8bit", "4bit")
    )
    linear = 24 * 12 * 1024**2
    assert whole - eight == linear * 3 and eight - four == linear // 2


@LIBRARY
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", SIZES)
def test_loaded_hashed_counted_and_close_to_the_whole(name: str, how: str, folders: dict[str, Path]) -> None:
    whole, bone, again = (Backbone.load(str(folders[name]), quantize=bits) for bits in (None, how, how))
    assert bone.parameter_count() == whole.parameter_count()
    before = bone.hash()
    assert before == again.hash() != whole.hash() and bone.frozen_hash() == before
    nll = [evaluate(each, Untuned()) for each in (whole, bone)]
    assert nll[1] == pytest.approx(nll[0], rel=0.05 if how == "8bit" else 0.5) and nll[0] != nll[1]
    assert bone.hash() == before  # unchanged by use
    constants = quantize.constants(bone.model)
    assert constants and not quantize.constants(whole.model)
    footprint = sum(parameter.nbytes for parameter in bone.model.parameters())
    if name != "t5":  # keeps one matrix of its feed-forward as it was
        assert weight_bytes(whole.model, 4, how) == footprint
    next(iter(constants.values())).mul_(2)
    assert bone.hash() != before


def evaluate(bone: Backbone, how: Any) -> float:
    with torch.no_grad(), how.attach(bone):
        return float(target_nll(bone, make_batch(bone, how, factories.pairs(4))))


@LIBRARY
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize(
    "config",
    [PrefixTuning(length=3), PromptTuning(length=3), DePT(length=3, rank=2), Adapter(bottleneck=4), LoRA(rank=2)],
    ids=lambda config: config.name,
)
def test_methods_learn_beside_it(name: str, how: str, config: Any, folders: dict[str, Path]) -> None:
    bone = Backbone.load(str(folders[name]), quantize=how)
    method = METHODS[config.name](bone, config)
    frozen = bone.frozen_hash()
    method.set_mode(True)
    optimizer = torch.optim.AdamW(method.trainable().values(), lr=1e-2)
    losses = []
    for _ in range(4):
        with method.attach(bone):
            loss = target_nll(bone, make_batch(bone, method, factories.pairs(4)))
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0] and bone.frozen_hash() == frozen
    method.set_mode(False)
    assert len(decode_texts(bone, method, ["hot tea", "pie"], DecodeConfig(beams=2, max_new_tokens=3))) == 2


@LIBRARY
def test_quantised_weights_are_not_fine_tuned(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="are in 8 or 4 bits"):
        METHODS["finetune"](Backbone.load(str(folders["gpt2"]), quantize="8bit"), FineTuning())


@LIBRARY
@pytest.mark.parametrize("how", HOWS)
def test_a_whole_run_and_its_prompt(how: str, tmp_path: Path, folders: dict[str, Path]) -> None:
    overrides = [f"backbone={{id: {folders['gpt2']}, quantize: {how}}}", "train.max_steps=2"]
    recipe = load_recipe(str(tiny_job(tmp_path)), overrides)
    results = run_recipe(recipe, tmp_path / "run", quiet=True)
    assert {result.arm for result in results} == {"main", "untuned"}
    load(Backbone.load(str(folders["gpt2"]), quantize=how), tmp_path / "run")
    with pytest.raises(CheckpointError, match="learned on backbone"):
        load(Backbone.load(str(folders["gpt2"])), tmp_path / "run")
