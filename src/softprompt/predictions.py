"""One row of predictions/test.jsonl: what the run made of a source, and the user's own columns apart from it."""

import base64
import math
from collections.abc import Mapping
from datetime import date, time
from typing import Any

from softprompt.types import Example

Plain = str | int | float | bool | None | list[Any] | dict[str, Any]


def prediction_row(example: Example, text: str) -> dict[str, Plain]:
    """`source`, `prediction`, `references`, and under `meta` the columns that no template uses, whatever their names.

    What JSON cannot say is written as text, and so is a column that is nested too deep.
    """
    row: dict[str, Plain] = {
        "source": example.source,
        "prediction": text,
        "references": list(example.scored_against),
    }
    meta: dict[str, Plain] = {str(plain(key)): _column(value) for key, value in example.meta.items()}
    return row | ({"meta": meta} if meta else {})


def _column(value: Any) -> Plain:
    try:
        return plain(value)
    except RecursionError:
        return "(nested too deep)"


def plain(value: Any) -> Plain:
    """A value as JSON can say it: dates in ISO's form, bytes as UTF-8 or base64, NaN, decimals and all else as text.

    A lone surrogate is written out as `\\udxxx`.
    """
    if value is None or (isinstance(value, bool | int) and type(value) in (bool, int)):
        return value
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return base64.b64encode(raw).decode()
    return plain(str(value))
