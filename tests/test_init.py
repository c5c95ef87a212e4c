"""Where training starts from: real words' activations (Li & Liang 2021, sec. 7.4), a kept prompt, a length by words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
import torch
from factories import ARCHITECTURES
from pydantic import ValidationError
from transformers import AutoTokenizer

from softprompt.backbone import Backbone
from softprompt.config import load_recipe
from softprompt.errors import CheckpointError, ConfigError
from softprompt.init import activations, kept_numbers, length_of, text_ids
from softprompt.method_config import DePT, LoRA, PrefixTuning, PromptTuning
from softprompt.methods import METHODS, PrefixMethod

TEXT = "the red old inn sells hot tea"


def made(bone: Backbone, **options: Any) -> PrefixMethod:
    config = PrefixTuning(**{"length": 5, "hidden": 16, "init": "text", "init_text": TEXT, **options})
    torch.manual_seed(0)
    method = METHODS["prefix"](bone, config)
    assert isinstance(method, PrefixMethod)
    method.set_mode(False)
    return method


# A prefix stays visible where a window would have moved on from words.
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "mistral_window"])
@pytest.mark.parametrize("reparam", ["none", "mlp"])
def test_an_untrained_prefix_of_words_acts_as_the_words_do(name: str, reparam: str) -> None:
    bone = factories.backbone(name)
    words = text_ids(bone, TEXT, 5)
    ids = torch.randint(1, 300, (1, 6))
    with torch.no_grad():
        want = bone.model(input_ids=torch.cat([words[None], ids], dim=1)).logits[:, 5:]
        with made(bone, reparam=reparam).attach(bone):
            got = bone.model(input_ids=ids, position_ids=torch.arange(6)[None]).logits
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_words_are_repeated_or_cut_to_the_length() -> None:
    bone = factories.backbone("gpt2")
    ids = bone.tokenizer(TEXT)["input_ids"]
    count = len(ids)
    assert text_ids(bone, TEXT, 2).tolist() == ids[:2]
    assert text_ids(bone, TEXT, count).tolist() == ids
    assert text_ids(bone, TEXT, 2 * count + 1).tolist() == ids * 2 + ids[:1]
    with pytest.raises(ConfigError, match="expected a text with tokens"):
        text_ids(bone, "", 3)


def test_a_prefix_longer_than_the_hidden_width_comes_as_near_as_it_can() -> None:
    bone = factories.backbone("gpt2")
    method = made(bone, length=12, hidden=4)
    want = activations(bone, text_ids(bone, TEXT, 12), method.form.sites)
    error = (method() - want).detach()
    bank = method.banks["decoder"]
    hidden = bank.mlp[:2](bank.prefix).detach()
    assert float(error.abs().max()) > 1e-3
    torch.testing.assert_close(hidden.T @ error, torch.zeros(4, want.shape[1]), atol=1e-4, rtol=0)  # least squares


def test_the_start_of_words_leaves_the_rest_of_the_mlp_as_it_was() -> None:
    bone = factories.backbone("gpt2")
    torch.manual_seed(0)
    random = METHODS["prefix"](bone, PrefixTuning(length=5, hidden=16))
    words = made(bone)
    changed = [name for name, tensor in words.trainable().items() if not torch.equal(tensor, random.trainable()[name])]
    assert changed == ["banks.decoder.mlp.2.weight"]


def test_no_weights_are_needed_to_count_parameters() -> None:
    method = METHODS["prefix"](Backbone.plan("gpt2-medium"), PrefixTuning(init="text", init_text=TEXT))
    assert {tensor.device.type for tensor in method.trainable().values()} == {"meta"}


def test_init_and_its_text_go_together() -> None:
    for override in ("method.init=text", "method.init_text=summarize"):
        with pytest.raises(ConfigError, match="go together"):
            load_recipe("quickstart", ["method.init=random", "method.init_text=null", override])


def test_the_length_follows_the_words() -> None:
    bone = factories.backbone("gpt2")
    count = len(bone.tokenizer(TEXT)["input_ids"])
    assert made(bone, length=None).length == count
    prompt = METHODS["prompt"](bone, PromptTuning(length=None, init="text", init_text=TEXT))
    assert prompt.length == count
    dept = METHODS["dept"](bone, DePT(length=None, init="text", init_text=TEXT, rank=2, text_length=6))
    assert len(dept.prompt) == count
    for config in (PrefixTuning, PromptTuning, DePT):
        with pytest.raises(ValidationError, match="length: null takes the length of"):
            config(length=None)
    with pytest.raises(ConfigError, match=r"needs the tokenizer"):
        METHODS["prefix"](Backbone.plan("gpt2-medium"), PrefixTuning(length=None, init="text", init_text=TEXT))


def test_the_papers_words_have_the_papers_lengths() -> None:
    """Li & Liang A.2: `summarize` is one token and `table-to-text:` six, behind a space."""
    folder = Path(__file__).parents[2] / "shared" / "tokenizers" / "gpt2"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    bone = replace(factories.backbone("gpt2", vocab_size=50257), tokenizer=AutoTokenizer.from_pretrained(folder))
    for text, length in ((" summarize", 1), (" table-to-text:", 6)):
        assert length_of(bone, PrefixTuning(length=None, init="text", init_text=text)) == length


@pytest.mark.parametrize("name", ["llama", "bart", "t5"])
@pytest.mark.parametrize(
    ("start", "goal"),
    [
        (PrefixTuning(length=3, hidden=8), PrefixTuning(length=3, reparam="none")),
        (PrefixTuning(length=3, reparam="none"), PrefixTuning(length=3, hidden=8)),
        (PromptTuning(length=3), PromptTuning(length=3, reparam="none")),
        (PromptTuning(length=3), DePT(length=3, rank=2, text_length=6)),
        (DePT(length=3, rank=2, text_length=6), DePT(length=3, rank=2, text_length=6)),
        (DePT(length=3, rank=2, text_length=6), PromptTuning(length=3)),
    ],
    ids=lambda config: f"{config.name}-{getattr(config, 'reparam', '')}",
)
def test_a_run_starts_where_another_ended(name: str, start: Any, goal: Any, tmp_path: Path) -> None:
    """Prompt transfer: the numbers of a kept prompt are where training starts."""
    bone = factories.backbone(name)
    first = METHODS[start.name](bone, start)
    with torch.no_grad():
        for parameter in first.trainable().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    first.save(tmp_path / "run" / first.kept_in, backbone_id=name, backbone_hash=bone.hash())
    goal = type(goal)(**goal.model_dump() | {"length": None, "init": "file", "init_file": str(tmp_path / "run")})
    second = METHODS[goal.name](bone, goal)
    kept = kept_numbers(str(tmp_path / "run"))
    mine = second.fold().numbers if hasattr(second.fold(), "numbers") else second.prompt
    torch.testing.assert_close(mine, kept, rtol=1e-5, atol=1e-5)
    if start.name == goal.name == "dept":
        assert torch.equal(second.lowrank_a, first.lowrank_a) and torch.equal(second.lowrank_b, first.lowrank_b)
    with pytest.raises(CheckpointError, match="learned on backbone"):
        METHODS[goal.name](factories.backbone(name, seed=5), goal)


def test_a_start_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    bone = factories.backbone("gpt2")
    prompt = METHODS["prompt"](bone, PromptTuning(length=3))
    prompt.save(tmp_path / "kept", backbone_id="gpt2", backbone_hash=bone.hash())
    METHODS["lora"](factories.backbone("gpt2"), LoRA(rank=2)).save(
        tmp_path / "lora", backbone_id="gpt2", backbone_hash=bone.hash()
    )
    file = {"init": "file", "init_file": str(tmp_path / "kept")}
    with pytest.raises(ConfigError, match=r"expected 4 virtual tokens .* got 3"):
        METHODS["prompt"](bone, PromptTuning(length=4, **file))
    with pytest.raises(ConfigError, match=r"expected numbers of shape \(3, 128\), got \(3, 32\)"):
        METHODS["prefix"](bone, PrefixTuning(length=3, **file))
    with pytest.raises(CheckpointError, match="expected a run or prompt folder"):
        METHODS["prompt"](bone, PromptTuning(length=3, init="file", init_file=str(tmp_path / "nowhere")))
    with pytest.raises(CheckpointError, match="expected a prefix, a prompt or DePT"):
        METHODS["prompt"](bone, PromptTuning(length=3, init="file", init_file=str(tmp_path / "lora")))
    dept = METHODS["dept"](bone, DePT(length=3, rank=2, text_length=6))
    dept.save(tmp_path / "dept", backbone_id="gpt2", backbone_hash=bone.hash())
    with pytest.raises(ConfigError, match=r"expected lowrank_a of shape \(7, 2\), got \(6, 2\)"):
        METHODS["dept"](bone, DePT(length=3, rank=2, text_length=7, init="file", init_file=str(tmp_path / "dept")))


def test_a_run_of_several_tasks_is_no_start_and_names_its_parts(tmp_path: Path) -> None:
    bone = factories.backbone("gpt2")
    for task in ("one", "two"):
        kept = tmp_path / "run" / "tasks" / task / "prompt"
        METHODS["prompt"](bone, PromptTuning(length=3)).save(kept, backbone_id="gpt2", backbone_hash=bone.hash())
    with pytest.raises(CheckpointError, match=r"a prompt for each of several tasks. Give one of: .*one, .*two"):
        METHODS["prompt"](bone, PromptTuning(length=3, init="file", init_file=str(tmp_path / "run")))
    start = PromptTuning(length=3, init="file", init_file=str(tmp_path / "run" / "tasks" / "two"))
    assert METHODS["prompt"](bone, start).length == 3


def test_prompts_of_googles_prompt_tuning_are_starts() -> None:
    folder = Path(__file__).parents[2] / "shared" / "checkpoints"
    files = sorted(folder.rglob("*.npy"))
    if not files:
        pytest.skip(f"no .npy in {folder}")
    for path in files:
        rows = kept_numbers(str(path))
        assert rows.shape == (100, 768) and rows.dtype == torch.float32
        norms = {"sst2": 1385, "mrpc": 868, "rte": 903}
        assert float(rows.norm(dim=1).mean()) == pytest.approx(norms[path.stem], abs=1)


def test_an_array_of_objects_is_no_start(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name in ("objects", "text", "nowhere"):
        with pytest.raises(CheckpointError, match="not an array in numpy's format"):
            kept_numbers(str(tmp_path / f"{name}.npy"))


@pytest.mark.parametrize("name", [*ARCHITECTURES, *factories.SEQ2SEQ])
def test_a_start_of_words_is_the_backbones_own_activations(name: str) -> None:
    """To the bit without the MLP, within 1e-5 of the largest number with it (docs/methods.md states it)."""
    bone = factories.backbone(name)
    want = activations(bone, text_ids(bone, TEXT, 5), made(bone).form.sites)
    assert float(want.abs().min(dim=0).values.max()) > 0
    assert torch.equal(made(bone, reparam="none").fold().numbers, want)
    for reparam in ("mlp", "deep"):
        error = (made(bone, reparam=reparam).fold().numbers - want).abs().max()
        assert float(error) <= 1e-5 * float(want.abs().max())
