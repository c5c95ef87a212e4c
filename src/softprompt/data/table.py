"""Reader of plain files (JSONL, CSV, TSV, Parquet) -> records that know their line. One record in memory at a time."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt.data.lines import read_lines, suffix_of
from softprompt.data.parquet import read_parquet
from softprompt.errors import ConfigError, DataError
from softprompt.recipes import nearest

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
    quoting: bool = True,
    surplus: bool = False,
    short: bool = False,
    rename: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Yield the rows of a JSONL (.jsonl, .ndjson, .json), CSV, TSV or Parquet file, in file order.

    Text is UTF-8, blank lines are skipped. CSV and TSV have a header row, or `columns` names the fields of a file that
    has none; a field that holds the separator, a quote or a line break is quoted by `"`, or, with `quoting` off,
    quotes are plain characters. `separator` makes a file with any ending one of separated fields. With `surplus`,
    fields behind the last column are left out; with `short`, rows of too few fields. `rename`: column of the file ->
    its name here, where the file has it.
    Raises ConfigError for a file that is not there or of another kind, DataError with `file:line` for its content.
    """
    suffix = suffix_of(path)
    separator = separator or SEPARATORS.get(suffix)
    rows: Iterable[tuple[int, Mapping[str, Any]]]
    if separator is not None:
        rows = _separated(path, separator, columns, quoting, surplus, short)
    elif suffix in JSON:
        rows = _json(path)
    elif suffix == PARQUET:
        rows = read_parquet(path)
    else:
        got = "a folder" if path.is_dir() else repr(suffix) if suffix else "a name without an ending"
        raise ConfigError(f"{path}: expected a file that ends in {', '.join(KINDS)}; got {got}.")
    for line, values in rows:
        if rename:
            values = {rename.get(name, name): value for name, value in values.items()}
        yield Record(values, path, line)


def need_columns(record: Record, columns: tuple[str, ...]) -> None:
    """Raise DataError if a record lacks one of the columns."""
    for name in columns:
        if name not in record.values:
            raise DataError(
                f"{record.where}: expected a column {name!r}{nearest(name, record.values)}. "
                f"Columns here: {', '.join(map(repr, record.values))}."
            )


def _separated(
    path: Path, separator: str, columns: Sequence[str] | None, quoting: bool, surplus: bool, short: bool
) -> Iterator[tuple[int, dict[str, str]]]:
    dialect: dict[str, Any] = {"delimiter": separator, "quoting": csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE}
    rows = csv.reader(read_lines(path), strict=True, **dialect)
    header = list(columns) if columns else None
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
        elif len(row) < len(header) and short:
            continue
        elif len(row) < len(header) or (len(row) > len(header) and not surplus):
            raise DataError(
                f"{path}:{line}: expected {len(header)} fields ({', '.join(header)}), got {len(row)}. "
                f"Quote a field that holds the separator {separator!r}, and fill in or drop a short row."
            )
        else:
            yield line, dict(zip(header, row, strict=False))


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in enumerate(read_lines(path), 1):
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
        yield line, value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return out
