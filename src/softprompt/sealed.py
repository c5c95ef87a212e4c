"""Files that carry a SHA-256 of themselves, so that any change shows: JSON by a last key, texts by a last line.

Files of versions before this have none; whether that may be is for the reader to say.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softprompt.errors import CheckpointError
from softprompt.plain import read_json, read_plain, write_text_atomic

SEAL = "sha256"
COMMENTS = {".yaml": ("# ", ""), ".md": ("<!-- ", " -->")}
"""Ending of a file's name -> what stands around its last line."""
_SAYS = "sha256 of what stands above:"


def write_sealed_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file at once; CheckpointError where a number is NaN or infinite, which JSON cannot say."""
    try:
        text = _spelled(content)
    except ValueError as error:
        raise CheckpointError(f"{path}: expected finite numbers to keep ({error}). Nothing was written.") from None
    write_text_atomic(path, text)


def read_sealed_json(path: Path) -> tuple[dict[str, Any], bool]:
    """What a JSON object holds without its seal, and whether it has one.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it cannot be read, is no JSON object, or its bytes are not those that were sealed.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: damaged: expected a JSON object, got something else.")
    if SEAL not in content:
        return content, False
    del content[SEAL]
    try:
        same = read_plain(path) == _spelled(content).encode()
    except ValueError:
        same = False
    if not same:
        raise CheckpointError(f"{path}: damaged: its bytes are not those that its checksum is of.")
    return content, True


def write_sealed_text(path: Path, text: str) -> None:
    """Replace a text at once, with its seal as a comment in the last line."""
    write_text_atomic(path, text + _line(path, text))


def read_sealed_text(path: Path) -> tuple[str, bool]:
    """A text with its seal's line, and whether it has one; errors as `read_sealed_json`."""
    raw = read_plain(path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: damaged: expected UTF-8 text.") from None
    start, end = map(re.escape, COMMENTS[path.suffix])
    found = re.search(rf"^{start}{_SAYS} [0-9a-f]{{64}}{end}\n\Z", text, re.MULTILINE)
    if found is None:
        return text, False
    if found[0] != _line(path, text[: found.start()]):
        raise CheckpointError(f"{path}: damaged: its bytes are not those that its checksum is of.")
    return text, True


def has_seal(path: Path) -> bool:
    """Whether a file (JSON or text) once had a seal; it may be damaged since."""
    try:
        return (read_sealed_json if path.suffix == ".json" else read_sealed_text)(path)[1]
    except FileNotFoundError:
        return False
    except CheckpointError as error:
        return "checksum" in str(error)


def _spelled(content: Mapping[str, Any]) -> str:
    body = json.dumps(content, indent=2, allow_nan=False)
    return json.dumps({**content, SEAL: hashlib.sha256(body.encode()).hexdigest()}, indent=2) + "\n"


def _line(path: Path, text: str) -> str:
    start, end = COMMENTS[path.suffix]
    return f"{start}{_SAYS} {hashlib.sha256(text.encode()).hexdigest()}{end}\n"
