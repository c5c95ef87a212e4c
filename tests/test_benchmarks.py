"""The benchmarks' own code on tiny models: each runs, prints JSON and has a section on the page."""

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

PLACE = Path(__file__).resolve().parents[1] / "benchmarks"
COMMANDS = {
    "gpu": ["--rounds", "1"],
    "prefix_length": ["--lengths", "1", "5", "--steps", "1", "--rounds", "1", "--new-tokens", "3"],
    "memory": ["--batches", "1", "2", "--lengths", "5"],
    "step_overhead": ["--steps", "4", "--pairs", "few=50", "more=500"],
    "overhead": ["--steps", "4", "--save-every", "2", "--starts", "1"],
}


def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", PLACE / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_it_runs_on_tiny_models_and_has_its_section(name: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    out = tmp_path / "result.json"
    command = [sys.executable, str(PLACE / f"{name}.py"), "--tiny", *COMMANDS[name], "--out", str(out)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(printed) == result and result["benchmark"] == name and "device" in result["machine"]
    section = pages().LATER[name](result)
    assert f"benchmarks/{name}.py" in section and "nan" not in section


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_benchmark_of_a_cuda_device_is_refused_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(sys, "path", [str(PLACE), *sys.path])
    try:
        with pytest.raises(SystemExit, match=r"expected a CUDA device, found none.*--tiny"):
            runpy.run_path(str(PLACE / "gpu.py"), run_name="__main__")
    finally:
        for name in ("common", "decode", "train_step"):
            sys.modules.pop(name, None)
