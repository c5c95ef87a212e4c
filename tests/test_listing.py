"""What `softprompt list` shows of the tasks, and that the page of the docs is what it prints."""

import json
import sys
from pathlib import Path

import pytest

from softprompt.cli import main
from softprompt.listing import tasks, tasks_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tasks.md"
EXPECTED = {
    *{f"glue-{name}" for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "qnli", "mnli", "rte", "wnli")},
    *{f"superglue-{name}" for name in ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")},
    *("e2e", "gazette", "winogrande", "scitail", "paws", "yelp", "snli"),
}


def test_no_task_is_missing_and_every_column_is_filled() -> None:
    rows = tasks()
    assert {row["name"] for row in rows} >= EXPECTED
    for row in rows:
        assert all(row.values()), row
    cola = next(row for row in rows if row["name"] == "glue-cola")
    assert cola["size"] == "train 8,551, dev 1,043" and cola["metrics"] == "matthews"
    assert cola["split"] == "half_validation" and cola["templates"] == "dept, t5"
    assert cola["source"].endswith("out_of_domain_dev.tsv; hub nyu-mll/glue (cola)")


def test_the_page_is_current() -> None:
    """If not: softprompt list tasks --markdown > docs/tasks.md"""
    assert PAGE.read_text(encoding="utf-8") == tasks_page()


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["softprompt", "list", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return (int(left.value.code or 0), *capsys.readouterr())

    assert call("tasks", "--markdown") == (0, tasks_page(), "")
    assert json.loads(call("tasks", "--json")[1]) == tasks()
    shown = call("tasks")[1]
    assert "glue-cola" in shown and "metrics: matthews | split: half_validation | templates: dept, t5" in shown
    for arguments in (["recipes", "--markdown"], ["tasks", "--markdown", "--json"]):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "") and "--markdown is the page of the tasks" in err
