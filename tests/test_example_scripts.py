"""The examples run as they stand, and what they train is learned."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_learns_and_keeps_what_it_learned(path: Path, tmp_path: Path) -> None:
    first, last, text = runpy.run_path(str(path))["main"]("bundled", 30, str(tmp_path / "kept"))
    assert last < 0.3 * first
    assert text == "Aromi is a pub."


def test_there_is_an_example_of_each_kind() -> None:
    assert [path.stem for path in EXAMPLES] == ["own_loop", "with_trainer"]
