"""What a run asks of its machine: a statistic that cannot be had, and a system that it does not run on."""

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from softprompt import lock as lock_module
from softprompt.errors import ConfigError
from softprompt.lock import locked
from softprompt.machine import peak_memory_bytes, reset_peak_memory

CPU = torch.device("cpu")


def refuse(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Files of these names the kernel has not, or does not give."""

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: Path, *args: Any, **kwargs: Any) -> Any:
            if path.name in names:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **kwargs)

        return checked

    for method in ("read_text", "write_text"):
        patch.setattr(Path, method, refusing(getattr(Path, method)))


@pytest.mark.parametrize("names", [("clear_refs",), ("status",), ("clear_refs", "status")])
def test_training_starts_where_the_high_water_mark_cannot_be_read_or_reset(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, *names)
    reset_peak_memory(CPU)
    assert peak_memory_bytes(CPU) > 2**20


def test_a_system_without_its_modules_is_refused_by_name_and_reports_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "fcntl", None)
    with pytest.raises(ConfigError, match=r"expected Linux or macOS.*On Windows use WSL"), locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(sys.modules, "resource", None)
    refuse(monkeypatch, "status")
    assert peak_memory_bytes(CPU) == 0


def test_the_systems_it_runs_on_are_said() -> None:
    root = Path(__file__).resolve().parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"Operating System :: POSIX :: Linux", "Operating System :: MacOS"} <= set(project["classifiers"])
    assert "on Windows under WSL" in (root / "README.md").read_text(encoding="utf-8")
