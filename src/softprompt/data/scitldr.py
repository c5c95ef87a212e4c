"""Reader of SciTLDR (Cachola et al. 2020): abstracts of papers with one or more summaries of one sentence."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from softprompt.data.table import Record, need_columns, read_table
from softprompt.errors import DataError


def read_scitldr(path: Path) -> Iterator[Record]:
    """Yield the papers of a JSONL file of the data set, in file order.

    Columns: `document` (the sentences of `source`, joined by spaces), `summaries` (list), `title` and `id`.
    Raises ConfigError for a file that cannot be read, DataError with `file:line` for its content.
    """
    for record in read_table(path):
        need_columns(record, ("source", "target", "title", "paper_id"))
        for name in ("source", "target"):
            texts = record.values[name]
            if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
                raise DataError(f"{record.where}: expected a list of texts in {name!r}, got {str(texts)[:60]!r}.")
        values = {
            "document": " ".join(sentence.strip() for sentence in record.values["source"]),
            "summaries": record.values["target"],
            "title": record.values["title"],
            "id": record.values["paper_id"],
        }
        yield replace(record, values=values)
