"""SciTLDR: counts, several references, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import DataConfig
from softprompt.data import load
from softprompt.data.scitldr import read_scitldr
from softprompt.errors import DataError


def write(path: Path, **changes: Any) -> Path:
    row = {"source": ["One. ", "Two."], "target": ["A.", "B."], "title": "T", "paper_id": "p", "rouge_scores": [0.5]}
    path.write_text(json.dumps(row | changes) + "\n")
    return path


def test_a_paper(tmp_path: Path) -> None:
    (record,) = read_scitldr(write(tmp_path / "a.jsonl"))
    assert record.values == {"document": "One. Two.", "summaries": ["A.", "B."], "title": "T", "id": "p"}


@pytest.mark.parametrize("wrong", [{"source": "One."}, {"source": []}, {"target": [None]}, {"target": "A."}])
def test_a_wrong_paper(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=rf"a.jsonl:1: expected a list of texts in '{next(iter(wrong))}'"):
        list(read_scitldr(write(tmp_path / "a.jsonl", **wrong)))


def test_a_missing_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"source": ["a"], "target": ["b"], "title": "c"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:1: expected a column 'paper_id'"):
        list(read_scitldr(tmp_path / "a.jsonl"))


def test_official_counts(scitldr_folder: Path) -> None:
    splits = load(DataConfig(task="scitldr", dir=scitldr_folder), 1)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (1_992, 619, 618)
    assert sum(len(row.targets) for row in splits.dev) == 1_453
    assert sum(len(row.targets) for row in splits.test) == 1_967
    assert splits.test[0].meta["title"] == "FearNet: Brain-Inspired Model for Incremental Learning"
