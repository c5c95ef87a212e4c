"""predictions/test.jsonl: a user's columns never replace what a run says, and JSON can say all of them."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import DataConfig
from softprompt.data import load
from softprompt.decode import Decoded
from softprompt.results import ArmResult, write_down
from softprompt.types import Example

RESULT = ArmResult("main", "prompt", {}, {}, {}, None, {})


def written(place: Path, *examples: Example) -> list[dict[str, Any]]:
    rows = [Decoded(index, f"answer {index}", 2) for index in range(len(examples))]
    write_down(place, RESULT, examples, rows)
    lines = (place / "predictions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def test_columns_of_the_users_do_not_replace_ours(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "text,label,source,prediction,references,meta\ntea,pie,web,cold,none,x\n", encoding="utf-8"
    )
    config = DataConfig(train=tmp_path / "a.csv", input="{text}", target="{label}")
    (row,) = written(tmp_path, *load(config, 1).train)
    theirs = {"source": "web", "prediction": "cold", "references": "none", "meta": "x"}
    assert row == {"source": "tea", "prediction": "answer 0", "references": ["pie"], "meta": theirs}


def test_colas_column_called_source_is_not_the_sentence(tmp_path: Path) -> None:
    (tmp_path / "in_domain_dev.tsv").write_text("bc01\t1\t\tThe inn sells tea.\n")
    data = DataConfig(task="glue-cola", train=tmp_path / "in_domain_dev.tsv", dev=tmp_path / "in_domain_dev.tsv")
    (row,) = written(tmp_path, *load(data.model_copy(update={"split": "native"}), 1).dev)
    assert "The inn sells tea." in row["source"] and row["meta"]["source"] == "bc01"


def test_what_json_cannot_say_is_text(tmp_path: Path) -> None:
    deep: Any = "end"
    for _ in range(2_000):
        deep = [deep]
    meta = {
        "when": datetime(2024, 5, 1, 12, tzinfo=UTC),
        "day": date(2024, 5, 1),
        "price": Decimal("1.50"),
        "words": b"tea",
        "bytes": b"\xff\x00",
        "empty": float("nan"),
        "most": [float("inf"), {"a": -float("inf")}],
        "broken": "a\ud800",
        "kept": [1, 2.5, True, None, "é"],
        "deep": deep,
    }
    (row,) = written(tmp_path, Example("s", ("t",), meta))
    assert row["meta"] == {
        "when": "2024-05-01T12:00:00+00:00",
        "day": "2024-05-01",
        "price": "1.50",
        "words": "tea",
        "bytes": "/wA=",
        "empty": "nan",
        "most": ["inf", {"a": "-inf"}],
        "broken": "a\\ud800",
        "kept": [1, 2.5, True, None, "é"],
        "deep": "(nested too deep)",
    }


def test_parquets_own_types_come_through_a_run(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"source": ["s"], "target": ["t"], "when": [datetime(2024, 5, 1)], "price": [Decimal("2.5")], "raw": [b"x"]}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    (row,) = written(tmp_path, *load(DataConfig(train=tmp_path / "a.parquet"), 1).train)
    assert row["meta"] == {"when": "2024-05-01T00:00:00", "price": "2.5", "raw": "x"}
