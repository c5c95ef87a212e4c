"""The line that each recipe prints for a first try runs as it is printed, on the bundled backbone."""

import shlex
import sys
from pathlib import Path

import pytest
from tiny_tasks import write_task

from softprompt import cli, data
from softprompt.config import load_recipe
from softprompt.recipe_files import list_recipes

BOUNDS = {"train.max_steps": 2, "data.max_dev": 4, "data.max_test": 4}
"""What keeps a first try short, whatever the recipe; answers are cut as well."""
QUICK = (
    "prefix-tuning/dart-adapter-0.1",
    "prefix-tuning/e2e-adapter-0.1",
    "prefix-tuning/e2e",
    "prefix-tuning/webnlg-adapter-0.1",
)
"""Those of the default suite."""


def smoke_lines() -> dict[str, str]:
    """Recipe -> its line, of all that have one."""
    lines = {}
    for info in list_recipes():
        found = [line for line in info.path.read_text(encoding="utf-8").splitlines() if line.startswith("# Smoke: ")]
        if found:
            (line,) = found
            lines[info.name] = line.removeprefix("# Smoke: ")
    return lines


LINES = smoke_lines()


def test_every_line_bounds_steps_dev_and_test_data_and_answers() -> None:
    assert len(LINES) > 40 and set(QUICK) <= LINES.keys()
    for name, line in LINES.items():
        command, run, ref, *settings = shlex.split(line)
        assert (command, run, ref) == ("softprompt", "run", name)
        given = dict(setting.split("=", 1) for setting in settings)
        assert {key: int(given[key]) for key in BOUNDS} == BOUNDS, name
        assert any(key.endswith("decode.max_new_tokens") and int(value) <= 16 for key, value in given.items()), name


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LINES])
def test_the_line_runs_as_it_is_printed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "_check_counts", lambda *given: None)  # of the official files
    settings = shlex.split(LINES[name])[3:]
    folder = next((key for key, _, value in (each.partition("=") for each in settings) if value == "FOLDER"), None)
    if folder is not None:
        recipe = load_recipe(name)
        task = recipe.parts()[folder.split(".")[1]].data.task if folder.startswith("tasks.") else recipe.data.task
        made = write_task(tmp_path / "data", str(task), recipe.data.low_data or 9)
        settings = [each.replace("FOLDER", str(made)) for each in settings]
    monkeypatch.setattr(sys, "argv", ["softprompt", "run", name, *settings, "-q", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0, capsys.readouterr().err
    assert "Run folder" in capsys.readouterr().out
