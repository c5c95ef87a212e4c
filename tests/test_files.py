"""Writers that leave the old or the new and nothing else; manifests that catch any change."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from softprompt.errors import CheckpointError
from softprompt.files import MANIFEST, load_tensors, verify_manifest, write_folder_atomic, write_manifest
from softprompt.plain import write_text_atomic


def fill(into: Path) -> None:
    (into / "a.txt").write_text("alpha\n")
    (into / "b.bin").write_bytes(bytes(range(200)))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def disk_full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "fsync": lambda patch: patch.setattr(os, "fsync", disk_full),
    "rename": lambda patch: (patch.setattr(Path, "rename", disk_full), patch.setattr(Path, "replace", disk_full)),
    "write": lambda patch: (patch.setattr(Path, "write_text", disk_full), patch.setattr(Path, "open", disk_full)),
}


def test_text_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_text_atomic(path, "one\n")
    write_text_atomic(path, "zwei: ß\n")
    assert path.read_text(encoding="utf-8") == "zwei: ß\n" and names(tmp_path) == ["status.json"]


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS)
def test_a_text_that_cannot_be_written_leaves_the_old_one(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    write_text_atomic(path, "old\n")
    with monkeypatch.context() as patch:
        FAULTS[fault](patch)
        with pytest.raises(OSError, match="No space left"):
            write_text_atomic(path, "new\n")
    assert path.read_text() == "old\n" and names(tmp_path) == ["status.json"]


def test_a_reader_never_meets_half_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "x", []
    write_text_atomic(path, "old")
    real = os.fsync

    def look(descriptor: int) -> None:
        seen.append(path.read_text())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_text_atomic(path, "new")
    assert set(seen) == {"old", "new"} and seen[0] == "old"


def test_a_folder_appears_whole_with_its_manifest(tmp_path: Path) -> None:
    seen = []

    def watched(into: Path) -> None:
        fill(into)
        seen.append((tmp_path / "deep" / "made").exists())

    write_folder_atomic(tmp_path / "deep" / "made", watched)
    assert seen == [False]
    assert names(tmp_path) == ["deep", "deep/made", f"deep/made/{MANIFEST}", "deep/made/a.txt", "deep/made/b.bin"]
    verify_manifest(tmp_path / "deep" / "made")


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    write_folder_atomic(tmp_path / "made", fill)
    write_folder_atomic(tmp_path / "made", lambda into: (into / "c.txt").write_text("c"))
    assert names(tmp_path) == ["made", f"made/{MANIFEST}", "made/c.txt"]


@pytest.mark.faults
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("fault", ["fsync", "rename", "write"])
def test_a_folder_that_cannot_be_written_leaves_no_trace(
    fault: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if existing:
        write_folder_atomic(tmp_path / "made", fill)
    before = names(tmp_path)
    with monkeypatch.context() as patch:
        FAULTS[fault](patch)
        with pytest.raises(OSError, match="No space left"):
            write_folder_atomic(tmp_path / "made", fill)
    assert names(tmp_path) == before
    if existing:
        verify_manifest(tmp_path / "made")


@pytest.mark.faults
@pytest.mark.parametrize("error", [RuntimeError("fill failed"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_fill_that_fails_leaves_no_trace(error: BaseException, tmp_path: Path) -> None:
    def failing(into: Path) -> None:
        fill(into)
        raise error

    with pytest.raises(type(error)):
        write_folder_atomic(tmp_path / "made", failing)
    assert names(tmp_path) == []


def test_what_an_earlier_crash_left_does_not_get_in(tmp_path: Path) -> None:
    left = tmp_path / ".made.0123456789abcdef.tmp"
    left.mkdir()
    (left / "half.bin").write_bytes(b"half")
    write_folder_atomic(tmp_path / "made", fill)
    assert names(tmp_path) == ["made", f"made/{MANIFEST}", "made/a.txt", "made/b.bin"]


def test_a_manifest_lists_size_and_digest_of_every_other_file(tmp_path: Path) -> None:
    fill(tmp_path)
    write_manifest(tmp_path)
    listed = json.loads((tmp_path / MANIFEST).read_text())["files"]
    assert listed == {
        name: {"bytes": size, "sha256": hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}
        for name, size in (("a.txt", 6), ("b.bin", 200))
    }
    verify_manifest(tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_every_file_is_noticed(every: int, tmp_path: Path) -> None:
    """By default each byte has a bit of its own flipped, at all eight places in turn."""
    fill(tmp_path)
    write_manifest(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        raw = path.read_bytes()
        for bit in range(0, 8 * len(raw), every):
            damaged = bytearray(raw)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError) as caught:
                verify_manifest(tmp_path)
            assert path.name in str(caught.value) or path.name == MANIFEST
        path.write_bytes(raw)
    verify_manifest(tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["a.txt", "b.bin", MANIFEST])
def test_truncation_growth_and_deletion_are_noticed(name: str, tmp_path: Path) -> None:
    folder = tmp_path
    fill(folder)
    write_manifest(folder)
    raw = (folder / name).read_bytes()
    for cut in range(len(raw)):
        (folder / name).write_bytes(raw[:cut])
        with pytest.raises(CheckpointError):
            verify_manifest(folder)
    (folder / name).write_bytes(raw + b"x")
    with pytest.raises(CheckpointError):
        verify_manifest(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        verify_manifest(folder)


def test_a_missing_folder_or_a_file_in_its_place_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        verify_manifest(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError):
        verify_manifest(tmp_path / "file")


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"files": []}', '{"files": {"a.txt": 3}}', '{"files": {"a.txt": {}}}']
)
def test_json_that_is_not_a_manifest_is_a_checkpoint_error(content: str, tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError):
        verify_manifest(tmp_path)


def test_tensors_come_back_and_a_damaged_header_is_a_checkpoint_error(tmp_path: Path) -> None:
    path, tensors = tmp_path / "t.safetensors", {"x": torch.arange(6.0).view(2, 3)}
    save_file(tensors, path)
    assert torch.equal(load_tensors(path)["x"], tensors["x"])
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_tensors(path)
    with pytest.raises(CheckpointError):
        load_tensors(tmp_path / "none")
