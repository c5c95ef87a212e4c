"""A grid over a recipe's fields: each `KEY=V1,V2` is an axis, each combination a cell with a recipe of its own."""

import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import yaml

from softprompt.config import Recipe, load_recipe, to_dict
from softprompt.errors import ConfigError
from softprompt.recipes import TEMPLATES, parse_yaml

SEED = "seed"
"""The axis that reports average over."""
MOST_CELLS = 1000
ESCAPE = (
    "Put a value with a comma, bracket or question mark in quotes, a list in brackets: KEY='\"a, b\"' or KEY=[a,b]."
)


@dataclass(frozen=True)
class Axis:
    """A field of the recipe and the values that it takes, as they were typed."""

    key: str
    values: tuple[str, ...]

    def numbers(self) -> dict[str, float]:
        """The number that each value is; empty where one is none."""
        read = {value: parse_yaml(value, self.key).data for value in self.values}
        return read if all(type(number) in (int, float) for number in read.values()) else {}


@dataclass(frozen=True)
class Cell:
    """One combination of values: a run of its own."""

    name: str
    """Its folder: its number and its values."""
    values: tuple[str, ...]
    """One of each axis."""
    overrides: tuple[str, ...]
    recipe: Recipe


@dataclass(frozen=True)
class Grid:
    """All cells of a sweep; the last axis changes fastest."""

    ref: str
    arguments: tuple[str, ...]
    """As they were typed."""
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.cells[0].recipe.name

    def varied(self) -> list[Axis]:
        """The axes without the seed: what the rows of a report tell apart."""
        return [axis for axis in self.axes if axis.key != SEED]

    def combination(self, cell: Cell) -> tuple[str, ...]:
        """The cell's values of `varied`."""
        return tuple(value for axis, value in zip(self.axes, cell.values, strict=True) if axis.key != SEED)

    def curve(self) -> Axis | None:
        """The axis to draw scores over: the one of `varied` whose values are numbers, where there is one alone."""
        numeric = [axis for axis in self.varied() if axis.numbers()]
        return numeric[0] if len(numeric) == 1 else None


def load_grid(ref: str, arguments: Sequence[str]) -> Grid:
    """Read a recipe once for every combination of the values of `arguments`, and check all its arms.

    Raises:
        ConfigError: no axis, one that is given twice, a value that the recipe does not take (names cell and field), or
            two cells that are the same run.
    """
    given = {index: Axis(key, values) for index, (key, values) in enumerate(map(split_argument, arguments))}
    axes = {index: axis for index, axis in given.items() if len(axis.values) > 1}
    keys = [axis.key for axis in given.values()]
    twice = next((axis.key for axis in axes.values() if keys.count(axis.key) > 1), None)
    if twice is not None:
        raise ConfigError(f"sweep: {twice} is given twice. Give all its values at once: {twice}=V1,V2.")
    if not axes:
        raise ConfigError("sweep: expected an axis, such as seed=1,2,3, got none. For one run use `softprompt run`.")
    count = math.prod(len(axis.values) for axis in axes.values())
    if count > MOST_CELLS:
        raise ConfigError(f"sweep: expected at most {MOST_CELLS:,} cells, got {count:,}. Make several sweeps of it.")
    combinations = list(itertools.product(*(axis.values for axis in axes.values())))
    cells: dict[str, Cell] = {}
    for number, values in enumerate(combinations, 1):
        chosen = dict(zip(axes, values, strict=True))
        overrides = [f"{axis.key}={chosen.get(i, axis.values[0])}" for i, axis in given.items()]
        name = _folder(number, len(combinations), [f"{axes[i].key}={value}" for i, value in chosen.items()])
        with in_cell(name):
            recipe = load_recipe(ref, overrides)
            for arm in recipe.arms():
                recipe.arm(arm)
            same = cells.setdefault(json.dumps(to_dict(recipe)), Cell(name, values, tuple(overrides), recipe))
            if same.name != name:
                raise ConfigError(f"expected a run of its own, got that of {same.name}. Drop the value that adds none.")
    return Grid(ref, tuple(arguments), tuple(axes.values()), tuple(cells.values()))


@contextmanager
def in_cell(name: str) -> Iterator[None]:
    """Say in which cell a `ConfigError` came."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"cell {name}: {error}") from None


def split_argument(text: str) -> tuple[str, tuple[str, ...]]:
    """Key and values of `KEY=V1,V2`, split as a YAML list is: commas in quotes, brackets and braces part nothing.

    A quoted template (`data.input`) loses its quotes, which `softprompt run` would take for a part of it.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"sweep: {text[:200]!r}: expected KEY=VALUE or KEY=V1,V2, such as train.lr=1e-4.")
    if "," not in value:
        return key.strip(), (value,)
    try:
        node = yaml.compose(f"[{value}]", Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if node is None or node.end_mark.index != len(value) + 2 or value.rstrip().endswith(","):
        raise ConfigError(f"sweep: {text[:200]!r}: expected values with commas between them. {ESCAPE}")
    parts = [value[item.start_mark.index - 1 : item.end_mark.index - 1].strip() for item in node.value]
    if tuple(key.strip().split(".")) in TEMPLATES:
        parts = [parse_yaml(part, key).data if part[0] in "'\"" and "{" in part else part for part in parts]
    return key.strip(), tuple(parts)


def _folder(number: int, of: int, pairs: Sequence[str]) -> str:
    """`07-length=5-seed=1`: unique by its number, readable by the rest."""
    words = [pair.partition("=")[0].rpartition(".")[2] + "=" + pair.partition("=")[2] for pair in pairs]
    readable = re.sub(r"[^\w.+=]+", "-", "-".join(words))[:80].strip("-.")
    return f"{number:0{len(str(of))}d}-{readable}"
