"""One process a run folder: an advisory lock that dies with its holder, so a stale one never blocks."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softprompt.console import say
from softprompt.errors import ConfigError
from softprompt.places import LOCK
from softprompt.plain import open_plain

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)
"""EBADF: a network file system that locks only what is open for writing, which no folder can be."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` (made where missing) inside the block.

    The kernel's lock is on the folder itself, so that it holds whatever becomes of the files in it, and on a file
    in it, for where folders cannot be locked; that one has the holder's process id and stays behind. On a file system
    without locks a warning takes their place.

    Raises:
        ConfigError: another process holds it, the lock file is no plain file, or this is no POSIX system.
    """
    if fcntl is None:
        raise ConfigError(
            "expected Linux or macOS: a run folder is held by a lock that this system has not. On Windows use WSL."
        )
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        whole = _taken(held, folder)
        descriptor = _open(folder / LOCK)
        try:
            if not (_taken(descriptor, folder) or whole):
                say(f"warning: {folder} cannot be locked on this file system; start no second run in it")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
    finally:
        os.close(held)


def _open(path: Path) -> int:
    try:
        return open_plain(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO):
            raise
        raise ConfigError(f"{path}: expected a plain file or none, got something else. Move it away.") from None


def _taken(descriptor: int, folder: Path) -> bool:
    """Whether the lock was taken; False where there are no locks. ConfigError where another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        holder = _holder(folder / LOCK)
        raise ConfigError(
            f"run folder {folder} is in use by {f'process {holder}' if holder else 'another process'}. "
            "Wait until that ends, or use --out for another folder."
        ) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False


def _holder(path: Path) -> str:
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as stream:
            found = stream.read(20).decode(errors="replace").strip()
    except OSError:
        return ""
    return found if found.isdigit() else ""


__all__ = ["LOCK", "locked"]
