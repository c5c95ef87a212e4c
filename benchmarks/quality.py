"""The bundled task over several seeds: untuned, prefix-tuning, full fine-tuning. Prints a table and JSON.

    python benchmarks/quality.py --seeds 1 2 3 [--recipe gazette] [--out FILE] [KEY=VALUE ...]
    python benchmarks/quality.py --rates main 1e-2 3e-2 1e-1 --rates finetune 1e-3 2e-3 4e-3

With --rates nothing is scored: each arm is trained once per rate and its dev loss printed, which is how the rates of
the recipe were chosen, for both arms alike.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import emit

from softprompt.config import Recipe, load_recipe
from softprompt.results import ArmResult
from softprompt.run import run_recipe
from softprompt.table import as_text

METRICS = ("bleu", "nist", "rouge_l", "cider")


def dev_losses(ref: str, method: str, rates: list[float], overrides: list[str], seed: int) -> dict[str, float]:
    """Learning rate -> lowest dev loss (nats per target token) of the recipe's arm with that method."""
    losses = {}
    for rate in rates:
        loaded = load_recipe(ref, [*overrides, f"seed={seed}", "data.max_test=1", "decode.max_new_tokens=2"])
        arm = method if method in loaded.compare else "main"
        own = loaded.arm(arm)
        chosen = Recipe.model_validate(
            own.model_dump() | {"train": own.train.model_dump() | {"lr": rate}, "untuned": False}
        )
        with tempfile.TemporaryDirectory() as folder:
            (result,) = run_recipe(chosen, Path(folder) / "run", quiet=True)
        assert result.training is not None
        losses[str(rate)] = result.training["dev_loss"]
        print(f"{method} rate {rate}: dev loss {losses[str(rate)]:.4f}", file=sys.stderr, flush=True)
    return losses


def one_seed(ref: str, overrides: list[str], seed: int) -> list[ArmResult]:
    """All arms of the recipe with one seed, in a folder that is thrown away."""
    loaded = load_recipe(ref, [*overrides, f"seed={seed}"])
    with tempfile.TemporaryDirectory() as folder:
        results = run_recipe(loaded, Path(folder) / "run", quiet=True)
    for result in results:
        print(f"seed {seed} {result.arm}: {_headline(result)}", file=sys.stderr, flush=True)
    return results


def _headline(result: ArmResult) -> str:
    groups = {name: round(scores["bleu"]["score"], 2) for name, scores in result.groups.items()}
    return f"BLEU {result.scores['bleu']['score']:.2f} {groups}"


def averaged(runs: list[list[ArmResult]]) -> tuple[list[list[str]], dict[str, Any]]:
    """A table of means (standard deviations) and the numbers behind it."""
    groups = [f"BLEU {name}" for name in runs[0][0].groups]
    table = [["", *METRICS, *groups, "trained", "stored"]]
    numbers: dict[str, Any] = {}
    for arm in [result.arm for result in runs[0]]:
        own = [next(result for result in run if result.arm == arm) for run in runs]
        values = {metric: [result.scores[metric]["score"] for result in own] for metric in METRICS}
        for group in own[0].groups:
            values[f"bleu_{group}"] = [result.groups[group]["bleu"]["score"] for result in own]
        parameters = own[0].parameters
        numbers[arm] = {"method": own[0].method, "scores": values, "parameters": parameters}
        table.append(
            [
                arm if len(runs[0]) > 3 else own[0].method,
                *map(_spread, values.values()),
                _share(parameters, "trained"),
                _share(parameters, "stored"),
            ]
        )
    return table, numbers


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} ({statistics.stdev(values) if len(values) > 1 else 0:.2f})"


def _share(parameters: dict[str, float], kind: str) -> str:
    return f"{parameters[kind]:,.0f} ({parameters[f'{kind}_share']:.2%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="laid over the recipe")
    parser.add_argument("--recipe", default="gazette")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rates", nargs="+", action="append", metavar="ARM RATE", help="dev losses of an arm")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.rates:
        found = {
            method: dev_losses(args.recipe, method, [float(r) for r in rates], args.overrides, args.seeds[0])
            for method, *rates in args.rates
        }
        print(json.dumps(found, indent=2))
        return
    runs = [one_seed(args.recipe, args.overrides, seed) for seed in args.seeds]
    table, numbers = averaged(runs)
    print(as_text(table), file=sys.stderr)
    prefix, tuned = (statistics.mean(numbers[arm]["scores"]["bleu"]) for arm in ("main", "finetune"))
    emit(
        {
            "benchmark": "quality",
            "recipe": args.recipe,
            "seeds": args.seeds,
            "arms": numbers,
            "bleu_ratio": prefix / tuned,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
