"""Readers of plain files (JSONL, CSV, TSV) -> records that know their line."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt.errors import ConfigError, DataError
from softprompt.recipes import nearest

SUFFIXES = {".jsonl": "", ".ndjson": "", ".json": "", ".csv": ",", ".tsv": "\t"}
"""Kinds of file by their ending, with the separator of fields (none: one JSON object a line)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row: its values by column, and where it starts: `line` (from 1), or `place` in a file not of lines."""

    values: Mapping[str, Any]
    path: Path
    line: int | None
    place: str = ""

    @property
    def where(self) -> str:
        """`file:line` or `file: place`, as messages start."""
        return f"{self.path}:{self.line}" if self.line is not None else f"{self.path}: {self.place}"


def read_table(path: Path) -> list[Record]:
    """Read a JSONL (.jsonl, .ndjson, .json), CSV or TSV file in UTF-8, in file order; blank lines are skipped.

    CSV and TSV have a header row; a field that holds the separator, a quote or a line break is quoted by `"`.
    Raises ConfigError for a file that is not there or of another kind, DataError with `file:line` for its content.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}; got {suffix or 'no ending'!r}.")
    text = read_text(path)
    records = list(_csv_records(path, text, SUFFIXES[suffix]) if SUFFIXES[suffix] else _json_records(path, text))
    if not records:
        raise DataError(f"{path}: expected at least one row, got none. Is it the right file?")
    return records


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark, line ends as they are; errors as `read_table`."""
    try:
        raw = path.expanduser().read_bytes()
    except FileNotFoundError:
        near = nearest(path.name, _neighbours(path), "; nearest there: ")
        raise ConfigError(f"{path}: there is no such data file{near}. Check the path in the recipe's data.") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{path}: the data file cannot be read ({reason}). Check the path in the recipe's data."
        ) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: expected UTF-8 text, got the byte {raw[error.start]:#04x}. Save the file as UTF-8."
        ) from None


def need_columns(record: Record, columns: tuple[str, ...]) -> None:
    """Raise DataError if a record lacks one of the columns."""
    for name in columns:
        if name not in record.values:
            raise DataError(
                f"{record.where}: expected a column {name!r}{nearest(name, record.values)}. "
                f"Columns here: {', '.join(map(repr, record.values))}."
            )


def _neighbours(path: Path) -> list[str]:
    try:
        return [item.name for item in path.expanduser().parent.iterdir()]
    except (OSError, RuntimeError):
        return []


def _csv_records(path: Path, text: str, separator: str) -> Iterator[Record]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}:{line}: not a valid row ({error}). Quote a field that holds a quote, and double the quote."
            ) from None
        if not row:
            continue
        if header is None:
            header = row
            twice = next((name for name in row if row.count(name) > 1), None)
            if twice is not None:
                raise DataError(f"{path}:{line}: expected different column names, got {twice!r} twice. Rename one.")
        elif len(row) != len(header):
            raise DataError(
                f"{path}:{line}: expected {len(header)} fields ({', '.join(header)}), got {len(row)}. "
                f"Quote a field that holds the separator {separator!r}, and fill in or drop a short row."
            )
        else:
            yield Record(dict(zip(header, row, strict=True)), path, line)


def _json_records(path: Path, text: str) -> Iterator[Record]:
    for line, row in enumerate(text.split("\n"), 1):
        if not row.strip():
            continue
        try:
            value = json.loads(row, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{path}:{line}: expected one JSON object a line, got an error: {reason}.") from None
        if not isinstance(value, dict):
            raise DataError(
                f'{path}:{line}: expected one JSON object a line, such as {{"source": ..., "target": ...}}; '
                f"got {type(value).__name__}."
            )
        yield Record(value, path, line)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return out
