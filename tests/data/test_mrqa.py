"""MRQA's JSONL: the header, several questions a line, and refusals that name the line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import DataConfig
from softprompt.data import load
from softprompt.data.rows import records
from softprompt.data.table import Record
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import load_task

QUESTION = {"qid": "q1", "question": "Where?", "answers": ["here"], "detected_answers": [{"text": "Here"}]}
ROW = {"context": "Here it is", "qas": [QUESTION, {**QUESTION, "qid": "q2"}]}
HEADER = {"header": {"dataset": "x", "split": "dev"}}


def read_mrqa(path: Path) -> list[Record]:
    """The records as the task has them: read, and shaped."""
    return list(records(path, load_task("mrqa-newsqa").source))


def write(path: Path, *rows: Any) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("header", [[HEADER], []])
def test_records(name: str, header: list[Any], tmp_path: Path) -> None:
    path = write(tmp_path / name, *header, ROW, "", ROW)
    found = read_mrqa(path)
    assert [record.values["id"] for record in found] == ["q1", "q2", "q1", "q2"]
    assert [record.line for record in found] == [1 + len(header)] * 2 + [3 + len(header)] * 2
    assert found[0].values["detected"] == ["Here"] and found[0].values["answers"] == ["here"]


BAD: dict[str, tuple[Any, str]] = {
    "not json": ('{"context": ', r":2: expected one JSON object a line, got an error"),
    "a list": ("[]", r":2: expected one JSON object a line, .*got list"),
    "no questions": ({"context": "c"}, r":2: expected the key 'qas', got 'context'"),
    "a text for a question": ({"context": "c", "qas": ["?"]}, r":2: expected the key 'detected_answers', got str"),
    "no detected answers": (
        {"context": "c", "qas": [{"qid": "q", "question": "?", "answers": ["a"]}]},
        r":2: expected the key 'detected_answers', got 'qid'",
    ),
    "no id": ({"context": "c", "qas": [{**QUESTION, "qid": 3}]}, r":2: expected a text as 'id', got 3"),
    "no context": ({"qas": [QUESTION]}, r":2: expected a text as 'context', got None"),
    "answers as text": (
        {"context": "c", "qas": [{**QUESTION, "answers": "a"}]},
        r":2: expected a list of texts as 'answers', got 'a'",
    ),
    "a header in the middle": (HEADER, r":2: expected the key 'qas', got 'header'"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_rows(name: str, tmp_path: Path) -> None:
    row, message = BAD[name]
    with pytest.raises(DataError, match=message):
        read_mrqa(write(tmp_path / "a.jsonl", HEADER, row))


def test_damaged_files(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.jsonl.gz", HEADER, *[{**ROW, "context": str(i)} for i in range(2000)]).read_bytes()
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut.jsonl.gz:\d+: the file cannot be read on from here"):
        read_mrqa(cut)
    cut.write_bytes(whole[:200] + b"\0" * 200 + whole[400:])
    with pytest.raises(DataError, match=r"cut.jsonl.gz:\d+: "):
        read_mrqa(cut)
    cut.write_text("plain text")
    with pytest.raises(DataError, match=r"cut.jsonl.gz:1: the file cannot be read on"):
        read_mrqa(cut)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(json.dumps(HEADER).encode() + b'\n{"context": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"latin.jsonl:2: expected UTF-8 text, got the byte 0xe9"):
        read_mrqa(latin)
    with pytest.raises(ConfigError, match=r"none.jsonl: there is no such data file"):
        read_mrqa(tmp_path / "none.jsonl")
    empty = write(tmp_path / "empty.jsonl", HEADER)
    with pytest.raises(DataError, match=r"empty.jsonl: expected at least one row, got none"):
        load(DataConfig(task="mrqa-newsqa", train=empty, dev=empty), 1)


def test_files_in_the_official_folders(tmp_path: Path) -> None:
    """Both splits of MRQA have one file name, in folders of their own."""
    with pytest.raises(ConfigError, match=r"lacks train/NewsQA.jsonl.gz, dev/NewsQA.jsonl.gz; it holds nothing"):
        load(DataConfig(task="mrqa-newsqa", dir=tmp_path), 1)
    for split in ("train", "dev"):
        (tmp_path / split).mkdir()
        write(tmp_path / split / "NewsQA.jsonl.gz", HEADER, ROW)
    with pytest.raises(DataError, match=r"mrqa-newsqa train file of 2 pairs and 74,160 sources, got 2 and 2"):
        load(DataConfig(task="mrqa-newsqa", dir=tmp_path), 1)
