"""From a data section to splits: grouping, limits, fallbacks."""

import json
from pathlib import Path
from typing import Any

import pytest

import softprompt.data
import softprompt.data.sources
from softprompt.config import DataConfig
from softprompt.data import digest, identity, load, origins
from softprompt.errors import ConfigError, DataError
from softprompt.types import Example


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GAZETTE = [
    {"id": "g1", "category": "river", "seen": True, "source": "name : A", "targets": ["one", "two"]},
    {"id": "g2", "category": "hill", "seen": False, "source": "name : B", "targets": ["three"]},
    {"id": "g3", "category": "hill", "seen": False, "source": " name : A ", "targets": ["two"]},
]


@pytest.fixture
def gazette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "assets" / "data" / "gazette"
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        write(folder / f"{split}.jsonl", GAZETTE)
    monkeypatch.setattr(softprompt.data.sources, "package_files", lambda name: tmp_path)
    return folder


@pytest.fixture(autouse=True)
def _no_counts(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "gazette" in request.fixturenames:
        monkeypatch.setattr(softprompt.data, "_check_counts", lambda *arguments: None)


def test_bundled_task(gazette: Path) -> None:
    data = DataConfig(task="gazette")
    splits = load(data, 1)
    meta = {"id": "g1", "category": "river", "seen": True}
    assert [(x.source, x.targets) for x in splits.train] == [
        ("name : A", ("one",)),
        ("name : A", ("two",)),
        ("name : B", ("three",)),
        ("name : A", ("two",)),
    ]
    assert splits.dev == splits.test
    assert splits.dev[0] == Example("name : A", ("one", "two", "two"), meta)
    assert [x.source for x in splits.dev] == ["name : A", "name : B"]
    assert origins(data) == {split: (gazette / f"{split}.jsonl",) for split in ("train", "dev", "test")}
    assert len({sha for _, _, sha in identity(data)}) == 1


def test_a_task_with_one_file_replaced(gazette: Path, tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.jsonl", GAZETTE[1:2])
    data = DataConfig(task="gazette", train=mine)
    assert origins(data)["train"] == (mine,) and len(load(data, 1).train) == 1
    other = tmp_path / "folder"
    gazette.rename(other)
    assert len(load(DataConfig(task="gazette", dir=other), 1).train) == 4


def test_own_files(tmp_path: Path) -> None:
    train, dev = tmp_path / "train.csv", write(tmp_path / "dev.jsonl", [{"name": "B", "area": "c", "text": ["x", "y"]}])
    train.write_text("name,area,text\nA,b,t1\nA,b,t1\n")
    data = DataConfig(train=train, dev=dev, input="{name} in {area}", target="{text}")
    splits = load(data, 1)
    assert splits.train == (Example("A in b", ("t1",)),) * 2
    assert splits.dev == splits.test == (Example("B in c", ("x", "y")),)
    alone = load(DataConfig(train=train, input="{name}", target="{text}"), 1)
    assert alone.dev == alone.test == () and alone.train[0].meta == {"area": "b"}


def test_default_templates_and_missing_columns(tmp_path: Path) -> None:
    good = write(tmp_path / "a.jsonl", [{"source": "s", "target": "t"}])
    assert load(DataConfig(train=good), 1).train == (Example("s", ("t",)),)
    bad = write(tmp_path / "b.jsonl", [{"source": "s", "tarqet": "t"}])
    with pytest.raises(DataError, match=r"b.jsonl:1: expected a column 'target'; nearest: 'tarqet'. Columns here"):
        load(DataConfig(train=bad), 1)
    later = write(tmp_path / "c.jsonl", [{"source": "s", "target": "t"}, {"source": "s"}])
    with pytest.raises(DataError, match=r"c.jsonl:2: the template asks for column 'target'"):
        load(DataConfig(train=later), 1)
    with pytest.raises(DataError, match=r"d.jsonl:1: expected a text in column 'source', got a list of objects"):
        load(DataConfig(train=write(tmp_path / "d.jsonl", [{"source": [{"s": 1}], "target": "t"}])), 1)
    with pytest.raises(ConfigError, match=r"data\.input: expected"):
        load(DataConfig(train=good, input="{source"), 1)


def test_empty_text_names_the_line_of_a_multi_line_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('source,target\n"a\nb\nc",d\ne,"  "\n')
    with pytest.raises(DataError, match=r"a.csv:5: expected a text"):
        load(DataConfig(train=path), 1)


def test_limits(tmp_path: Path) -> None:
    rows = [{"source": f"s{i // 2}", "target": f"t{i}"} for i in range(100)]
    path = write(tmp_path / "a.jsonl", rows)
    data = DataConfig(train=path, dev=path, max_train=20, max_dev=7, max_test=5)
    splits = load(data, 3)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (20, 7, 5)
    assert all(len(x.targets) == 2 for x in splits.dev)
    order = [int(x.targets[0][1:]) for x in splits.train]
    assert order == sorted(order) and order != list(range(20))
    assert load(data, 3) == splits and load(data, 4).train != splits.train
    more = load(data.model_copy(update={"max_train": 40}), 3)
    assert {x.targets for x in splits.train} <= {x.targets for x in more.train}
    assert set(x.source for x in splits.test) <= set(x.source for x in splits.dev)
    assert len(load(data.model_copy(update={"max_train": 1000}), 3).train) == 100


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such data file"):
        load(DataConfig(train=tmp_path / "x.csv"), 1)
    with pytest.raises(ConfigError, match="cannot be read"):
        digest(tmp_path / "x.csv")
