"""The guard of the command: every exception is one message and an exit code; signals are answered from the start."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from test_cli import call, refused

from softprompt import guard, quiet
from softprompt.cli import app
from softprompt.errors import ConfigError, Interrupted, is_out_of_memory
from softprompt.guard import explained, guarded
from softprompt.signals import Stopped, collected, stoppable
from softprompt.table import as_text, terminal_width


def ends(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def command() -> int:
        raise error

    code = guarded(command)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and "Traceback" not in err
    return code, err


class Panic(BaseException):
    """As libraries in Rust raise: no `Exception`."""


@pytest.mark.parametrize(
    "error",
    [ValueError("odd"), RuntimeError("mat1 and mat2"), RecursionError("deep"), KeyError("k"), Panic("rust"), OSError()],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_ends_in_one_message(
    error: BaseException, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard.tempfile, "tempdir", str(tmp_path))
    code, err = ends(error, capsys)
    assert code == 1 and len(err.splitlines()) == 1
    if not isinstance(error, OSError):
        assert type(error).__name__ in err and "a fault of softprompt" in err and "test_guard.py" in err
        (kept,) = tmp_path.iterdir()
        assert str(kept) in err and "Traceback" in kept.read_text()


def test_a_traceback_is_shown_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(guard.TRACEBACK, "1")

    def command() -> int:
        raise ValueError("odd")

    assert guarded(command) == 1
    assert "Traceback" in capsys.readouterr().err


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("std::bad_alloc"),
    OSError(12, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_memory_that_runs_out_is_told_as_that(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_out_of_memory(error)
    code, err = ends(error, capsys)
    assert code == 1 and "out of memory" in err and "train.micro_batch=auto" in err and "fault of" not in err


def test_what_a_cpu_says_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit")) and not is_out_of_memory(ValueError("out of memory"))


def test_errors_of_ours_keep_their_codes() -> None:
    assert explained(ConfigError("x")) == ("x", 2)
    assert explained(Interrupted("saved", 75)) == ("saved", 75)
    assert explained(KeyboardInterrupt())[1] == 130


@pytest.mark.parametrize(
    "arguments", [["run"], ["nonsense"], ["run", "e2e", "--nonsense"], ["score", "x", "--seed", "-1"]]
)
def test_usage_errors_speak_with_the_same_voice(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(arguments, 2, "--help", monkeypatch=monkeypatch, capsys=capsys)


def test_two_seeds_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "quickstart", "--seed", "5", "seed=6", "--dry-run"]
    refused(arguments, 2, "--seed 5", "'seed=6'", monkeypatch=monkeypatch, capsys=capsys)


def test_completion_is_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"--install-completion", "--show-completion"} <= {
        option for parameter in __import__("typer").main.get_command(app).params for option in parameter.opts
    }


# --- signals ---------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
sys.argv = ["softprompt", *ARGUMENTS]
class Loader:
    def find_spec(self, name, path=None, target=None):
        if name == WHERE:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), NUMBER)
            except BaseException:
                raise ImportError("an import that turns a signal into an error of its own")
from softprompt.cli import main
sys.meta_path.insert(0, Loader())
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("where", ["typer", "pydantic", "torch"])
def test_fault_05_a_signal_in_an_import_is_one_line(where: str, number: int, code: int, tmp_path: Path) -> None:
    arguments = ["run", "quickstart", "--out", str(tmp_path / "run"), "--quiet"]
    child = (
        CHILD.replace("ARGUMENTS", repr(arguments)).replace("WHERE", repr(where)).replace("NUMBER", str(int(number)))
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(f"error: {signal.Signals(number).name}: ") and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_signal_that_an_import_turns_into_an_error_is_told_as_the_signal() -> None:
    with pytest.raises(Interrupted) as caught, stoppable("stopped"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Stopped:
            raise ModuleNotFoundError("no module") from None
    assert caught.value.exit_code == 75


def test_a_signal_that_is_swallowed_still_counts_further_in() -> None:
    with pytest.raises(Interrupted), stoppable("stopped"):
        with contextlib.suppress(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        with collected() as inside:
            assert inside.numbers == [signal.SIGTERM]
        raise Stopped(signal.SIGTERM)


# --- one voice, and what fits ----------------------------------------------------------------------------------------


def test_warnings_of_libraries_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        quiet.one_voice()
        for _ in range(2):
            warnings.warn("a thing\n  over two lines, said once", UserWarning, stacklevel=1)
        warnings.warn("for programmers", FutureWarning, stacklevel=1)
    sys.unraisablehook = sys.__unraisablehook__
    assert capsys.readouterr().err == "warning: a thing over two lines, said once\n"


ROWS = [["", *(f"metric {n}" for n in range(12))], *([f"arm {a}", *["12,345.67"] * 12] for a in range(3))]


@pytest.mark.parametrize("rows", [ROWS, list(map(list, zip(*ROWS, strict=True))), [*ROWS, *ROWS * 5]])
def test_tables_fit_the_terminal_and_lose_nothing(rows: list[list[str]]) -> None:
    text = as_text(rows, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("12,345.67") == sum(row.count("12,345.67") for row in rows)
    assert {cell for row in rows for cell in row if cell} <= set(
        text.replace("  ", "\n").replace("\n ", "\n").split("\n")
    )


def test_where_no_terminal_is_tables_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_width() is None and len(as_text(ROWS).splitlines()) == 5
    monkeypatch.setenv("COLUMNS", "70")
    assert terminal_width() == 70 and max(map(len, as_text(ROWS).splitlines())) <= 70


@pytest.mark.parametrize("what", ["tasks", "recipes", "suites", "methods", "backbones"])
def test_lists_fit_the_terminal(what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(["list", what], monkeypatch) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_long_documents_are_cut_where_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"source": "name : inn | " * 400, "target": "A text."}]
    (tmp_path / "train.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "r.yaml").write_text(f"data: {{train: {tmp_path / 'train.jsonl'}}}\n")
    assert call(["inspect-data", str(tmp_path / "r.yaml")], monkeypatch) == 0
    out = capsys.readouterr().out
    assert "characters ...]" in out and max(map(len, out.splitlines())) < 800
