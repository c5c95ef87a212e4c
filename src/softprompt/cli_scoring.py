"""Commands on outputs and on what is kept: `score`, `compare`, `ensemble`, `verify`."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from softprompt.cli_app import Json, ManyValues, Offline, Quiet, app

Refs = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE [FILE ...]", help="Groups between blank lines, parallel files, or a SQuAD file."),
]
SuiteName = Annotated[str | None, typer.Option(help="See `softprompt list suites`. Default: the run's, else e2e.")]
Metrics = Annotated[list[str] | None, typer.Option(metavar="NAME [NAME ...]", help="Of the suite, or any other.")]
Positive = Annotated[str | None, typer.Option(metavar="LABEL", help="The label whose class F1 is about.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the resamples.")]


@app.command("score", cls=ManyValues)
def score_command(
    hyp: Annotated[Path, typer.Argument(help="One output a line; a run folder or its predictions; or SQuAD's JSON.")],
    refs: Refs = None,
    suite: SuiteName = None,
    metrics: Metrics = None,
    bertscore: Annotated[str | None, typer.Option(metavar="MODEL[:LAYER]", help="BERTScore, by this model.")] = None,
    positive: Positive = None,
    parts: Annotated[Path | None, typer.Option(help="A label (seen, unseen, ...) a line: each scored apart.")] = None,
    bootstrap: Annotated[int, typer.Option(min=0, max=1_000_000, help="Resamples for a 95% interval; 0: none.")] = 0,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Score outputs with the official metrics of a data set; a run's as its recipe says."""
    from softprompt.metrics import scoring
    from softprompt.score_run import Wanted, read_outputs, score_outputs

    wanted = Wanted(suite, tuple(metrics or ()), bertscore, positive)
    scores = score_outputs(read_outputs(hyp, refs or [], parts), wanted, bootstrap=bootstrap, seed=seed)
    print(json.dumps(scores, indent=2, ensure_ascii=False) if as_json else scoring.score_text(scores))


@app.command("compare", cls=ManyValues)
def compare_command(
    hyp_a: Annotated[Path, typer.Argument(help="Outputs of system A, as for `score`.")],
    hyp_b: Annotated[Path, typer.Argument(help="Outputs of system B.")],
    refs: Refs = None,
    suite: SuiteName = None,
    metrics: Metrics = None,
    positive: Positive = None,
    bootstrap: Annotated[int, typer.Option(min=1, max=1_000_000, help="Resamples of the paired test.")] = 1000,
    seed: Seed = 1,
    as_json: Json = False,
) -> None:
    """Test whether system B differs from system A: paired bootstrap over the test set."""
    from softprompt.metrics import scoring
    from softprompt.score_run import Wanted, compare_outputs, read_outputs

    a, b = (read_outputs(hyp, refs or []) for hyp in (hyp_a, hyp_b))
    wanted = Wanted(suite, tuple(metrics or ()), None, positive)
    results = compare_outputs(a, b, wanted, resamples=bootstrap, seed=seed)
    print(json.dumps(results, indent=2, ensure_ascii=False) if as_json else scoring.compare_text(results))


@app.command("ensemble")
def ensemble_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_FOLDER...", help="Two or more runs of one task.")],
    vote: Annotated[str, typer.Option(help="majority, or logprob: the highest mean log-probability.")] = "majority",
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Let the prompts of several runs vote: the test scores of each alone, their mean, the best, and the ensemble."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from softprompt.ensemble_runs import ensemble_runs
    from softprompt.table import as_text

    scores = ensemble_runs(runs, vote=vote, quiet=quiet)
    print(json.dumps(scores.as_dict(), indent=2) if as_json else as_text(scores.table()))


@app.command("verify")
def verify_command(
    folder: Annotated[Path, typer.Argument(help="A prompt, a checkpoint, a run with all that it keeps, or a sweep.")],
) -> None:
    """Check that what a prompt, a checkpoint, a whole run or a sweep keeps is there and unchanged to the bit."""
    from softprompt.verify import require_whole, verify

    found = verify(folder)
    print("\n".join(map(str, found)))
    require_whole(found, folder)
