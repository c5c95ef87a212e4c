"""Rows of separated fields (CSV, TSV): header, quoting, and a message for each way in which they go wrong."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from softprompt.errors import DataError

OTHERS = (";", "\t", "|", ",")
"""What else fields are separated by."""
_FIELD = csv.field_size_limit()
_ERRORS = (
    ("field larger", f"a field is longer than {_FIELD:,} characters, the most that is read. Is a quote never closed? "
     "Close or double it, set data.quoting=false if quotes are plain characters, or write long texts as JSONL."),
    ("new-line character", "a carriage return stands inside a field that is not quoted: the line ends are mixed. "
     "Save the file with one kind of line ends."),
    ("unexpected end of data", "a quote that opens a field here is never closed. Close or double it, or set "
     "data.quoting=false if quotes are plain characters."),
    ("expected after", "a quote closes a field that goes on behind it. Quote a field that holds a quote, and double "
     "the quote, or set data.quoting=false if quotes are plain characters."),
)  # fmt: skip
"""What the module `csv` says -> what is wrong and what to do."""


def read_separated(
    path: Path,
    lines: Iterator[str],
    separator: str,
    columns: Sequence[str] | None,
    quoting: bool | None,
    *,
    surplus: bool,
    short: bool,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, values by column); see `softprompt.data.table.read_table`."""
    dialect: dict[str, Any] = {"quoting": csv.QUOTE_NONE if quoting is False else csv.QUOTE_MINIMAL}
    rows = csv.reader(lines, strict=True, delimiter=separator, **dialect)
    header = list(columns) if columns else None
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            said = next((advice for part, advice in _ERRORS if part in str(error)), f"{error}.")
            raise DataError(f"{path}:{line}: not a valid row: {said}") from None
        if not row:
            continue
        if quoting is None and separator == "\t" and rows.line_num > line:
            _require_no_stray_quotes(path, line, row)
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
                f"{delimiter_hint(header)}"
            )
        else:
            yield line, dict(zip(header, row, strict=False))


def delimiter_hint(header: Sequence[str]) -> str:
    """What to do where a header is one name that holds another separator; "" where it is not."""
    found = next((one for one in OTHERS if len(header) == 1 and one in header[0]), None)
    return f" Are the fields separated by {found!r}? Then set data.delimiter: {found!r}." if found else ""


def _require_no_stray_quotes(path: Path, line: int, row: Sequence[str]) -> None:
    """Two quotes that open one line and close another would swallow the rows between them."""
    swallowed = next((field for field in row if "\t" in field and ("\n" in field or "\r" in field)), None)
    if swallowed is not None:
        raise DataError(
            f"{path}:{line}: expected fields without tabs and line feeds in a TSV, got a quoted one that holds both: "
            f"{swallowed[:60]!r}. Set data.quoting=false if quotes are plain characters (as in GLUE's files), or "
            "data.quoting=true if they quote."
        )
