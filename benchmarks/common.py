"""What the benchmarks share: a GPT-2-shaped backbone with random weights, real E2E text, timing in turns."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from softprompt.backbone import Backbone, default_device, quiet_transformers
from softprompt.data.e2e import read_e2e
from softprompt.inject import install
from softprompt.machine import environment, peak_memory_bytes, reset_peak_memory
from softprompt.types import Example

SHARED = Path(__file__).resolve().parents[2] / "shared"
PAPER_LENGTH = 5
"""Prefix length of Li & Liang's E2E runs, in virtual tokens."""


def random_model(config_folder: str = "gpt2", seed: int = 0) -> PreTrainedModel:
    """The architecture of a bundled config with random weights, frozen, in eval mode."""
    folder = Path(__file__).resolve().parents[1] / "src" / "softprompt" / "assets" / "configs" / config_folder
    torch.manual_seed(seed)
    with quiet_transformers():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return model.to(default_device()).eval().requires_grad_(False)


def backbone(model: PreTrainedModel, tokenizer_folder: Path) -> Backbone:
    """`model` as a softprompt backbone with the tokenizer of `tokenizer_folder`."""
    install(model)
    return Backbone("random", model, AutoTokenizer.from_pretrained(tokenizer_folder))


def e2e_examples(folder: Path, name: str = "trainset.csv") -> list[Example]:
    """Rows of an official E2E file as (source, one target) examples."""
    records = read_e2e(folder / name)
    return [Example(str(record.values["table"]), (str(record.values["ref"]),)) for record in records]


def in_turns(arms: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each arm in each round; the arms take turns, so a slow minute of the machine hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    return seconds


def peak_above(arm: Callable[[], Any]) -> int:
    """Bytes that `arm` takes at its peak above what is resident before it."""
    device = default_device()
    reset_peak_memory(device)
    before = peak_memory_bytes(device)
    arm()
    return peak_memory_bytes(device) - before


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Median over rounds of slow / fast: how many times faster `fast` is."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def emit(result: dict[str, Any], out: Path | None) -> None:
    """Print the result as JSON with machine and commit; write it too where `out` is given."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    whole = result | {
        "machine": environment(default_device()) | {"cores": os.cpu_count()},
        "commit": commit.stdout.strip() or None,
    }
    text = json.dumps(whole, indent=2)
    print(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")


def require(path: Path, what: str) -> Path:
    """Exit with a message where a benchmark's input is absent."""
    if not path.exists():
        sys.exit(f"{what} not found at {path}; give its place on the command line (--help)")
    return path
