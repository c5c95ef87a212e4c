"""Every text model type of transformers under prefix, prompt tuning and DePT: `python tools/backbones [TYPE ...]`.

Prints JSON, a row a type, on stdout (benchmarks/results/backbones.json); `--page` reads that and prints
docs/backbones.md.
Each type runs in a process of its own with a time limit, so that a crash is a row like others.
"""

import json
import multiprocessing
import os
import sys
import warnings
from queue import Empty
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")

import measure  # noqa: E402 - transformers reads the environment
import page  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

SECONDS = 90
"""A type has so long."""


def _work(name: str, answers: "multiprocessing.Queue[dict[str, Any]]") -> None:
    os.dup2(2, 1)  # what transformers prints is no part of the JSON
    torch.set_num_threads(1)
    try:
        answers.put(measure.measure(name))
    except BaseException as error:
        answers.put({"traceback": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"})


def _row(name: str) -> dict[str, Any]:
    answers: multiprocessing.Queue[dict[str, Any]] = multiprocessing.Queue()
    process = multiprocessing.Process(target=_work, args=(name, answers))
    process.start()
    try:
        return answers.get(timeout=SECONDS)
    except Empty:
        return {"traceback": f"no answer in {SECONDS} s"}
    finally:
        process.kill()
        process.join()


def main() -> None:
    """Print the rows, or the page made of them."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--page"]:
        print(page.made_of(json.load(sys.stdin)), end="")
        return
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = {}
    for name in arguments or tiny.names():
        rows[name] = _row(name)
        print(f"{name}: {page.short(rows[name])}", file=sys.stderr, flush=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"versions": versions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
