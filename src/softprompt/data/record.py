"""ReCoRD of SuperGLUE: one row for each query on a news passage, answered by one of the passage's entities."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from softprompt.data.table import Record, need_columns
from softprompt.errors import DataError

_HIGHLIGHT = re.compile(r"([.?!\"'])?\n@highlight\n")


def record_rows(record: Record) -> Iterator[Record]:
    """Yield rows of `query`, `passage`, `entities` (each once, `, ` between them) and `answers` (a list, each once).

    The highlights of a passage become sentences of it, as in T5's preprocessing. Records are passages with nested
    queries (the official files), or such rows already (the hub). DataError for a record that is neither.
    """
    if "qas" not in record.values:
        need_columns(record, ("passage", "query", "entities", "answers"))
        yield _row(record, dict(record.values))
        return
    try:
        rows = list(_queries(record.values))
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{record.where}: expected a passage with text and entities, and qas with query and answers, "
            f"got something else ({type(error).__name__}: {error})."
        ) from None
    yield from (_row(record, row) for row in rows)


def _queries(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    passage = values["passage"]
    entities = [passage["text"][at["start"] : at["end"] + 1] for at in passage["entities"]]
    for query in values["qas"]:
        answers = [answer["text"] for answer in query["answers"]]
        yield {"passage": passage["text"], "query": query["query"], "entities": entities, "answers": answers}


def _row(record: Record, values: dict[str, Any]) -> Record:
    values["passage"] = _HIGHLIGHT.sub(lambda found: f"{found[1]} " if found[1] else ". ", str(values["passage"]))
    values["entities"] = ", ".join(dict.fromkeys(values["entities"]))
    values["answers"] = list(dict.fromkeys(values["answers"]))
    return replace(record, values=values)
