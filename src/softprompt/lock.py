"""One process a run folder: an advisory lock that dies with its holder, so a stale one never blocks."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softprompt.console import say
from softprompt.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` (made where missing) inside the block.

    The lock file holds the holder's process id and stays behind; only the kernel's lock on it counts. On a file system
    without locks a warning takes its place.

    Raises:
        ConfigError: another process holds it, or this is no POSIX system.
    """
    if fcntl is None:
        raise ConfigError(
            "expected Linux or macOS: a run folder is held by a lock that this system has not. On Windows use WSL."
        )
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 64).decode(errors="replace").strip()
            raise ConfigError(
                f"run folder {folder} is in use by {f'process {holder}' if holder else 'another process'}. "
                "Wait until that ends, or use --out for another folder."
            ) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            say(f"warning: {folder} cannot be locked ({error.strerror}); start no second run in it")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
