"""Data files as lines of text, one in memory at a time: UTF-8, plain or gzip."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from softprompt.errors import ConfigError, DataError
from softprompt.recipes import nearest

LONGEST = 16 * 2**20
"""Bytes that a line may have. A longer one is no row of a data set, and is refused before it is read whole."""


def suffix_of(path: Path) -> str:
    """The ending that says what a file holds, in lower case: that before `.gz` where there is one."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends; a byte order mark is left out.

    Raises ConfigError for a file that cannot be opened, DataError with `file:line` for bytes that are not UTF-8, a
    line of more than `LONGEST` bytes, or a damaged gzip file.
    """
    with opened(path) as file:
        line = 0
        while raw := _next(file, path, line + 1):
            line += 1
            yield _decode(raw, path, line, "utf-8-sig" if line == 1 else "utf-8")


def read_text(path: Path) -> str:
    """Read a whole UTF-8 file, with or without a byte order mark, line ends as they are; errors as `read_lines`."""
    with opened(path) as file:
        raw = _read(file, path, 1, -1)
    return _decode(raw, path, 1, "utf-8-sig")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a data file for reading, unpacked where it ends in .gz; ConfigError if that fails."""
    try:
        place = path.expanduser()
        file = place.open("rb")
    except FileNotFoundError:
        near = nearest(path.name, _neighbours(path), "; nearest there: ")
        raise ConfigError(f"{path}: there is no such data file{near}. Check the path in the recipe's data.") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{path}: the data file cannot be read ({reason}). Check the path in the recipe's data."
        ) from None
    with file:
        yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if path.suffix.lower() == ".gz" else file


def _next(file: IO[bytes], path: Path, line: int) -> bytes:
    raw = _read(file, path, line, LONGEST + 1)
    if len(raw) > LONGEST:
        raise DataError(
            f"{path}:{line}: expected a line of at most {LONGEST:,} bytes, got a longer one. "
            "Write one row a line; a file that is one JSON list is no JSONL."
        )
    return raw


def _read(file: IO[bytes], path: Path, line: int, most: int) -> bytes:
    """The next line of at most `most` bytes, or the whole file (-1)."""
    try:
        return file.read() if most < 0 else file.readline(most)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{line}: the file cannot be read on from here ({error}). Fetch it again.") from None


def _decode(raw: bytes, path: Path, line: int, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line += error.object[: error.start].count(b"\n")
        raise DataError(
            f"{path}:{line}: expected UTF-8 text, got the byte {error.object[error.start]:#04x}. "
            "Save the file as UTF-8."
        ) from None


def _neighbours(path: Path) -> list[str]:
    try:
        return [item.name for item in path.expanduser().parent.iterdir()]
    except (OSError, RuntimeError):
        return []
