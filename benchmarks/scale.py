"""Predictions of `softprompt scale` beside what small real jobs did: `python benchmarks/scale.py > ASSET`.

ASSET is src/softprompt/assets/scale.json, which docs/scale.md shows.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import scale_bodies


def main() -> None:
    """Run every job and print one JSON list."""
    found = []
    for job in scale_bodies.JOBS:
        family, method, size, split = job
        with tempfile.TemporaryDirectory() as folder:
            counts = {"predicted": scale_bodies.predicted(job, Path(folder)), "measured": scale_bodies.measured(job)}
        how = "split" if split else "replicated"
        found.append({"job": f"{family}, {method.name}, {size} processes, {how}", **counts})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
