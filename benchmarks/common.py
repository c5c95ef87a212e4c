"""What the benchmarks share: a GPT-2-shaped backbone with random weights, real E2E text, timing in turns."""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from softprompt import data
from softprompt.backbone import Backbone, default_device, quiet_transformers
from softprompt.batch import Encoded
from softprompt.data.e2e import read_e2e
from softprompt.data_config import DataConfig
from softprompt.inject import install
from softprompt.machine import environment, peak_memory_bytes, reset_peak_memory
from softprompt.types import Example

SHARED = Path(__file__).resolve().parents[2] / "shared"
ASSETS = Path(__file__).resolve().parents[1] / "src" / "softprompt" / "assets"
TOKENIZER = ASSETS / "backbone"
"""The bundled tokenizer: its ids are below every bundled config's vocabulary."""
LAYERS = ("n_layer", "num_hidden_layers", "num_layers", "num_decoder_layers")
TINY: dict[str, int] = {
    **dict.fromkeys(["n_embd", "hidden_size", "d_model"], 32),
    **dict.fromkeys(LAYERS, 2),
    **dict.fromkeys(["n_head", "num_attention_heads", "num_key_value_heads", "num_heads"], 4),
    **dict.fromkeys(["intermediate_size", "d_ff"], 48),
    **{"d_kv": 8, "vocab_size": 4096},
}
"""Changes that make any of the configs a matter of milliseconds."""
PAPER_LENGTH = 5
"""Prefix length of Li & Liang's E2E runs, in virtual tokens."""


def random_model(
    config_folder: str = "gpt2",
    seed: int = 0,
    *,
    tiny: bool = False,
    layers: int = TINY["n_layer"],
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """The architecture of a bundled config with random weights, frozen, in eval mode; `tiny`: `layers` narrow ones."""
    config = AutoConfig.from_pretrained(ASSETS / "configs" / config_folder)
    if tiny:
        for key in TINY.keys() & config.to_dict().keys():
            setattr(config, key, layers if key in LAYERS else TINY[key])
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(seed)
    with quiet_transformers(), default_device():  # weights of billions are drawn where they stay
        model = auto.from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def synthetic_pairs(model: PreTrainedModel, count: int, seed: int = 0) -> list[Encoded]:
    """Random tokens in the lengths of E2E's pairs: means 28.5 and 27.8 (Li & Liang, Table 1)."""
    draw, last = random.Random(seed), model.get_input_embeddings().weight.shape[0] - 1

    def ids(mean: float, deviation: float) -> tuple[int, ...]:
        return tuple(draw.randint(3, last) for _ in range(max(4, round(draw.gauss(mean, deviation)))))

    return [Encoded(ids(28.5, 6), ids(27.8, 9)) for _ in range(count)]


def some_sources(count: int) -> list[str]:
    """Sources of the bundled task: real text of E2E's length."""
    splits = data.load(DataConfig(task="gazette"), 1)
    return list(dict.fromkeys(example.source for example in splits.test))[:count]


def backbone(model: PreTrainedModel, tokenizer_folder: Path = TOKENIZER) -> Backbone:
    """`model` as a softprompt backbone with the tokenizer of `tokenizer_folder`."""
    install(model)
    return Backbone("random", model, AutoTokenizer.from_pretrained(tokenizer_folder))


def e2e_examples(folder: Path, name: str = "trainset.csv") -> list[Example]:
    """Rows of an official E2E file as (source, one target) examples."""
    records = read_e2e(folder / name)
    return [Example(str(record.values["table"]), (str(record.values["ref"]),)) for record in records]


def common_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, with the options that several benchmarks have; sets torch's threads where they are given."""
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own")
    parser.add_argument("--tiny", action="store_true", help="a model of two narrow layers, to try the command")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


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
