"""What the README tells people to type exists: its named blocks, its recipes, and its recipe in five lines."""

import re
import sys
from pathlib import Path

import pytest

from softprompt.config import load_recipe
from softprompt.recipe_files import list_recipes

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["install", "quickstart", "test"])
def test_gate_finds_the_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    sys.modules.pop("readme_commands", None)
    from readme_commands import commands

    assert commands(name, TEXT).strip()


def test_named_recipes_exist() -> None:
    named = set(re.findall(r"softprompt run ([\w/-]+)(?=[\s`])", TEXT))
    bundled = {info.name for info in list_recipes()}
    assert named and named <= bundled | {"mine"}, named - bundled


def test_five_lines_are_five_and_a_valid_recipe(tmp_path: Path) -> None:
    block = re.search(r"## Your own data in five lines.*?```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None and block[1].count("\n") == 5
    (tmp_path / "mine.yaml").write_text(block[1], encoding="utf-8")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert recipe.method.name == "prefix" and recipe.data.input == "name : {name} | area : {area}"


def test_public_names_of_the_readme_exist() -> None:
    import softprompt

    names = re.search(r"from softprompt import ([\w, ]+)", TEXT)
    assert names is not None
    assert all(hasattr(softprompt, name.strip()) for name in names[1].split(","))


def test_it_says_that_trained_numbers_move_with_the_number_of_threads() -> None:
    assert re.search(r"what is trained moves with the number of\s+threads", TEXT)
