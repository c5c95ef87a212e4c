"""Records of invented places with several descriptions each, the same bytes for the same seed."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar

from tools.records.describe import Chooser, describe
from tools.records.names import fill
from tools.records.spec import Domain, Fact, Record, parse_domains

T = TypeVar("T")
SEEN = ("lighthouse", "windmill", "castle", "waterfall", "cave", "dam", "abbey", "aqueduct", "pier", "campsite")
UNSEEN = ("observatory", "canal", "zoo", "cable car", "ferry")
SIZES = {"train": 2000, "dev": 200, "test": 200}
_WEIGHTS = (0.62, 0.27, 0.11)


class Habit(Chooser):
    """A writer with habits: the first option is the usual one, later ones are rarer."""

    __slots__ = ()

    def pick(self, tag: str, options: Sequence[T]) -> T:
        """One option; the introduction is `is_a` more often than not."""
        if tag == "intro":
            kinds = [kind for kind in ("is_a", "front", "apposition") if kind in options]
            options = [option for kind in kinds for option in options if option == kind]
            options = list(dict.fromkeys(options))
        roll = self.rng.random()
        for index, weight in enumerate(_WEIGHTS[: len(options) - 1]):
            roll -= weight
            if roll < 0:
                return options[index]
        return options[len(options) - 1 if len(options) <= 3 else 0]

    def chance(self, tag: str, probability: float) -> bool:
        """True with the given probability, made more decided."""
        if tag.startswith("sentence:"):
            return self.rng.random() < 0.2
        return self.rng.random() < (0.9 if probability >= 0.5 else 0.08)


def categories() -> dict[str, Domain]:
    """The fifteen categories by name."""
    text = (Path(__file__).parent / "categories.txt").read_text(encoding="utf-8")
    return {domain.title: domain for domain in parse_domains(text)}


def make_record(domain: Domain, rng: Random) -> Record:
    """A record of name, type and one to four attributes (two or three mostly), in a shuffled order."""
    name = fill(rng.choice(domain.name_makers), rng)
    count = rng.choices((1, 2, 3, 4), (1, 6, 4, 1))[0]
    facts: list[Fact] = []
    for attribute in rng.sample(domain.attributes, count):
        value = attribute.make(rng)
        facts.append(Fact(attribute.keys[0], value, attribute.forms_of(value)))
    fields = (("name", name), ("type", domain.nouns[0]), *((fact.key, fact.value) for fact in facts))
    return Record(domain.nouns[0], name, fields, tuple(facts), "it", domain)


def make_target(record: Record, rng: Random) -> str:
    """One description; facts come in the category's usual order, with a little disorder."""
    assert record.domain is not None
    order = {attribute.keys[0]: index for index, attribute in enumerate(record.domain.attributes)}
    memory = {f"rank:{key}": 10 * index + rng.randrange(16) for key, index in order.items()}
    total = len(record.facts)
    sentences = 1 if total <= 2 else 2
    if total in (2, 3) and rng.random() < 0.15:
        sentences = 3 - sentences
    return describe(record, Habit(rng, faith=1.0, memory=memory), "plain", sentences)


def _targets(record: Record, rng: Random, count: int) -> list[str] | None:
    found: dict[str, None] = {}
    for _ in range(60):
        found.setdefault(make_target(record, rng))
        if len(found) == count:
            return list(found)
    return None


def build(split: str, seed: int, used: set[str]) -> Iterator[dict[str, object]]:
    """The lines of one split; `used` collects names, which never occur twice."""
    rng = Random(f"gazette/{seed}/{split}")
    table = categories()
    size, made = SIZES[split], 0
    while made < size:
        kinds = UNSEEN if split == "test" and made >= size // 2 else SEEN
        record = make_record(table[kinds[made % len(kinds)]], rng)
        targets = _targets(record, rng, 3 if split == "train" else rng.choice((4, 5)))
        if record.name is None or record.name in used or targets is None:
            continue
        used.add(record.name)
        made += 1
        yield {
            "id": f"{split}-{made:05d}",
            "category": record.noun,
            "seen": record.noun in SEEN,
            "source": " | ".join(f"{key} : {value}" for key, value in record.fields),
            "targets": targets,
        }


def write(out: Path, seed: int) -> dict[str, str]:
    """Write train, dev and test to `out`; returns the sha256 of each file."""
    out.mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    digests: dict[str, str] = {}
    for split in ("test", "dev", "train"):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in build(split, seed, used))
        (out / f"{split}.jsonl").write_bytes(text.encode())
        digests[split] = hashlib.sha256(text.encode()).hexdigest()
    return digests
