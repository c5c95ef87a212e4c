"""What the run ran on, and how much memory it took."""

import contextlib
import ctypes
import gc
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("softprompt", "torch", "transformers", "tokenizers", "safetensors", "numpy", "rouge-score")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and machine, for env.json."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def keep_imports() -> None:
    """For a command, once its imports are done: what is there now is no garbage, and is not searched for it again.

    A search takes 0.2 s of a processor with torch and transformers in memory, and every decoding begins with one.
    """
    gc.freeze()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new high-water mark. On the CPU this needs Linux; elsewhere the mark is the process's whole life.

    So it is where a sandbox has no such file: a statistic does not keep a run from starting.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # hand freed pages back, or they would count again
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """High-water mark in bytes: allocated on the CUDA device, or resident in this process on the CPU; 0: not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_bytes(device: torch.device) -> int | None:
    """Bytes that a process may hold at most: of the CUDA device, or of the machine and its limits; None: not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limits: list[int] = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    with contextlib.suppress(ImportError):  # not a POSIX system
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [] if soft == resource.RLIM_INFINITY else [soft]
    return min((limit for limit in limits if limit > 0), default=None)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
