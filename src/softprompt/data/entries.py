"""Sets of triples with their texts, as WebNLG and DART keep them: one document a file, XML or JSON."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from softprompt.data.lines import read_text
from softprompt.data.table import Record
from softprompt.errors import DataError

Triple = tuple[str, str, str]
"""Subject, property (DART: relation), object."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One set of triples with its texts in file order; `number` counts the file's entries from 1."""

    path: Path
    number: int
    category: str
    """Empty where the file has none (DART's JSON)."""
    triples: tuple[Triple, ...]
    texts: tuple[str, ...]
    notes: tuple[str, ...]
    """What the file notes on each text: its quality in WebNLG (`good`, `toFix`), where it comes from in DART."""

    def record(self, values: Mapping[str, Any]) -> Record:
        """The values as a record whose messages name the entry."""
        return Record(values, self.path, None, f"entry {self.number}")


def make_entry(
    path: Path, number: int, category: str, triples: Sequence[Sequence[str]], texts: Sequence[tuple[str, str | None]]
) -> Entry:
    """Build an entry out of (subject, property, object) and (note, text); outer white space of the parts is dropped.

    Blank texts are left out (the official DART test file has one). Raises DataError, with the file and the entry's
    number, if there is no triple, one not of three parts, or no text.
    """
    where = place(path, number)
    if not triples:
        raise DataError(f"{where}: expected at least one triple, got an empty set. Fill it or drop the entry.")
    parts = []
    for triple in triples:
        stripped = tuple(part.strip() for part in triple)
        if len(stripped) != 3 or not all(stripped):
            raise DataError(f"{where}: expected a subject, a property and an object, got {' | '.join(triple)[:80]!r}.")
        parts.append((stripped[0], stripped[1], stripped[2]))
    if not texts:
        raise DataError(f"{where}: expected at least one text, got none. Is it the file with the references?")
    told = [(note, text) for note, text in texts if text is not None and text.strip()]
    if not told:
        raise DataError(f"{where}: expected a text, got only white space. Fill it or drop the entry.")
    return Entry(path, number, category, tuple(parts), tuple(text for _, text in told), tuple(note for note, _ in told))


def place(path: Path, number: int) -> str:
    """`file: entry 7`, as messages start."""
    return f"{path}: entry {number}"


def read_entries_xml(path: Path) -> Iterator[Entry]:
    """Yield the entries of a file in the WebNLG challenge's XML, triples from `modifiedtripleset`.

    Raises ConfigError for a file that cannot be read, DataError with the line or the entry for its content.
    """
    try:
        root = ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        raise DataError(
            f"{path}:{error.position[0]}: expected XML, got an error: {error}. Fetch the file again."
        ) from None
    nodes = root.findall("./entries/entry")
    if not nodes:
        raise DataError(f"{path}: expected <benchmark> with <entries> of <entry>, got none. Is it the right file?")
    for number, node in enumerate(nodes, 1):
        yield _entry_of_node(path, number, node)


def note_of(comment: str, language: str) -> str:
    """What is noted on a text: its comment, or its language where that is another than English."""
    return comment if language.lower() in ("", "en") else f"lang={language}"


def _entry_of_node(path: Path, number: int, node: Element) -> Entry:
    where = place(path, number)
    for name in ("category", "modifiedtripleset"):
        if (node.get(name) if name == "category" else node.find(name)) is None:
            form = f'the attribute "{name}"' if name == "category" else f"<{name}>"
            raise DataError(f"{where}: expected {form} in <entry>, which has none.")
    triples = [(item.text or "").split(" | ") for item in node.findall("./modifiedtripleset/mtriple")]
    texts = [(note_of(item.get("comment", ""), item.get("lang", "")), item.text) for item in node.findall("lex")]
    return make_entry(path, number, node.attrib["category"], triples, texts)
