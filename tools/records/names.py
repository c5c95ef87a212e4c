"""Makers of names: words from syllables, two-word English names, people and places.

Every function takes a `random.Random` and returns a string, so that equal seeds give equal names.
"""

from collections.abc import Callable, Sequence
from random import Random


def split(text: str, mark: str | None = None) -> list[str]:
    """The items of a list written as text."""
    return [" ".join(item.split()) for item in text.split(mark)]


_ONSETS = split(
    """
    b br c ch cl cr d dr f fl fr g gl gr h j k kr l m n p pl pr qu r s sc sh sk sl sn st str t th tr v w z y
    """
)
_VOWELS = split(
    """
    a a a e e e i i o o u ai ea ee ie oa ou au io
    """
)
_CODAS = split(
    """
    n n r r l l s t d m k th nd rn rd lt ck st ng sh x v
    """
)
_ENDS_SOFT = split(
    """
    a ia o i e is us en on ar el ina ora ello etta ique eau
    """
)
_TOWN_ENDS = split(
    """
    ton ham ford bury by wick worth field mouth stead dale minster hurst combe well bridge haven ley stoke burgh
    thorpe gate den ness wold heim stad dorf ville court mont
    """
)
_FOREIGN = split(
    """
    Château Théâtre Maison Città Plaza Palácio Jardín Señora Ångström Øster Västra Größe München Čapek Łódź Márquez
    Peña São Île Côte Étoile Élan Crème Façade Noël Zoë Müller Søren Gårda Niño Açaí Brontë
    """
)

ADJECTIVES = split(
    """
    Old New Red Blue Green White Black Golden Silver Crimson Amber Grey Scarlet Violet Broken Hidden Silent Quiet
    Bright Wild Merry Happy Little Great Grand High Low Long Short Deep Upper Lower North South East West Royal
    Noble Humble Proud Lonely Lucky Swift Slow Brave Gentle Frozen Burning Misty Sunny Stormy Windy Rainy Frosty
    Crooked Hollow Painted Gilded Rusty Polished Ancient Modern Secret Sacred Second Third Twin Double Lost Last
    First Final Open Blind Sleepy Restless Dancing Singing Running Flying Falling Rising Wandering Laughing Iron
    Copper Bronze Marble Ivory Velvet Cotton Paper Wooden Stone Glass Winter Summer Autumn Spring Midnight Morning
    """
)
NOUNS = split(
    """
    Eagle Lion Fox Wolf Bear Stag Hare Otter Badger Heron Raven Swan Falcon Owl Kestrel Dolphin Whale Salmon Trout
    Horse Hound Bull Lamb Goose Dragon Griffin Phoenix Unicorn Rose Lily Thistle Clover Ivy Oak Elm Ash Willow Birch
    Maple Cedar Pine Hazel Orchard Meadow Field Forest Grove Hill Valley Mountain River Brook Lake Shore Harbour
    Island Cliff Bay Moor Heath Marsh Star Moon Sun Cloud Rainbow Thunder Lightning Snow Frost Wind Storm Tide Wave
    Crown Sceptre Throne Sword Shield Arrow Bell Anchor Compass Lantern Candle Mirror Key Wheel Barrel Bottle Basket
    Feather Ribbon Thread Needle Hammer Anvil Plough Cart Wagon Boat Sail Oar Net King Queen Prince Duke Bishop
    Knight Miller Smith Baker Weaver Potter Shepherd Sailor Soldier Pilgrim Traveller Stranger Juggler Piper Fiddler
    Drum Trumpet Harp Violin Garden Gate Arch Tower Chapel Cottage Corner Square Road Lane Path Stair Window Chimney
    Cellar Vault Treasure Jewel Pearl Diamond Ruby Emerald Sapphire Opal Apple Cherry Plum Pear Acorn Chestnut
    Walnut Pepper Ginger Saffron Honey Sugar Barley Wheat Poet Painter Dreamer Promise Journey Memory Shadow Whisper
    Echo Song Dance Secret Riddle Puzzle Letter Story Chapter Voyage Harvest Holiday Sunday Victory Glory Fortune
    Liberty Union Empire
    """
)
FEMALE = split(
    """
    Alice Anna Beatrice Clara Dora Edith Eleanor Emma Fiona Freya Grace Hannah Helen Ines Irene Ivy Jane Julia Karin
    Laura Leila Lena Lucy Maria Marta Mei Mina Nadia Nora Olga Paula Priya Rosa Ruth Sara Sofia Tamar Ursula Vera
    Wanda Yuki Zara Aïcha Chloé Éva Łucja Márta Noémie Renée Søs Thérèse Amara Bridget Constance Deborah Elif Fatima
    Gwen
    """
)
MALE = split(
    """
    Adam Albert Anton Arthur Boris Carl Daniel David Edward Emil Felix Finn Frank George Hans Henry Hugo Ivan Jack
    Jacob James John Karl Kenji Leo Lewis Liam Louis Mark Martin Max Mohamed Nikolai Oliver Omar Oscar Otto Paul
    Peter Rafael Ravi Robert Samuel Simon Stefan Thomas Victor Walter William Yusuf Zoltan André Björn Émile Jörg
    José Łukasz Nuño René Tomáš Ali Bruno Cyril Dmitri Ethan Giorgio
    """
)
_SURNAMES = split(
    """
    Abbott Adler Ahmed Andersson Baker Barnes Becker Bell Bennett Berg Blake Bosch Brandt Brooks Carter Chen Clarke
    Cooper Cruz Dahl Davies Diaz Dubois Ellis Evans Ferreira Fischer Fleming Foster Garcia Gibson Gray Haas Hall
    Hansen Harper Hayes Holm Hughes Ito Ivanov Jensen Johansson Kaplan Kelly Khan Klein Kowalski Kumar Lambert
    Larsen Lee Lindberg Marsh Mason Mendes Meyer Moreau Morgan Murphy Nakamura Nguyen Novak O'Brien O'Connor Olsen
    Ortega Palmer Parker Patel Petrov Quinn Reed Reyes Ricci Rossi Ryan Sato Schmidt Shaw Silva Singh Sokolov Stone
    Suzuki Tanaka Taylor Turner Vargas Wagner Walsh Ward Weber Wells West Wilson Wood Wright Yamada Young Zhang
    MacLeod McKay D'Arcy Saint-Clair Smith-Jones
    """
)
CITIES = split(
    """
    London Paris Berlin Rome Madrid Lisbon Vienna Prague Warsaw Dublin Oslo Stockholm Helsinki Copenhagen Brussels
    Athens Istanbul Cairo Tunis Nairobi Lagos Accra Delhi Mumbai Tokyo Kyoto Osaka Seoul Beijing Shanghai Hanoi
    Bangkok Jakarta Manila Sydney Melbourne Auckland Toronto Montreal Boston Chicago Denver Seattle Houston Havana
    Lima Bogotá Santiago Quito Leeds Bristol York Oxford Glasgow Edinburgh Cardiff Bath Exeter Norwich Porto Seville
    Valencia Lyon Nantes Turin Milan Naples Munich Hamburg Cologne Zürich Geneva Kraków Budapest Riga Tallinn
    Vilnius Kyiv
    """
)
COUNTRIES = split(
    """
    France | Germany | Italy | Spain | Portugal | Austria | Poland | Ireland | Norway | Sweden | Finland | Denmark |
    Belgium | Greece | Turkey | Egypt | Kenya | Nigeria | Ghana | India | Japan | South Korea | China | Vietnam |
    Thailand | Indonesia | Australia | New Zealand | Canada | the United States | Mexico | Cuba | Peru | Colombia |
    Chile | Brazil | Argentina | Iceland | Scotland | Wales | England | Croatia | Morocco
    """,
    "|",
)
MONTHS = split(
    """
    January February March April May June July August September October November December
    """
)


def syllables(rng: Random, low: int = 1, high: int = 3) -> str:
    """An invented word of `low` to `high` syllables with a capital letter."""
    parts: list[str] = []
    count = rng.randint(low, high)
    for index in range(count):
        parts.append(rng.choice(_ONSETS) if index or rng.random() < 0.85 else "")
        parts.append(rng.choice(_VOWELS))
        if index == count - 1:
            parts.append(rng.choice(_CODAS if rng.random() < 0.6 else _ENDS_SOFT))
        elif rng.random() < 0.3:
            parts.append(rng.choice(_CODAS))
    word = "".join(parts)
    return word[0].upper() + word[1:]


def town(rng: Random) -> str:
    """A town name such as `Strinford` or `Upper Maldale`."""
    word = syllables(rng, 1, 1) + rng.choice(_TOWN_ENDS) if rng.random() < 0.7 else syllables(rng, 2, 3)
    roll = rng.random()
    if roll < 0.08:
        return (
            rng.choice(("Upper", "Lower", "Great", "Little", "New", "Old", "North", "Saint", "Port", "East"))
            + " "
            + word
        )
    if roll < 0.12:
        return word + rng.choice(("-on-Sea", "-by-the-Water", " Regis", " Green", " Cross", "-under-Edge"))
    return word


def place(rng: Random) -> str:
    """A town, or now and then a real city."""
    return rng.choice(CITIES) if rng.random() < 0.3 else town(rng)


def surname(rng: Random) -> str:
    """A surname, real or invented."""
    return rng.choice(_SURNAMES) if rng.random() < 0.6 else syllables(rng, 1, 3)


def person(rng: Random) -> str:
    """A person's full name; the first name tells the pronoun (see `pronoun_of`)."""
    first = rng.choice(FEMALE if rng.random() < 0.5 else MALE)
    roll = rng.random()
    if roll < 0.08:
        return f"{first} {rng.choice('ABCDEFGHJKLMNPRSTW')}. {surname(rng)}"
    if roll < 0.12:
        return f"{first} {rng.choice(('van', 'de', 'von', 'del', 'ten'))} {surname(rng)}"
    return f"{first} {surname(rng)}"


_FEMALE_SET = frozenset(FEMALE)


def pronoun_of(name: str) -> str:
    """`she` or `he` for a name made by `person`."""
    return "she" if name.split(" ", 1)[0] in _FEMALE_SET else "he"


def proper(rng: Random) -> str:
    """A proper name of any kind: `The Gilded Otter`, `Strada`, `Étoile Marsh`, `Fox & Barrel`."""
    roll = rng.random()
    adjective, noun = rng.choice(ADJECTIVES), rng.choice(NOUNS)
    if roll < 0.22:
        return f"The {adjective} {noun}"
    if roll < 0.40:
        return f"{adjective} {noun}"
    if roll < 0.50:
        return f"The {noun}"
    if roll < 0.55:
        return f"The {noun} {rng.choice(NOUNS)}"
    if roll < 0.63:
        return syllables(rng, 2, 3)
    if roll < 0.70:
        return f"{syllables(rng, 1, 2)} {noun}"
    if roll < 0.76:
        return f"{rng.choice(_FOREIGN)} {rng.choice((syllables(rng, 2, 3), noun))}"
    if roll < 0.80:
        return f"{noun} {rng.choice(('&', 'and'))} {rng.choice(NOUNS)}"
    if roll < 0.84:
        return f"{surname(rng)}'s {noun}"
    if roll < 0.88:
        return f"{rng.choice(NOUNS)} of {syllables(rng, 1, 3)}"
    if roll < 0.91:
        return f"{noun} {rng.randint(2, 99)}"
    if roll < 0.95:
        return surname(rng) + ("" if rng.random() < 0.3 else "s")
    return f"{noun} {place(rng)}"


def code(rng: Random) -> str:
    """A model code such as `XR-450` or `T7`."""
    letters = "".join(rng.choice("ABCDEFGHKLMNPRSTVXZ") for _ in range(rng.randint(1, 3)))
    return f"{letters}{rng.choice(('-', '', ' '))}{rng.randint(2, 999)}"


def title(rng: Random) -> str:
    """A title of a work."""
    adjective, noun, other = rng.choice(ADJECTIVES), rng.choice(NOUNS), rng.choice(NOUNS)
    options = (
        f"The {adjective} {noun}",
        f"{adjective} {noun}",
        f"The {noun} and the {other}",
        f"{noun} of {syllables(rng, 1, 3)}",
        f"A {noun} for {rng.choice(FEMALE)}",
        f"{adjective} {noun}s",
        f"Beyond the {noun}",
        f"{rng.choice(MALE)}'s {noun}",
        f"The {noun} at {place(rng)}",
        f"No {noun} Tonight",
        f"{syllables(rng, 2, 3)}",
        f"Letters to {place(rng)}",
    )
    return rng.choice(options)


MAKERS: dict[str, Callable[[Random], str]] = {
    "word": lambda rng: syllables(rng, 1, 3),
    "town": town,
    "place": place,
    "person": person,
    "proper": proper,
    "surname": surname,
    "code": code,
    "title": title,
    "adj": lambda rng: rng.choice(ADJECTIVES),
    "noun": lambda rng: rng.choice(NOUNS),
    "city": lambda rng: rng.choice(CITIES),
    "country": lambda rng: rng.choice(COUNTRIES),
    "foreign": lambda rng: rng.choice(_FOREIGN),
    "digit": lambda rng: str(rng.randint(1, 99)),
    "first": lambda rng: rng.choice(MALE + FEMALE),
}


def fill(template: str, rng: Random) -> str:
    """Replace every `<maker>` of a name template by a fresh name."""
    if "<" not in template:
        return template
    head, *rest = template.split("<")
    out = [head]
    for piece in rest:
        maker, tail = piece.split(">", 1)
        out += [MAKERS[maker](rng), tail]
    return "".join(out)


def pick(rng: Random, options: Sequence[str]) -> str:
    """One of the options."""
    return options[int(rng.random() * len(options))]
