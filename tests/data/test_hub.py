"""Hub data sets, on local folders of Parquet files: what `datasets` reads, and its errors as ours."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import softprompt.data
from softprompt import plan
from softprompt.config import DataConfig, Recipe
from softprompt.data import hub_of, identity, load, origins, reads_hub
from softprompt.data.hub import HubPart, hub_fingerprint, read_hub
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Hub, Task, list_tasks, load_task

SPLITS = {"train": "train", "dev": "validation"}
ROWS = [
    {"id": f"q{i}", "title": "t", "context": "here it is", "question": "Where?", "answers": {"text": ["here", "it"]}}
    for i in range(5)
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set in the hub's form: 5 rows of train, 2 of validation."""
    datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    place = tmp_path / "squad"
    place.mkdir()
    for name, rows in (("train", ROWS), ("validation", ROWS[:2])):
        parquet.write_table(pyarrow.Table.from_pylist(rows), place / f"{name}.parquet")
    return place


def hub(folder: Path | str, **changes: Any) -> Hub:
    given = {"id": str(folder), "splits": SPLITS, "columns": {"answers": "answers.text"}, **changes}
    return Hub.model_validate(given)


def test_rows_in_order_with_their_place(folder: Path) -> None:
    records = list(read_hub(HubPart(hub(folder), "train")))
    assert [record.values["id"] for record in records] == ["q0", "q1", "q2", "q3", "q4"]
    assert records[1].where == f"{folder}: default/train, row 2"
    assert records[0].values["answers"] == ["here", "it"]
    assert len(list(read_hub(HubPart(hub(folder), "dev")))) == 2


def test_class_numbers_become_what_the_official_files_write(folder: Path) -> None:
    from pyarrow import Table, parquet

    rows = [{"sentence": "a", "label": 1}, {"sentence": "b", "label": 0}, {"sentence": "c", "label": -1}]
    (folder / "validation.parquet").unlink()
    parquet.write_table(Table.from_pylist(rows), folder / "train.parquet")
    records = read_hub(HubPart(hub(folder, columns={}, classes={"label": ["no", "yes"]}), "train"))
    assert [next(records).values["label"] for _ in range(2)] == ["yes", "no"]
    with pytest.raises(DataError, match=r"row 3: expected a class number from 0 to 1 in column 'label', got -1"):
        next(records)


def test_fingerprint_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    train, dev = (hub_fingerprint(HubPart(hub(folder), split)) for split in ("train", "dev"))
    assert train == hub_fingerprint(HubPart(hub(folder), "train")) != dev and len(train) == 64


@pytest.fixture
def squad(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """The task squad, whose hub data set is the folder; without the official counts."""
    known = load_task("squad")
    source = known.source.model_copy(update={"hub": hub(folder)})
    task = known.model_copy(update={"source": source, "counts": {}})
    _known(task, monkeypatch)
    return task


def _known(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (softprompt.data, softprompt.data.sources):
        monkeypatch.setattr(module, "load_task", lambda name: task)


def test_a_task_is_read_from_the_hub_where_no_folder_is_given(squad: Task, tmp_path: Path) -> None:
    data = DataConfig(task="squad")
    splits = load(data, 1)
    source = "question: Where? context: here it is"
    assert [(x.source, x.targets) for x in splits.train] == [(source, ("here",))] * 5
    assert [(x.targets, x.meta["id"]) for x in splits.test] == [(("here", "it"), "q0"), (("here", "it"), "q1")]
    assert origins(data) == {"train": (HubPart(squad.source.hub, "train"),), "dev": (HubPart(squad.source.hub, "dev"),)}
    assert [name for _, name, _ in identity(data)] == [
        f"{tmp_path / 'squad'} ({name})" for name in ("train", "validation")
    ]
    assert reads_hub(data)
    own = tmp_path / "own.json"
    asked = {"id": "x", "question": "?", "answers": [{"text": "c"}]}
    own.write_text(json.dumps({"data": [{"paragraphs": [{"context": "c", "qas": [asked]}]}]}))
    mixed = DataConfig(task="squad", dev=own)
    assert [x.meta["id"] for x in load(mixed, 1).dev] == ["x"] and len(load(mixed, 1).train) == 5
    assert origins(mixed)["dev"] == (own,) and [split for split, _, _ in identity(mixed)] == ["train", "dev"]
    with pytest.raises(ConfigError, match=r"lacks train-v1.1.json.*softprompt fetch squad"):
        load(DataConfig(task="squad", dir=tmp_path), 1)


def test_counts_hold_for_the_hub_too(squad: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    task = squad.model_copy(update={"counts": load_task("squad").counts})
    _known(task, monkeypatch)
    with pytest.raises(DataError, match=r"squad \(train\): expected the squad train file of 87,599 pairs"):
        load(DataConfig(task="squad"), 1)


def test_rows_are_checked_like_those_of_files(squad: Task, folder: Path) -> None:
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pylist([*ROWS, {**ROWS[0], "question": " "}]), folder / "train.parquet")
    with pytest.raises(DataError, match=r"default/train, row 6: expected a text as 'question'"):
        load(DataConfig(task="squad"), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"splits": {"train": "nosuch"}},
            r"split 'nosuch'\) cannot be read: Unknown split .*\['train', 'validation'\]",
        ),
        ({"config": "nosuch"}, r"\(nosuch, split 'train'\) cannot be read: BuilderConfig 'nosuch' not found"),
        ({"columns": {"a": "answers.txt"}}, r"row 1: expected a column 'answers.txt'; columns here: 'id', 'title'"),
        ({"columns": {"a": "title.text"}}, r"row 1: expected a column 'title.text'"),
        ({"id": "rajpurkar/squad"}, r"'rajpurkar/squad' is neither in the cache nor within reach .*softprompt fetch"),
    ],
)
def test_errors(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(read_hub(HubPart(hub(folder, **changes), "train")))


def test_a_damaged_file_and_a_loading_script_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "train.parquet").write_bytes(b"PAR1 not parquet")
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_hub(HubPart(hub(folder), "train")))
    script = tmp_path / "script"
    script.mkdir()
    (script / "script.py").write_text("raise SystemExit('never run')")
    with pytest.raises(ConfigError, match=r"needs a loading script .*never run. Expected a data set stored as Parquet"):
        list(read_hub(HubPart(hub(script), "train")))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"'rajpurkar/squad' needs the library datasets.*pip install 'softprompt\[data\]'"
    ):
        load(DataConfig(task="squad"), 1)


def test_a_dry_run_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softprompt.data.rows, "read_hub", lambda *given: pytest.fail("the hub was asked"))
    recipe = Recipe(name="x", data=DataConfig(task="squad"))
    assert plan._pairs(recipe) == (87_599, "as published; no data given")
    some = Recipe(name="x", data=DataConfig(task="mrqa-newsqa", max_train=1000))
    assert plan._pairs(some) == (1000, "as published; no data given")
    assert load_task("mrqa-newsqa").train_pairs() == 74_160 and load_task("e2e").train_pairs() == 42_061
    assert load_task("xquad-en").train_pairs() is None


def test_hub_data_sets_of_the_tasks_name_splits_that_there_are() -> None:
    found = {task.name: task.source for task in list_tasks() if task.source.hub}
    assert "squad" in found
    for source in found.values():
        assert source.hub is not None and set(source.hub.splits) == set(source.files)
    assert hub_of(DataConfig(task="squad")) == found["squad"].hub
    assert hub_of(DataConfig(task="squad", dir=Path("x"))) is None and hub_of(DataConfig(task="gazette")) is None
