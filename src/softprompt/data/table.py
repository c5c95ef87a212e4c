"""Reader of plain files (JSONL, CSV, TSV, Parquet) -> records that know their line. One record in memory at a time."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt.data.lines import first_character, read_lines, read_text, suffix_of
from softprompt.data.parquet import read_parquet
from softprompt.data.separated import delimiter_hint, read_separated
from softprompt.errors import ConfigError, DataError
from softprompt.recipes import nearest
from softprompt.template import has_column

JSON = (".jsonl", ".ndjson", ".json")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
KINDS = (*JSON, *SEPARATORS, PARQUET)
"""Kinds of file by their ending; all but Parquet may also be packed (.gz)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row: its values by column, and where it starts.

    `line` counts from 1 (in Parquet it is the row); None: not in lines, and `place` says where, such as `entry 7`.
    """

    values: Mapping[str, Any]
    path: Path
    line: int | None
    place: str = ""

    @property
    def where(self) -> str:
        """`file:line` or `file: place`, as messages start."""
        return f"{self.path}:{self.line}" if self.line is not None else f"{self.path}: {self.place}"


def read_table(
    path: Path,
    *,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    quoting: bool | None = None,
    surplus: bool = False,
    short: bool = False,
    rename: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> Iterator[Record]:
    """Yield the rows of a JSONL (.jsonl, .ndjson, .json), CSV, TSV or Parquet file, in file order.

    A .json file may also be one list of objects. Text is as `read_lines` reads it, blank lines are skipped. CSV and TSV
    have a header row, or `columns` names the fields of a file that has none; a field that holds the separator, a quote
    or a line break is quoted by `"`, or, with `quoting` off, quotes are plain characters. Where nobody says (None),
    they quote, and a quoted field of a TSV that holds a tab and a line feed is refused: two stray quotes look like it.
    `separator` makes a file with any ending one of separated fields, `delimiter` all but JSON and Parquet. With
    `surplus`, fields behind the last column are left out; with `short`, rows of too few fields. `rename`: column of the
    file -> its name here, where the file has it.
    Raises ConfigError for a file that is not there or of another kind, DataError with `file:line` for its content.
    """
    suffix = suffix_of(path)
    separator = separator or (None if suffix in (*JSON, PARQUET) else delimiter) or SEPARATORS.get(suffix)
    rows: Iterable[tuple[int | str, Mapping[str, Any]]]
    if separator is not None:
        lines = read_lines(path, encoding)
        rows = read_separated(path, lines, separator, columns, quoting, surplus=surplus, short=short)
    elif suffix == ".json" and first_character(path, encoding) == "[":
        rows = _json_list(path, encoding)
    elif suffix in JSON:
        rows = _json(path, encoding)
    elif suffix == PARQUET:
        rows = read_parquet(path)
    else:
        got = "a folder" if path.is_dir() else repr(suffix) if suffix else "a name without an ending"
        raise ConfigError(f"{path}: expected a file that ends in {', '.join(KINDS)}; got {got}.")
    for line, values in rows:
        if rename:
            values = {rename.get(name, name): value for name, value in values.items()}
        yield Record(values, path, line) if isinstance(line, int) else Record(values, path, None, line)


def need_columns(record: Record, columns: tuple[str, ...], advice: str = "") -> None:
    """Raise DataError if a record lacks one of the columns, which may be paths such as `meta.name`.

    `advice`: what to do where the file itself does not show it.
    """
    for name in columns:
        if not has_column(record.values, name):
            separated = suffix_of(record.path) in SEPARATORS
            headless = separated and not any(has_column(record.values, other) for other in columns)
            hint = delimiter_hint(list(record.values)) or (_HEADLESS if headless else "") if separated else ""
            raise DataError(
                f"{record.where}: expected a column {name!r}{nearest(name, record.values)}. "
                f"Columns here: {', '.join(map(repr, record.values))}.{hint or advice}"
            )


_HEADLESS = " Has this file a header row? If not, add a first line that names the columns."


def _json(path: Path, encoding: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in enumerate(read_lines(path, encoding), 1):
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
                f"got {type(value).__name__}.{_LIST if isinstance(value, list) else ''}"
            )
        yield line, value


_LIST = " A file that is one JSON list ends in .json."


def _json_list(path: Path, encoding: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file that is one JSON list, which is read whole."""
    try:
        values = json.loads(read_text(path, encoding), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        line, reason = (error.lineno, error.msg) if isinstance(error, json.JSONDecodeError) else (1, str(error))
        raise DataError(f"{path}:{line}: expected one JSON list of objects, got an error: {reason}.") from None
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise DataError(f"{path}: item {number}: expected a JSON object, got {type(value).__name__}.")
        yield f"item {number}", value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return out
