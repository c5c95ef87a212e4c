"""Official files of a task, downloaded whole: resumed where they were cut short, checked, and put in place at once."""

import os
import shutil
import ssl
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from softprompt import __version__
from softprompt.console import Progress, say
from softprompt.errors import ConfigError, FetchError
from softprompt.plain import sha256, sync_folder
from softprompt.tasks import Download, Task

TRIES = 4
"""Attempts in a row that bring nothing new before a download is given up."""
CHUNK = 1 << 18
PATIENCE = 30.0
"""Seconds without a byte after which a connection counts as lost."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One file in its place."""

    path: Path
    bytes: int
    sha256: str
    checked: bool
    """Whether the SHA-256 was known beforehand, so that this is the official file for certain."""

    def __str__(self) -> str:
        return f"{self.path}  {self.bytes:,} bytes  sha256 {self.sha256} {'checked' if self.checked else 'NOT CHECKED'}"


def fetch(task: Task, folder: Path, *, quiet: bool = False, pause: float = 1.0) -> list[Fetched]:
    """Bring the official files of `task` into `folder` and return them, in the task's order.

    A file that is there already is checked, not downloaded. A download goes into `<file>.part` and is renamed when it
    is whole and its SHA-256 is right. A `.part` of an earlier attempt is gone on with where the SHA-256 is known, else
    begun again. `pause` is the first wait between attempts, in seconds; it doubles.

    Raises:
        ConfigError: the task names no file to fetch.
        FetchError: the server refuses, cannot be reached, or sends another file than the official one.
    """
    if not task.source.fetch:
        reason = "comes with the package" if task.source.bundled else "names no file that can be fetched"
        where = f" Get it from {task.url} and set data.dir." if task.url and not task.source.bundled else ""
        raise ConfigError(f"nothing to fetch: the task {task.name!r} {reason}.{where}")
    return [fetched for item in task.source.fetch for fetched in _fetch(item, folder.expanduser(), quiet, pause)]


def _fetch(item: Download, folder: Path, quiet: bool, pause: float) -> list[Fetched]:
    path = folder / item.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _download(item, path, quiet, pause)
    found = sha256(path)
    if item.sha256 not in (None, found):
        raise FetchError(
            f"{path}: expected the file of {item.url} with SHA-256 {item.sha256}, got {found}. "
            "Move it away and fetch again."
        )
    fetched = [Fetched(path, path.stat().st_size, found, item.sha256 is not None)]
    for name, member in item.unpack.items():
        target = folder / name
        _extract(path, member, target)
        fetched.append(Fetched(target, target.stat().st_size, sha256(target), item.sha256 is not None))
    return fetched


def _download(item: Download, path: Path, quiet: bool, pause: float) -> None:
    """Fill `<path>.part`, check it, rename it."""
    part = path.with_name(f"{path.name}.part")
    if item.sha256 is None:
        part.unlink(missing_ok=True)
    resumed = part.exists()
    _fill(item.url, part, quiet, pause)
    if resumed and item.sha256 != sha256(part):
        say(f"{part}: was begun with another file; downloading all of it again")
        part.unlink()
        _fill(item.url, part, quiet, pause)
    found = sha256(part)
    if item.sha256 not in (None, found):
        size = part.stat().st_size
        part.unlink()
        raise FetchError(
            f"{item.url}: expected a file with SHA-256 {item.sha256}, got {found} ({size:,} bytes). It was not kept. "
            "The server has another file now, or something on the way changed it: try another network, or get the "
            "file by hand."
        )
    part.replace(path)
    sync_folder(path.parent)


def _fill(url: str, part: Path, quiet: bool, pause: float) -> None:
    """Download until the file is whole. Attempts that bring something new are not counted."""
    fruitless = 0
    while True:
        before = _size(part)
        try:
            if _attempt(url, part, quiet):
                return
            reason = "the connection was lost"
        except HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise FetchError(
                    f"{url}: expected the file, got HTTP {error.code} ({error.reason}). Has it moved? "
                    "Get it by hand and set data.dir."
                ) from None
            reason = f"HTTP {error.code}"
        except (URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        fruitless = 0 if _size(part) > before else fruitless + 1
        if fruitless >= TRIES:
            kept = f" {_size(part):,} bytes are kept; the next fetch goes on from there." if _size(part) else ""
            raise FetchError(
                f"{url}: cannot be reached ({reason}), tried {TRIES} times. "
                f"Check the network, or get the file by hand and set data.dir.{kept}"
            )
        time.sleep(pause * 2 ** max(fruitless - 1, 0))


def _attempt(url: str, part: Path, quiet: bool) -> bool:
    """Go on with `part` once; whether it is whole now. A server that cannot go on sends all of it, from the start."""
    start = _size(part)
    headers = {"User-Agent": f"softprompt/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urlopen(Request(url, headers=headers), timeout=PATIENCE)
    except HTTPError as error:
        if error.code == 416 and start:  # nothing lies behind the end: the checksum says whether it is all
            return True
        raise
    goes_on = response.status == 206
    if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise HTTPException("the server sent another part than was asked for")
    with response, _opened(part, append=goes_on) as file:
        total = _total(response, file.tell())
        progress = Progress(part.name.removesuffix(".part"), total or 0, "bytes", done=file.tell(), quiet=quiet)
        while chunk := response.read(CHUNK):
            file.write(chunk)
            progress.update(file.tell())
        progress.update(file.tell(), force=True)
        progress.close()
        return total is None or file.tell() >= total


@contextmanager
def _opened(part: Path, *, append: bool) -> Iterator[IO[bytes]]:
    """The partial file at its end, or emptied; what was written is on the disk afterwards."""
    with part.open("ab" if append else "wb") as file:
        try:
            yield file
        finally:
            file.flush()
            os.fsync(file.fileno())


def _total(response: Any, start: int) -> int | None:
    """Bytes of the whole file, where the server says so."""
    length = response.headers.get("Content-Length")
    return start + int(length) if length is not None and length.isdigit() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _extract(archive: Path, member: str, target: Path) -> None:
    """Copy one member of a zip or tar archive to `target`, which appears whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with _member(archive, member) as source, temporary.open("wb") as file:
            shutil.copyfileobj(source, file)
        temporary.replace(target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise FetchError(f"{archive}: cannot be unpacked ({error}). Move it away and fetch again.") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as whole:
            if name not in whole.namelist():
                raise _lacks(archive, name, whole.namelist())
            with whole.open(name) as file:
                yield file
    else:
        with tarfile.open(archive) as packed:
            found = packed.extractfile(name) if name in packed.getnames() else None
            if found is None:
                raise _lacks(archive, name, packed.getnames())
            with found:
                yield found


def _lacks(archive: Path, name: str, there: list[str]) -> FetchError:
    shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
    return FetchError(f"{archive}: expected the member {name!r} in it, got {shown or 'an empty archive'}.")
