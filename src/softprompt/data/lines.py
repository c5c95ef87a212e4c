"""Data files as lines of text, one in memory at a time: UTF-8, or as their mark or the user says; plain or gzip."""

import codecs
import gzip
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from softprompt.errors import ConfigError, DataError
from softprompt.recipes import nearest

LONGEST = 16 * 2**20
"""Bytes that a line may have. A longer one is no row of a data set, and is refused before it is read whole."""

_TOO_LONG = (
    f"expected a line of at most {LONGEST:,} bytes, got a longer one. "
    "Write one row a line; a file that is one JSON list ends in .json."
)


def suffix_of(path: Path) -> str:
    """The ending that says what a file holds, in lower case: that before `.gz` where there is one."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def read_lines(path: Path, encoding: str | None = None) -> Iterator[str]:
    """Yield the lines of a file with their ends; a byte order mark is left out.

    `encoding`: Python's name of it; None: UTF-16 or UTF-32 where a byte order mark says so, else UTF-8. A line ends at
    a line feed, or at a carriage return in a file whose first line does.
    Raises ConfigError for a file that cannot be opened, DataError with `file:line` for bytes that are no such text, a
    line of more than `LONGEST` bytes, or a damaged gzip file.
    """
    with opened(path) as file:
        head = _peek(file, path)
        encoding = encoding or _marked(head)
        if codecs.lookup(encoding).name != "utf-8" or _line_end(head.decode("latin-1")) != "\n":
            yield from _decoded(file, path, encoding)
            return
        del head
        line = 0
        while raw := _next(file, path, line + 1):
            line += 1
            if line == 1 and b"\0" in raw:
                raise DataError(
                    f"{path}:1: expected text, got zero bytes. If it is UTF-16 without a byte order mark, set "
                    "data.encoding=utf-16-le (or utf-16-be)."
                )
            yield _decode(raw, path, line, "utf-8-sig" if line == 1 else "utf-8")


def read_text(path: Path, encoding: str | None = None) -> str:
    """Read a whole file, without its byte order mark, line ends as they are; encoding and errors as `read_lines`."""
    with opened(path) as file:
        raw = _read(file, path, 1, -1)
    encoding = encoding or _marked(raw[:4])
    return _decode(raw, path, 1, "utf-8-sig" if encoding == "utf-8" else encoding).removeprefix(_MARK)


def first_character(path: Path, encoding: str | None = None) -> str:
    """The first character of a file that is no white space; "" where there is none in its beginning."""
    with opened(path) as file:
        head = _peek(file, path)
    decoder = codecs.getincrementaldecoder(encoding or _marked(head))(errors="replace")
    return decoder.decode(head).removeprefix(_MARK).lstrip()[:1]


def require_file(path: Path) -> None:
    """Raise OSError for what is there and is no regular file: a fifo would wait for a writer for ever."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = next((name for name, test in _KINDS.items() if test(mode)), "something else")
        raise OSError(0, f"expected a file, got {kind}")


_KINDS = {"a fifo": stat.S_ISFIFO, "a device": stat.S_ISCHR, "a disk": stat.S_ISBLK, "a socket": stat.S_ISSOCK}
_MARK = "\ufeff"
_BLOCK = 2**20
_AHEAD = 2**13
"""Bytes of a file's beginning by which encoding and line ends are told."""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a data file for reading, unpacked where it ends in .gz; ConfigError if that fails."""
    try:
        place = path.expanduser()
        require_file(place)
        file = place.open("rb", buffering=_AHEAD)
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
        raise DataError(f"{path}:{line}: {_TOO_LONG}")
    return raw


def _read(file: IO[bytes], path: Path, line: int, most: int, *, lines: bool = True) -> bytes:
    """The next line (or, without `lines`, block) of at most `most` bytes, or the whole file (-1)."""
    try:
        return file.readline(most) if lines and most >= 0 else file.read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{line}: the file cannot be read on from here ({error}). Fetch it again.") from None


def _peek(file: IO[bytes], path: Path) -> bytes:
    """The beginning of the file, which is not moved on."""
    try:
        return file.peek(_AHEAD)  # type: ignore[attr-defined,no-any-return]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}:1: the file cannot be read on from here ({error}). Fetch it again.") from None


def _marked(head: bytes) -> str:
    """The encoding that a byte order mark says, else UTF-8."""
    wide = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    wide |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    return next((name for mark, name in wide.items() if head.startswith(mark)), "utf-8")


def _line_end(text: str) -> str:
    """How the first line ends: by a carriage return alone, or else by a line feed."""
    at = text.find("\r")
    line_feed = text.find("\n")
    return "\r" if 0 <= at < len(text) - 1 and text[at + 1] != "\n" and not 0 <= line_feed < at else "\n"


def _decoded(file: IO[bytes], path: Path, encoding: str) -> Iterator[str]:
    """The lines of a file in any encoding."""
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
    end, pending, line = "", "", 1
    while True:
        raw = _read(file, path, line, _BLOCK, lines=False)
        try:
            text = decoder.decode(raw, not raw)
        except UnicodeError as error:
            raise _undecodable(path, line, encoding, error) from None
        if not end:
            text = text.removeprefix(_MARK)
            end = _line_end(text)
        *whole, pending = (pending + text).split(end)
        for one in whole:
            yield one + end
        line += len(whole)
        if len(pending) > LONGEST:
            raise DataError(f"{path}:{line}: {_TOO_LONG}")
        if not raw:
            if pending:
                yield pending
            return


def _decode(raw: bytes, path: Path, line: int, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line += error.object[: error.start].count(b"\n")
        raise _undecodable(path, line, encoding, error) from None


def _undecodable(path: Path, line: int, encoding: str, error: UnicodeError) -> DataError:
    got = f"the byte {error.object[error.start]:#04x}" if isinstance(error, UnicodeDecodeError) else str(error)
    name = "UTF-8" if encoding.startswith("utf-8") else encoding
    return DataError(
        f"{path}:{line}: expected {name} text, got {got}. "
        "Save the file as UTF-8, or say its encoding: data.encoding=latin-1 (or cp1252, utf-16, ...)."
    )


def _neighbours(path: Path) -> list[str]:
    try:
        return [item.name for item in path.expanduser().parent.iterdir()]
    except (OSError, RuntimeError):
        return []
