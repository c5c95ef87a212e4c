"""Everything that is asked of a CUDA device, in one command; refused without one, unless --tiny.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json [--only gpt2_medium t5_base ...] [--rounds 3]
    python benchmarks/gpu.py --tiny            # the same code on tiny models, on any machine

Random weights in bfloat16 from the bundled configs; pairs in E2E's lengths (28.5 and 27.8 tokens on average); arms take
turns, ratios are medians over rounds. Prints JSON:
  gpt2_medium  prefix P=5, MLP of width 512, batches of 10 (the paper's): steps/s, PEFT's, and the share of the hardware
  e2e_run      the paper's whole run through `fit`, log and checkpoints included: 5 epochs of 42,061 pairs, seconds
  t5_base      prompt P=100, batches of 32, against PEFT's
  llama_7b     prefix P=20 without an MLP, batches of 8, against PEFT's
  decode       GPT-2 medium, 16 sources x 5 beams, 60 new tokens, P=5 and P=200, against PEFT's

Share of the hardware = operations a step x steps/s / rate, where the rate is what one large matrix product in bfloat16
reaches on the same device in the same process. Counted operations, with a frozen backbone (no gradients of weights):
4 M T + 4 V E N + 12 L E T' for M numbers in the blocks' matrices, T positions (pads included), N target tokens, and
T' = sum over rows of length x (length + P).
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import PAPER_LENGTH, backbone, emit, in_turns, median_ratio, random_model, some_sources, synthetic_pairs
from decode import ours as decoded
from decode import theirs as peft_decoded
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import Tensor
from train_step import ours, theirs

from softprompt.backbone import Backbone, default_device
from softprompt.batch import Encoded, make_batch
from softprompt.config import DecodeConfig, TrainConfig
from softprompt.fit import fit
from softprompt.method_config import PrefixTuning, PromptTuning
from softprompt.methods import Method, PrefixMethod, PromptMethod
from softprompt.steps import Plan
from softprompt.train import make_plan

E2E_PAIRS, EPOCHS = 42_061, 5


@dataclass(frozen=True)
class Setting:
    """What the command line says."""

    tiny: bool
    rounds: int
    steps: int
    graphs: bool
    """Whether our training passes are captured; `ours_launched` are those that are not."""
    compile: bool
    """Whether there is `ours_compiled` too: launched, with what lies between attentions compiled."""

    def model(self, config: str) -> Any:
        return random_model(config, tiny=self.tiny, dtype=torch.bfloat16)

    def train(self, batch: int, **changes: Any) -> TrainConfig:
        given = {"batch_size": batch, "lr": 8e-5, "max_steps": 10**6, "precision": "bfloat16", "graphs": self.graphs}
        return TrainConfig(**{**given, **changes})


def compared(
    bone: Backbone, method: Method, peft: Any, pairs: list[Encoded], batch: int, setting: Setting
) -> dict[str, Any]:
    """Steps a second of both, and their ratio."""
    config = setting.train(batch)
    peft.base_model.eval()
    arms = {
        "ours": ours(bone, method, pairs, config, setting.steps),
        "peft": theirs(peft, pairs, bone.pad_id, config.lr, "bfloat16", setting.steps, batch),
    }
    if setting.graphs:
        arms["ours_launched"] = ours(bone, method, pairs, setting.train(batch, graphs=False), setting.steps)
    if setting.compile:
        compiled = setting.train(batch, graphs=False, compile=True)
        arms["ours_compiled"] = ours(bone, method, pairs, compiled, setting.steps)
    seconds = in_turns(arms, setting.rounds)
    return {
        "batch": batch,
        "steps_per_second": {name: setting.steps * len(times) / sum(times) for name, times in seconds.items()},
        "speed_vs_peft": median_ratio(seconds["peft"], seconds["ours"]),
        "seconds_per_round": seconds,
    }


def matrix_rate(tiny: bool) -> float:
    """Operations a second of one large matrix product in bfloat16: the best of ten."""
    size = 256 if tiny else 8192
    a, b = (torch.randn(size, size, device=default_device(), dtype=torch.bfloat16) for _ in range(2))
    best = min(in_turns({"product": lambda: void(a @ b)}, 10)["product"])
    return 2 * size**3 / best


def void(_: Tensor) -> None:
    """Drop a result."""


def operations(bone: Backbone, method: Method, plan: Plan, pairs: list[Encoded], length: int) -> float:
    """Mean number of operations of a step, as the head of this file counts them."""
    blocks = sum(p.numel() for block in bone.blocks() for p in block.parameters() if p.ndim == 2)
    vocabulary, embed = bone.model.get_output_embeddings().weight.shape
    steps = plan.from_step(0)
    counted = []
    for _ in range(20):
        batch = make_batch(bone, method, [pairs[index] for index in next(steps)])
        rows, time_ = batch.input_ids_BT.shape
        seen = rows * time_ * (time_ + length)
        counted.append(
            4 * blocks * batch.positions
            + 4 * vocabulary * embed * len(batch.labels_N)
            + 12 * len(bone.blocks()) * embed * seen
        )
    return statistics.mean(counted)


def gpt2_medium(setting: Setting) -> dict[str, Any]:
    """The paper's step."""
    bone, base = backbone(setting.model("gpt2-medium")), setting.model("gpt2-medium")
    pairs, config = synthetic_pairs(base, 2000), setting.train(10)
    method = PrefixMethod.build(bone, PrefixTuning(length=PAPER_LENGTH, hidden=512))
    peft_config = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=PAPER_LENGTH, prefix_projection=True, encoder_hidden_size=512
    )
    found = compared(bone, method, get_peft_model(base, peft_config), pairs, 10, setting)
    each = operations(bone, method, make_plan(bone, method, pairs, config, 1), pairs, PAPER_LENGTH)
    rate = matrix_rate(setting.tiny)
    share = each * found["steps_per_second"]["ours"] / rate
    return found | {"operations_per_step": each, "matrix_rate": rate, "share_of_hardware": share}


def e2e_run(setting: Setting) -> dict[str, Any]:
    """The paper's whole run, without decoding."""
    bone = backbone(setting.model("gpt2-medium"))
    pairs = synthetic_pairs(bone.model, 200 if setting.tiny else E2E_PAIRS)
    method = PrefixMethod.build(bone, PrefixTuning(length=PAPER_LENGTH, hidden=512))
    config = setting.train(10, max_steps=None, epochs=1 if setting.tiny else EPOCHS)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        fitted = fit(bone, method, pairs, [], config, Path(folder), seed=1, quiet=True)
        seconds = time.perf_counter() - started
    return {
        "pairs": len(pairs),
        "epochs": config.epochs,
        "steps": fitted.steps,
        "seconds": seconds,
        "tokens_per_second": fitted.tokens_per_second,
        "padding": fitted.padding,
    }


def t5_base(setting: Setting) -> dict[str, Any]:
    """Lester et al.'s step."""
    bone, base = backbone(setting.model("t5-base")), setting.model("t5-base")
    peft_config = PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=100)
    method = PromptMethod.build(bone, PromptTuning(length=100, init="normal"))
    return compared(bone, method, get_peft_model(base, peft_config), synthetic_pairs(base, 2000), 32, setting)


def llama_7b(setting: Setting) -> dict[str, Any]:
    """A step through a large backbone."""
    name = "meta-llama/Llama-2-7b-hf"
    bone, base = backbone(setting.model(name)), setting.model(name)
    peft_config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=20)
    method = PrefixMethod.build(bone, PrefixTuning(length=20, reparam="none"))
    return compared(bone, method, get_peft_model(base, peft_config), synthetic_pairs(base, 500), 8, setting)


def decode(setting: Setting) -> dict[str, Any]:
    """Beam search under a short and a long prefix."""
    rows, beams, new = (2, 2, 4) if setting.tiny else (16, 5, 60)
    bone, base = backbone(setting.model("gpt2-medium")), setting.model("gpt2-medium")
    config = DecodeConfig(beams=beams, max_new_tokens=new, min_new_tokens=new, batch_size=rows)
    arms: dict[str, Callable[[], None]] = {}
    for length in (5, 200):
        prompt = PrefixMethod.build(bone, PrefixTuning(length=length, hidden=64)).fold()
        arms[f"ours_{length}"] = decoded(bone, prompt, some_sources(rows), config)
        peft_config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
        peft = get_peft_model(base, peft_config).eval()
        arms[f"peft_{length}"] = peft_decoded(peft, bone, some_sources(rows), config)
    seconds = in_turns(arms, setting.rounds)
    return {
        "rows": rows,
        "beams": beams,
        "new_tokens": new,
        "tokens_per_second": {name: rows * new * len(times) / sum(times) for name, times in seconds.items()},
        "speed_vs_peft": {
            str(length): median_ratio(seconds[f"peft_{length}"], seconds[f"ours_{length}"]) for length in (5, 200)
        },
        "seconds_per_round": seconds,
    }


PARTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "gpt2_medium": gpt2_medium,
    "e2e_run": e2e_run,
    "t5_base": t5_base,
    "llama_7b": llama_7b,
    "decode": decode,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="training steps a round")
    parser.add_argument("--tiny", action="store_true", help="tiny models, on any machine: to try the command")
    parser.add_argument("--no-graphs", action="store_true", help="launch our passes instead of capturing them")
    parser.add_argument("--compile", action="store_true", help="time passes under train.compile too")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not (args.tiny or torch.cuda.is_available()):
        sys.exit("expected a CUDA device, found none. Run this where there is one, or try the command with --tiny.")
    graphs = torch.cuda.is_available() and not args.no_graphs
    setting = Setting(args.tiny, args.rounds, 2 if args.tiny else args.steps, graphs, args.compile)
    parts = {}
    for name in args.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        parts[name] = PARTS[name](setting)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    whole = {
        "tiny": args.tiny,
        "rounds": args.rounds,
        "steps_per_round": setting.steps,
        "dtype": "bfloat16",
        "graphs": graphs,
    }
    emit({"benchmark": "gpu", "setting": whole, "parts": parts}, args.out)


if __name__ == "__main__":
    main()
