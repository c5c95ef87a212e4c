"""From a record to sentences: which facts go together, in which order, in which syntactic role.

`describe` mentions every fact. A `Chooser` makes the choices; with a fixed taste it repeats what it chose before, so
that several records are described in one manner.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import TypeVar

from tools.records.spec import Fact, Record

T = TypeVar("T")
STYLES = ("plain", "formal", "chatty", "telegraphic", "encyclopaedic")
_POSSESSIVE = {"it": "its", "he": "his", "she": "her", "they": "their"}
_AN = re.compile(r"^(?:[aeiou]|8|11\b|18\b|11-|18-|hour|honest|heir)", re.IGNORECASE)
_AN_VALUE = re.compile(r"(^|\b)an? \{v\}")
_NOT_AN = re.compile(r"^(?:uni(?!n)|use|usu|eu|one\b|once|ut[ie])", re.IGNORECASE)


@dataclass(slots=True)
class Chooser:
    """Random choices with an optional memory: the same tag gets the same index with probability `faith`."""

    rng: Random
    faith: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)

    def pick(self, tag: str, options: Sequence[T]) -> T:
        """One option."""
        size = len(options)
        if size == 1:
            return options[0]
        if self.faith:
            known = self.memory.get(tag)
            if known is not None and self.rng.random() < self.faith:
                return options[known % size]
            index = self.memory[tag] = int(self.rng.random() * size)
            return options[index]
        return options[int(self.rng.random() * size)]

    def chance(self, tag: str, probability: float) -> bool:
        """True with the given probability."""
        if self.faith:
            known = self.memory.get(tag)
            if known is not None and self.rng.random() < self.faith:
                return bool(known)
            self.memory[tag] = int(self.rng.random() < probability)
            return bool(self.memory[tag])
        return self.rng.random() < probability


def article(phrase: str) -> str:
    """The phrase with `a` or `an` before it."""
    return ("an " if _AN.match(phrase) and not _NOT_AN.match(phrase) else "a ") + phrase


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _sentence(text: str, end: str = ".") -> str:
    text = capital(text)
    return text if text[-1] in ".!?" else text + end


class _Writer:
    """Writes one description; holds the record and the chooser, nothing else."""

    def __init__(self, record: Record, chooser: Chooser) -> None:
        self.record, self.ch = record, chooser
        self.it, self.its = record.pronoun, _POSSESSIVE[record.pronoun]
        self.which = "who" if record.pronoun != "it" else "which"
        self.is_, self.has = ("are", "have") if self.it == "they" else ("is", "has")

    def _fill(self, form: str, fact: Fact) -> str:
        text = _AN_VALUE.sub(lambda match: match[1] + article(fact.value), form, count=1).replace("{v}", fact.value)
        return (
            text.replace("Its ", capital(self.its) + " ").replace(" its ", f" {self.its} ") if self.it != "it" else text
        )

    def _form(self, fact: Fact, role: str) -> str:
        return self._fill(self.ch.pick(f"{role}:{fact.key}", getattr(fact.forms, role)), fact)

    def verb(self, fact: Fact) -> str:
        return self._form(fact, "verbs")

    def verbs(self, facts: Sequence[Fact]) -> str:
        """`VP`, `VP and VP`, or `VP, VP and VP`; a repeated auxiliary may be dropped."""
        phrases = [self.verb(fact) for fact in facts]
        if len(phrases) == 1:
            return phrases[0]
        first, last = phrases[0].split(" ", 1), phrases[-1].split(" ", 1)
        if len(phrases) == 2 and first[0] == last[0] and len(last) > 1 and first[0] in ("is", "was", "has", "costs"):
            if self.ch.chance("drop", 0.5) and not last[1].startswith("not "):
                phrases[-1] = last[1]
        elif len(phrases) == 2 and self.ch.chance("comma", 0.15):
            return f"{phrases[0]}, and {self.it_verb(phrases[1])}"
        return ", ".join(phrases[:-1]) + " and " + phrases[-1]

    def it_verb(self, phrase: str) -> str:
        if self.it == "they":
            head, _, rest = phrase.partition(" ")
            head = {"is": "are", "was": "were", "has": "have", "does": "do"}.get(head, head)
            return (
                f"they {head} {rest}"
                if head in ("are", "were", "have", "do", "can", "cannot")
                else f"this one {phrase}"
            )
        return f"{self.it} {phrase}"

    def noun_phrase(self, facts: list[Fact]) -> tuple[str, list[Fact], str]:
        """`stone bridge built in 1900 with a span of 30 m`, the facts that found no place, and what goes before it."""
        adjectives: list[str] = []
        parts: list[str] = []
        withs: list[str] = []
        rest: list[Fact] = []
        for fact in facts:
            forms = fact.forms
            if forms.adjectives and len(adjectives) < 1 and self.ch.chance("adj:" + fact.key, 0.75):
                adjectives.append(self._form(fact, "adjectives"))
            elif forms.parts and len(parts) < 2 and not withs and self.ch.chance("part:" + fact.key, 0.7):
                parts.append(self._form(fact, "parts"))
            elif forms.withs and len(withs) < 2 and self.ch.chance("with:" + fact.key, 0.75):
                withs.append(self._form(fact, "withs"))
            else:
                rest.append(fact)
        text = " ".join([*adjectives, self.record.noun])
        if parts:
            text += " " + self.ch.pick("partjoin", (" and ", ", ", " and ")).join(parts)
        if withs:
            text += " with " + " and ".join(withs)
        return text, rest, ""

    def tail(self, rest: list[Fact], body: str) -> str:
        """What is left of a sentence for facts that found no place in the noun phrase."""
        if not rest:
            return ""
        verbs = self.verbs(rest)
        plain = len(body) > len(self.record.noun) + 25
        options = [f", {self.which} {verbs}", f" that {verbs}" if self.which == "which" else f" who {verbs}"]
        return self.ch.pick("tail", options if plain or self.it == "they" else [*options, f" and {verbs}"])

    def intro(self, facts: list[Fact], by_name: bool | None) -> str:
        """The first sentence: names the record and its type."""
        name, noun = self.record.name, self.record.noun
        if name is None:
            return self._nameless(facts)
        kinds = ["is_a"] * 4
        if facts:
            kinds += ["apposition", "apposition"]
        if by_name is not True:
            fronted = [fact for fact in facts if fact.forms.parts]
            other = ["there", "called", "the"] if self.which == "which" else ["called", "the"]
            if fronted:
                other += ["front", "front", "front"]
            kinds = other if by_name is False else kinds + other
        kind = self.ch.pick("intro", kinds)
        if kind == "front" and any(fact.forms.parts for fact in facts):
            head = next(fact for fact in facts if fact.forms.parts)
            body, rest, _ = self.noun_phrase([fact for fact in facts if fact is not head])
            return f"{capital(self._form(head, 'parts'))}, {name} is {article(body)}{self.tail(rest, body)}"
        if kind == "there":
            body, rest, _ = self.noun_phrase(facts[:2])
            relative = f", which {self.verbs(rest + facts[2:])}" if rest + facts[2:] else ""
            return f"There is {article(body)} {self.ch.pick('call', ('called', 'named', 'known as'))} {name}{relative}"
        if kind == "called" and facts:
            split = max(0, len(facts) - 2) if len(facts) > 1 else 0
            body, rest, _ = self.noun_phrase([fact for fact in facts[:split] if fact.forms.adjectives][:1])
            used = facts[:split] if len(body) > len(noun) else []
            left = [
                fact for fact in facts if not (used and fact is next(f for f in facts[:split] if f.forms.adjectives))
            ]
            return (
                f"{capital(article(body))} {self.ch.pick('call', ('called', 'named'))} {name} {self.verbs(rest + left)}"
            )
        if kind == "the" and facts and not name.startswith("The "):
            return f"The {noun} {name} {self.verbs(facts)}"
        if kind == "apposition" and facts:
            body, rest, _ = self.noun_phrase(facts[: len(facts) // 2])
            return f"{name}, {article(body)}, {self.verbs(rest + facts[len(facts) // 2 :])}"
        body, rest, _ = self.noun_phrase(facts)
        return f"{name} is {article(body)}{self.tail(rest, body)}"

    def _nameless(self, facts: list[Fact]) -> str:
        noun = self.record.noun
        if facts and self.ch.chance("this", 0.5):
            return f"{self.ch.pick('det', ('This', 'The'))} {noun} {self.verbs(facts)}"
        body, rest, _ = self.noun_phrase(facts)
        return f"This is {article(body)}{self.tail(rest, body)}"

    def follow(self, facts: list[Fact], formal: bool = False) -> str:
        """A later sentence about the same record."""
        noun = self.record.noun
        subjects = [self.it, self.it, f"the {noun}"] + ([f"this {noun}"] if not formal else [])
        if self.it == "they":
            subjects = [f"the {noun}", f"this {noun}"]
        if self.record.name and not formal and self.ch.rng.random() < 0.12:
            subjects = [self.record.name]
        subject = self.ch.pick("subject", subjects)
        head, rest = facts[0], list(facts[1:])
        if head.forms.sentences and self.ch.chance("sentence:" + head.key, 0.5):
            text = self._form(head, "sentences")
            return text + (f", and {self.it_verb(self.verbs(rest))}" if rest else "")
        if rest and head.forms.parts and self.ch.chance("front", 0.25):
            return f"{self._form(head, 'parts')}, {subject} {self.verbs(rest)}"
        if rest and head.forms.withs and self.ch.chance("withfront", 0.2):
            return f"with {self._form(head, 'withs')}, {subject} {self.verbs(rest)}"
        return f"{subject} {self.verbs(facts)}"


def _split(facts: list[Fact], count: int, rng: Random) -> list[list[Fact]]:
    """Cut the facts into `count` runs, the first perhaps empty, all about equally long."""
    total = len(facts)
    if count <= 1 or total == 0:
        return [facts]
    cuts = (
        sorted(rng.sample(range(0 if rng.random() < 0.2 else 1, total), min(count - 1, total - 1)))
        if total > 1
        else [0]
    )
    bounds = [0, *cuts, total]
    return [facts[a:b] for a, b in pairwise(bounds)]


def _chatty(writer: _Writer, facts: list[Fact]) -> list[str]:
    record, ch = writer.record, writer.ch
    name, noun = record.name or f"this {record.noun}", record.noun
    lead = [fact for fact in facts if fact.forms.adjectives or fact.forms.parts][:1]
    body, rest, _ = writer.noun_phrase(lead)
    others = [fact for fact in facts if fact not in lead] + rest
    openers = (
        f"Looking for {article(body)}? Try {name}!",
        f"If you want {article(body)}, {name} is the one for you.",
        f"Why not try {name}, {article(body)}?",
        f"You will love {name}, {article(body)}!",
        f"Have you heard of {name}? It is {article(body)}.",
        f"Do not miss {name}, {article(body)}.",
    )
    out = [ch.pick("opener", openers)] if writer.which == "which" else [f"Meet {name}, {article(body)}!"]
    while others:
        size = 1 if len(others) == 1 else ch.rng.randint(1, min(3, len(others)))
        out.append(_sentence(writer.follow(others[:size]), "!" if ch.rng.random() < 0.2 else "."))
        others = others[size:]
    if ch.rng.random() < 0.1 and noun:
        out.append(ch.pick("closer", ("What more could you want?", "Enjoy!", "Take a look today.")))
    return out


def _telegraphic(writer: _Writer, facts: list[Fact]) -> list[str]:
    pieces: list[str] = []
    body = writer.record.noun
    for index, fact in enumerate(facts):
        if index == 0 and fact.forms.adjectives:
            body = writer._form(fact, "adjectives") + " " + body
            continue
        roles = [role for role in ("parts", "withs") if getattr(fact.forms, role)]
        pieces.append(writer._form(fact, writer.ch.pick("role:" + fact.key, roles)) if roles else writer.verb(fact))
    glue = writer.ch.pick("glue", (", ", "; ", ", "))
    name = writer.record.name
    head = f"{name}{writer.ch.pick('colon', (': ', ', ', ' - '))}{body}" if name else capital(body)
    return [_sentence(glue.join([head, *pieces]))]


def describe(
    record: Record,
    chooser: Chooser,
    style: str = "plain",
    sentences: int | None = None,
    by_name: bool | None = None,
) -> str:
    """A description of the record.

    `style` is one of `STYLES`; `sentences` asks for a number of sentences (plain, formal and encyclopaedic obey);
    `by_name` asks that the name comes first (True) or does not (False).
    """
    rng = chooser.rng
    writer = _Writer(record, chooser)
    facts = list(record.facts)
    if chooser.faith:
        facts.sort(key=lambda fact: chooser.memory.setdefault("rank:" + fact.key, rng.randrange(1000)))
    elif rng.random() > 0.4:
        rng.shuffle(facts)
    if style == "chatty":
        return " ".join(_chatty(writer, facts))
    if style == "telegraphic":
        return " ".join(_telegraphic(writer, facts))
    total = len(facts)
    if sentences is None:
        sentences = 1 if total <= 2 else rng.choice((1, 2, 2)) if total <= 4 else rng.choice((2, 2, 3))
    groups = _split(facts, sentences, rng)
    first = writer.intro(groups[0], True if style == "encyclopaedic" and by_name is None else by_name)
    out = [_sentence(first)]
    for index, group in enumerate(groups[1:]):
        text = writer.follow(group, formal=style != "plain")
        if style == "formal" and chooser.chance(f"link{index}", 0.5):
            link = chooser.pick(
                "link", ("Moreover", "In addition", "Furthermore", "Additionally", "It may be added that")
            )
            text = text if record.name and text.startswith(record.name) else text[0].lower() + text[1:]
            text = f"{link}{'' if link.endswith('that') else ','} {text}"
        out.append(_sentence(text))
    return " ".join(out)
