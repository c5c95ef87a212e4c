"""Fault 9: two processes in one folder."""

import os
import sys
import time
from pathlib import Path

import pytest
from sittings import die, said, start

from softprompt.errors import ConfigError
from softprompt.lock import LOCK, locked

pytestmark = pytest.mark.faults


def contend(folder: Path, ready: float) -> None:
    """Take the lock or leave with exit code 2, as the command does; the holder writes two halves of a line."""
    time.sleep(max(0.0, ready - time.time()))
    try:
        with locked(folder), (folder / "log").open("a", buffering=1) as log:
            log.write("<")
            time.sleep(0.05)
            log.write(">\n")
    except ConfigError as error:
        assert "is in use by" in str(error)
        sys.exit(error.exit_code)


@pytest.mark.parametrize("races", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_fault_09_two_processes_in_one_folder(races: int, tmp_path: Path) -> None:
    codes: list[int | None] = []
    for _ in range(races):
        ready = time.time() + 0.15
        pair = [start(contend, tmp_path, ready) for _ in range(2)]
        for process in pair:
            process.join(60)
        codes += [process.exitcode for process in pair]
    lines = (tmp_path / "log").read_text()
    said(f"fault 9: {races} races: {codes.count(0)} held the folder, {codes.count(2)} were refused with exit code 2")
    assert set(codes) <= {0, 2} and codes.count(0) >= races and 2 in codes
    assert lines == "<>\n" * codes.count(0)


def test_fault_09_a_lock_of_a_dead_process_does_not_block(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            die()
    os.waitpid(child, 0)
    assert (tmp_path / LOCK).read_text() == f"{child}\n"
    with (
        locked(tmp_path),
        pytest.raises(ConfigError, match=rf"is in use by process {os.getpid()}\. Wait"),
        locked(tmp_path),
    ):
        pass
