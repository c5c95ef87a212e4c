"""What the docs tell people to type is valid: links, commands, parts of recipes; the page of the Python API runs."""

import re
import shlex
from pathlib import Path

import pytest

from softprompt.cli import app
from softprompt.config import build
from softprompt.grid import load_grid
from softprompt.recipe_files import list_recipes
from softprompt.recipes import expand, parse_yaml
from softprompt.tasks import task_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {command.name for command in app.registered_commands}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_recipes_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^(?:\$ )?softprompt ([\w-]+)", text, re.MULTILINE) + re.findall(r"`softprompt ([\w-]+)", text)
    assert set(lines) <= COMMANDS, set(lines) - COMMANDS
    named = set(re.findall(r"softprompt run ([a-z][\w/-]*)(?=[\s`])", text))
    known = {info.name for info in list_recipes()} | {"mine"}
    assert named <= known, named - known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sweeps_are_grids(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"^softprompt sweep (.*)$|`softprompt sweep (.*?)`", text, re.MULTILINE):
        recipe, *words = shlex.split("".join(line), comments=True)
        assert len(load_grid(recipe, [word for word in words if "=" in word]).cells) > 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_parts_of_recipes_are_valid(page: Path) -> None:
    """Every block of YAML is a recipe, or parts of one; so is every `{name: ...}` of a method in the text."""
    inline = re.findall(r"`(\{name: (?!\.)[^`.]*\})`", page.read_text(encoding="utf-8"))
    for text in [*blocks(page, "yaml"), *(f"method: {method}" for method in inline)]:
        given = parse_yaml(text, page.name).data
        if set(given) <= {"backbone", "method", "data", "train", "decode", "score", "compare", "tasks"}:
            built = build(expand({"name": "part", "data": {"task": "gazette"}, **given}), lambda path: page.name)
            assert built.data.task in (None, *task_names())


def test_the_page_of_the_python_api_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs" / "python.md", "python"):
        exec(block, names)
    assert (tmp_path / "aromi" / "adapter_model.safetensors").is_file() and (tmp_path / "run" / "scores.json").is_file()
