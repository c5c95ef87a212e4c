"""Decoding under a prefix against PEFT's and against no prefix, in one process on real E2E sources.

    python benchmarks/decode.py --e2e FOLDER --tokenizer FOLDER [--lengths 5 200] [--rounds 3] [--out FILE]

GPT-2 small with random weights, 8 sources x 5 beams, exactly --new-tokens new tokens a row (random weights never end by
themselves). All arms go through transformers' `generate` with the same settings. Prints JSON; ratios are medians over
rounds.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import SHARED, backbone, e2e_examples, emit, in_turns, median_ratio, peak_above, random_model, require
from peft import PrefixTuningConfig, get_peft_model

from softprompt.backbone import Backbone
from softprompt.batch import collate_sources, encode_sources
from softprompt.config import DecodeConfig
from softprompt.decode import decode_texts, generation_options
from softprompt.method_config import PrefixTuning
from softprompt.methods import PrefixMethod, Steering, Untuned

ROWS, BEAMS = 8, 5


def ours(bone: Backbone, steering: Steering, sources: list[str], config: DecodeConfig) -> Callable[[], None]:
    """softprompt's decoder."""
    return lambda: void(decode_texts(bone, steering, sources, config))


def theirs(model: Any, bone: Backbone, sources: list[str], config: DecodeConfig) -> Callable[[], None]:
    """PEFT's `generate` on the same left-padded rows."""
    batch = collate_sources(encode_sources(bone, sources), bone.eos_id).to(bone.device)
    options = generation_options(bone, config)

    def run() -> None:
        with torch.no_grad():
            model.generate(
                input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT, generation_config=options
            )

    return run


def void(_: object) -> None:
    """Drop a result."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--e2e", type=Path, required=True, help="folder with testset_w_refs.csv")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "tokenizers" / "gpt2", help="GPT-2's tokenizer")
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 200], help="prefix lengths in virtual tokens")
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    bone = backbone(random_model(), require(args.tokenizer, "GPT-2's tokenizer"))
    examples = e2e_examples(require(args.e2e, "E2E"), "testset_w_refs.csv")
    sources = list(dict.fromkeys(example.source for example in examples))[:ROWS]
    config = DecodeConfig(beams=BEAMS, max_new_tokens=args.new_tokens, min_new_tokens=args.new_tokens, batch_size=ROWS)
    arms: dict[str, Callable[[], None]] = {"no_prefix": ours(bone, Untuned(), sources, config)}
    for length in args.lengths:
        prompt = PrefixMethod.build(bone, PrefixTuning(length=length, hidden=64)).fold()
        arms[f"softprompt_{length}"] = ours(bone, prompt, sources, config)
        peft_config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
        arms[f"peft_{length}"] = theirs(get_peft_model(random_model(), peft_config).eval(), bone, sources, config)
    seconds = in_turns(arms, args.rounds)
    peaks = {name: peak_above(arm) for name, arm in arms.items()}
    ratios = {}
    for length in args.lengths:
        mine, other = f"softprompt_{length}", f"peft_{length}"
        ratios[f"speed_vs_peft_{length}"] = median_ratio(seconds[other], seconds[mine])
        ratios[f"time_vs_no_prefix_{length}"] = median_ratio(seconds[mine], seconds["no_prefix"])
        ratios[f"peak_memory_vs_peft_{length}"] = peaks[mine] / peaks[other]
    emit(
        {
            "benchmark": "decode",
            "setting": {
                "backbone": "gpt2 (124M, random weights)",
                "rows": ROWS,
                "beams": BEAMS,
                "new_tokens": args.new_tokens,
                "rounds": args.rounds,
            },
            "tokens_per_second": {
                name: ROWS * args.new_tokens * len(times) / sum(times) for name, times in seconds.items()
            },
            "seconds_per_round": seconds,
            "peak_bytes_above_model": peaks,
            "ratios": ratios,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
