"""Records of invented types with invented keys, so that a model learns to put any key and value into words."""

from random import Random

from tools.records import names
from tools.records.spec import Attribute, Fact, Record, parse_forms

KEY_NOUNS = names.split(
    """
    tone pitch grain depth pulse rank grade order phase shade texture origin purpose owner keeper guard rule
    symbol motto badge number code index level layer band ring tail head core shell skin root leaf branch seed
    fruit nest trail track voice accent rhythm tempo theme plot scene role rival friend partner sponsor donor
    patron founder maker tester judge volume pressure charge voltage current density purity strength stiffness
    range reach span width girth radius angle slope gradient speed pace delay period cycle season term deadline
    quota limit budget reserve deposit stake share yield profit loss debt tax tariff bonus reward prize penalty
    risk threat enemy weakness habit custom ritual feast dress hat coat shoe belt button pocket handle lid base
    frame hinge lock key engine motor valve pump filter tank pipe wire switch sensor screen font format protocol
    port channel signal region sector zone quarter ward block floor room desk shelf
    """
)
ADJECTIVES = names.split(
    """
    portable fragile public private sacred heated cooled sealed open closed tame wild rare common popular safe
    dangerous legal secret famous forgotten modern ancient restored damaged complete unfinished movable fixed
    visible hidden quiet loud useful harmless valuable worthless renewable recyclable soluble flexible rigid
    hollow solid striped spotted bright
    """
)
PARTICIPLES = names.split(
    """
    kept found used held grown sold opened closed owned guarded tested painted built made shown seen taught sung
    worn carried stored cooked brewed carved woven printed signed checked repaired hunted planted collected traded
    hired hidden
    """
)
PREPOSITIONS = names.split(
    """
    by in at for near with since under on
    """
)
PLURALS = names.split(
    """
    wheels legs arms wings eyes teeth horns spots stripes rings doors windows rooms floors towers keys strings pipes
    buttons pages chapters verses voices members owners guards prisoners pupils rules levels layers colours sides
    corners
    """
)
PLURAL_THINGS = names.split(
    """
    bells, boats, horses, drums, flags, ghosts, gifts, goats, guests, hats, jokes, kites, ladders, lessons,
    lockers, maps, masks, medals, mirrors, night shifts, parades, pigeons, prizes, puppets, refunds, rabbits,
    rehearsals, sheep, speeches, spare parts, stairs, statues, stickers, toys, trophies, uniforms, volunteers,
    whistles, running water, electric light, fresh air, spare time, good acoustics, loud music, free samples,
    printed copies, evening shifts, secret doors
    """,
    ",",
)
VERBS = names.split(
    """
    sells/selling buys/buying guards/guarding feeds/feeding paints/painting repairs/repairing collects/collecting
    teaches/teaching borders/bordering faces/facing follows/following supports/supporting prints/printing
    imports/importing exports/exporting grows/growing hosts/hosting leads_to/leading_to depends_on/depending_on
    looks_like/looking_like turns_into/turning_into replaces/replacing resembles/resembling contains/containing
    produces/producing eats/eating catches/catching protects/protecting attracts/attracting imitates/imitating
    measures/measuring opens_onto/opening_onto comes_from/coming_from lives_on/living_on works_with/working_with
    rests_against/resting_against plays/playing runs_between/running_between separates/separating helps/helping
    cuts/cutting cleans/cleaning heats/heating
    """
)
PHRASES = names.split(
    """
    on sale, under repair, in fashion, on display, in motion, under guard, at risk, on fire, in stock, on time, in
    danger, out of print, under water, for rent, in season, open to members, closed to visitors, fit for winter,
    ready for use, hidden in summer, lit at night, covered in snow, known abroad, full of holes, free of charge,
    free of dust, made to last
    """,
    ",",
)
EXCLUDED = frozenset(
    names.split("restaurant pub coffee cafe food cuisine customer family friendly eattype inn tavern dinner meal")
)
_UNITS = names.split(
    """
    m km cm kg g tons hours days weeks years litres degrees points marks volts watts bars inches feet miles %
    """
)


def _value(rng: Random, snippet: str) -> str:
    kind = rng.randrange(10)
    if kind == 0:
        return snippet
    if kind == 1:
        return names.person(rng)
    if kind == 2:
        return names.place(rng)
    if kind == 3:
        return f"{rng.randint(2, 999)} {rng.choice(_UNITS)}"
    if kind == 4:
        return str(rng.randint(2, 9999))
    if kind == 5:
        return f"{rng.choice(names.ADJECTIVES).lower()} {rng.choice(names.NOUNS).lower()}"
    if kind == 6:
        return names.syllables(rng, 1, 3).lower()
    if kind == 7:
        return names.code(rng)
    if kind == 8:
        return rng.choice(names.ADJECTIVES).lower()
    return names.proper(rng)


class Words:
    """Nouns for types, keys and names: common nouns of the books, without what the backbone is evaluated on."""

    def __init__(self, nouns: tuple[str, ...], excluded: frozenset[str] = EXCLUDED) -> None:
        found = tuple(noun for noun in nouns if noun not in excluded and noun.removesuffix("s") not in excluded)
        self.nouns = found if len(found) >= 50 else tuple(noun.lower() for noun in names.NOUNS)

    def noun(self, rng: Random) -> str:
        """A noun in small letters."""
        return names.pick(rng, self.nouns)

    def name(self, rng: Random) -> str:
        """A name of one or two capitalised nouns."""
        first, second = self.noun(rng).title(), self.noun(rng).title()
        adjective = rng.choice(names.ADJECTIVES)
        options = (
            f"The {first}",
            f"{adjective} {first}",
            f"The {adjective} {first}",
            f"{first} {second}",
            first,
            f"The {first} {second}",
        )
        return rng.choice(options)


def _article(key: str) -> str:
    return ("an " if key[0] in "aeiou" else "a ") + key


def _key_noun(rng: Random, words: Words) -> str:
    roll = rng.random()
    if roll < 0.25:
        return rng.choice(KEY_NOUNS)
    if roll < 0.55:
        return words.noun(rng)
    if roll < 0.7:
        return f"{rng.choice(KEY_NOUNS)} {rng.choice(KEY_NOUNS)}"
    if roll < 0.9:
        return f"{words.noun(rng)} {rng.choice(KEY_NOUNS)}"
    return names.syllables(rng, 1, 3).lower()


def _of_noun(rng: Random, snippet: str, words: Words) -> Fact:
    key, value = _key_noun(rng, words), _value(rng, snippet)
    some = _article(key)
    forms = parse_forms(
        f"@{some} of {{v}}; @{some} of {{v}}; has {{v}} as its {key}; =Its {key} is {{v}}; =Its {key} is {{v}}; "
        f"=The {key} is {{v}}; lists~listing {{v}} as its {key}; @{{v}} as its {key}"
    )
    return Fact(key, value, forms)


def _of_participle(rng: Random, snippet: str) -> Fact:
    word, preposition = rng.choice(PARTICIPLES), rng.choice(PREPOSITIONS)
    if rng.random() < 0.15:
        word = rng.choice(("first ", "last ", "best ")) + word
    value = {"by": names.person, "since": lambda r: str(r.randint(1200, 2020))}.get(
        preposition, lambda r: names.proper(r) if r.random() < 0.5 else _value(r, snippet)
    )(rng)
    if preposition == "in" and rng.random() < 0.6:
        value = str(rng.randint(1100, 2024))
        key = word if rng.random() < 0.6 else f"{word} in"
        return Fact(key, value, parse_forms(f"was +{word} in {{v}}; was +{word} in {{v}}; =It was {word} in {{v}}"))
    key = f"{word} {preposition}"
    form = (
        f"has been +{key} {{v}}" if preposition == "since" else f"was +{key} {{v}}; is +{key} {{v}}; =It is {key} {{v}}"
    )
    return Fact(key, value, parse_forms(form))


def _of_verb(rng: Random, snippet: str, words: Words) -> Fact:
    third, ing = rng.choice(VERBS).replace("_", " ").split("/")
    value = words.noun(rng) if rng.random() < 0.4 else _value(rng, snippet)
    head, _, rest = third.partition(" ")
    form = f"{head}~{ing.split(' ')[0]} {rest} {{v}}".replace("  ", " ")
    return Fact(third, value, parse_forms(f"{form}; {form}; =It {third} {{v}}"))


def _of_adjective(rng: Random) -> Fact:
    if rng.random() < 0.5:
        key = rng.choice(PHRASES)
        if rng.random() < 0.55:
            return Fact(key, "yes", parse_forms(f"is +{key}; is {key}; =It is {key}"))
        return Fact(key, "no", parse_forms(f"is not +{key}; is not {key}; =It is not {key}"))
    key = rng.choice(ADJECTIVES)
    if rng.random() < 0.55:
        return Fact(key, "yes", parse_forms(f"is {key}; ^{key}; =It is {key}"))
    return Fact(key, "no", parse_forms(f"is not {key}; is +not {key}; =It is not {key}"))


def _of_thing(rng: Random, words: Words) -> Fact:
    if rng.random() < 0.5:
        key = some = rng.choice(PLURAL_THINGS).replace("_", " ")
    else:
        key = rng.choice(KEY_NOUNS) if rng.random() < 0.4 else words.noun(rng)
        key = f"{words.noun(rng)} {key}" if rng.random() < 0.3 else key
        some = _article(key)
    if rng.random() < 0.55:
        return Fact(
            key,
            "yes",
            parse_forms(f"@{some}; @{some}; comes~coming with {some}; offers~offering {some}; =It has {some}"),
        )
    return Fact(
        key,
        "no",
        parse_forms(f"@no {key}; @no {key}; does not have {some}; comes~coming without {some}; =It has no {key}"),
    )


def _of_count(rng: Random, words: Words) -> Fact:
    key = rng.choice(PLURALS) if rng.random() < 0.4 else words.noun(rng).removesuffix("s") + "s"
    value = (
        str(rng.randint(2, 900))
        if rng.random() < 0.7
        else rng.choice(("two", "three", "four", "five", "six", "seven", "eight"))
    )
    return Fact(key, value, parse_forms(f"@{{v}} {key}; @{{v}} {key}; =It has {{v}} {key}; =There are {{v}} {key}"))


def _noun(rng: Random, words: Words) -> str:
    roll = rng.random()
    noun = names.syllables(rng, 1, 3).lower() if roll < 0.2 else words.noun(rng)
    return f"{words.noun(rng)} {noun}" if rng.random() < 0.2 else noun


def _fact(rng: Random, borrowed: tuple[Attribute, ...], snippet: str, words: Words) -> Fact:
    roll = rng.random()
    if roll < 0.22:
        return _of_noun(rng, snippet, words)
    if roll < 0.42:
        return _of_participle(rng, snippet)
    if roll < 0.52:
        return _of_verb(rng, snippet, words)
    if roll < 0.60:
        return _of_adjective(rng)
    if roll < 0.70:
        return _of_thing(rng, words)
    if roll < 0.78:
        return _of_count(rng, words)
    attribute = rng.choice(borrowed)
    value = attribute.make(rng)
    key = attribute.keys[0] if rng.random() < 0.5 else rng.choice(attribute.keys)
    return Fact(key, value, attribute.forms_of(value))


def invented_record(
    rng: Random,
    borrowed: tuple[Attribute, ...],
    snippet: str,
    words: Words,
    noun: str | None = None,
) -> Record:
    """A record whose type and keys exist nowhere else; some attributes are borrowed from a real domain."""
    noun = noun or _noun(rng, words)
    name = words.name(rng) if rng.random() < 0.45 else names.proper(rng)
    if rng.random() < 0.2:
        name = f"{names.town(rng)} {noun.title()}" if rng.random() < 0.7 else f"{names.surname(rng)}'s {noun.title()}"
    facts: list[Fact] = []
    for _ in range(rng.randint(2, 5)):
        fact = _fact(rng, borrowed, snippet, words)
        if all(fact.key != other.key for other in facts):
            facts.append(fact)
    fields = [(fact.key, fact.value) for fact in facts]
    type_key = "type" if rng.random() < 0.7 else rng.choice(("kind", "Type", "category"))
    fields.insert(0 if rng.random() < 0.85 else rng.randint(0, len(fields)), (type_key, noun))
    name_key = "name" if rng.random() < 0.85 else "title"
    fields.insert(0 if rng.random() < 0.85 else rng.randint(0, len(fields)), (name_key, name))
    return Record(noun, name, tuple(fields), tuple(facts))
