"""Reader of DART v1.1.1 (Nan et al. 2021): its JSON or its XML."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softprompt.data.document import need, read_json
from softprompt.data.entries import Entry, Triple, make_entry, place, read_entries_xml
from softprompt.data.table import Record
from softprompt.errors import DataError


def read_dart(path: Path) -> Iterator[Record]:
    """Yield the entries in file order, which is the order of the official references.

    Columns: `triples` (list of [subject, relation, object], as they are), `table` (linearised), `texts`, `origins`
    (which collection each text comes from), `size` (triples) and `id` (number of the entry, from 1). The JSON and the
    XML files give the same records. The one blank text of the official test file is left out.
    Raises ConfigError for a file that cannot be read, DataError with the file and the entry for its content.
    """
    path = path.expanduser()
    for entry in read_entries_xml(path) if path.suffix.lower() == ".xml" else _json_entries(path):
        yield entry.record(
            {
                "triples": [list(triple) for triple in entry.triples],
                "table": linearise_triples(entry.triples),
                "texts": list(entry.texts),
                "origins": list(entry.notes),
                "size": len(entry.triples),
                "id": entry.number,
            }
        )


def linearise_triples(triples: tuple[Triple, ...]) -> str:
    """Return `s : r : o | s : r : o` with relations in lower case, as Li & Liang 2021 write DART."""
    return " | ".join(f"{subject} : {relation.lower()} : {object_}" for subject, relation, object_ in triples)


def _json_entries(path: Path) -> Iterator[Entry]:
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a list of entries, got {type(rows).__name__ if rows else 'an empty one'}.")
    for number, row in enumerate(rows, 1):
        where = place(path, number)
        triples = need(row, "tripleset", list, where)
        for triple in triples:
            if not isinstance(triple, list) or not all(isinstance(part, str) for part in triple):
                raise DataError(f"{where}: expected [subject, relation, object], got {str(triple)[:80]}.")
        texts = [
            (need(text, "source", str, where), None if _is_null(text) else need(text, "text", str, where))
            for text in need(row, "annotations", list, where)
        ]
        yield make_entry(path, number, "", triples, texts)


def _is_null(text: Any) -> bool:
    """Whether an annotation is blank in the way the official test file has one."""
    return isinstance(text, dict) and "text" in text and text["text"] is None
