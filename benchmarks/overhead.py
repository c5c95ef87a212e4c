"""What surrounds the training steps: the start of a run, and the metrics log, TensorBoard and checkpoints.

    python benchmarks/overhead.py [--steps 20] [--save-every 10] [--starts 3] [--tiny] [--out FILE]

GPT-2 small's shape with random weights in a temporary folder; prefix 5, MLP of width 512, batches of 10. `start` is a
new process, from its creation to the end of its first training step. The shares are the time in the log (metrics.jsonl
and TensorBoard) and in checkpoints, over that in the steps of the same run. Prints JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import TOKENIZER, backbone, common_arguments, emit, quiet_transformers, random_model, synthetic_pairs
from transformers import AutoTokenizer

from softprompt import fit as fit_module
from softprompt.config import TrainConfig
from softprompt.method_config import PrefixTuning
from softprompt.methods import PrefixMethod

CHILD = """
import sys, time
began = float(sys.argv[2])
from softprompt.backbone import Backbone
from softprompt.batch import encode_pairs
from softprompt.config import TrainConfig
from softprompt.data import load
from softprompt.data_config import DataConfig
from softprompt.method_config import PrefixTuning
from softprompt.methods import PrefixMethod
from softprompt.optim import make_optimizer
from softprompt.train import training_steps
marks = {"imports": time.time() - began}
bone = Backbone.load(sys.argv[1])
marks["backbone"] = time.time() - began
pairs = encode_pairs(bone, load(DataConfig(task="gazette"), 1).train)
marks["data"] = time.time() - began
method = PrefixMethod.build(bone, PrefixTuning(length=5, hidden=512))
config = TrainConfig(max_steps=1, precision=sys.argv[3])
next(training_steps(bone, method, make_optimizer(method, config), pairs, config, seed=1))
marks["first_step"] = time.time() - began
import json
print(json.dumps(marks))
"""


def start(folder: Path, precision: str) -> dict[str, float]:
    """Seconds from the creation of a process to its marks."""
    arguments = [sys.executable, "-c", CHILD, str(folder), str(time.time()), precision]
    out = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    marks: dict[str, float] = json.loads(out.splitlines()[-1])
    return marks


def timed(name: str, spent: dict[str, list[float]]) -> None:
    """Note the seconds of every call of a method of a sitting."""
    real: Callable[..., Any] = getattr(fit_module._Sitting, name)

    def call(self: Any, *args: Any) -> Any:
        started = time.perf_counter()
        try:
            return real(self, *args)
        finally:
            spent[name].append(time.perf_counter() - started)

    setattr(fit_module._Sitting, name, call)


def shares(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Seconds a step, a log line and a checkpoint, and what the latter two add to the steps."""
    bone = backbone(random_model(tiny=args.tiny))
    method = PrefixMethod.build(bone, PrefixTuning(length=5, hidden=512))
    spent: dict[str, list[float]] = {"log": [], "save": []}
    for name in spent:
        timed(name, spent)
    config = TrainConfig(max_steps=args.steps, save_every=args.save_every, precision=args.precision)
    fitted = fit_module.fit(bone, method, synthetic_pairs(bone.model, 1000), [], config, folder, seed=1, quiet=True)
    steps = fitted.seconds - sum(map(sum, spent.values()))
    return {
        "step_seconds": steps / args.steps,
        "log_seconds": statistics.median(spent["log"]),
        "checkpoint_seconds": statistics.median(spent["save"]),
        "log_share": sum(spent["log"]) / steps,
        "checkpoint_share": sum(spent["save"]) / steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save-every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--starts", type=int, default=3, help="processes started")
    args = common_arguments(parser)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "backbone"
        with quiet_transformers():
            random_model(tiny=args.tiny).save_pretrained(folder)
            AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)
        marks = [start(folder, args.precision) for _ in range(args.starts)]
        (Path(place) / "run").mkdir()
        surround = shares(args, Path(place) / "run")
    emit(
        {
            "benchmark": "overhead",
            "setting": {
                "backbone": "gpt2, tiny" if args.tiny else "gpt2 (124M, random weights)",
                "batch": 10,
                "prefix_length": 5,
                "steps": args.steps,
                "save_every": args.save_every,
                "precision": args.precision,
                "starts": args.starts,
            },
            "start_seconds": {name: statistics.median(mark[name] for mark in marks) for name in marks[0]},
            "surround": surround,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
