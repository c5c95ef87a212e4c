"""Questions about a context, with one or more answers: what is made of every record of them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from softprompt.data.table import Record
from softprompt.errors import DataError

_PIECES = re.compile(r"\w+|[^\w\t\n\f\r ]", re.ASCII)


@lru_cache(maxsize=64)
def pad_punctuation(text: str) -> str:
    """Put a space on both sides of every character but letters, digits and `_`, and make each run of spaces one.

    T5's rule, which Lester et al. 2021 share (Raffel et al. 2020, `_pad_punctuation` of t5.data.preprocessors). Only
    ASCII letters count, as in their regular expressions: `François?` becomes `Fran ç ois ?`. Outer space is stripped.
    (DePT's copy of the rule keeps the letters of every script together; on ASCII texts both are the same.)
    """
    return " ".join(_PIECES.findall(text))


def qa_rows(record: Record) -> Iterator[Record]:
    """Check `id`, `question`, `context` and `answers`, and add `question_padded`, `context_padded`, `answers_padded`.

    One row a record. Outer white space of question and context goes. `answers` becomes the list of those that are not
    blank, in their order, repeated ones kept; `detected`, where it is there, gets `detected_padded`. Raises DataError
    for a text that is missing, blank or not a text, and for a question with no answer.
    """
    values = record.values
    for name in ("id", "question", "context"):
        if not isinstance(values.get(name), str) or not values[name].strip():
            raise DataError(f"{record.where}: expected a text as {name!r}, got {_show(values.get(name))}.")
    answers = values.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise DataError(f"{record.where}: expected a list of texts as 'answers', got {_show(answers)}.")
    answers = [answer for answer in answers if answer.strip()]
    if not answers:
        raise DataError(f"{record.where}: expected at least one answer to {values['id']!r}, got none.")
    made: dict[str, Any] = {"answers": answers}
    for name, texts in (("answers", answers), ("detected", values.get("detected"))):
        if texts is not None:
            made[f"{name}_padded"] = [pad_punctuation(text) for text in texts]
    for name in ("question", "context"):
        made |= {name: values[name].strip(), f"{name}_padded": pad_punctuation(values[name])}
    yield replace(record, values={**values, **made})


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
