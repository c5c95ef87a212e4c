"""Folders of files with a SHA-256 manifest: written whole or not at all, replaced only where they are ours."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from softprompt.errors import CheckpointError, ConfigError, SoftpromptError
from softprompt.plain import (
    beside,
    kind_of,
    left_beside,
    open_plain,
    read_plain,
    sha256,
    sync_folder,
    write_text_atomic,
)

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST, FACTS = "MANIFEST.json", "softprompt.json"
ADVICE = "Use an earlier checkpoint, or copy it again."
MOST_FILES = 10_000
"""Files that a manifest may list."""


def write_folder_atomic(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make `folder` appear complete or not at all: `fill` writes into a new one, which then takes its place.

    An old one is renamed aside, the new one renamed in, and only then the old one deleted; where a kill came between,
    `recover` finds it again.

    Raises:
        ConfigError: `folder` is no name for a folder, or something is in its place that we did not write.
    """
    require_replaceable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"{folder}: expected a folder to put it in, got a file. Take another place.") from None
    recover(folder)
    clear_left_beside(folder)
    temporary, aside = beside(folder, "tmp"), beside(folder, "old")
    try:
        with _speaking_of(folder, temporary):
            temporary.mkdir()
            fill(temporary)
            if not (temporary / MANIFEST).exists():
                write_manifest(temporary)
            for path in temporary.iterdir():
                if path.is_file():
                    _sync(path)
            sync_folder(temporary)
            require_replaceable(folder)  # it took a while
            if folder.exists():
                folder.rename(aside)
            temporary.rename(folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    if aside.exists():
        shutil.rmtree(aside, ignore_errors=True)


def require_replaceable(folder: Path) -> None:
    """Raise `ConfigError` where `folder` is no name for a folder, or holds anything that its manifest does not list."""
    if folder.name in ("", ".."):
        raise ConfigError(
            f"cannot write to {str(folder)!r}: expected the name of a folder to be made, such as prompts/mine."
        )
    found = in_the_way(folder)
    if found:
        raise ConfigError(
            f"{folder}: expected none, or a folder that softprompt wrote and nobody added to, got {found}. Nothing was "
            "deleted: move that away, or take another place."
        )


def in_the_way(folder: Path) -> str:
    """What keeps `folder` from being replaced, in words; empty where there is none, an empty one, or one of ours."""
    kind = kind_of(folder)
    if kind != "a folder":
        return kind
    try:
        there = {path.name: kind_of(path) for path in folder.iterdir()}
    except OSError as error:
        return f"one that cannot be read ({error.strerror})"
    if not there:
        return ""
    try:
        listed = {MANIFEST, *read_manifest(folder).files}
    except CheckpointError:
        return f"one with {_first(sorted(there.keys() - {MANIFEST}) or [MANIFEST])} and no whole {MANIFEST} of ours"
    odd = sorted(name for name, kind in there.items() if name not in listed or kind != "a file")
    return f"one with {_first(odd)} in it" if odd else ""


def recover(folder: Path) -> None:
    """Put a folder back that a kill left renamed aside, where there is none."""
    old, new = left_beside(folder, "old"), left_beside(folder, "tmp")
    if not kind_of(folder) and (old or new):
        back = next((one for one in (*old, *new) if _is_whole(one)), old[0] if old else None)
        if back is not None:
            with suppress(OSError):  # read-only: then it stays where it is
                back.rename(folder)


def clear_left_beside(folder: Path) -> None:
    """Remove what writes of `folder` that were killed left beside it, where it is ours."""
    old, new = left_beside(folder, "old"), left_beside(folder, "tmp")
    for left in (*old, *new):
        if kind_of(left) == "a folder" and (left in new or not in_the_way(left)):
            shutil.rmtree(left, ignore_errors=True)


class Listed(BaseModel):
    """One file of a manifest."""

    model_config = ConfigDict(strict=True, extra="forbid")

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


def _plain_name(name: str) -> str:
    if name in ("", ".", "..", MANIFEST) or len(os.fsencode(name)) > 255 or "/" in name or "\0" in name:
        raise ValueError("no plain name of a file")
    return name


class Manifest(BaseModel):
    """MANIFEST.json: size and SHA-256 of every other file of its folder, by plain names."""

    model_config = ConfigDict(strict=True, extra="forbid")

    files: Annotated[dict[Annotated[str, AfterValidator(_plain_name)], Listed], Field(max_length=MOST_FILES)]

    def spelled(self) -> str:
        """The only spelling of a manifest, so that a change of any of its own bits shows too."""
        return json.dumps(self.model_dump(), indent=2) + "\n"


def write_manifest(folder: Path) -> None:
    """Write MANIFEST.json with size and SHA-256 of every other file in `folder`."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    entries = {name: Listed(bytes=(folder / name).stat().st_size, sha256=sha256(folder / name)) for name in names}
    write_text_atomic(folder / MANIFEST, Manifest(files=entries).spelled())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder; `CheckpointError` where it is missing, or any bit of it is not as we write it."""
    path = folder / MANIFEST
    try:
        text = read_plain(path).decode("utf-8")
        manifest = Manifest.model_validate_json(text)
        if manifest.spelled() != text:
            raise ValueError
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {MANIFEST}; expected a folder that softprompt wrote completely.") from None
    except (ValidationError, ValueError):
        raise CheckpointError(f"{path}: damaged (not a manifest). {ADVICE}") from None
    return manifest


def verify_manifest(folder: Path) -> None:
    """Raise `CheckpointError` unless the manifest and every file that it names are there, unchanged to the bit."""
    recover(folder)
    for name, listed in read_manifest(folder).files.items():
        file = folder / name
        try:
            with os.fdopen(open_plain(file, os.O_RDONLY), "rb") as stream:
                same = os.fstat(stream.fileno()).st_size == listed.bytes
                same = same and hashlib.file_digest(stream, "sha256").hexdigest() == listed.sha256
        except FileNotFoundError:
            raise CheckpointError(f"{file}: missing; the manifest lists it. {ADVICE}") from None
        except OSError as error:
            what = "is a link" if error.errno == errno.ELOOP else f"cannot be read ({error.strerror})"
            raise CheckpointError(f"{file}: {what}. {ADVICE}") from None
        if not same:
            raise CheckpointError(f"{file}: its bytes differ from the manifest. {ADVICE}")


def verify_if_ours(folder: Path) -> None:
    """`verify_manifest` for a folder that a run may have written: one with our facts, or with a manifest of ours."""
    recover(folder)
    try:
        read_manifest(folder)
    except CheckpointError:
        if not os.path.lexists(folder / FACTS):
            return
    verify_manifest(folder)


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


def _is_whole(folder: Path) -> bool:
    try:
        for name, listed in read_manifest(folder).files.items():
            if kind_of(folder / name) != "a file" or sha256(folder / name) != listed.sha256:
                return False
    except (CheckpointError, OSError):
        return False
    return True


@contextmanager
def _speaking_of(folder: Path, temporary: Path) -> Iterator[None]:
    """Let what goes wrong while `temporary` is filled name `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        named = str(error.filename or folder).replace(str(temporary), str(folder))
        raise OSError(error.errno, error.strerror, named) from None
    except SoftpromptError as error:
        if str(temporary) not in str(error):
            raise
        raise type(error)(str(error).replace(str(temporary), str(folder))) from error.__cause__


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
