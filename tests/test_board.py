"""Curves for TensorBoard: read back by its own reader, and no failure of theirs ends a run or prints a traceback."""

import shutil
import threading
from pathlib import Path

import pytest
from sittings import TOTAL, sit

from softprompt import checkpoint
from softprompt import fit as fit_module
from softprompt.board import Board
from softprompt.errors import TrainingError
from softprompt.fit import METRICS
from softprompt.train_config import TrainConfig

pytest.importorskip("tensorboard")


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_tensorboard_reads_what_is_written_and_forgets_what_a_resume_does_again(tmp_path: Path) -> None:
    first = Board(tmp_path / "tb")
    first.add(10, {"train/loss": 2.5, "train/lr": 0.5})
    first.add(20, {"train/loss": 2.25})
    first.close()
    second = Board(tmp_path / "tb", purge=11)
    second.add(20, {"train/loss": 1.5})
    second.close()
    assert scalars(tmp_path / "tb", "train/loss") == [(10, 2.5), (20, 1.5)]
    assert scalars(tmp_path / "tb", "train/lr") == [(10, 0.5)]


def test_a_run_has_a_point_every_so_many_steps_and_each_dev_loss(tmp_path: Path) -> None:
    sit(tmp_path, log_every=4)
    assert [step for step, _ in scalars(tmp_path / "tb", "train/loss")] == [4, 8, TOTAL]
    assert [step for step, _ in scalars(tmp_path / "tb", "dev/loss")] == [2, 4, 6, 8, 9]
    assert len((tmp_path / METRICS).read_text().splitlines()) == TOTAL + 5
    described = str(TrainConfig.model_fields["log_every"].description)
    assert "TensorBoard" in described and "metrics.jsonl has every step" in described


def at_step(patch: pytest.MonkeyPatch, step: int, act: object) -> None:
    """Do something between two steps of a run."""
    real = fit_module._Sitting.log

    def log(self: object, record: object) -> None:
        real(self, record)  # type: ignore[arg-type]
        if record.step == step:  # type: ignore[attr-defined]
            act()  # type: ignore[operator]

    patch.setattr(fit_module._Sitting, "log", log)


def nothing_in_threads(patch: pytest.MonkeyPatch) -> list[object]:
    raised: list[object] = []
    patch.setattr(threading, "excepthook", raised.append)
    return raised


@pytest.mark.parametrize("how", ["removed", "a file in its place", "moved", "no room"])
def test_a_writer_that_fails_is_said_once_and_the_run_goes_on(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raised, board = nothing_in_threads(monkeypatch), tmp_path / "tb"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def act() -> None:
        if how == "moved":
            board.rename(tmp_path / "elsewhere")
        elif how == "no room":
            monkeypatch.setattr(Board, "_write", full)
        else:
            shutil.rmtree(board)
            if how != "removed":
                board.write_text("")

    at_step(monkeypatch, 3, act)
    fitted, _ = sit(tmp_path, log_every=1)
    assert fitted.steps == TOTAL and raised == []
    err = capsys.readouterr().err
    assert err.count("warning: no more curves for TensorBoard") == (how != "moved") and "Traceback" not in err


def test_a_folder_that_cannot_be_made_is_said_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tb").write_text("")
    fitted, _ = sit(tmp_path)
    assert fitted.steps == TOTAL and capsys.readouterr().err.count("warning: no more curves") == 1


@pytest.mark.parametrize("how", ["removed", "moved", "another in its place"])
def test_a_run_whose_folder_goes_stops_plainly_and_makes_no_half_one(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised, run = nothing_in_threads(monkeypatch), tmp_path / "run"

    def act() -> None:
        if how == "removed":
            shutil.rmtree(run)
        else:
            run.rename(tmp_path / "moved")
        if how == "another in its place":
            run.mkdir()
            (run / METRICS).write_text("")

    at_step(monkeypatch, 5, act)
    with pytest.raises(TrainingError, match=r"metrics.jsonl: expected the log that this run writes, which was moved"):
        sit(run)
    assert raised == []
    assert not run.exists() if how != "another in its place" else [path.name for path in run.iterdir()] == [METRICS]
    if how == "moved":  # what was saved there is gone on with
        assert checkpoint.steps(tmp_path / "moved" / "checkpoints")[-1] >= 3
        (tmp_path / "moved").rename(run)
        monkeypatch.undo()
        assert sit(run)[0].steps == TOTAL
