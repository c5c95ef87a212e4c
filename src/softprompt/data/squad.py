"""Reader of SQuAD's JSON (Rajpurkar et al. 2016), which SQuADShifts, XQuAD and many others use."""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from softprompt.data.qa import qa_record
from softprompt.data.table import Record, read_text
from softprompt.errors import DataError

SHAPE = "{data: [{title, paragraphs: [{context, qas: [{id, question, answers: [{text}]}]}]}]}"


def read_squad(path: Path) -> Iterator[Record]:
    """Read one file, a record for each question, in file order: the columns of `qa_record` and `title`.

    Questions that SQuAD 2.0 marks `is_impossible` are left out, and a warning says how many: EM and F1 of version 1.1
    are not defined for them. Raises ConfigError for a missing file, DataError with the question's place for its
    content.
    """
    impossible = total = 0
    for place, title, context, question in _questions(path, _parse(path)):
        total += 1
        if question.get("is_impossible") is True:
            impossible += 1
            continue
        where = f"{path}: {place}"
        answers = [_object(answer, f"{where}.answers") for answer in _list(question, "answers", where)]
        values = {
            "id": question.get("id"),
            "title": title,
            "question": question.get("question"),
            "context": context,
            "answers": [answer.get("text") for answer in answers],
        }
        yield qa_record(Record(values, path, None, place))
    if impossible:
        warnings.warn(
            f"{path}: {impossible:,} of {total:,} questions have no answer (is_impossible) and are left out.",
            stacklevel=2,
        )


def _parse(path: Path) -> Any:
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: expected SQuAD's JSON, got an error at column {error.colno}: {error.msg}. "
            "Is the file cut short?"
        ) from None
    except RecursionError:
        raise DataError(f"{path}: expected SQuAD's JSON, got brackets nested too deep.") from None


def _questions(path: Path, whole: Any) -> Iterator[tuple[str, Any, Any, Mapping[str, Any]]]:
    """Each question with its place in the file, its article's title and its paragraph's context."""
    for a, article in enumerate(_list(_object(whole, f"{path}: file"), "data", f"{path}: file")):
        at_article = f"data[{a}]"
        article = _object(article, f"{path}: {at_article}")
        for p, paragraph in enumerate(_list(article, "paragraphs", f"{path}: {at_article}")):
            at_paragraph = f"{at_article}.paragraphs[{p}]"
            paragraph = _object(paragraph, f"{path}: {at_paragraph}")
            for q, question in enumerate(_list(paragraph, "qas", f"{path}: {at_paragraph}")):
                place = f"{at_paragraph}.qas[{q}]"
                yield (
                    place,
                    article.get("title", ""),
                    paragraph.get("context"),
                    _object(question, f"{path}: {place}"),
                )


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, as in SQuAD's {SHAPE}; got {type(value).__name__}.")
    return value


def _list(value: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = value.get(key)
    if not isinstance(found, list):
        got = (
            type(found).__name__ if key in value else f"the keys {', '.join(map(repr, value)) or 'of an empty object'}"
        )
        raise DataError(f"{where}: expected a list {key!r}, as in SQuAD's {SHAPE}; got {got}.")
    return found
