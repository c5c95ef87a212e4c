"""The folder of a learned prompt: whole or refused, for the right backbone, and readable by PEFT."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import factories
import pytest
import torch

from softprompt.artefact import FACTS as OWN_CONFIG
from softprompt.artefact import TENSORS
from softprompt.errors import CheckpointError
from softprompt.files import MANIFEST, write_manifest
from softprompt.prompt import PEFT_CONFIG, Prompt

FILES = [TENSORS, OWN_CONFIG, PEFT_CONFIG, MANIFEST]


def saved(folder: Path, name: str = "gpt2", **options: object) -> Prompt:
    bone = factories.backbone(name)
    prompt = factories.prefix(bone, **options).fold()
    prompt.save(folder, backbone_id=name, backbone_hash=bone.hash(), extra={"step": 12, "dev_loss": 0.5})
    return prompt


def same(one: Prompt, other: Prompt) -> bool:
    return torch.equal(one.numbers, other.numbers) and (one.form.sites, one.form.positions) == (
        other.form.sites,
        other.form.positions,
    )


def test_folder_holds_tensors_both_configs_and_a_manifest(tmp_path: Path) -> None:
    prompt = saved(tmp_path / "p")
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == sorted(FILES)
    own = json.loads((tmp_path / "p" / OWN_CONFIG).read_text())
    assert (own["method"], own["positions"], own["step"], own["dev_loss"]) == ("prefix", "shifted", 12, 0.5)
    assert own["backbone"] == {"id": "gpt2", "hash": factories.backbone("gpt2").hash()}
    assert [site["name"] for site in own["sites"]] == [site.name for site in prompt.form.sites]
    assert same(Prompt.load(tmp_path / "p"), prompt) and same(Prompt.load(str(tmp_path / "p")), prompt)


@pytest.mark.faults
@pytest.mark.parametrize("how", ["truncate", "delete", "flip"])
@pytest.mark.parametrize("name", FILES)
def test_damage_to_any_file_is_refused(name: str, how: str, tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 2
    path.unlink() if how == "delete" else path.write_bytes(raw if how == "flip" else raw[: len(raw) // 2])
    with pytest.raises(CheckpointError, match=name):
        Prompt.load(tmp_path)


def test_a_prompt_of_another_backbone_is_refused_by_name_and_hash(tmp_path: Path) -> None:
    saved(tmp_path)
    mine, other = factories.backbone("gpt2").hash(), factories.backbone("gpt2", seed=1).hash()
    assert mine != other
    Prompt.load(tmp_path, backbone_hash=mine)
    with pytest.raises(CheckpointError, match=f"'gpt2' with hash {mine[:12]}.*got one with hash {other[:12]}"):
        Prompt.load(tmp_path, backbone_hash=other)


def test_the_hash_sees_any_change_of_any_parameter() -> None:
    bone = factories.backbone("gpt2")
    before = bone.hash()
    assert factories.backbone("gpt2").hash() == before
    with torch.no_grad():
        parameter = list(bone.model.parameters())[-1]
        parameter.view(-1)[-1] = torch.nextafter(parameter.view(-1)[-1], torch.tensor(9.0))
    assert bone.hash() != before


def test_numbers_that_do_not_fit_the_sites_are_refused(tmp_path: Path) -> None:
    prompt = saved(tmp_path)
    replace(prompt, numbers=prompt.numbers[:, :-1]).save(tmp_path, backbone_id="x", backbone_hash="y")
    with pytest.raises(CheckpointError, match=r"of shape \(5, 128\), got \(5, 127\)"):
        Prompt.load(tmp_path)


def test_json_without_the_expected_keys_is_a_checkpoint_error(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / OWN_CONFIG).write_text('{"format": 1}')
    write_manifest(tmp_path)
    with pytest.raises(CheckpointError):
        Prompt.load(tmp_path)


def test_a_prompt_peft_cannot_express_has_no_peft_config_even_in_a_used_folder(tmp_path: Path) -> None:
    saved(tmp_path)
    assert (tmp_path / PEFT_CONFIG).exists()
    later = saved(tmp_path, positions="unshifted")
    assert not (tmp_path / PEFT_CONFIG).exists()
    assert same(Prompt.load(tmp_path), later)


@pytest.mark.faults
def test_a_full_disk_leaves_the_earlier_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved(tmp_path / "p")

    def disk_full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk_full)
        with pytest.raises(OSError, match="No space left"):
            saved(tmp_path / "p", seed=9)
    assert same(Prompt.load(tmp_path / "p"), before)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_peft_reads_the_folder_and_computes_the_same(name: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the extra `peft` is not installed")
    prompt, rows = saved(tmp_path, name), factories.batch(3, side="right")  # it takes no position ids, so no left pads
    theirs = peft.PeftModel.from_pretrained(factories.model(name), str(tmp_path)).eval()
    bone = factories.backbone(name)
    with torch.no_grad():
        want = theirs(input_ids=rows.input_ids_BT, attention_mask=rows.attention_mask_BT).logits
        with prompt.attach(bone):
            got = factories.logits(bone, rows)
    real = rows.attention_mask_BT.bool()
    torch.testing.assert_close(got[real], want[real], atol=1e-5, rtol=1e-5)
