"""Cases reduced from bug reports about other tools, each a program that ends with 0 where we are right."""

import contextlib
import io
import os
import runpy
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
CASES = sorted((SHARED / "cases" / "reports").glob("[0-9]*.py"))


@pytest.mark.parametrize("case", CASES or [None], ids=lambda case: case.stem if case else "none")
def test_a_reported_case_is_right_here(case: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if case is None:
        pytest.skip(f"the reported cases are not here: {SHARED / 'cases' / 'reports'}")
    monkeypatch.setenv("SOFTPROMPT_SHARED", str(SHARED))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(case.parent), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the folder may be for reading only
    monkeypatch.setattr(sys, "argv", [str(case)])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before, said = dict(os.environ), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as end:
            runpy.run_path(str(case), run_name="__main__")
    finally:
        os.environ.clear()
        os.environ.update(before)
        for name in ("_tools", "_trainer"):
            sys.modules.pop(name, None)
    assert end.value.code in (0, None), said.getvalue()
