"""Any tuner of PEFT in the loop, the recipes and the reports: what is kept is PEFT's own, and reads back."""

import json
from pathlib import Path
from typing import Any

import factories
import peft
import pytest
import torch
from jobs import tiny_job

from softprompt.backbone import Backbone
from softprompt.batch import make_batch
from softprompt.config import TrainConfig, load_recipe
from softprompt.errors import ConfigError
from softprompt.loss import target_nll
from softprompt.method_config import Adapter, LoRA, Peft, PrefixTuning
from softprompt.methods import METHODS, load
from softprompt.optim import make_optimizer
from softprompt.run import run_recipe
from softprompt.train import training_steps

TUNERS: list[tuple[str, dict[str, Any]]] = [
    ("IA3", {}),
    ("loha", {"r": 2}),
    ("LOKR", {"r": 2}),
    ("OFT", {"oft_block_size": 4}),
]
TARGETS = {"llama": ["q_proj", "v_proj"], "t5": ["q", "v"]}
"""Where PEFT itself makes no choice."""


def made(bone: Backbone, kind: str, options: dict[str, Any]) -> Any:
    own = options if kind == "IA3" else options | {"target_modules": TARGETS[bone.id]}
    torch.manual_seed(0)
    return METHODS["peft"](bone, Peft(type=kind, options=own))


def nll(bone: Backbone, method: Any) -> float:
    with torch.no_grad(), method.attach(bone):
        return float(target_nll(bone, make_batch(bone, method, factories.pairs(3))))


@pytest.mark.parametrize(("kind", "options"), TUNERS, ids=[kind for kind, _ in TUNERS])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_learns_is_kept_and_reads_back(name: str, kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    bone = factories.backbone(name)
    before, plain = bone.hash(), {key: p.clone() for key, p in bone.model.named_parameters()}
    method = made(bone, kind, options)
    start = nll(bone, method)
    config = TrainConfig(batch_size=3, lr=3e-2, max_steps=8, precision="float32")
    pairs = factories.pairs(3)
    for _ in training_steps(bone, method, make_optimizer(method, config), pairs, config, seed=0):
        pass
    method.set_mode(False)
    assert nll(bone, method) < start
    for key, parameter in bone.model.named_parameters():
        own = key.replace(".base_layer", "")
        assert own not in plain or torch.equal(parameter, plain[own])
    method.save(tmp_path / "adapter", backbone_id=name, backbone_hash=before)
    fresh = factories.backbone(name)
    assert nll(fresh, load(fresh, tmp_path / "adapter")) == pytest.approx(nll(bone, method), rel=1e-6)
    theirs = peft.PeftModel.from_pretrained(factories.model(name), str(tmp_path / "adapter")).eval()
    batch = make_batch(bone, method, pairs)
    with torch.no_grad():
        want, got = theirs(**batch.inputs()).logits, bone.model(**batch.inputs(), use_cache=False).logits
    shown = batch.attention_mask_BT.bool() if bone.family == "causal" else batch.predicts_BT
    torch.testing.assert_close(got[shown], want[shown], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Peft(type="ia4"), r"IA4 is none of PEFT's types; nearest: 'IA3'"),
        (Peft(type="prefix_tuning"), "learns a prompt: take method prefix or prompt"),
        (Peft(type="IA3", options={"rank": 3}), r"method.options: PEFT's IA3 does not take them"),
        (Peft(type="vera", options={"target_modules": ["q_proj"]}), "inject_adapter_in_model"),
        (Peft(type="IA3", options={"target_modules": ["nowhere"], "feedforward_modules": []}), "PEFT cannot change"),
    ],
)
def test_what_peft_has_not_is_refused(config: Peft, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        METHODS["peft"](factories.backbone("llama"), config)


def test_a_whole_run(tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_job(tmp_path)), ["method={name: peft, type: IA3}"])
    (result, *_) = [one for one in run_recipe(recipe, tmp_path / "run", quiet=True) if one.arm == "main"]
    assert result.parameters["trained"] > 0
    assert json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())["peft_type"] == "IA3"


# --- precision -------------------------------------------------------------------------------------------------------

FLOAT32: list[tuple[str, dict[str, Any]]] = [
    *TUNERS,
    ("lora", {"r": 2, "use_dora": True}),
    ("BOFT", {"boft_block_size": 4}),
    ("HRA", {"r": 2}),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("kind", "options"), FLOAT32, ids=[kind for kind, _ in FLOAT32])
def test_what_is_trained_is_float32_whatever_the_backbone_is(
    kind: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    bone = factories.backbone("llama")
    bone.model.to(dtype)
    assert_trains_in_float32(bone, made(bone, kind, options))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("config", [LoRA(rank=2), Adapter(bottleneck=2), PrefixTuning(length=2, hidden=4)])
def test_so_do_all_other_methods(config: Any, dtype: torch.dtype) -> None:
    bone = factories.backbone("llama")
    bone.model.to(dtype)
    assert_trains_in_float32(bone, METHODS[config.name](bone, config))


def assert_trains_in_float32(bone: Backbone, method: Any) -> None:
    """At a rate that half precision would round away: every tensor has moved by less than its own spacing there."""
    assert {parameter.dtype for parameter in method.trainable().values()} == {torch.float32}
    frozen = {key: p.clone() for key, p in bone.model.named_parameters() if not p.requires_grad}
    config = TrainConfig(batch_size=3, lr=1e-6, max_steps=2, precision="float32")
    for _ in training_steps(bone, method, make_optimizer(method, config), factories.pairs(3), config, seed=0):
        pass
    assert {parameter.dtype for parameter in method.trainable().values()} == {torch.float32}
    assert all(torch.equal(p, frozen[key]) for key, p in bone.model.named_parameters() if key in frozen)


@pytest.mark.parametrize(
    ("config", "dtype", "words"),
    [
        (Peft(type="ln_tuning", options={"target_modules": ["input_layernorm"]}), torch.bfloat16, "LN_TUNING does not"),
        (Peft(type="osf", options={"target_modules": ["q_proj"]}), torch.float16, r"OSF .* backbone\.dtype=float32"),
        (Peft(type="poly", options={"target_modules": ["q_proj"]}), torch.float32, "POLY does not compute .*task_ids"),
        (Peft(type="adalora", options={"target_modules": ["q_proj"]}), torch.float32, "ADALORA does not take them"),
        (Peft(type="LORA", options={"runtime_config": {"a": 1}}), torch.float32, "method"),
    ],
)
def test_a_tuner_that_cannot_compute_so_is_refused_before_training(
    config: Peft, dtype: torch.dtype, words: str
) -> None:
    bone = factories.backbone("llama")
    bone.model.to(dtype)
    with pytest.raises(ConfigError, match=words):
        METHODS["peft"](bone, config)
