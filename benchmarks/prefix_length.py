"""What a longer prefix costs, in training and in decoding, ours and PEFT's, in one process.

    python benchmarks/prefix_length.py [--lengths 1 5 20 50 100 200 400] [--steps 5] [--rounds 3] [--tiny] [--out FILE]

GPT-2 small with random weights; batches of 10 pairs in E2E's lengths; 8 sources x 5 beams. PEFT's arms share one model.
Prints JSON; `growth` is the time at the longest of the first six lengths given over the time at the shortest (P = 200
over P = 1), a median over rounds.
"""

import argparse
from collections.abc import Callable

from common import backbone, common_arguments, emit, in_turns, median_ratio, random_model, some_sources, synthetic_pairs
from decode import ours as decoded
from decode import theirs as peft_decoded
from peft import PrefixTuningConfig, get_peft_model
from train_step import ours, theirs

from softprompt.config import DecodeConfig, TrainConfig
from softprompt.method_config import PrefixTuning
from softprompt.methods import PrefixMethod

BATCH, ROWS, BEAMS = 10, 8, 5
GROWN = 6
"""Lengths that the growth is taken over; what is longer is beyond the papers'."""


def arms(args: argparse.Namespace) -> dict[str, dict[str, Callable[[], None]]]:
    """`train` and `decode` -> `ours_P` and `peft_P` -> what is timed."""
    bone, base = backbone(random_model(tiny=args.tiny)), random_model(tiny=args.tiny)
    pairs, sources = synthetic_pairs(base, 2000), some_sources(ROWS)
    new = args.new_tokens
    train = TrainConfig(batch_size=BATCH, lr=8e-5, max_steps=10**6, precision=args.precision)
    decode = DecodeConfig(beams=BEAMS, max_new_tokens=new, min_new_tokens=new, batch_size=ROWS)
    made: dict[str, dict[str, Callable[[], None]]] = {"train": {}, "decode": {}}
    for length in args.lengths:
        method = PrefixMethod.build(bone, PrefixTuning(length=length, hidden=512))
        theirs_config = PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=length, prefix_projection=True, encoder_hidden_size=512
        )
        peft = get_peft_model(base, theirs_config)
        peft.base_model.eval()
        made["train"][f"ours_{length}"] = ours(bone, method, pairs, train, args.steps)
        made["train"][f"peft_{length}"] = theirs(peft, pairs, bone.eos_id, train.lr, args.precision, args.steps)
        made["decode"][f"ours_{length}"] = decoded(bone, method.fold(), sources, decode)
        folded = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
        made["decode"][f"peft_{length}"] = peft_decoded(get_peft_model(base, folded).eval(), bone, sources, decode)
    return made


def ratios(seconds: dict[str, list[float]], lengths: list[int]) -> dict[str, float]:
    """Growth with the length of both, and ours against PEFT's at each length."""
    short, long = min(lengths), max(sorted(lengths)[:GROWN])
    found = {
        f"growth_{name}": median_ratio(seconds[f"{name}_{long}"], seconds[f"{name}_{short}"])
        for name in ("ours", "peft")
    }
    against = {f"speed_vs_peft_{p}": median_ratio(seconds[f"peft_{p}"], seconds[f"ours_{p}"]) for p in lengths}
    return found | against


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 5, 20, 50, 100, 200, 400])
    parser.add_argument("--steps", type=int, default=5, help="training steps a round")
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    args = common_arguments(parser)
    seconds = {kind: in_turns(made, args.rounds) for kind, made in arms(args).items()}
    emit(
        {
            "benchmark": "prefix_length",
            "setting": {
                "backbone": "gpt2, tiny" if args.tiny else "gpt2 (124M, random weights)",
                "lengths": args.lengths,
                "batch": BATCH,
                "rows": ROWS,
                "beams": BEAMS,
                "new_tokens": args.new_tokens,
                "steps_per_round": args.steps,
                "rounds": args.rounds,
                "precision": args.precision,
            },
            "seconds_per_round": seconds,
            "ratios": {kind: ratios(found, args.lengths) for kind, found in seconds.items()},
        },
        args.out,
    )


if __name__ == "__main__":
    main()
