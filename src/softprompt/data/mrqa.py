"""Reader of the files of the MRQA 2019 shared task (Fisch et al. 2019): a context and its questions on each line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softprompt.data.qa import qa_record
from softprompt.data.table import Record
from softprompt.errors import ConfigError, DataError

SHAPE = "{context, qas: [{qid, question, answers: [text], detected_answers: [{text}]}]}"


def read_mrqa(path: Path) -> Iterator[Record]:
    """Read a `.jsonl` or `.jsonl.gz` file line by line, a record for each question, in file order.

    Columns: those of `qa_record`, and `detected`, the answers as they stand in the context. The first line may be the
    official header. All questions of a line are read (the conversion script of Lester et al. takes the first only).
    Raises ConfigError for a file that cannot be read, DataError with `file:line` for its content.
    """
    for line, row in _lines(path):
        where = f"{path}:{line}"
        try:
            value = json.loads(row)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{where}: expected one JSON object a line, got an error: {reason}.") from None
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected MRQA's {SHAPE}, got {type(value).__name__}.")
        if line == 1 and "header" in value:
            continue
        for question in _objects(value, "qas", where):
            values = {
                "id": question.get("qid"),
                "question": question.get("question"),
                "context": value.get("context"),
                "answers": question.get("answers"),
                "detected": [answer.get("text") for answer in _objects(question, "detected_answers", where)],
            }
            yield qa_record(Record(values, path, line))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, by number from 1, in constant memory."""
    number = 0
    try:
        name = path.expanduser()
        with gzip.open(name) if path.suffix == ".gz" else name.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: expected UTF-8 text, got the byte {error.object[error.start]:#04x}. Fetch it again."
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the compressed file is damaged or cut short after line {number} ({error}). Fetch it again."
        ) from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{path}: the data file cannot be read ({reason}). Check the path in the recipe's data."
        ) from None


def _objects(value: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    found = value.get(key)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise DataError(f"{where}: expected a list of objects {key!r}, as in MRQA's {SHAPE}.")
    return found
