"""Reader of the WebNLG challenge (Gardent et al. 2017): its JSON, or the original XML as a file or a folder.

Files of later years (release 3.0, Castro Ferreira et al. 2020) have the same form, with texts in several languages and
texts that nobody has judged.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softprompt.data.document import need, read_json
from softprompt.data.entries import Entry, Triple, make_entry, note_of, place, read_entries_xml
from softprompt.data.table import Record
from softprompt.errors import ConfigError, DataError

SEEN = frozenset(
    {
        *("Airport", "Astronaut", "Building", "City", "ComicsCharacter"),
        *("Food", "Monument", "SportsTeam", "University", "WrittenWork"),
    }
)
"""The categories of the challenge's training data; the test set has five more."""

GOOD = ("good", "")
"""Notes of texts that the makers kept as they are, or did not judge; the others (`toFix`, `lang=ru`) are not used."""


def read_webnlg(path: Path) -> Iterator[Record]:
    """Yield the entries that have a good English text, in file order; a folder's XML files in the order of their paths.

    Columns: `triples` (list of [subject, property, object], of the modified triple set), `table` (linearised),
    `texts` (the good ones), `category`, `seen` (whether it is a training category), `size` (triples) and `id` (number
    of the entry, from 1, over all files). The challenge's JSON and XML give the same records.
    Raises ConfigError for a path that cannot be read, DataError with the file and the entry for its content.
    """
    left = Counter[str]()
    found = False
    for number, entry in enumerate(_entries(path.expanduser()), 1):
        texts = [text for text, note in zip(entry.texts, entry.notes, strict=True) if note in GOOD]
        left.update(note for note in entry.notes if note not in GOOD)
        if texts:
            found = True
            yield entry.record(
                {
                    "triples": [list(triple) for triple in entry.triples],
                    "table": linearise_triples(entry.triples),
                    "texts": texts,
                    "category": entry.category,
                    "seen": entry.category in SEEN,
                    "size": len(entry.triples),
                    "id": number,
                }
            )

    if not found and left:
        noted = ", ".join(f"{count} {note}" for note, count in left.items())
        raise DataError(
            f"{path}: expected English texts with the comment `good` or none, got only others ({noted}). "
            "Take another file, or correct the comments."
        )


def linearise_triples(triples: tuple[Triple, ...]) -> str:
    """Return ` | s : p : o | s : p : o`, as Li & Liang 2021 write each training entry of WebNLG.

    Their decoding script leaves the bars out of the first entry of the test set; here all entries are alike.
    """
    return "".join(f" | {subject} : {relation} : {object_}" for subject, relation, object_ in triples)


def _entries(path: Path) -> Iterator[Entry]:
    if path.is_dir():
        files = sorted(path.rglob("*.xml"))
        if not files:
            raise ConfigError(f"{path}: expected XML files in the folder or below, got none. Check the path.")
        for file in files:
            yield from read_entries_xml(file)
    elif path.suffix.lower() == ".xml":
        yield from read_entries_xml(path)
    else:
        yield from _json_entries(path)


def _json_entries(path: Path) -> Iterator[Entry]:
    rows = need(read_json(path), "entries", list, str(path))
    if not rows:
        raise DataError(f"{path}: expected at least one entry, got none. Is it the right file?")
    for number, row in enumerate(rows, 1):
        where = place(path, number)
        entry = need(row, str(number), dict, where)
        texts = [
            (note_of(need(text, "comment", str, where), str(text.get("lang", ""))), need(text, "lex", str, where))
            for text in need(entry, "lexicalisations", list, where)
        ]
        triples = [_triple(triple, where) for triple in need(entry, "modifiedtripleset", list, where)]
        yield make_entry(path, number, need(entry, "category", str, where), triples, texts)


def _triple(triple: Any, where: str) -> Triple:
    return (
        need(triple, "subject", str, where),
        need(triple, "property", str, where),
        need(triple, "object", str, where),
    )
