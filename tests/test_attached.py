"""The front door: what `attach` gives is the method under the loss and the decoder, in the shapes of others' loops."""

from pathlib import Path
from typing import Any

import factories
import pytest
import torch

from softprompt import attach, load
from softprompt.attached import Attached
from softprompt.batch import encode_pairs
from softprompt.config import DecodeConfig
from softprompt.decode import decode_texts
from softprompt.errors import CheckpointError, ConfigError, DataError
from softprompt.loss import mean_token_nll
from softprompt.method_config import (
    Adapter,
    DePT,
    FineTuning,
    LoRA,
    MethodConfig,
    PrefixTuning,
    PromptTuning,
    UntunedConfig,
)
from softprompt.methods import state
from softprompt.types import Example

CONFIGS: dict[str, MethodConfig] = {
    "prefix": PrefixTuning(length=3, hidden=16),
    "prompt": PromptTuning(length=3),
    "dept": DePT(length=3, rank=2, text_length=6),
    "adapter": Adapter(bottleneck=4),
    "lora": LoRA(rank=2),
    "finetune": FineTuning(),
}
PAIRS = list(zip(factories.texts(4, seed=1), factories.texts(4, seed=2), strict=True))


def attached(name: str, method: str, **options: Any) -> Attached:
    return attach(factories.backbone(name), CONFIGS[method], seed=3, **options)


def padded(rows: list[dict[str, list[int]]], pad: int, side: str) -> dict[str, torch.Tensor]:
    """What a data collator makes of rows: every column padded to its longest."""
    fill = {"input_ids": pad, "attention_mask": 0, "labels": -100}
    out = {}
    for key, value in fill.items():
        longest = max(len(row[key]) for row in rows)
        gaps = [[value] * (longest - len(row[key])) for row in rows]
        out[key] = torch.tensor(
            [row[key] + gap if side == "right" else gap + row[key] for row, gap in zip(rows, gaps, strict=True)]
        )
    return out


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bart", "t5"])
def test_a_loop_of_ones_own_sees_the_loss_of_training(name: str, method: str, side: str) -> None:
    model = attached(name, method)
    bone = model.backbone
    encoded = encode_pairs(bone, [Example(source, (target,)) for source, target in PAIRS])
    want = mean_token_nll(bone, model.steering, encoded, batch_size=1)
    batch = padded(model.rows(PAIRS), bone.pad_id, side)
    with torch.no_grad():
        assert float(model.loss(PAIRS)) == pytest.approx(want, rel=1e-5)
        assert float(model(**batch)["loss"]) == pytest.approx(want, rel=1e-5)
        tokens = sum(len(pair.target) for pair in encoded)
        assert float(model(**batch, num_items_in_batch=2 * tokens)["loss"]) == pytest.approx(want / 2, rel=1e-5)


@pytest.mark.parametrize("method", CONFIGS)
def test_what_requires_a_gradient_is_what_is_learned_and_kept(method: str) -> None:
    model = attached("gpt2", method)
    model.train()
    model.loss(PAIRS).backward()
    learned = {id(p) for p in model.parameters() if p.requires_grad}
    assert learned == {id(p) for p in model.method.trainable().values()}
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert not any(p.grad is not None for p in model.parameters() if not p.requires_grad)
    assert list(model.state_dict()) == list(state(model.method))
    other = attach(factories.backbone("gpt2"), CONFIGS[method], seed=4)
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))
    with pytest.raises(ConfigError, match="expected the tensors of this method"):
        other.load_state_dict({"nothing": torch.zeros(1)})


@pytest.mark.parametrize("method", [name for name in CONFIGS if name != "finetune"])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_saved_and_loaded_gives_the_same_loss_and_texts(name: str, method: str, tmp_path: Path) -> None:
    model = attached(name, method)
    with torch.no_grad():
        for parameter in model.method.trainable().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.save(tmp_path / "kept")
    after = load(factories.backbone(name), tmp_path / "kept")
    options = {"strategy": "beam", "beams": 2, "max_new_tokens": 5}
    sources = [source for source, _ in PAIRS]
    assert after.generate(sources, **options) == model.generate(sources, **options)
    assert torch.equal(after.loss(PAIRS), model.loss(PAIRS))
    with pytest.raises(CheckpointError, match="learned on backbone"):
        load(factories.backbone(name, seed=5), tmp_path / "kept")


def test_a_tuned_backbone_is_loaded_as_a_backbone(tmp_path: Path) -> None:
    attached("gpt2", "finetune").save(tmp_path / "kept")
    with pytest.raises(CheckpointError, match=r"Backbone\.load"):
        load(factories.backbone("gpt2"), tmp_path / "kept")


def test_generate_is_the_decoder_and_keeps_the_mode() -> None:
    model = attached("gpt2", "prefix")
    sources = [source for source, _ in PAIRS]
    rows = decode_texts(model.backbone, model.steering, sources, DecodeConfig(strategy="greedy", max_new_tokens=6))
    model.train()
    assert model.generate(sources, strategy="greedy", max_new_tokens=6) == [row.text for row in rows]
    assert model.training and model.method.training and not model.model.training


@pytest.mark.parametrize("frozen_dropout", [True, False])
def test_dropout_of_the_frozen_backbone_is_a_stated_choice(frozen_dropout: bool) -> None:
    model = attached("gpt2", "prompt", frozen_dropout=frozen_dropout)
    model.train()
    torch.manual_seed(0)
    assert (float(model.loss(PAIRS)) == float(model.loss(PAIRS))) != frozen_dropout
    model.eval()
    assert float(model.loss(PAIRS)) == float(model.loss(PAIRS))


def test_batches_that_are_no_pairs_are_refused() -> None:
    model = attached("gpt2", "prompt")
    ids = torch.tensor([[5, 6, 7, 8]])
    for labels, words in (
        ([[-100] * 4], "row 0: expected a target"),
        ([[-100, 6, -100, 8]], "row 0: expected labels in one run"),
        ([[-100, 6, 7, -100]], "row 0: expected labels up to"),
    ):
        with pytest.raises(DataError, match=words):
            model(ids, labels=None if labels is None else torch.tensor(labels))


def test_options_and_methods_that_are_not_there_are_refused() -> None:
    model = attached("gpt2", "prompt")
    with pytest.raises(ConfigError, match=r"generate\(beam_size=3\)"):
        model.generate(["a"], beam_size=3)
    with pytest.raises(ConfigError, match="no effect with strategy greedy"):
        model.generate(["a"], strategy="greedy", beams=3)
    with pytest.raises(ConfigError, match="expected a method that is trained"):
        attach(factories.backbone("gpt2"), UntunedConfig())


@pytest.mark.parametrize("mask", [True, False])
def test_a_forward_without_positions_is_numbered_as_its_own_text(mask: bool) -> None:
    """Someone else's call of the backbone: no position ids, and the prefix still stands before the text."""
    model = attached("gpt2", "prefix")
    ids = torch.tensor([[5, 6, 7, 8]])
    given = {"attention_mask": torch.ones_like(ids)} if mask else {}
    with torch.no_grad(), model.steering.attach(model.backbone):
        want = model.model(ids, position_ids=torch.arange(4)[None], **given).logits
        whole = model.model(ids, **given, use_cache=True)
        begun = model.model(ids[:, :3], **({"attention_mask": torch.ones(1, 3)} if mask else {}), use_cache=True)
        rest = model.model(ids[:, 3:], **given, past_key_values=begun.past_key_values).logits
    assert torch.equal(whole.logits, want)
    torch.testing.assert_close(rest, want[:, 3:], atol=1e-5, rtol=1e-5)
