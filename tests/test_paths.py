"""Paths in a recipe: relative to its file, absolute once it is loaded, and old run folders still go on."""

import json
from pathlib import Path

import pytest
from factories import backbone_folder
from finished_runs import as_before
from jobs import tiny_job

from softprompt.config import load_recipe, task_recipe
from softprompt.data import load
from softprompt.errors import ConfigError
from softprompt.run import run_recipe

ROWS = "source,target\ntea,pie\n"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe beside its data; the working directory is another folder."""
    place, elsewhere = tmp_path / "job", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (place / "a.csv").write_text(ROWS)
    (place / "start").mkdir()
    (place / "r.yaml").write_text(
        "method: {name: prompt, init: file, init_file: start, length: 2}\ndata: {train: a.csv, dev: ../job/a.csv}\n"
        "compare: {other: {data: {test: a.csv}}, plain: {method: {name: prompt, length: 2}}}\n"
    )
    monkeypatch.chdir(elsewhere)
    return place


def test_paths_are_relative_to_the_file_that_names_them(job: Path) -> None:
    recipe = load_recipe("../job/r.yaml")
    assert (recipe.data.train, recipe.data.dev) == (job / "a.csv", job / "a.csv")
    assert recipe.method.init_file == str(job / "start")  # type: ignore[union-attr]
    assert recipe.arm("other").data.test == job / "a.csv"
    assert load(recipe.data, 1).train[0].source == "tea"


def test_those_of_an_override_and_what_lies_there_alone_to_the_working_directory(job: Path, tmp_path: Path) -> None:
    here = tmp_path / "elsewhere"
    (here / "mine.csv").write_text(ROWS)
    assert load_recipe("../job/r.yaml", ["data.train=mine.csv"]).data.train == here / "mine.csv"
    assert task_recipe("glue-cola", ["data.dir=x"]).data.dir == here / "x"
    (job / "old.yaml").write_text("data: {train: mine.csv, dev: none.csv, test: ~/x.csv}")
    recipe = load_recipe("../job/old.yaml")
    assert recipe.data.train == here / "mine.csv" and recipe.data.dev == job / "none.csv"
    assert str(recipe.data.test) == "~/x.csv"


def test_a_base_and_its_paths(job: Path) -> None:
    (job / "deep").mkdir()
    (job / "deep" / "b.yaml").write_text("base: ../r.yaml\nseed: 3\n")
    recipe = load_recipe("../job/deep/b.yaml")
    assert recipe.data.train == job / "a.csv" and recipe.seed == 3


def test_a_backbones_folder_and_no_namesake_of_a_hub_id(job: Path) -> None:
    backbone_folder(job / "bone")
    (job / "gpt2").mkdir()
    for name, want in (("bone", str(job / "bone")), ("gpt2", "gpt2"), ("bundled", "bundled")):
        (job / "c.yaml").write_text(f"backbone: {name}\ndata: {{train: a.csv}}")
        assert load_recipe("../job/c.yaml").backbone.id == want


def test_the_resolved_recipe_works_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tiny_job(tmp_path)
    for name in ("train", "dev", "test"):
        job.write_text(job.read_text().replace(f"{tmp_path}/{name}.jsonl", f"{name}.jsonl"))
    run = tmp_path / "deep" / "run"
    monkeypatch.chdir("/")
    run_recipe(load_recipe(str(job), ["train.max_steps=1", "untuned=false"]), run, quiet=True)
    again = load_recipe(str(run / "recipe.yaml"))
    assert again.data.train is not None and again.data.train.is_file() and again.data.train.is_absolute()
    assert all(Path(name).is_absolute() for name in json.loads((run / "env.json").read_text())["data"])


def test_a_run_that_was_begun_with_relative_paths_goes_on_and_knows_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(str(job), ["train.max_steps=1", "untuned=false"])
    run_recipe(recipe, tmp_path / "run", quiet=True)
    as_before(tmp_path / "run")
    for name in ("recipe.yaml", "env.json"):  # as they were written before
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace(f"{tmp_path}/", ""))
    assert str(tmp_path) not in (tmp_path / "run" / "env.json").read_text()
    run_recipe(recipe, tmp_path / "run", resume=True, quiet=True)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"source": "red", "target": "inn"}\n')
    with pytest.raises(ConfigError, match=r"data.train \(the content of .*train.jsonl"):
        run_recipe(recipe, tmp_path / "run", resume=True, quiet=True)
