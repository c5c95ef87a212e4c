"""Files that are one JSON document, and what is looked up in it by key."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from softprompt.data.lines import read_text
from softprompt.errors import DataError

Kind = TypeVar("Kind")


def read_json(path: Path) -> Any:
    """Read a file that is one JSON document; DataError with `file:line` if it is not well formed."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: expected one JSON document, got an error: {error.msg}. Fetch the file again."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected one JSON document, got an error: {error}. Fetch the file again.") from None


def need(mapping: Any, key: str, kind: type[Kind], where: str) -> Kind:
    """Return `mapping[key]`; DataError, starting with `where`, if it is not there or of another kind."""
    if not isinstance(mapping, Mapping) or key not in mapping:
        got = ", ".join(map(repr, mapping)) if isinstance(mapping, Mapping) else type(mapping).__name__
        raise DataError(f"{where}: expected the key {key!r}, got {got or 'an empty object'}. Is it the right file?")
    value = mapping[key]
    if not isinstance(value, kind):
        raise DataError(
            f"{where}: expected a {kind.__name__} under {key!r}, got {type(value).__name__}. Is it the right file?"
        )
    return value
