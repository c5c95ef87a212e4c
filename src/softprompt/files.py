"""Writing so that no reader meets half a file (temp, fsync, rename), and SHA-256 manifests that catch any change."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "MANIFEST.json"
ADVICE = "Use an earlier checkpoint, or copy it again."


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` at once: readers see the old content or the new, also after a crash."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_folder_atomic(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make `folder` appear complete or not at all: `fill` writes into a temporary one, which is then renamed."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        if not (temporary / MANIFEST).exists():
            write_manifest(temporary)
        for path in temporary.iterdir():
            if path.is_file():
                _sync(path)
        sync_folder(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def write_manifest(folder: Path) -> None:
    """Write MANIFEST.json with size and SHA-256 of every other file in `folder`."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    entries = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names}
    write_text_atomic(folder / MANIFEST, _spelled(entries))


def _spelled(entries: Any) -> str:
    """The only spelling of a manifest, so that a change of any of its own bits shows too."""
    return json.dumps({"files": entries}, indent=2) + "\n"


def verify_manifest(folder: Path) -> None:
    """Raise `CheckpointError` unless the manifest and every file that it names are there, unchanged to the bit."""
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode("utf-8")
        entries = json.loads(text)["files"]
        listed = [(folder / name, int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries.items()]
        if text != _spelled(entries):
            raise ValueError(text)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder}: no {MANIFEST}; expected a folder that softprompt wrote completely.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{path}: damaged (not a manifest). {ADVICE}") from None
    for file, size, digest in listed:
        if not file.is_file():
            raise CheckpointError(f"{file}: missing; the manifest lists it. {ADVICE}")
        if file.stat().st_size != size or sha256(file) != digest:
            raise CheckpointError(f"{file}: its bytes differ from the manifest. {ADVICE}")


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """Read a safetensors file onto the CPU; `CheckpointError` where it is not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error}).") from error


def save_tensors(tensors: "dict[str, Tensor]", path: Path) -> None:
    """Write a safetensors file from any device; `CheckpointError` where the disk does not take it.

    So it is where a number is NaN or infinite: what is kept can be used.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from softprompt.finite import first_unusable

    odd = first_unusable(tensors)
    if odd is not None:
        raise CheckpointError(
            f"{path.parent}: expected finite numbers to keep, got NaN or infinity in {odd!r}. Nothing was written: "
            "train with a lower rate."
        )
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise CheckpointError(f"{path}: cannot be written ({error}). Free some space and use --resume.") from error


def sync_folder(folder: Path) -> None:
    """fsync a directory, so that renames inside it survive a power cut. A no-op where the system cannot."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
