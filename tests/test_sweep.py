"""Sweeps: the grid and its escapes, what is refused before anything runs, failing cells, going on, the report."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobs import tiny_job
from test_cli import call, refused

from softprompt import sweep as sweep_module
from softprompt.config import load_recipe
from softprompt.errors import ConfigError, Interrupted, SoftpromptError, TrainingError
from softprompt.grid import Grid, load_grid, split_argument
from softprompt.lock import locked
from softprompt.results import ArmResult
from softprompt.sweep import require_done, run_sweep
from softprompt.sweep_report import Outcome, as_json, rows, table, write_report

QUICK = ["train.max_steps=2", "untuned=false", "score.metrics=[chrf]"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_job(tmp_path_factory.mktemp("job"))


def grid_of(job: Path, *arguments: str) -> Grid:
    return load_grid(str(job), [*QUICK, *arguments])


# --- the grid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=1,2,3", ("1", "2", "3")),
        ("train.lr=1e-3, 5e-3", ("1e-3", "5e-3")),
        ("seed=1", ("1",)),
        ("train.clip=", ("",)),
        ("score.metrics=[bleu,nist]", ("[bleu,nist]",)),
        ("train.betas=[0.9,0.99],[0.8,0.9]", ("[0.9,0.99]", "[0.8,0.9]")),
        ('data.train="a,b.csv"', ('"a,b.csv"',)),
        ('data.train="a,b.csv",c.csv', ('"a,b.csv"', "c.csv")),
        ("compare={a: {seed: 1}, b: {seed: 2}}", ("{a: {seed: 1}, b: {seed: 2}}",)),
        ("data.input='{name}, {area}'", ("{name}, {area}",)),
        ("data.input='{name}, {area}',{name}", ("{name}, {area}", "{name}")),
        ("data.input={name} | {area}", ("{name} | {area}",)),
    ],
)
def test_values_are_split_as_a_yaml_list_is(text: str, values: tuple[str, ...]) -> None:
    assert split_argument(text) == (text.partition("=")[0], values)


@pytest.mark.parametrize("text", ["seed=1,", "seed=1,,2", "seed=,1", "data.train=a] #,b", "seed=[1,2", "seed"])
def test_what_cannot_be_split_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        split_argument(text)


def test_each_combination_is_a_cell_with_the_recipe_that_its_overrides_make(job: Path) -> None:
    grid = grid_of(job, "method.length=1,3", "train.lr=1e-2", "seed=5,6")
    assert [cell.name for cell in grid.cells] == [
        "1-length=1-seed=5",
        "2-length=1-seed=6",
        "3-length=3-seed=5",
        "4-length=3-seed=6",
    ]
    for cell in grid.cells:
        assert cell.recipe == load_recipe(str(job), cell.overrides)
    last = grid.cells[-1].recipe
    assert (last.seed, last.train.lr, grid.combination(grid.cells[-1])) == (6, 0.01, ("3",))
    method = getattr(last.method, "length", None)
    assert method == 3 and [axis.key for axis in grid.varied()] == ["method.length"]


def test_cell_names_are_unique_and_safe_as_folders(job: Path) -> None:
    long = "x" * 300
    grid = grid_of(job, f"data.train={long}/a b,{long}/a:b")
    names = [cell.name for cell in grid.cells]
    assert len(set(names)) == 2 and all(len(name) < 100 and "/" not in name and " " not in name for name in names)


REFUSED = {
    "a bad value": (["method.length=1,x", "seed=1,2"], r"cell 3-length=x-seed=1: .*method\.length: expected"),
    "a field that a cell's method lacks": (
        ["method=prefix,prompt", "method.hidden=8"],
        r"cell 2-method=prompt: .*hidden",
    ),
    "an unknown key": (["train.lrr=1,2"], r"cell 1-lrr=1: .*'train\.lrr'; nearest: 'train\.lr'"),
    "a bad arm": (["compare={a: {method: prompt, train: {lr: 1}}}", "train.lr=0.1,-1"], r"cell 2-lr=-1: .*train\.lr"),
    "the same run twice": (
        ["train.lr=1e-2,0.01"],
        r"cell 2-lr=0\.01: expected a run of its own, got that of 1",
    ),
    "no axis": (["seed=1"], r"expected an axis, .* use `softprompt run`"),
    "an axis given twice": (["seed=1,2", "seed=3"], r"seed is given twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_grid_that_cannot_run_is_refused_at_once_and_names_the_cell(name: str, job: Path) -> None:
    arguments, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        grid_of(job, *arguments)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("data.dev=null,nowhere.jsonl", r"cell 2-dev=nowhere\.jsonl: .*nowhere\.jsonl: the data file cannot be read"),
        ("score.suite=e2e,e3e", r"cell 2-suite=e3e: .*e3e"),
    ],
)
def test_so_is_one_whose_data_or_suite_is_not_there(argument: str, message: str, job: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_sweep(grid_of(job, argument), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


# --- the report ------------------------------------------------------------------------------------------------------


def result(score: float, arm: str = "main", **more: Any) -> ArmResult:
    scores = {"bleu": {"score": score, "signature": "BLEU|made up"}}
    counts = {"backbone": 100.0, "trained": 10.0, "stored": 4.0, "trained_share": 0.1, "stored_share": 0.04}
    return ArmResult(arm, "prefix" if arm == "main" else arm, scores, {}, counts, None, {}, **more)


@pytest.fixture
def outcomes(job: Path) -> tuple[Grid, list[Outcome]]:
    """Lengths 1 and 3 with three seeds each; the last cell failed."""
    grid = grid_of(job, "method.length=1,3", "seed=1,2,3")
    scores = [10.0, 11.0, 15.0, 20.0, 23.0]
    done = [
        Outcome(cell, [result(1.5, "untuned"), result(score)]) for cell, score in zip(grid.cells, scores, strict=False)
    ]
    return grid, [*done, Outcome(grid.cells[5], failed="it broke")]


def test_rows_are_means_and_sample_deviations_over_seeds(outcomes: tuple[Grid, list[Outcome]]) -> None:
    found = rows(*outcomes)
    assert [(row.label, row.values, row.n) for row in found] == [
        ("untuned", {"method.length": "1"}, 3),
        ("untuned", {"method.length": "3"}, 2),
        ("prefix", {"method.length": "1"}, 3),
        ("prefix", {"method.length": "3"}, 2),
    ]
    one, three = found[2].scores["bleu"], found[3].scores["bleu"]
    assert one["mean"] == 12.0 and one["std"] == pytest.approx(7.0**0.5)  # (4 + 1 + 9) / (3 - 1)
    assert three["mean"] == 21.5 and three["std"] == pytest.approx(4.5**0.5)  # 2 x 1.5^2 / (2 - 1)
    assert table(found)[0] == ["", "method.length", "BLEU", "n", "trained", "stored"]
    assert table(found)[1] == ["untuned", "1", "1.50 ± 0.00", "3", "-", "-"]
    assert table(found)[3] == ["prefix", "1", "12.00 ± 2.65", "3", "10", "4"]


def test_a_single_seed_has_no_deviation(job: Path) -> None:
    grid = grid_of(job, "method.length=1,3")
    (row, _) = rows(grid, [Outcome(cell, [result(7.0)]) for cell in grid.cells])
    assert row.scores["bleu"]["std"] is None and table([row])[1][2] == "7.00"


def test_a_grid_has_a_bound(job: Path) -> None:
    axes = [
        f"{key}={','.join(map(str, range(1, 40)))}" for key in ("seed", "train.keep", "train.log_every", "data.subset")
    ]
    with pytest.raises(ConfigError, match=r"at most 1,000 cells, got 2,313,441"):
        grid_of(job, *axes)


def trained(score: float, dev_loss: float | None) -> ArmResult:
    return replace(result(score), training={"dev_loss": dev_loss})


def test_the_row_to_choose_is_marked_by_its_dev_loss_and_not_by_its_test_score(job: Path) -> None:
    grid = grid_of(job, "method.length=1,3,5", "seed=1,2")
    made = [(90.0, 2.0), (91.0, 2.5), (10.0, 1.0), (11.0, 1.5), (50.0, None), (51.0, 0.1)]
    outcomes = [
        Outcome(cell, [result(1.5, "untuned"), trained(*one)]) for cell, one in zip(grid.cells, made, strict=True)
    ]
    found = {(row.label, row.values["method.length"]): row for row in rows(grid, outcomes)}
    assert found["prefix", "1"].dev_loss == {"mean": 2.25, "std": pytest.approx(0.125**0.5)}
    assert found["prefix", "5"].dev_loss is None and found["untuned", "1"].dev_loss is None
    assert [key for key, row in found.items() if row.best_by_dev] == [("prefix", "3")]
    shown = table(list(found.values()))
    assert shown[0][2] == "dev loss" and [row[2] for row in shown if row[0] == "untuned"] == ["-"] * 3
    assert [row[2] for row in shown if row[0] == "prefix"] == ["2.2500 ± 0.3536", "1.2500 ± 0.3536 *", "-"]
    whole = json.loads(as_json(grid, outcomes))
    assert [row["best_by_dev"] for row in whole["rows"]] == [False, False, False, False, True, False]
    assert any("lowest mean dev loss" in line and "Choose by it" in line for line in whole["notes"])


def test_the_report_names_failed_cells_and_how_scores_were_made(
    outcomes: tuple[Grid, list[Outcome]], tmp_path: Path
) -> None:
    write_report(*outcomes, tmp_path)
    whole, page = json.loads((tmp_path / "sweep.json").read_text()), (tmp_path / "README.md").read_text()
    assert whole["axes"] == {"method.length": [1, 3], "seed": [1, 2, 3]}
    assert [cell["status"] for cell in whole["cells"]] == ["done"] * 5 + ["failed"]
    assert whole["cells"][5]["reason"] == "it broke" and whole["rows"][2]["values"] == {"method.length": 1}
    assert whole == json.loads(as_json(*outcomes))
    assert "| prefix | 1 | 12.00 ± 2.65 | 3 | 10 | 4 |" in page and "5 of 6 runs" in page
    assert "Cell 6-length=3-seed=3 failed: it broke" in page and "BLEU|made up" in page
    with pytest.raises(SoftpromptError, match=r"1 of 6 cells failed, the first, 6-.*: it broke Run") as caught:
        require_done(outcomes[1])
    assert caught.value.exit_code == 1


def test_a_curve_is_drawn_to_the_same_bytes(outcomes: tuple[Grid, list[Outcome]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `report`")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(*outcomes, tmp_path / name)
    pictures = [(tmp_path / name / "plots" / "bleu.svg").read_bytes() for name in ("a", "b")]
    assert pictures[0] == pictures[1] and b"<svg" in pictures[0] and b"dc:date" not in pictures[0]
    assert "![BLEU](plots/bleu.svg)" in (tmp_path / "a" / "README.md").read_text()


def test_without_matplotlib_one_line_says_what_plots_need(
    outcomes: tuple[Grid, list[Outcome]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_report(*outcomes, tmp_path)
    assert capsys.readouterr().err == 'no plots: they need matplotlib (pip install "softprompt[report]")\n'
    assert not (tmp_path / "plots").exists() and "plots/" not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["method.length=1,3", "seed=1,2"], "method.length"),
        (["method.length=1,3", "train.optimizer=adamw,adafactor"], "method.length"),
        (["method.length=1,3", "train.lr=0.1,0.2"], None),
        (["seed=1,2"], None),
    ],
)
def test_a_curve_is_over_the_one_axis_of_numbers(arguments: list[str], key: str | None, job: Path) -> None:
    axis = grid_of(job, *arguments).curve()
    assert (axis.key if axis else None) == key


# --- whole sweeps ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweeps") / "whole"
    require_done(run_sweep(grid_of(job, "method.length=1,3", "seed=1,2"), out, quiet=True))
    return out


def files_of(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("plan.json", "sweep.json", "README.md")}


def test_each_cell_is_a_run_folder_and_the_report_is_their_mean(whole: Path) -> None:
    cells = sorted((whole / "cells").iterdir())
    assert [cell.name for cell in cells][::3] == ["1-length=1-seed=1", "4-length=3-seed=2"]
    assert all((cell / name).exists() for cell in cells for name in ("README.md", "prompt", "recipe.yaml"))
    scores = [json.loads((cell / "scores.json").read_text())["scores"]["chrf"]["score"] for cell in cells[:2]]
    first = json.loads((whole / "sweep.json").read_text())["rows"][0]
    assert first["n"] == 2 and first["scores"]["chrf"]["mean"] == pytest.approx(sum(scores) / 2)
    assert first["scores"]["chrf"]["std"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)


def test_a_finished_sweep_is_read_back_without_running_anything(
    job: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(whole)
    monkeypatch.setattr(sweep_module, "run_recipe", lambda *a, **k: pytest.fail("a cell was run again"))
    run_sweep(grid_of(job, "method.length=1,3", "seed=1,2"), whole, resume=True, quiet=True)
    assert files_of(whole) == before


CHANGES = {
    "an axis": (["method.length=1,3", "seed=1,2,3"], r"started: seed \(\['1', '2'\] -> \['1', '2', '3'\]\)\. Resume"),
    "a field": (["method.length=1,3", "seed=1,2", "train.lr=0.5"], r"started: train\.lr \(0\.01 -> 0\.5\)\. Resume"),
    "the order": (["seed=1,2", "method.length=1,3"], r"started: the order of the axes"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_plan_is_refused_by_what_differs(name: str, job: Path, whole: Path) -> None:
    arguments, message = CHANGES[name]
    before = files_of(whole)
    with pytest.raises(ConfigError, match=message):
        run_sweep(grid_of(job, *arguments), whole, resume=True, quiet=True)
    assert files_of(whole) == before


def test_other_data_a_damaged_plan_and_a_foreign_folder_are_refused(tmp_path: Path) -> None:
    job, out = tiny_job(tmp_path), tmp_path / "out"
    grid = grid_of(job, "seed=1,2")
    run_sweep(grid, out, quiet=True)
    with pytest.raises(ConfigError, match=r"is not empty\. Use --resume"):
        run_sweep(grid, out, quiet=True)
    with locked(out), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        run_sweep(grid, out, resume=True, quiet=True)
    with pytest.raises(ConfigError, match=r"expected a sweep's folder with plan\.json"):
        run_sweep(grid, out / "cells" / grid.cells[0].name, resume=True, quiet=True)
    text = (out / "plan.json").read_text()
    (out / "plan.json").write_text(text.replace('"seed": 1,', '"seed": 7,'))
    with pytest.raises(ConfigError, match="damaged"):
        run_sweep(grid, out, resume=True, quiet=True)
    (out / "plan.json").write_text(text)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"source": "red", "target": "inn"}\n')
    with pytest.raises(ConfigError, match=r"the content of .*train\.jsonl"):
        run_sweep(grid, out, resume=True, quiet=True)


def test_a_cell_that_fails_does_not_stop_the_others_and_is_tried_again(
    job: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = sweep_module.run_recipe

    def broken(recipe: Any, folder: Path, **options: Any) -> list[ArmResult]:
        if folder.name == "2-length=1-seed=2":
            raise TrainingError("it broke.")
        return real(recipe, folder, **options)

    arguments = ["sweep", str(job), *QUICK, "method.length=1,3", "seed=1,2", "--out", str(tmp_path / "out"), "-q"]
    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "run_recipe", broken)
        assert call(arguments, monkeypatch) == 1
    out, err = capsys.readouterr()
    assert "Cell 2-length=1-seed=2 failed: it broke." in out and "error: 1 of 4 cells failed, the first, 2-l" in err
    assert [row["n"] for row in json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]] == [1, 2]
    assert call([*arguments, "--resume", "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((whole / "sweep.json").read_text())
    for name in ("sweep.json", "plan.json"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_between_cells_ends_the_sweep_and_it_goes_on(
    number: int, code: int, job: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, grid = sweep_module._outcome, grid_of(job, "method.length=1,3", "seed=1,2")

    def stopped(cell: Any, place: Path, quiet: bool) -> Outcome:
        outcome = real(cell, place, quiet)
        if place.name.startswith("2-"):
            os.kill(os.getpid(), number)
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "_outcome", stopped)
        with pytest.raises(Interrupted, match=r"kept\. Run the same command with --resume") as caught:
            run_sweep(grid, tmp_path, quiet=True)
    assert caught.value.exit_code == code and len(list((tmp_path / "cells").iterdir())) == 2
    run_sweep(grid, tmp_path, resume=True, quiet=True)
    assert files_of(tmp_path) == files_of(whole)


def test_the_command_refuses_what_is_wrong_and_counts_what_is_not(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", str(job), "--out", str(tmp_path / "out")]
    refused([*words, "seed=1,x"], 2, "cell 2-seed=x", "seed: expected", monkeypatch=monkeypatch, capsys=capsys)
    assert call([*words, "method.length=1,3", "--dry-run"], monkeypatch) == 0
    assert "2-length=3" in capsys.readouterr().out
    assert call([*words, "method.length=1,3", "--dry-run", "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["2-length=3"]["steps"] == 8
    assert not (tmp_path / "out").exists()


def test_a_sweep_is_not_started_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="expected to be started once"):
        run_sweep(load_grid(str(tiny_job(tmp_path)), ["seed=1,2"]), tmp_path / "sweep")
