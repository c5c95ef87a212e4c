"""What is read back is compared before it is used: crafted prompt folders give our error, and memory stays bounded."""

import json
import random
from pathlib import Path
from typing import Any

import crafted
import factories
import pytest
import torch
from safetensors.torch import load_file, save_file

from softprompt import Backbone, checkpoint, load
from softprompt.artefact import FACTS, TENSORS
from softprompt.attached import Attached
from softprompt.errors import CheckpointError
from softprompt.facts import read_strict_json
from softprompt.files import write_manifest
from softprompt.inspection import inspect_kept
from softprompt.methods.sound import require_sound

HOSTILE = Path(__file__).parents[2] / "shared" / "cases" / "hostile"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {method: crafted.kept(method, folder) for method in crafted.METHODS}


def llama() -> Backbone:
    return factories.backbone("llama")


def facts(folder: Path, **changes: Any) -> None:
    own = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps({key: value for key, value in (own | changes).items() if value != "DROP"}))
    write_manifest(folder)


@pytest.mark.faults
def test_every_hostile_folder_gives_our_error_through_every_door() -> None:
    folders = sorted(HOSTILE.glob("prompt_*"))
    if not folders:
        pytest.skip(f"no {HOSTILE}")
    bone = Backbone.load(device="cpu")
    for folder in folders:
        for door, found in crafted.looked_at(folder, bone):
            assert crafted.is_ours(found), f"{folder.name} through {door}: {found!r}"


@pytest.mark.parametrize("method", crafted.METHODS)
def test_a_whole_folder_passes_every_door(method: str, whole: dict[str, Path]) -> None:
    found = dict(crafted.looked_at(whole[method], llama()))
    assert found["inspect"] is None and found["verify"] is None
    assert isinstance(found["load"], Attached) or method == "finetune"


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("prefix", {"place": "dept"}),
        ("prefix", {"positions": 3}),
        ("prefix", {"sites": []}),
        ("prefix", {"more": 1}),
        ("prompt", {"embed": 10**9}),
        ("prompt", {"embed": 16}),
        ("prompt", {"family": "seq2seq"}),
        ("prompt", {"backbone": {"id": "x", "hash": 3}}),
        ("dept", {"scale": "DROP"}),
        ("dept", {"positions": "elsewhere"}),
        ("adapter", {"bottleneck": 10**9}),
        ("adapter", {"bottleneck": 5}),
        ("adapter", {"design": "houlsby"}),
        ("adapter", {"places": ["model.layers.0", "model.layers.0"]}),
        ("lora", {"method": ["lora"]}),
        ("lora", {"method": "adapter"}),
        ("lora", {"format": 2}),
    ],
)
def test_facts_that_no_method_writes_are_refused(
    method: str, changes: dict[str, Any], whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = crafted.damaged(whole[method], tmp_path / "kept", random.Random(0))
    for path in whole[method].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    facts(folder, **changes)
    with pytest.raises(CheckpointError):
        load(llama(), folder)


@pytest.mark.parametrize("method", ["prefix", "prompt", "dept", "adapter", "lora", "peft"])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused_by_every_door(
    method: str, odd: float, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    for path in whole[method].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / TENSORS)
    next(iter(tensors.values())).view(-1)[-1] = odd
    save_file(tensors, folder / TENSORS)
    write_manifest(folder)
    for door in (lambda: load(llama(), folder), lambda: inspect_kept(folder), lambda: require_sound(folder)):
        with pytest.raises(CheckpointError, match="expected finite numbers, got NaN or infinity"):
            door()


@pytest.mark.parametrize("part", [checkpoint.METHOD, checkpoint.OPTIMIZER])
def test_a_checkpoint_that_is_not_finite_is_passed_over(part: str, tmp_path: Path) -> None:
    for step in (1, 2):
        tensors = {"x": torch.ones(3)}
        checkpoint.save(tmp_path, checkpoint.Checkpoint(tensors, tensors, checkpoint.State(step, 0)), keep=2)
    newest = tmp_path / "step-000002"
    save_file({"x": torch.tensor([1.0, float("inf"), 1.0])}, newest / part)
    write_manifest(newest)
    with pytest.raises(CheckpointError, match="expected finite numbers"):
        checkpoint.load(tmp_path, 2)
    found = checkpoint.load_newest(tmp_path)
    assert found is not None and found.state.step == 1


def test_a_header_of_terabytes_asks_for_no_memory(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    for path in whole["adapter"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    facts(folder, bottleneck=9_999_999)
    before = crafted.peak_mib()
    for _, found in crafted.looked_at(folder, llama()):
        assert crafted.is_ours(found)
    assert crafted.peak_mib() - before < 200


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff{}", b"[" * 50_000, b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1, "a": 1}', b"1" * 5000, b"{}x"],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_json_is_our_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="expected JSON"):
        read_strict_json(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime_config": {"a": 1}},
        {"r": 10**9},
        {"r": 10**30},
        {"r": "2"},
        {"target_modules": ["nowhere"]},
        {"target_modules": "(q+)+_proj"},
        {"target_modules": 3},
        {"layer_replication": [[0, 10**6]]},
        {"megatron_config": {"x": 1}, "megatron_core": "antigravity"},
        {"bias": "after"},
        {"unheard_of": 3},
        {"peft_type": "PREFIX_TUNING"},
        {"peft_type": ["LORA"]},
        {"lora_alpha": "16"},
    ],
    ids=str,
)
def test_a_config_of_pefts_that_was_changed_is_refused_and_changes_nothing(
    changes: dict[str, Any], whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    for path in whole["lora"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    own = json.loads((folder / crafted.CONFIG).read_text())
    (folder / crafted.CONFIG).write_text(json.dumps(own | changes))
    write_manifest(folder)
    bone = llama()
    names = [name for name, _ in bone.model.named_modules()]
    with pytest.raises(CheckpointError):
        load(bone, folder)
    assert [name for name, _ in bone.model.named_modules()] == names


@pytest.mark.faults
@pytest.mark.parametrize("count", [15, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("method", crafted.METHODS)
def test_crafted_folders_are_refused_or_whole(method: str, count: int, whole: dict[str, Path], tmp_path: Path) -> None:
    """2,000 a method at full size: no traceback, nothing accepted that is not finite, memory bounded."""
    draw, before = random.Random(f"{method} {count}"), crafted.peak_mib()
    tally = {"refused": 0, "accepted": 0}
    names = [name for name, _ in llama().model.named_modules()]
    bone = llama()
    for number in range(count):
        folder = crafted.damaged(whole[method], tmp_path / "kept", draw)
        for door, found in crafted.looked_at(folder, bone):
            if isinstance(found, Exception):
                assert crafted.is_ours(found), f"{method} {number} through {door}: {found!r}"
                tally["refused"] += 1
                continue
            tally["accepted"] += 1
            if isinstance(found, Attached):
                loss = found.loss([("the red old inn", "sells tea")])
                assert bool(torch.isfinite(loss)), f"{method} {number}: accepted, and its loss is {float(loss)}"
                bone = llama()
        if number % 50 == 0:
            assert [name for name, _ in bone.model.named_modules()] == names, "a refused folder changed the backbone"
    grown = crafted.peak_mib() - before
    print(f"\ncrafted folders of {method}: {count} x 3, {tally}, 0 tracebacks, memory +{grown} MiB")
    assert grown < 600
