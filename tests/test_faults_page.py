"""docs/faults.md: every fault that was found has a kind and a test that exists, or a reason."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| entry")
]
ENTRIES = {
    *(f"F{number}" for number in range(1, 21)),
    *(f"B{number:02}" for number in (*range(1, 30), 39, 40, 41, 43, 44)),
    *(f"C{number}" for number in range(1, 21)),
    *(f"D{number}" for number in range(1, 23)),
    *(f"E{number}" for number in range(1, 8)),
}


def test_every_entry_is_there() -> None:
    assert {entry for row in ROWS for entry in re.findall(r"\b[A-F]\d+\b", row[0])} >= ENTRIES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_every_entry_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 3 and row[1]
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", row[2])
    assert named or row[2].startswith(("not agreed: ", "not done: "))
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
