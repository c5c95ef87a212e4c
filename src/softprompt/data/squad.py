"""Reader of SQuAD's JSON (Rajpurkar et al. 2016), which SQuADShifts, XQuAD and many others use."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softprompt.data.document import need, read_json
from softprompt.data.table import Record


def read_squad(path: Path) -> Iterator[Record]:
    """Yield a record for each question of one file, in file order.

    Columns: `id`, `title`, `question`, `context`, `answers`. Questions that SQuAD 2.0 marks `is_impossible` are left
    out, and a warning says how many: EM and F1 of version 1.1 are not defined for them. Raises ConfigError for a
    missing file, DataError with the question's place for its content.
    """
    impossible = total = 0
    for place, title, context, question in _questions(path, read_json(path)):
        where = f"{path}: {place}"
        answers = [need(answer, "text", str, where) for answer in need(question, "answers", list, where)]
        total += 1
        if question.get("is_impossible") is True:
            impossible += 1
            continue
        values = {
            "id": question.get("id"),
            "title": title,
            "question": question.get("question"),
            "context": context,
            "answers": answers,
        }
        yield Record(values, path, None, place)
    if impossible:
        warnings.warn(
            f"{path}: {impossible:,} of {total:,} questions have no answer (is_impossible) and are left out.",
            stacklevel=2,
        )


def _questions(path: Path, whole: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Each question with its place in the file, its article's title and its paragraph's context."""
    for a, article in enumerate(need(whole, "data", list, str(path))):
        for p, paragraph in enumerate(need(article, "paragraphs", list, f"{path}: data[{a}]")):
            at = f"data[{a}].paragraphs[{p}]"
            for q, question in enumerate(need(paragraph, "qas", list, f"{path}: {at}")):
                yield f"{at}.qas[{q}]", article.get("title", ""), paragraph.get("context"), question
