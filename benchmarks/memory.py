"""Peak memory of training above the loaded model: ours, PEFT's, and full fine-tuning, by batch size and prefix length.

    python benchmarks/memory.py [--batches 1 10 32] [--lengths 5 200] [--precision float32] [--tiny] [--out FILE]

GPT-2 small with random weights, pairs in E2E's lengths, AdamW. Each cell is the peak of the first two steps of a fresh
method above what is taken before it: gradients, moments and activations. On a CPU it is resident memory. Prints JSON.
"""

import argparse
import gc
from typing import Any

import torch
from common import backbone, common_arguments, emit, peak_above, random_model, synthetic_pairs
from peft import PrefixTuningConfig, get_peft_model
from train_step import ours, theirs

from softprompt.batch import Encoded
from softprompt.config import TrainConfig
from softprompt.method_config import PrefixTuning
from softprompt.methods import FinetuneMethod, PrefixMethod

STEPS = 2


def cell(name: str, length: int | None, batch: int, args: argparse.Namespace, model: Any, pairs: list[Encoded]) -> int:
    """Bytes of one arm; what it made is dropped."""
    config = TrainConfig(batch_size=batch, lr=8e-5, max_steps=10**6, precision=args.precision)

    def run() -> None:
        if name == "peft_prefix":
            peft_config = PrefixTuningConfig(
                task_type="CAUSAL_LM", num_virtual_tokens=length, prefix_projection=True, encoder_hidden_size=512
            )
            peft = get_peft_model(model, peft_config)
            peft.base_model.eval()
            theirs(peft, pairs, 0, config.lr, args.precision, STEPS, batch)()
        else:
            bone = model
            finetune = name == "finetune"
            method = FinetuneMethod(bone) if finetune else PrefixMethod.build(bone, PrefixTuning(length=length))
            ours(bone, method, pairs, config, STEPS)()

    peak = peak_above(run)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 10, 32], help="pairs a step")
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 200], help="prefix lengths in virtual tokens")
    args = common_arguments(parser)
    cells: list[dict[str, Any]] = []
    for name, lengths in (("ours_prefix", args.lengths), ("peft_prefix", args.lengths), ("finetune", [None])):
        model = random_model(tiny=args.tiny)  # a fresh one: fine-tuning changes it
        pairs = synthetic_pairs(model, 1000)
        loaded = model if name == "peft_prefix" else backbone(model)
        for length in lengths:
            for batch in args.batches:
                peak = cell(name, length, batch, args, loaded, pairs)
                cells.append({"arm": name, "prefix_length": length, "batch": batch, "peak_bytes": peak})
        del model, loaded
        gc.collect()
    emit(
        {
            "benchmark": "memory",
            "setting": {
                "backbone": "gpt2, tiny" if args.tiny else "gpt2 (124M, random weights)",
                "precision": args.precision,
            },
            "cells": cells,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
