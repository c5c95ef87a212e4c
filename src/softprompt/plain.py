"""Plain files: read where they are nothing else, written so that no reader meets half of one (temp, fsync, rename).

A name that we make beside another carries 64 random bits, so it is nobody else's, and no link in its place is followed.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from softprompt.errors import CheckpointError, ConfigError

LARGEST_JSON = 1 << 28
"""Bytes of a JSON file that is read back, at most."""
_PLAIN = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""No link is followed and no pipe waited for, where the system has that."""


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class naming(AbstractContextManager[None]):
    """Let an OSError of the block name `path`, and not a temporary file or none at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(self._path)) from None


def open_plain(path: Path, flags: int) -> int:
    """A descriptor of a plain file. Raises OSError for what is none: ELOOP for a link, EISDIR for a folder."""
    descriptor = os.open(path, flags | _PLAIN, 0o666)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
        raise OSError(number, os.strerror(number), str(path))
    return descriptor


def read_plain(path: Path, most: int = LARGEST_JSON) -> bytes:
    """All bytes of a plain file.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it cannot be read, is no plain file (a link, say), or is longer than `most`.
    """
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as stream:
            if os.fstat(stream.fileno()).st_size > most:
                raise CheckpointError(f"{path}: expected at most {most:,} bytes, got more. It is none of ours.")
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    except OSError as error:
        what = "a link" if error.errno == errno.ELOOP else error.strerror
        raise CheckpointError(f"{path}: expected a plain file that can be read, got: {what}.") from None


def read_json(path: Path) -> Any:
    """What a JSON file (UTF-8) holds; errors as `read_plain`, and CheckpointError where it is no JSON."""
    try:
        return json.loads(read_plain(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: expected JSON, got {_short(error)}.") from None


def write_text_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` at once: readers see the old content or the new, also after a crash.

    Raises:
        ConfigError: a link or a folder is in the way.
        OSError: it cannot be written; names `path`.
    """
    require_file(path)
    with naming(path):
        for left in left_beside(path, "tmp"):
            if not left.is_symlink() and left.is_file():
                left.unlink(missing_ok=True)
        temporary = beside(path, "tmp")
        try:
            with temporary.open("x", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def require_file(path: Path) -> None:
    """Raise `ConfigError` where something else than a plain file (or nothing) is at `path`."""
    found = kind_of(path)
    if found not in ("", "a file"):
        raise ConfigError(f"{path}: expected a file of softprompt's or none, got {found}. Move it away.")


def require_folder(path: Path) -> None:
    """Raise `ConfigError` where something else than a folder (or nothing) is at `path`."""
    found = kind_of(path)
    if found not in ("", "a folder"):
        raise ConfigError(f"{path}: expected a folder of softprompt's or none, got {found}. Move it away.")


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


def is_temporary(name: str) -> bool:
    """Whether this is the name of what we write beside something until it is complete."""
    return re.fullmatch(r"\..+\.[0-9a-f]{16}\.(tmp|old)", name) is not None


def beside(path: Path, ending: str) -> Path:
    """A name beside `path` that nobody has."""
    return path.with_name(f".{_stem(path)}.{secrets.token_hex(8)}.{ending}")


def left_beside(path: Path, ending: str) -> list[Path]:
    """What an earlier write of `path` left, newest first."""
    pattern = re.compile(rf"\.{re.escape(_stem(path))}\.[0-9a-f]{{16}}\.{ending}")
    try:
        found = [one for one in path.parent.iterdir() if pattern.fullmatch(one.name)]
        return sorted(found, key=lambda one: one.lstat().st_mtime_ns, reverse=True)
    except OSError:
        return []


def _stem(path: Path) -> str:
    """The name of a path, or what stands for a long one, so that there is room for more."""
    long = len(os.fsencode(path.name)) > 200
    return hashlib.sha256(os.fsencode(path.name)).hexdigest() if long else path.name


def kind_of(path: Path) -> str:
    """What is at `path` itself, in words; empty where nothing is."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    names = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
    return names.get(stat.S_IFMT(mode), "no plain file")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
