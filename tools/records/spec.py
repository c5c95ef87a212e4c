"""Domains of records, read from compact text.

One block a domain::

    [bridge] bridge|footbridge|railway bridge
    name: <word> Bridge|The <adj> Crossing
    use: place                                   (attributes of another block, shared)
    built|year built = year 1800 2015 : was +built in {v}; dates from {v}; =Its first stone was laid in {v}
    lit = yn : is lit at night; ^floodlit // is not lit at night
    cost = map : cheap> ^cheap; costs little // high> ^expensive; costs a lot

A form is a verb phrase; `was +built` marks the auxiliary that a participle drops, `spans~spanning {v}` gives both
spellings; `@x` is a noun phrase for "with x" and "has x"; `^x` stands before the noun; `=x` is a whole sentence.
"""

from dataclasses import dataclass, field
from random import Random

from tools.records import names
from tools.records.values import Maker, compile_value


@dataclass(frozen=True, slots=True)
class Forms:
    """The phrasings of one attribute (or of one of its values) by syntactic role."""

    verbs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    withs: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attribute:
    """Keys, a maker of values and the forms, by value where `by_value` is not empty."""

    keys: tuple[str, ...]
    make: Maker
    forms: Forms
    by_value: dict[str, Forms] = field(default_factory=dict)

    def forms_of(self, value: str) -> Forms:
        """The forms for a value."""
        return self.by_value.get(value, self.forms)


@dataclass(frozen=True, slots=True)
class Domain:
    """A type of record."""

    title: str
    nouns: tuple[str, ...]
    name_makers: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    personal: bool = False
    optional_type: bool = True


@dataclass(frozen=True, slots=True)
class Fact:
    """One attribute of one record."""

    key: str
    value: str
    forms: Forms


@dataclass(frozen=True, slots=True)
class Record:
    """One record: `fields` is what is written, `facts` is what is described beside name and type."""

    noun: str
    name: str | None
    fields: tuple[tuple[str, str], ...]
    facts: tuple[Fact, ...]
    pronoun: str = "it"
    domain: Domain | None = None


def parse_forms(text: str) -> Forms:
    """Read `;`-separated forms; raises ValueError when only adjectives are given."""
    roles: dict[str, list[str]] = {"v": [], "p": [], "w": [], "a": [], "s": []}
    for form in (piece.strip() for piece in text.split(";") if piece.strip()):
        if form[0] == "@":
            roles["w"].append(form[1:])
        elif form[0] == "^":
            roles["a"].append(form[1:])
        elif form[0] == "=":
            roles["s"].append(form[1:])
        elif "+" in form:
            roles["v"].append(form.replace("+", "", 1))
            head, _, rest = form.partition("+")
            roles["p"].append(("not " if head.endswith("not ") else "") + rest)
        elif "~" in form.split(" ", 1)[0]:
            head, _, rest = form.partition(" ")
            verb, part = head.split("~")
            roles["v"].append(f"{verb} {rest}".strip())
            roles["p"].append(f"{part} {rest}".strip())
        else:
            roles["v"].append(form)
    if not (roles["v"] or roles["w"]):
        raise ValueError(f"expected a verb phrase or a with-phrase, got {text!r}")
    verbs = roles["v"] + ["has " + item for item in roles["w"]]
    return Forms(tuple(verbs), tuple(roles["p"]), tuple(roles["w"]), tuple(roles["a"]), tuple(roles["s"]))


def _attribute(line: str) -> Attribute:
    head, _, body = line.partition(" = ")
    keys = tuple(key.strip() for key in head.split("|"))
    value, _, forms = body.partition(" : ")
    value = value.strip()
    if value == "yn":
        yes, _, no = forms.partition(" // ")
        table = {"yes": parse_forms(yes), "no": parse_forms(no)}
        return Attribute(keys, lambda rng: "yes" if rng.random() < 0.55 else "no", table["yes"], table)
    if value == "map":
        table = {}
        for part in forms.split(" // "):
            label, _, phrases = part.partition("> ")
            table[label.strip()] = parse_forms(phrases)
        labels = list(table)
        return Attribute(keys, lambda rng: rng.choice(labels), table[labels[0]], table)
    return Attribute(keys, compile_value(value), parse_forms(forms))


def parse_domains(text: str) -> list[Domain]:
    """All domains of a specification; a block whose title begins with `@` is only shared by `use:`."""
    shared: dict[str, list[Attribute]] = {}
    found: list[Domain] = []
    for block in text.split("\n[")[1:]:
        head, *lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
        title, _, nouns = head.partition("]")
        makers: tuple[str, ...] = ("<proper>",)
        attributes: list[Attribute] = []
        personal = False
        for line in lines:
            if line.startswith("name:"):
                makers = tuple(item.strip() for item in line[5:].split("|"))
            elif line.startswith("use:"):
                for group in line[4:].split():
                    attributes += shared[group]
            elif line.strip() == "person":
                personal = True
            else:
                try:
                    attributes.append(_attribute(line))
                except (KeyError, IndexError, ValueError) as error:
                    raise ValueError(f"in the block [{title}], line {line!r}: {error}") from error
        if title.startswith("@"):
            shared[title[1:]] = attributes
        else:
            options = tuple(noun.strip() for noun in nouns.split("|"))
            found.append(Domain(title, options, makers, tuple(attributes), personal))
    return found


_NAME_KEYS = ("name",) * 8 + ("Name", "title", "called", "label")
_TYPE_KEYS = ("type",) * 7 + ("Type", "kind", "category", "is a", "class")


def sample(domain: Domain, rng: Random, low: int = 2, high: int = 8, keep_order: bool = False) -> Record:
    """A fresh record of `low` to `high` fields, name and type included."""
    name = names.fill(rng.choice(domain.name_makers), rng) if rng.random() < 0.95 else None
    noun = rng.choice(domain.nouns) if rng.random() < 0.6 else domain.nouns[0]
    with_type = not domain.optional_type or name is None or rng.random() < 0.85
    if not with_type:
        noun = domain.nouns[0]
    count = rng.randint(low, high) - (name is not None) - with_type
    count = max(1, min(count, len(domain.attributes)))
    chosen = rng.sample(domain.attributes, count)
    facts: list[Fact] = []
    seen: set[str] = set()
    for attribute in chosen:
        key = attribute.keys[0] if rng.random() < 0.5 else rng.choice(attribute.keys)
        if key in seen:
            continue
        seen.add(key)
        value = attribute.make(rng)
        facts.append(Fact(key, value, attribute.forms_of(value)))
    fields = [(fact.key, fact.value) for fact in facts]
    if with_type:
        fields.insert(0 if rng.random() < 0.8 else rng.randint(0, len(fields)), (rng.choice(_TYPE_KEYS), noun))
    if name is not None:
        fields.insert(
            0 if keep_order or rng.random() < 0.85 else rng.randint(0, len(fields)), (rng.choice(_NAME_KEYS), name)
        )
    pronoun = names.pronoun_of(name) if domain.personal and name else "they" if domain.personal else "it"
    return Record(noun, name, tuple(fields), tuple(facts), pronoun, domain)
