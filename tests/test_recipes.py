"""Bundled recipes and the YAML dialect."""

import subprocess
import sys

import pytest

from softprompt.config import load_recipe
from softprompt.errors import ConfigError
from softprompt.recipe_files import find_recipe, list_recipes
from softprompt.recipes import parse_yaml, write_yaml

NAMES = ["e2e", "gazette", "incontext", "methods", "own-data", "quickstart", "two-tasks"]
"""Those of no paper."""


def test_list() -> None:
    infos = list_recipes()
    assert [info.name for info in infos if not info.group] == NAMES
    assert [info.group for info in infos] == sorted(info.group for info in infos)
    assert {info.group for info in infos} == {"", "prefix-tuning", "dept", "prompt-tuning"}
    for info in infos:
        assert info.title and not info.title.startswith("#") and info.path == find_recipe(info.name)
        header = [line for line in info.path.read_text().splitlines() if line.startswith("#")]
        assert any(line.startswith("# Reproduces:") for line in header)
        commands = [line.split()[4] for line in header if line.startswith(("# Run:", "# Smoke:", "# Check:"))]
        assert len(commands) >= 1 and set(commands) == {info.name}, info.name


def test_listing_does_not_import_pydantic() -> None:
    code = "import sys, softprompt.recipe_files as r; r.list_recipes(); print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_bundled_recipes_load() -> None:
    for info in list_recipes():
        recipe = load_recipe(info.name)
        assert recipe.name == info.name.replace("/", "-") and recipe.version == 1


def test_published_settings_of_the_paper() -> None:
    """Li & Liang 2021, Table 6, rows Prefix E2E and FT E2E."""
    prefix, tuned = load_recipe("e2e-gpt2-medium"), load_recipe("e2e-gpt2-medium-finetune")
    assert prefix.method.model_dump() == {
        "name": "prefix",
        "length": 5,
        "place": "before",
        "attention": "joined",
        "reparam": "mlp",
        "hidden": 512,
        "init": "random",
        "init_text": None,
        "init_file": None,
        "dropout": 0.0,
        "sites": None,
        "positions": "shifted",
    }
    assert (prefix.train.lr, prefix.train.loss, tuned.train.lr, tuned.train.loss) == (
        8e-5,
        "sentence_sum",
        5e-5,
        "token_mean",
    )
    for recipe in (prefix, tuned):
        assert recipe.backbone.id == "gpt2-medium" and recipe.seed == 101 and recipe.train.select == "last"
        assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.warmup_steps) == (5, 10, 0)
        assert (recipe.decode.beams, recipe.decode.max_new_tokens, recipe.decode.ban_newline) == (5, 100, True)
    header = find_recipe("e2e-gpt2-medium").read_text()
    assert all(score in header for score in ("70.3", "8.82", "46.3", "72.1", "2.46", "69.7", "8.81", "71.4", "2.49"))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1e-3", 1e-3),
        ("5E5", 5e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1e+2", -100.0),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("+3", 3),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("OFF", "OFF"),
        ("y", "y"),
        ("tRue", "tRue"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ("!!str 3", "3"),
        ("{no: 1, 2: b, null: c}", {"no": 1, "2": "b", "null": "c"}),
        ("[1, {a: [b]}]", [1, {"a": ["b"]}]),
        ("{<<: {a: 1}}", {"<<": {"a": 1}}),
        (".inf", float("inf")),
        ("-.Inf", float("-inf")),
    ],
)
def test_dialect(text: str, want: object) -> None:
    got = parse_yaml(text, "x").data
    assert got == want and type(got) is type(want)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: 1\nb: 2\na: 3\n", "x:3: the key 'a' stands twice (first in line 1)"),
        ("a:\n  b: 1\n  b: 2\n", "x:3: the key 'b' stands twice"),
        ("a: [{b: 1, b: 2}]", "x:1: the key 'b' stands twice"),
        ("? [a]\n: 1\n", "x:1: expected a plain key"),
        ("a: 1\n\tb: 2\n", "x:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "x:2: not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "x:1: not valid YAML"),
        ("a: !!int b", "cannot read this value as int"),
        ("a: !!bool b", "cannot read this value as bool"),
        ("a: !!map b", "do not fit"),
        ("a: !!timestamp b", "is not allowed"),
        ("a: *b", "undefined alias"),
        ("a: 1\nb: \x07", "x:2: not valid YAML"),
    ],
)
def test_dialect_errors(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "x")
    assert part in str(caught.value)


def test_lines() -> None:
    lines = parse_yaml("a: 1\nb:\n  c: {d: 2}\n  e:\n    f: 3\n", "x").lines
    assert lines == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", "d"): 3, ("b", "e"): 4, ("b", "e", "f"): 5}


def test_write_reads_back() -> None:
    data = {"a": [1, 2.5, 1e-08, 1e22, True, None], "b": {"c": "no", "d": "1e-3", "e": ""}, "shared": [[1], [1]]}
    data["again"] = data["b"]
    assert parse_yaml(write_yaml(data), "x").data == data
