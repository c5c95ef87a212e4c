"""Full fine-tuning through the same interface."""

import factories
import pytest
import torch

from softprompt.backbone import Backbone
from softprompt.batch import make_batch
from softprompt.errors import ConfigError
from softprompt.loss import target_nll
from softprompt.method_config import FineTuning
from softprompt.methods import METHODS, trained_count


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral_window", "gemma2"])
def test_every_parameter_is_trained_and_tied_ones_count_once(name: str) -> None:
    bone = factories.backbone(name)
    assert not any(parameter.requires_grad for parameter in bone.model.parameters())
    method = METHODS["finetune"](bone, FineTuning())
    assert trained_count(method) == method.stored_count() == bone.parameter_count()
    assert len({id(parameter) for parameter in method.trainable().values()}) == len(method.trainable())
    tied = bone.model.get_input_embeddings().weight is bone.model.get_output_embeddings().weight
    assert tied == bone.model.config.tie_word_embeddings
    method.set_mode(False)
    target_nll(bone, factories.batch(3)).backward()
    for key, parameter in method.trainable().items():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, key


def test_mode_switches_the_backbones_dropout() -> None:
    bone = factories.backbone("gpt2")
    method = METHODS["finetune"](bone, FineTuning())
    rows = factories.batch(2)
    method.set_mode(True)
    assert not factories.logits(bone, rows).equal(factories.logits(bone, rows))
    method.set_mode(False)
    assert factories.logits(bone, rows).equal(factories.logits(bone, rows))
    assert method.position_offset == 0


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "opt", "bart", "t5"])
def test_top_blocks_alone_are_trained(name: str) -> None:
    bone = factories.backbone(name)
    blocks = bone.blocks()
    method = METHODS["finetune"](bone, FineTuning(top=1))
    mine = {id(parameter) for parameter in blocks[-1].parameters()}
    assert {id(parameter) for parameter in method.trainable().values()} == mine
    assert trained_count(method) == method.stored_count() == sum(p.numel() for p in blocks[-1].parameters())
    method.set_mode(False)
    target_nll(bone, make_batch(bone, method, factories.pairs(3))).backward()
    for parameter in bone.model.parameters():
        assert (parameter.grad is not None and bool(parameter.grad.abs().max() > 0)) == (id(parameter) in mine)


def test_top_2_of_gpt2_medium_counts_two_blocks() -> None:
    method = METHODS["finetune"](Backbone.plan("gpt2-medium"), FineTuning(top=2))
    assert trained_count(method) == 2 * (12 * 1024**2 + 13 * 1024)


def test_more_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.top: expected at most 2, .* got 3"):
        METHODS["finetune"](factories.backbone("gpt2"), FineTuning(top=3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_said_aloud(dtype: torch.dtype, capsys: pytest.CaptureFixture[str]) -> None:
    for bone, said in ((factories.backbone("gpt2"), 0), (factories.backbone("gpt2"), 1)):
        if said:
            bone.model.to(dtype)
        METHODS["finetune"](bone, FineTuning(top=1))
        err = capsys.readouterr().err
        assert err.count(f"trains the {str(dtype).removeprefix('torch.')} weights as they are") == said
        assert not said or "set backbone.dtype=float32; train.precision=bfloat16" in err
