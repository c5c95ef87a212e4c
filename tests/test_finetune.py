"""Full fine-tuning through the same interface."""

import factories
import pytest

from softprompt.config import FinetuneConfig
from softprompt.loss import target_nll
from softprompt.methods import METHODS, trained_count


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral_window", "gemma2"])
def test_every_parameter_is_trained_and_tied_ones_count_once(name: str) -> None:
    bone = factories.backbone(name)
    assert not any(parameter.requires_grad for parameter in bone.model.parameters())
    method = METHODS["finetune"](bone, FinetuneConfig())
    assert trained_count(method) == method.stored_count() == bone.parameter_count()
    assert len({id(parameter) for parameter in method.trainable().values()}) == len(method.trainable())
    tied = bone.model.get_input_embeddings().weight is bone.model.get_output_embeddings().weight
    assert tied == bone.model.config.tie_word_embeddings
    method.set_mode(False)
    target_nll(bone, factories.batch(3), method.position_offset).backward()
    for key, parameter in method.trainable().items():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, key


def test_mode_switches_the_backbones_dropout() -> None:
    bone = factories.backbone("gpt2")
    method = METHODS["finetune"](bone, FinetuneConfig())
    rows = factories.batch(2)
    method.set_mode(True)
    assert not factories.logits(bone, rows).equal(factories.logits(bone, rows))
    method.set_mode(False)
    assert factories.logits(bone, rows).equal(factories.logits(bone, rows))
    assert method.position_offset == 0
