"""The papers' protocols on the official files with the bundled backbone: one run each, what it came to, its command.

    python benchmarks/real_tasks.py --data FOLDER --out FILE [--only NAME ...] [--quick]

FOLDER holds the unpacked data sets: webnlg, dart, squad, squadshifts, glue. Runs that FILE has already are not run
again, so that it may be stopped and gone on with. The backbone has 3.5M parameters: it shows that the protocols run
from raw files to scores, and how the arms compare, and says nothing of large models. `--quick`: two steps, few answers.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import emit

from softprompt.config import load_recipe
from softprompt.run import run_recipe

SMALL = ["method.length=19", "decode.strategy=greedy", "decode.batch_size=64", "seed=1"]
"""On top of the recipe e2e: the prefix starts from the recipe's instruction and is as long as that."""
TUNED = ["compare.finetune.method=finetune", "compare.finetune.train.lr=1e-3"]

WEBNLG = ["data.task=webnlg", "data.dir={data}/webnlg", "data.max_dev=300", *SMALL, *TUNED]
DART = ["data.task=dart", "data.dir={data}/dart", "data.train={data}/dart/dart-v1.1.1-full-dev.json"]
DART += [
    "data.max_dev=100",
    "data.max_test=1000",
    "train.select=last",
    *SMALL,
    *TUNED,
]  # all of dev is trained on: it chooses nothing
SQUAD = ["data.task=squad", "data.dir=null", "data.train={data}/squadshifts/new_wiki_v1.0.json"]
SQUAD += [
    "data.split=dev_from_train",
    "data.dev_size=300",
    "data.truncate=source",
    "data.max_test=1000",
    "decode.max_new_tokens=16",
    "untuned=false",
    *SMALL,
]
SST2 = ["data.task=glue-sst2", "data.dir={data}/glue/SST-2", "data.template=t5", "decode.labels=true", *SMALL]
SST2 += ["data.split=dev_from_train", "data.dev_size=300", "train.lr=3e-2"]
FEW = [
    *SST2,
    "untuned=false",
    "train.max_steps=40",
    "train.batch_size=8",
    "train.warmup_steps=4",
    "train.eval_every=20",
]

RUNS: dict[str, list[list[str]]] = {
    "WebNLG 2017, seen and unseen categories": [WEBNLG],
    "DART, trained on its dev part": [DART],
    "SQuADShifts new Wikipedia to SQuAD, reddit and Amazon reviews": [
        [*SQUAD, "data.dev={data}/squad/dev-v1.1.recovered.json"],
        [*SQUAD, "data.dev={data}/squadshifts/reddit_v1.0.json"],
        [*SQUAD, "data.dev={data}/squadshifts/amazon_reviews_v1.0.json"],
    ],
    "SST-2, 6,000 training pairs": [[*SST2, "data.max_train=6000", *TUNED]],
    **{
        f"SST-2, {shots} examples a label": [[*FEW, f"data.shots={shots}", f"data.subset={k}"] for k in range(5)]
        for shots in (4, 16, 32)
    },
}
"""Name -> the overrides of each of its runs."""

QUICK = ["train.max_steps=2", "data.max_test=4", "decode.max_new_tokens=8"]


def results(overrides: list[str], folder: Path) -> list[dict[str, Any]]:
    """Every arm of one run: its scores, those of parts of the test set, its counts. `folder` may hold a run that
    differs only in what is scored: then only that is done."""
    recipe = load_recipe("e2e", overrides)
    arms = run_recipe(recipe, folder, resume=True, allow_change=["data"], quiet=True)
    return [
        {
            "arm": arm.arm,
            "method": arm.method,
            "scores": {name: found["score"] for name, found in arm.scores.items()},
            "groups": {
                part: {name: found["score"] for name, found in scores.items()} for part, scores in arm.groups.items()
            },
            "trained_share": arm.parameters["trained_share"],
            "sources": arm.decoding["sources"],
        }
        for arm in arms
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS), metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    done = json.loads(args.out.read_text())["runs"] if args.out and args.out.exists() else {}
    for name in args.only:
        if name in done:
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            of_few = "examples a label" in name
            runs = []
            for number, overrides in enumerate(RUNS[name]):
                given = [word.format(data=args.data) for word in overrides] + (QUICK if args.quick else [])
                place = Path(folder) / (str(number) if of_few else "run")
                shown = "softprompt run e2e " + " ".join(word.format(data="DATA") for word in overrides)
                runs.append({"command": shown, "arms": results(given, place)})
        done[name] = {"runs": runs, "seconds": time.monotonic() - started}
        said = [arm["scores"] for run in runs for arm in run["arms"]]
        print(f"{name}: {said} ({done[name]['seconds']:.0f} s)", file=sys.stderr, flush=True)
        if args.out:
            emit({"benchmark": "real_tasks", "runs": done}, args.out)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of the 95% interval of Student's t, for 2 to 10 values."""
    t = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)[len(values) - 2]
    return statistics.mean(values), t * statistics.stdev(values) / len(values) ** 0.5


if __name__ == "__main__":
    main()
