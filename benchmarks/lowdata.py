"""The low-data claim (Li & Liang 2021, sec. 7.4) on the bundled task: a start from real words against a random one.

    python benchmarks/lowdata.py [--sizes 50 100 200 500] [--subsets 0 1 2] [--out FILE] [-- KEY=VALUE ...]

Each size is drawn anew for each subset, with 30% as many pairs for dev; every arm learns for the same steps and keeps
the weights of the lowest dev loss. Prints a table of means (standard deviations) and JSON.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from common import emit

from softprompt.config import load_recipe
from softprompt.run import run_recipe
from softprompt.table import as_text

RECIPE = Path(__file__).parent / "recipes" / "lowdata.yaml"


def scores(size: int, subset: int, overrides: list[str]) -> dict[str, float]:
    """Arm -> BLEU on the whole test set."""
    own = [f"data.low_data={size}", f"data.subset={subset}", f"seed={subset + 1}"]
    recipe = load_recipe(str(RECIPE), [*own, *overrides])
    with tempfile.TemporaryDirectory() as folder:
        results = run_recipe(recipe, Path(folder) / "run", quiet=True)
    found = {result.arm: result.scores["bleu"]["score"] for result in results}
    print(f"{size} pairs, subset {subset}: {found}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="laid over the recipe")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--subsets", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    runs = {size: [scores(size, subset, args.overrides) for subset in args.subsets] for size in args.sizes}
    arms = list(runs[args.sizes[0]][0])
    table = [["training pairs", *arms]]
    for size, found in runs.items():
        spread = [[one[arm] for one in found] for arm in arms]
        table.append([str(size), *(f"{statistics.mean(row):.2f} ({statistics.pstdev(row):.2f})" for row in spread)])
    print(as_text(table), file=sys.stderr)
    emit(
        {
            "benchmark": "lowdata",
            "metric": "bleu",
            "subsets": args.subsets,
            "runs": {str(size): found for size, found in runs.items()},
        },
        args.out,
    )


if __name__ == "__main__":
    main()
