"""Time of `softprompt score` on the E2E test set, on one core, beside the Python part of the official scorer.

    python benchmarks/scoring.py HYPOTHESES REFERENCES [--rounds 3] [--out FILE]

Ours is the whole command as a user runs it: start of Python, reading, both tokenizers, four metrics, JSON.
The other side is only what can be had from PyPI of the official one: sacrebleu's BLEU (13a, lower case: the numbers of
its pymteval) and pycocoevalcap's Rouge and Cider, on words that are already cut (there Java does that), without NIST.
Both take turns in processes of their own, pinned to one core.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import emit

OFFICIAL = """
import sys
from pathlib import Path
from softprompt.metrics.files import read_test_set
from softprompt.metrics.ptb import tokenize
test = read_test_set(Path(sys.argv[1]), [Path(sys.argv[2])])
cut = lambda texts: [" ".join(tokenize(text)) for text in texts]
hypotheses = {i: cut([text]) for i, text in enumerate(test.hypotheses)}
references = {i: cut(group) for i, group in enumerate(test.references)}
import time
from sacrebleu.metrics import BLEU
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
started = time.perf_counter()
most = max(map(len, test.references))
streams = [[group[k] if k < len(group) else None for group in test.references] for k in range(most)]
bleu = BLEU(lowercase=True, force=True).corpus_score(test.hypotheses, streams).score
bleu_s = time.perf_counter() - started
rouge = Rouge().compute_score(references, hypotheses)[0]
rouge_s = time.perf_counter() - started - bleu_s
cider = Cider().compute_score(references, hypotheses)[0]
total = time.perf_counter() - started
import json
print(json.dumps({"seconds": {"bleu": bleu_s, "rouge_l": rouge_s, "cider": total - bleu_s - rouge_s, "all": total},
                  "scores": {"bleu": bleu, "rouge_l": 100 * float(rouge), "cider": float(cider)}}))
"""


def run(command: list[str]) -> tuple[float, dict]:
    """Wall seconds and the JSON that the command prints; on one core, with one thread."""
    started = time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )
    return time.perf_counter() - started, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hypotheses", type=Path)
    parser.add_argument("references", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    files = [str(args.hypotheses), str(args.references)]
    command = [sys.executable, "-m", "softprompt", "score", files[0], "--refs", files[1], "--json"]
    command += ["--metrics", "bleu", "nist", "rouge_l", "cider"]
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(run(command))
        theirs.append(run([sys.executable, "-c", OFFICIAL, *files])[1])
    seconds = statistics.median(wall for wall, _ in ours)
    official = statistics.median(found["seconds"]["all"] for found in theirs)
    emit(
        {
            "benchmark": "scoring",
            "ours": {"seconds": seconds, "scores": {name: entry["score"] for name, entry in ours[0][1].items()}},
            "official_python_part": theirs[0] | {"median_seconds": official, "without": ["nist", "tokenizer"]},
            "ratio": official / seconds,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
