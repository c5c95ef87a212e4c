"""Pretraining documents: book passages, and records followed by one of many continuations.

Everything is drawn from a `random.Random`, so the stream is a function of its seed. A document is a list of segments
`(text, weight)`; the weight multiplies the training loss of the segment's tokens (records are noise to be copied, not
predicted, and weigh little).
"""

import lzma
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from tools.build_backbone.instructions import describe_instruction, other_instruction
from tools.build_backbone.invented import EXCLUDED, Words, invented_record
from tools.gazette.generate import SEEN, UNSEEN
from tools.records.describe import STYLES, Chooser, describe
from tools.records.spec import Domain, Record, parse_domains, sample

END = "<|endoftext|>"
RECORD_WEIGHT = 0.2
Segment = tuple[str, float]
FREE_KINDS = (
    ("describe", 0.22),
    ("keys", 0.28),
    ("question", 0.11),
    ("another", 0.11),
    ("count", 0.08),
    ("type", 0.06),
    ("prose", 0.14),
)
ASKED_KINDS = (
    ("describe", 0.72),
    ("keys", 0.07),
    ("question", 0.07),
    ("another", 0.04),
    ("count", 0.03),
    ("type", 0.03),
    ("prose", 0.04),
)


@cache
def domains() -> tuple[Domain, ...]:
    """All hand-written pretraining domains."""
    found: list[Domain] = []
    for path in sorted((Path(__file__).parent / "domains").glob("*.txt")):
        found += parse_domains(path.read_text(encoding="utf-8"))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Books:
    """Paragraphs of books, in reading order."""

    paragraphs: tuple[str, ...]

    def nouns(self, least: int = 6) -> tuple[str, ...]:
        """Words that stand between an article and `of` or a stop at least `least` times: nouns, as good as always."""
        pattern = re.compile(r"\b(?:the|a|an) ([a-z]{3,11})(?= of\b|[.,;])")
        counts = Counter(word for line in self.paragraphs for word in pattern.findall(line))
        return tuple(
            sorted(word for word, count in counts.items() if count >= least and (word[-1] != "s" or word[-2:] == "ss"))
        )

    @classmethod
    def load(cls, path: Path) -> "Books":
        """Read an xz-packed text with one paragraph a line."""
        with lzma.open(path, "rt", encoding="utf-8") as stream:
            return cls(tuple(line.strip() for line in stream))

    def passage(self, rng: Random, characters: int) -> str:
        """Consecutive paragraphs of at least `characters` characters, cut at the end of a sentence where possible."""
        index = rng.randrange(len(self.paragraphs))
        out: list[str] = []
        size = 0
        while size < characters:
            line = self.paragraphs[index % len(self.paragraphs)]
            index += 1
            if line:
                out.append(line)
                size += len(line)
            elif out:
                break
        text = "\n".join(out)
        if len(text) > 2 * characters:
            cut = text.find(". ", characters)
            text = text[: cut + 1] if 0 < cut < 2 * characters else text[: 2 * characters]
        return text

    def snippet(self, rng: Random) -> str:
        """One to four consecutive words."""
        for _ in range(4):
            words = rng.choice(self.paragraphs).split()
            if len(words) > 8:
                start = rng.randrange(len(words) - 4)
                text = " ".join(words[start : start + rng.randint(1, 4)]).strip(".,;:!?\"'()[]_-*|=")
                if text and not set(text) & set("|.;:!?[]*="):
                    return text
        return "something"


def _choose(rng: Random, table: tuple[tuple[str, float], ...]) -> str:
    roll = rng.random()
    for kind, share in table:
        roll -= share
        if roll < 0:
            return kind
    return table[-1][0]


def linearise(record: Record, rng: Random) -> str:
    """The record as text, mostly ` key : value | key : value `."""
    fields = list(record.fields)
    roll, case = rng.random(), rng.random()
    if case < 0.06:
        fields = [(key.title(), value) for key, value in fields]
    elif case < 0.10:
        fields = [(key.replace(" ", "_"), value) for key, value in fields]
    if roll < 0.80 or record.name is None:
        return " " + " | ".join(f"{key} : {value}" for key, value in fields) + " "
    if roll < 0.90:
        subject = record.name.replace(" ", "_") if rng.random() < 0.5 else record.name
        rest = [(key, value) for key, value in fields if value != record.name] or fields
        return " " + " ".join(f"| {subject} : {key.replace(' ', '_')} : {value}" for key, value in rest) + " "
    if roll < 0.95:
        return " " + ", ".join(f"{key}: {value}" for key, value in fields) + " "
    return " " + ", ".join(f"{key}[{value}]" for key, value in fields) + " "


def question(record: Record, rng: Random) -> tuple[str, str]:
    """A question about one field, and the field's key."""
    key = rng.choice(record.fields)[0]
    thing = (
        record.name
        if record.name and key not in ("name", "Name", "title", "called", "label")
        else f"this {record.noun}"
    )
    options = (
        f"What is the {key} of {thing}?",
        f"What is said about the {key}?",
        f"Which {key} is given?",
        f"Can you tell me the {key} of {thing}?",
    )
    return rng.choice(options), key


class DocumentMaker:
    """Draws documents; holds the books and the domains."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.domains = domains()
        self.spot = next(item for item in self.domains if item.title == "spot")
        self.borrowed = self.spot.attributes
        self.words = Words(books.nouns(), EXCLUDED | {word for kind in (*SEEN, *UNSEEN) for word in kind.split()})

    def record(self, rng: Random, domain: Domain | None = None) -> Record:
        """A fresh record, invented types included."""
        if domain is None and rng.random() < 0.4:
            return invented_record(rng, self.borrowed, self.books.snippet(rng), self.words)
        if domain is None:
            domain = self.spot if rng.random() < 0.04 else rng.choice(self.domains)
        return sample(domain, rng, 3 if rng.random() < 0.85 else 2, 8)

    def _continuation(self, kind: str, record: Record, rng: Random, free: bool) -> tuple[str, str]:
        """The continuation and, for the asked case, its instruction."""
        if kind == "describe":
            style = "plain" if rng.random() < 0.5 else rng.choice(STYLES)
            sentences = by_name = None
            if style in ("plain", "formal", "encyclopaedic"):
                sentences = rng.choice((1, 1, 2, 2, 3)) if rng.random() < 0.7 else None
                by_name = rng.choice((True, False)) if rng.random() < 0.3 and record.name else None
            if sentences:
                sentences = min(sentences, max(1, len(record.facts)))
            text = describe(record, Chooser(rng), style, sentences, by_name)
            return text, "" if free else describe_instruction(rng, style, sentences, by_name)
        text, key = "", ""
        if kind == "keys":
            text = " , ".join(key for key, _ in record.fields)
        elif kind == "question":
            text, key = question(record, rng)
        elif kind == "another":
            text = linearise(self.record(rng, record.domain), rng).strip()
        elif kind == "count":
            text = f"{len(record.fields)} fields"
        elif kind == "type":
            text = record.noun
        else:
            text = self.books.passage(rng, rng.randint(60, 300))
        return text, "" if free else other_instruction(rng, kind, key)

    def record_document(self, rng: Random, kind: str | None = None, free: bool | None = None) -> list[Segment]:
        """A record and one continuation; `kind` and `free` (no instruction) are drawn when None."""
        free = rng.random() < 0.42 if free is None else free
        kind = kind or _choose(rng, FREE_KINDS if free else ASKED_KINDS)
        record = self.record(rng)
        source = linearise(record, rng)
        text, instruction = self._continuation(kind, record, rng, free)
        if instruction:
            source = instruction + ("\n" if rng.random() < 0.6 else "") + source
        separator = END if rng.random() < 0.85 else "\n"
        return [(source, RECORD_WEIGHT), (separator, 1.0), (f" {text} ", 1.0), (END, 1.0)]

    def group(self, rng: Random) -> list[Segment]:
        """Two to five records of one domain, described in one manner, one after the other; the first is asked for."""
        domain = rng.choice(self.domains)
        chooser = Chooser(rng, faith=0.92)
        style = "plain" if rng.random() < 0.6 else rng.choice(STYLES)
        sentences = rng.choice((None, 1, 2))
        by_name = rng.choice((None, True, False))
        few = rng.sample(domain.attributes, min(len(domain.attributes), rng.randint(3, 6)))
        narrow = Domain(domain.title, domain.nouns[:1], domain.name_makers, tuple(few), domain.personal, False)
        out: list[Segment] = []
        instruction = describe_instruction(
            rng, style, None if style in ("chatty", "telegraphic") else sentences, by_name
        )
        for index in range(rng.randint(2, 5)):
            record = sample(narrow, rng, 3, 6)
            source = " " + " | ".join(f"{key} : {value}" for key, value in record.fields) + " "
            if index == 0:
                source = instruction + ("\n" if rng.random() < 0.6 else "") + source
            text = describe(record, chooser, style, sentences, by_name if record.name else None)
            out += [(source, RECORD_WEIGHT), (END, 1.0), (f" {text} ", 1.0), (END, 1.0)]
        return out

    def stream(self, rng: Random, book_share: float = 0.35) -> Iterator[list[Segment]]:
        """Endless documents with `book_share` of the characters from plain book passages."""
        book_size, size = 0, 1
        while True:
            if book_size < book_share * size:
                text = self.books.passage(rng, rng.randint(200, 900))
                document = [(text, 1.0), (END, 1.0)]
                book_size += len(text)
            elif rng.random() < 0.08:
                document = self.group(rng)
            else:
                document = self.record_document(rng)
            size += sum(len(text) for text, _ in document if text != END)
            yield document
