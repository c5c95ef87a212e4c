"""MultiRC of SuperGLUE: one row for each answer option of each question on a paragraph."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from softprompt.data.table import Record, need_columns
from softprompt.errors import DataError

_TAGS = re.compile(r"</?b>")


def multirc_rows(record: Record) -> Iterator[Record]:
    """Yield rows of `paragraph` (without its tags), `question`, `answer`, `label`, and the numbers of the first two.

    Records are passages with nested questions and answers (the official files), or such rows already (the hub), whose
    numbers are in a mapping `idx`. DataError for a record that is neither.
    """
    if "passage" not in record.values:
        need_columns(record, ("paragraph", "question", "answer", "label", "idx"))
        numbers = record.values["idx"]
        if not isinstance(numbers, Mapping) or not {"paragraph", "question"} <= numbers.keys():
            raise DataError(
                f"{record.where}: expected the numbers of paragraph and question in 'idx', got {numbers!r}."
            )
        values = {key: value for key, value in record.values.items() if key != "idx"}
        numbered = {"paragraph_id": numbers["paragraph"], "question_id": numbers["question"]}
        yield replace(record, values={**values, **numbered, "paragraph": _plain(str(values["paragraph"]))})
        return
    try:
        yield from [replace(record, values=row) for row in _options(record.values)]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{record.where}: expected a passage with text, questions and their answers (text, label), "
            f"got something else ({type(error).__name__}: {error})."
        ) from None


def _options(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    passage = values["passage"]
    paragraph = _plain(passage["text"])
    for at, question in enumerate(passage["questions"]):
        for answer in question["answers"]:
            yield {
                "paragraph": paragraph,
                "question": question["question"],
                "answer": answer["text"],
                "label": answer["label"],
                "paragraph_id": values["idx"],
                "question_id": question.get("idx", at),
            }


def _plain(text: str) -> str:
    return _TAGS.sub("", text.replace("<br>", " "))
