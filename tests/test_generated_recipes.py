"""2,000 generated recipes: each is loaded, and planned where that is cheap, or refused by one of our errors.

Bundled recipes are changed at random: values of other types, numbers without measure, odd text, nesting, unknown and
doubled keys, aliases, sections of other methods. Nothing here may end by any other exception, or take long.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from softprompt.config import dump_yaml, field_names, load_recipe
from softprompt.errors import SoftpromptError
from softprompt.plan import dry_run
from softprompt.prepare import prepare
from softprompt.recipe_files import list_recipes
from softprompt.recipes import parse_yaml

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 1e-320, 1e-9, 0.5, 1e20, 1e300, 1e308, 10**6, 10**9, 10**18, 10**30, 10**400),
    *(float("inf"), float("-inf"), float("nan"), -1e308, 2**31, 2**32, 2**63, 2**64),
    *(
        "",
        " ",
        "no",
        "1e-3",
        "null",
        "{source}",
        "{",
        "}",
        "{a.b[0]}",
        "{0}",
        "{!r}",
        "{:>999999999}",
        "\n",
        "\t",
        "\0",
    ),
    *(
        "ä" * 300,
        "\ud800",
        "\udcff",
        "\u202e",
        "\U0001f600",
        "a\u0301",
        "../../etc/passwd",
        "/dev/zero",
        "~",
        "*",
        "&a",
    ),
    *(
        "prefix",
        "prompt",
        "dept",
        "finetune",
        "lora",
        "peft",
        "adapter",
        "untuned",
        "incontext",
        "nonsense",
        "x" * 5000,
    ),
    *("greedy", "beam", "sample", "auto", "bundled", "gazette", "e2e", "glue-cola", "two-tasks"),
    *([], {}, [[]], [1, 2], ["a", "b"], ["\ud800"], {"a": 1}, {"a": {"a": {"a": {}}}}, [0.9, 0.999], [None]),
)
METHODS = (
    {"name": "prefix"},
    {"name": "prefix", "place": "between", "reparam": "none"},
    {"name": "prefix", "attention": "beside", "init": "noop"},
    {"name": "prompt", "length": 3, "init": "labels", "labels": ["a", "b"]},
    {"name": "dept", "length": 3},
    {"name": "lora", "rank": 2},
    {"name": "adapter", "bottleneck": 2},
    {"name": "finetune", "top": 1},
    {"name": "incontext", "shots": 1},
    {"name": "peft", "type": "IA3"},
    {"name": "peft", "type": "LORA", "options": {"runtime_config": {"a": 1}}},
    {"name": "peft", "type": "LORA", "options": {"r": 10**12}},
)
SMALL = [
    {"data": {"task": "gazette", "max_train": 20, "max_dev": 4, "max_test": 4}, "method": dict(one)} for one in METHODS
]
SECONDS = 10.0
"""Far above what one takes (a second, on a machine that is busy); a hang is what is looked for."""


def generated(count: int, seed: int) -> Iterator[str]:
    """YAML texts, each of a bundled or a small recipe with one to four changes."""
    draw = random.Random(seed)
    bundled = [parse_yaml(info.path.read_text(encoding="utf-8"), info.name).data for info in list_recipes()]
    names = field_names()
    for number in range(count):
        recipe = json.loads(json.dumps(draw.choice([*bundled, *SMALL, *SMALL, *SMALL])))
        if number % 3 == 0:  # likely to be taken, so that what comes after the reading is tried as well
            scale_number(draw, recipe, names)
            yield yaml.dump(recipe, sort_keys=False)
            continue
        for _ in range(draw.choice([1, 1, 1, 2, 3])):
            CHANGES[draw.randrange(len(CHANGES))](draw, recipe, names)
        text = yaml.dump(recipe, allow_unicode=number % 2 == 0, sort_keys=False)
        yield broken(draw, text) if draw.random() < 0.1 else text


def odd_value(draw: random.Random) -> Any:
    value = draw.choice(ODD)
    return draw.choice([[value], {"x": value}, {"name": value}, [value] * 50]) if draw.random() < 0.15 else value


def set_field(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    section, _, key = draw.choice(names).partition(".")
    if not key:
        recipe[section] = odd_value(draw)
    elif isinstance(recipe.setdefault(section, {}), dict):
        recipe[section][key] = odd_value(draw)


def set_number(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    """A field that is there, by a huge or a tiny factor."""
    section = recipe.get(draw.choice(["train", "decode", "method", "data"]))
    if isinstance(section, dict) and section:
        mild, wild = [1, 2, 5, 10, 40], [10 ** draw.randint(0, 40), 10.0 ** draw.randint(-320, 308)]
        section[draw.choice(list(section))] = draw.choice(mild if draw.random() < 0.7 else wild)


def scale_number(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    """A number that is there, of a method or of training, by up to 10,000."""
    places = [
        (section, key)
        for section in (recipe.get("method"), recipe.get("train"), recipe.get("decode"), recipe.get("data"))
        if isinstance(section, dict)
        for key, value in section.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if places:
        section, key = draw.choice(places)
        section[key] = section[key] * draw.choice([2, 3, 10, 100, 10_000])


def unknown_keys(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    where = draw.choice([recipe, *(value for value in recipe.values() if isinstance(value, dict))])
    for number in range(draw.choice([1, 3, 3000])):
        where[f"{draw.choice(['unknown', 'lernrate', 'ü', 'a.b', '', 'x' * 2000])}{number}"] = odd_value(draw)


def nest(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    inner: Any = odd_value(draw)
    for _ in range(draw.choice([3, 30, 90, 150])):
        inner = [inner] if draw.random() < 0.5 else {draw.choice(["a", "compare", "tasks", "data"]): inner}
    recipe[draw.choice(["compare", "tasks", "method", "data", "x"])] = inner


def share(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    """What YAML writes as anchors and aliases: each level names the one below it several times."""
    level: Any = {"method": "finetune"}
    for depth in range(draw.choice([1, 3, 12, 20])):
        level = {draw.choice(["compare", "tasks"]): {f"a{number}": level for number in range(draw.choice([2, 5]))}} | (
            {"seed": depth} if draw.random() < 0.5 else {}
        )
    recipe.update(level)


def add_arms(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    arms = {
        f"arm{number}": draw.choice([*SMALL, {"decode": {"strategy": "greedy"}}, odd_value(draw)])
        for number in range(4)
    }
    recipe[draw.choice(["compare", "tasks"])] = arms


def other_method(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    recipe["method"] = {**draw.choice(METHODS), **draw.choice([{}, {"length": 5}, {"rank": 3}, {"share": 0.1}])}


def other_decoding(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    recipe["decode"] = {
        "strategy": draw.choice(["greedy", "beam", "sample"]),
        draw.choice(["beams", "top_k", "top_p", "temperature", "labels", "length_penalty", "batch_size"]): odd_value(
            draw
        ),
    }


def drop(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    if recipe:
        recipe.pop(draw.choice(list(recipe)))


def base(draw: random.Random, recipe: dict[str, Any], names: list[str]) -> None:
    recipe["base"] = draw.choice(["e2e", "quickstart", "nonsense", "", "/dev/null", ".", "\0", 3, None, ["e2e"]])


CHANGES = (
    *[set_field] * 6, *[set_number] * 6, *[other_method] * 3, *[other_decoding] * 2,
    *(unknown_keys, nest, share, add_arms, drop, base),
)  # fmt: skip


def broken(draw: random.Random, text: str) -> str:
    """A text of YAML with a character changed, a part repeated or cut off, or openers without an end."""
    at = draw.randrange(len(text) + 1)
    return draw.choice(
        [
            text[:at],
            text[:at] + draw.choice("{}[]:,&*!|>%@`'\"\t\\\x07\ufeff") + text[at:],
            text + text[:at],
            "[" * draw.choice([50, 20_000]) + text,
            "- " * draw.choice([50, 5_000]) + text,
            text + "x: !!python/object/apply:os.system [ls]\n",
        ]
    )


def attempt(path: Path, *, plans: bool, prepares: bool = False) -> str:
    """What becomes of a recipe: loaded, planned, made ready to train, or refused."""
    try:
        recipe = load_recipe(str(path))
        assert load_again(path.with_name("again.yaml"), dump_yaml(recipe)) == recipe.model_dump()
        if not plans or recipe.backbone.id != "bundled" or recipe.data.task != "gazette" or recipe.tasks:
            return "loaded"
        dry_run(recipe)
        if not prepares:
            return "planned"
        prepare({"main": recipe.arm("main")})
        return "prepared"
    except SoftpromptError as error:
        assert 0 < len(str(error)) < 50_000
        return "refused"


def load_again(path: Path, text: str) -> dict[str, Any]:
    path.write_text(text, encoding="utf-8")
    return load_recipe(str(path)).model_dump()


def run(count: int, seed: int, folder: Path) -> tuple[Counter[str], float]:
    came_to, longest = Counter[str](), 0.0
    path = folder / "recipe.yaml"
    for number, text in enumerate(generated(count, seed)):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        started = time.monotonic()
        try:
            came_to[attempt(path, plans=number % 2 == 0, prepares=number % 10 == 0)] += 1
        except Exception as error:
            raise AssertionError(
                f"recipe {number} of seed {seed}: {type(error).__name__}: {error}\n{text[:3000]}"
            ) from error
        longest = max(longest, time.monotonic() - started)
    return came_to, longest


@pytest.mark.faults
def test_generated_recipes_are_taken_or_refused(tmp_path: Path) -> None:
    came_to, _ = run(60, 1, tmp_path)
    assert sum(came_to.values()) == 60 and came_to["refused"] > 0


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_2000_generated_recipes_are_taken_or_refused(tmp_path: Path) -> None:
    came_to, longest = run(2000, 2, tmp_path)
    print(f"\n2,000 generated recipes: {dict(came_to)}, 0 tracebacks; the slowest took {longest:.1f} s")
    assert sum(came_to.values()) == 2000 and longest < SECONDS
