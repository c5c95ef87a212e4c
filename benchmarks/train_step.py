"""Training steps of prefix-tuning against PEFT's, and against full fine-tuning, in one process on real E2E text.

    python benchmarks/train_step.py --e2e FOLDER --tokenizer FOLDER [--steps 10] [--rounds 5] [--compile] [--out FILE]

GPT-2 small with random weights, batches of 10 (the paper's), float32 unless --precision says otherwise. PEFT gets what
its users have: shuffled batches padded to their longest row, labels -100 on the source, logits at every position.
Both learn the same thing: prefix 5, MLP of width 512, AdamW. Prints JSON; ratios are medians over rounds.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import (
    PAPER_LENGTH,
    SHARED,
    backbone,
    e2e_examples,
    emit,
    in_turns,
    median_ratio,
    peak_above,
    random_model,
    require,
)
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor

from softprompt.backbone import Backbone
from softprompt.batch import Encoded, encode_pairs
from softprompt.config import TrainConfig
from softprompt.method_config import PrefixTuning
from softprompt.methods import FinetuneMethod, Method, PrefixMethod
from softprompt.optim import make_optimizer
from softprompt.precision import autocast
from softprompt.train import training_steps

BATCH = 10
COMPILED = "softprompt_prefix_compiled"


def ours(bone: Backbone, method: Method, pairs: list[Encoded], config: TrainConfig, steps: int) -> Callable[[], None]:
    """`steps` steps of softprompt's loop, going on where the last call ended."""
    optimizer = make_optimizer(method, config)
    records = training_steps(bone, method, optimizer, pairs, config, seed=1)

    def run() -> None:
        for _ in range(steps):
            next(records)

    return run


def peft_batches(pairs: list[Encoded], pad: int, batch: int, *, apart: bool) -> Iterator[dict[str, Tensor]]:
    """Shuffled batches, right-padded to the longest row, labels -100 on source and pads: what a Trainer feeds.

    `apart`: for an encoder-decoder, whose labels are the target alone.
    """
    generator = random.Random(1)
    while True:
        order = list(range(len(pairs)))
        generator.shuffle(order)
        for start in range(0, len(order) - batch + 1, batch):
            rows = [pairs[i] for i in order[start : start + batch]]
            read = [list(r.source) if apart else [*r.source, *r.target] for r in rows]
            labels = [list(r.target) if apart else [-100] * len(r.source) + list(r.target) for r in rows]
            yield {
                "input_ids": padded(read, pad),
                "labels": padded(labels, -100),
                "attention_mask": padded([[1] * len(row) for row in read], 0),
            }


def padded(rows: list[list[int]], value: int) -> Tensor:
    """Rows as one tensor."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def theirs(
    model: Any, pairs: list[Encoded], pad: int, lr: float, precision: str, steps: int, batch: int = BATCH
) -> Callable[[], None]:
    """`steps` steps of what PEFT put on `model`, in a plain loop."""
    device = next(model.parameters()).device
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0, fused=True)
    batches = peft_batches(pairs, pad, batch, apart=model.config.is_encoder_decoder)

    def run() -> None:
        for _ in range(steps):
            inputs = {name: tensor.to(device) for name, tensor in next(batches).items()}
            with autocast(device, precision):
                loss = model(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def ratios(seconds: dict[str, list[float]], peaks: dict[str, int]) -> dict[str, float]:
    """Ours against the others, and compiled where it was asked for."""
    found = {
        "speed_vs_peft": median_ratio(seconds["peft_prefix"], seconds["softprompt_prefix"]),
        "peak_memory_vs_peft": peaks["softprompt_prefix"] / peaks["peft_prefix"],
        "speed_vs_finetune": median_ratio(seconds["softprompt_finetune"], seconds["softprompt_prefix"]),
    }
    if COMPILED in seconds:
        found["speed_of_compiled"] = median_ratio(seconds["softprompt_prefix"], seconds[COMPILED])
        found["speed_of_compiled_vs_peft"] = median_ratio(seconds["peft_prefix"], seconds[COMPILED])
        found["peak_memory_of_compiled_vs_peft"] = peaks[COMPILED] / peaks["peft_prefix"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--e2e", type=Path, required=True, help="folder with trainset.csv")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "tokenizers" / "gpt2", help="GPT-2's tokenizer")
    parser.add_argument("--length", type=int, default=PAPER_LENGTH, help="prefix length in virtual tokens")
    parser.add_argument("--steps", type=int, default=10, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="time prefix-tuning under train.compile too")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    config = TrainConfig(batch_size=BATCH, lr=8e-5, max_steps=10**6, precision=args.precision)
    bone = backbone(random_model(), require(args.tokenizer, "GPT-2's tokenizer"))
    pairs = encode_pairs(bone, e2e_examples(require(args.e2e, "E2E")))
    peft_config = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=args.length, prefix_projection=True, encoder_hidden_size=512
    )
    peft_model = get_peft_model(random_model(), peft_config)
    peft_model.base_model.eval()
    prefix = PrefixMethod.build(bone, PrefixTuning(length=args.length, hidden=512))
    tuned = backbone(random_model(), args.tokenizer)
    arms = {
        "softprompt_prefix": ours(bone, prefix, pairs, config, args.steps),
        "peft_prefix": theirs(peft_model, pairs, bone.eos_id, config.lr, args.precision, args.steps),
        "softprompt_finetune": ours(tuned, FinetuneMethod(tuned), pairs, config, args.steps),
    }
    if args.compile:
        arms[COMPILED] = ours(bone, prefix, pairs, config.model_copy(update={"compile": True}), args.steps)
        arms[COMPILED]()  # compiles
    seconds = in_turns(arms, args.rounds)
    peaks = {name: peak_above(arm) for name, arm in arms.items()}
    emit(
        {
            "benchmark": "train_step",
            "setting": {
                "backbone": "gpt2 (124M, random weights)",
                "data": f"E2E, {len(pairs)} pairs",
                "batch": BATCH,
                "prefix_length": args.length,
                "precision": args.precision,
                "steps_per_round": args.steps,
                "rounds": args.rounds,
            },
            "steps_per_second": {name: args.steps * len(times) / sum(times) for name, times in seconds.items()},
            "seconds_per_round": seconds,
            "peak_bytes_above_model": peaks,
            "ratios": ratios(seconds, peaks),
        },
        args.out,
    )


if __name__ == "__main__":
    main()
