"""The pretraining documents: deterministic, complete, and free of what the backbone is evaluated on."""

import re
from pathlib import Path
from random import Random

import pytest

from tools.build_backbone import invented
from tools.build_backbone.documents import END, Books, DocumentMaker, domains
from tools.gazette.generate import SEEN, UNSEEN, categories
from tools.records import names
from tools.records.describe import STYLES, Chooser, article, describe
from tools.records.spec import sample

FORBIDDEN = (
    *SEEN,
    *UNSEEN,
    "restaurant",
    "pub",
    "coffee shop",
    "coffee",
    "café",
    "eattype",
    "food",
    "customer rating",
    "family friendly",
    "familyfriendly",
    "family-friendly",
    "cuisine",
)
BOOKS = Books(
    ("It was a quiet day and nothing much happened in the village until noon. Then it rained.", "The end of it.")
)


def _words(text: str) -> str:
    return re.sub(r"[^a-zà-ÿ]+", " ", text.lower())


@pytest.mark.parametrize(
    "path", sorted(Path(invented.__file__).parent.glob("domains/*.txt")), ids=lambda path: path.name
)
def test_domain_files_hold_nothing_that_is_evaluated(path: Path) -> None:
    text = f" {_words(path.read_text(encoding='utf-8'))} "
    found = [word for word in FORBIDDEN for form in (word, word + "s") if f" {_words(form).strip()} " in text]
    assert not found


def test_word_lists_hold_nothing_that_is_evaluated() -> None:
    lists = (
        invented.KEY_NOUNS,
        invented.ADJECTIVES,
        invented.PARTICIPLES,
        invented.PLURALS,
        names.NOUNS,
        names.ADJECTIVES,
    )
    words = {word.lower() for group in lists for word in group}
    assert not words & set(FORBIDDEN)


def test_most_of_gazettes_keys_are_not_taught() -> None:
    """General keys (near, region, length, built by ...) are shared, most keys are not."""
    pretrained = {key for domain in domains() for attribute in domain.attributes for key in attribute.keys}
    evaluated = {key for domain in categories().values() for attribute in domain.attributes for key in attribute.keys}
    assert len(evaluated & pretrained) < len(evaluated) / 2


def test_invented_types_are_not_evaluated_ones() -> None:
    text = " ".join(
        f"They saw the {word}. Then the {word} of it." for word in ("castle", "zoo", "pub", "idea") for _ in range(9)
    )
    assert DocumentMaker(Books((text,))).words.noun(Random(0)) not in FORBIDDEN
    words = invented.Words((*(f"noun{n}" for n in range(60)), "castle", "pub", "pubs"), frozenset({"castle", "pub"}))
    assert set(words.nouns) == {f"noun{n}" for n in range(60)}


def test_there_are_many_domains() -> None:
    assert len(domains()) >= 45
    for domain in domains():
        assert len(domain.attributes) >= 4, domain.title


def test_documents_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> list[object]:
        stream = DocumentMaker(BOOKS).stream(Random(seed))
        return [next(stream) for _ in range(40)]

    assert first(3) == first(3)
    assert first(3) != first(4)


def test_documents_end_and_do_not_hold_open_braces() -> None:
    stream = DocumentMaker(BOOKS).stream(Random(1))
    for _ in range(2000):
        document = next(stream)
        assert document[-1][0] == END
        assert all("{" not in text and "+" not in text for text, _ in document)


@pytest.mark.parametrize("style", STYLES)
def test_descriptions_mention_the_values(style: str) -> None:
    """At least 97% of the values that a phrasing spells out verbatim, and every name, are in the description."""
    rng = Random(style)
    asked = found = 0
    for _ in range(1500):
        record = sample(rng.choice(domains()), rng, 3, 7)
        text = describe(record, Chooser(rng), style)
        if record.name:
            assert record.name.lower() in text.lower()
        for fact in record.facts:
            if all(
                "{v}" in form
                for group in (fact.forms.verbs, fact.forms.adjectives, fact.forms.sentences)
                for form in group
            ):
                asked += 1
                found += fact.value in text
    assert found >= 0.97 * asked


def test_articles() -> None:
    assert [
        article(text) for text in ("owl", "bridge", "8-seat car", "one-way road", "university", "11-storey house")
    ] == ["an owl", "a bridge", "an 8-seat car", "a one-way road", "a university", "an 11-storey house"]
