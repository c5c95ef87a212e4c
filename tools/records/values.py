"""The little language of values: `year 1800 2010`, `num 10 90 5 m`, `pick a, b, c`, `<place>` ...

`compile_value(text)` gives a function from a `random.Random` to a string. Alternatives are joined by ` || `.
"""

from collections.abc import Callable
from random import Random

from tools.records import names

Maker = Callable[[Random], str]
SCORE_WORDS = ("low", "average", "high", "excellent", "poor", "good")


def _number(args: list[str]) -> Maker:
    low, high, step = int(args[0]), int(args[1]), int(args[2])
    unit = " ".join(args[3:])
    tail = f" {unit}" if unit else ""

    def make(rng: Random) -> str:
        value = rng.randrange(low, high + 1, step)
        return (f"{value:,}" if value > 9999 or (value > 999 and rng.random() < 0.5) else str(value)) + tail

    return make


def _decimal(args: list[str]) -> Maker:
    low, high, unit = float(args[0]), float(args[1]), " ".join(args[2:])
    tail = f" {unit}" if unit else ""
    return lambda rng: f"{rng.uniform(low, high):.1f}{tail}"


def _money(args: list[str]) -> Maker:
    low, high = int(args[0]), int(args[1])

    def make(rng: Random) -> str:
        sign, base = rng.choice(("£", "£", "$", "€")), rng.randint(low, high)
        step = max(1, base // 4)
        kind = rng.random()
        if kind < 0.4:
            return f"{sign}{base}"
        if kind < 0.6:
            return f"less than {sign}{base}"
        if kind < 0.8:
            return f"more than {sign}{base}"
        return f"{sign}{base}-{base + step}"

    return make


def _range_or_word(args: list[str]) -> Maker:
    money = _money(args)
    return lambda rng: rng.choice(("cheap", "moderate", "high", "low", "medium")) if rng.random() < 0.45 else money(rng)


def _rating(_: list[str]) -> Maker:
    def make(rng: Random) -> str:
        kind, score = rng.random(), rng.randint(1, 5)
        if kind < 0.45:
            return f"{score} out of 5"
        if kind < 0.75:
            return rng.choice(SCORE_WORDS)
        if kind < 0.9:
            return f"{max(2, score)} stars"
        return f"{rng.randint(2, 10)} out of 10"

    return make


def _date(_: list[str]) -> Maker:
    def make(rng: Random) -> str:
        day, month, year = rng.randint(1, 28), rng.choice(names.MONTHS), rng.randint(1850, 2024)
        kind = rng.random()
        return f"{day} {month} {year}" if kind < 0.6 else f"{month} {year}" if kind < 0.8 else f"{month} {day}, {year}"

    return make


def _time(_: list[str]) -> Maker:
    return lambda rng: f"{rng.randint(6, 22)}:{rng.choice(('00', '15', '30', '45'))}"


def _pick(args: list[str]) -> Maker:
    options = [item.strip() for item in " ".join(args).split(",")]
    return lambda rng: options[int(rng.random() * len(options))]


def _pick2(args: list[str]) -> Maker:
    options = [item.strip() for item in " ".join(args).split(",")]

    def make(rng: Random) -> str:
        if rng.random() < 0.5:
            return rng.choice(options)
        return " and ".join(rng.sample(options, 2))

    return make


def _year(args: list[str]) -> Maker:
    low, high = int(args[0]), int(args[1])
    return lambda rng: str(rng.randint(low, high))


_KINDS: dict[str, Callable[[list[str]], Maker]] = {
    "num": _number,
    "dec": _decimal,
    "money": _money,
    "price": _range_or_word,
    "rating": _rating,
    "date": _date,
    "time": _time,
    "pick": _pick,
    "pick2": _pick2,
    "year": _year,
}


def compile_value(text: str) -> Maker:
    """A maker of values for one expression; raises KeyError for an unknown kind."""
    if " || " in text:
        makers = [compile_value(part) for part in text.split(" || ")]
        return lambda rng: rng.choice(makers)(rng)
    if text.startswith("'"):
        templates = [item.strip() for item in text.strip("'").split(";")]
        return lambda rng: names.fill(rng.choice(templates), rng)
    if text.startswith("<"):
        return lambda rng: names.fill(text, rng)
    kind, *args = text.split()
    return _KINDS[kind](args)
