"""Fault 15: a sweep whose driver is killed again and again does each cell once and writes the same report."""

import random
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from jobs import tiny_job
from sittings import assert_killed, die_at, said, start

from softprompt import sweep
from softprompt.fit import METRICS
from softprompt.grid import load_grid
from softprompt.report import CARD

pytestmark = pytest.mark.faults

QUICK = [
    *("untuned=false", "score.metrics=[chrf]", "train.max_steps=4", "train.save_every=2"),
    "decode={strategy: greedy, beams: null, max_new_tokens: 3}",
]
REPORT = ("sweep.json", "README.md", "plan.json")
IN_A_CELL = {
    "forward": 8,
    "before fsync": 42,
    "tensors written": 5,
    "before rename": 3,
    "after rename": 3,
    "pruning": 3,
}
"""Place to die -> how often a cell comes by it."""
IN_THE_REPORT = 4
"""Calls of fsync in writing the report: two files and their folder."""


def drive(job: Path, seeds: int, out: Path, where: str = "", place: str = "", number: int = 0) -> None:
    """Body of a process that sweeps; killed at the `number`-th visit of `place`, counted from where it says."""
    torch.set_num_threads(1)
    grid = load_grid(str(job), [*QUICK, "method.length=1,3", f"seed={','.join(map(str, range(seeds)))}"])
    patch, real = pytest.MonkeyPatch(), sweep.write_report

    def report(*args: object) -> None:
        die_at(patch, place, number)
        real(*args)  # type: ignore[arg-type]

    if where == "report":
        patch.setattr(sweep, "write_report", report)
    elif where:
        die_at(patch, place, number)
    sweep.run_sweep(grid, out, resume=True, quiet=True)


def killed_from_outside(process: BaseProcess, after: float) -> bool:
    process.join(after)
    process.kill()
    process.join(60)
    return process.exitcode != 0


def ends(process: BaseProcess) -> bool:
    """Whether the process came to its end; otherwise it was killed."""
    process.join(240)
    if process.exitcode != 0:
        assert_killed(process)
    return process.exitcode == 0


@pytest.mark.parametrize(
    ("kills", "cells"), [(4, 2), pytest.param(50, 20, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_fault_15_a_killed_driver_does_each_cell_once_and_writes_the_same_report(
    kills: int, cells: int, tmp_path: Path
) -> None:
    job, whole, out = tiny_job(tmp_path), tmp_path / "whole", tmp_path / "killed"
    assert ends(start(drive, job, cells // 2, whole))
    draw, deaths = random.Random(15), {"plan": 0, "cell": 0, "report": 0}
    written: dict[Path, int] = {}
    finished = False
    while (killed := sum(deaths.values())) < kills:
        if killed < kills // 20 + 1:
            where, place, number = "plan", "before fsync", killed + 1
        elif finished or killed >= kills - kills // 10 - 1:
            where, place, number = "report", "before fsync", killed % IN_THE_REPORT + 1
        else:
            where, place = "cell", draw.choice(list(IN_A_CELL))
            number = draw.randint(1, IN_A_CELL[place])
        if where == "cell" and killed % 5 == 4:
            died = killed_from_outside(start(drive, job, cells // 2, out), draw.uniform(0.3, 1.2))
        else:
            died = not ends(start(drive, job, cells // 2, out, where, place, number))
        finished = finished or not died
        deaths[where] += died
        for path in [*out.glob("cells/*/scores.json"), *out.glob(f"cells/*/{CARD}")]:
            assert written.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns, f"{path} again"
    assert ends(start(drive, job, cells // 2, out))
    names = sorted(path.name for path in (out / "cells").iterdir())
    assert len(names) == cells and names == sorted(path.name for path in (whole / "cells").iterdir())
    once = sum(path.stat().st_mtime_ns == seen for path, seen in written.items() if path.name == CARD)
    same = [name for name in REPORT if (out / name).read_bytes() == (whole / name).read_bytes()]
    said(
        f"fault 15: {sum(deaths.values())} kills of the driver ({deaths['plan']} in the plan, {deaths['cell']} in "
        f"cells, {deaths['report']} in the report): {once} of {cells} cells done once each, report "
        f"{'identical' if same == [*REPORT] else 'DIFFERENT'}"
    )
    assert once == cells and same == [*REPORT]
    for name in names:
        for file in (METRICS, "prompt/adapter_model.safetensors", "predictions/test.jsonl", "recipe.yaml"):
            assert (out / "cells" / name / file).read_bytes() == (whole / "cells" / name / file).read_bytes(), file
    assert not [path for path in out.glob(".*") if path.name != ".lock"]
