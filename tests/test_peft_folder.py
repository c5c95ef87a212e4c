"""PEFT's own folders, read by `load`: the same numbers as PEFT's model, or a message that says what to do."""

import json
from pathlib import Path
from typing import Any

import factories
import peft
import pytest
import torch

from softprompt import load
from softprompt.artefact import FACTS
from softprompt.errors import CheckpointError
from softprompt.files import MANIFEST
from softprompt.inspection import inspect_kept

CAUSAL, SEQ2SEQ = "CAUSAL_LM", "SEQ_2_SEQ_LM"
CASES: dict[str, tuple[str, Any]] = {
    "prefix, gpt2": ("gpt2", lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, task_type=CAUSAL)),
    "prefix, grouped heads": ("llama", lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, task_type=CAUSAL)),
    "prompt, gpt2": ("gpt2", lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type=CAUSAL)),
    "prompt, llama": ("llama", lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type=CAUSAL)),
    "prompt, t5": ("t5", lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type=SEQ2SEQ)),
    "p-tuning, llama": (
        "llama",
        lambda: peft.PromptEncoderConfig(num_virtual_tokens=4, task_type=CAUSAL, encoder_hidden_size=8),
    ),
    "lora, llama": ("llama", lambda: peft.LoraConfig(r=2, task_type=CAUSAL, init_lora_weights=False)),
}


def saved(name: str, config: Any, folder: Path) -> Any:
    """PEFT's model with random learned numbers, and its folder."""
    torch.manual_seed(5)
    theirs = peft.get_peft_model(factories.model(name), config).eval()
    theirs.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize("case", CASES)
def test_what_peft_trained_gives_pefts_logits(case: str, tmp_path: Path) -> None:
    name, config = CASES[case]
    theirs = saved(name, config(), tmp_path)
    bone = factories.backbone(name)
    model = load(bone, tmp_path)
    ids = torch.randint(1, 300, (2, 6))
    given = {"decoder_input_ids": ids[:, :3]} if bone.family == "seq2seq" else {}
    with torch.no_grad():
        want = theirs(input_ids=ids, attention_mask=torch.ones_like(ids), **given).logits
        got = model(ids, **given)["logits"]
    torch.testing.assert_close(got, want[:, -got.shape[1] :], rtol=1e-4, atol=1e-4)


def test_it_is_checked_by_its_shapes_and_numbers(tmp_path: Path) -> None:
    saved("gpt2", CASES["prompt, gpt2"][1](), tmp_path)
    with pytest.raises(CheckpointError, match="of shape"):
        load(factories.backbone("gpt2", n_embd=16), tmp_path)
    raw = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(raw | {"num_virtual_tokens": 7}))
    with pytest.raises(CheckpointError, match="as many virtual tokens"):
        load(factories.backbone("gpt2"), tmp_path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("CPT", "PEFT's folder, of type CPT, which is not read yet"),
        ("NOTHING", "not read yet"),
        (3, "a text peft_type"),
    ],
)
def test_other_types_are_refused_by_name(kind: Any, words: str, tmp_path: Path) -> None:
    saved("gpt2", CASES["prompt, gpt2"][1](), tmp_path)
    raw = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(raw | {"peft_type": kind}))
    with pytest.raises(CheckpointError, match=words):
        load(factories.backbone("gpt2"), tmp_path)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    saved("gpt2", CASES["prompt, gpt2"][1](), tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="a pickle"):
        load(factories.backbone("gpt2"), tmp_path)


def test_a_prefix_in_an_encoder_decoder_is_refused_with_the_reason(tmp_path: Path) -> None:
    saved("t5", peft.PrefixTuningConfig(num_virtual_tokens=4, task_type=SEQ2SEQ), tmp_path)
    with pytest.raises(CheckpointError, match="encoder-decoder"):
        load(factories.backbone("t5"), tmp_path)


def test_a_folder_of_ours_without_its_manifest_is_damaged_and_not_pefts(tmp_path: Path) -> None:
    saved("gpt2", CASES["prompt, gpt2"][1](), tmp_path)
    with pytest.raises(CheckpointError, match="folder of PEFT's own"):
        inspect_kept(tmp_path)
    (tmp_path / FACTS).write_text("{}")
    with pytest.raises(CheckpointError, match=f"no {MANIFEST}"):
        load(factories.backbone("gpt2"), tmp_path)
