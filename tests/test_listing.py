"""What `softprompt list` shows of the tasks, and that the page of the docs is what it prints."""

import json
import sys
from pathlib import Path

import pytest

from softprompt.cli import main
from softprompt.listing import as_lines, recipes, recipes_page, tasks, tasks_page

DOCS = Path(__file__).resolve().parents[1] / "docs"
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


def test_the_pages_are_current() -> None:
    """If not: softprompt list tasks --markdown > docs/tasks.md, and the same for recipes"""
    assert (DOCS / "tasks.md").read_text(encoding="utf-8") == tasks_page()
    assert (DOCS / "recipes.md").read_text(encoding="utf-8") == recipes_page()


def test_recipes_are_listed_paper_by_paper() -> None:
    blocks = [[line.split()[0] for line in block.splitlines()] for block in as_lines(recipes()).split("\n\n")]
    assert [block[0].rpartition("/")[0] for block in blocks] == ["", "dept", "prefix-tuning", "prompt-tuning"]
    assert all(len({name.rpartition("/")[0] for name in block}) == 1 for block in blocks)
    assert sum(map(len, blocks)) == len(recipes())
    page = (DOCS / "recipes.md").read_text(encoding="utf-8").splitlines()
    row = next(line for line in page if line.startswith("| `prefix-tuning/webnlg` |"))
    assert "Table 2, GPT-2 medium, Prefix (0.1%)" in row
    assert "BLEU 55.00, METEOR 41.00, TER 0.4200; seen: BLEU 62.90" in row


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
    for arguments in (["suites", "--markdown"], ["tasks", "--markdown", "--json"]):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "") and "--markdown is a page of the docs" in err
