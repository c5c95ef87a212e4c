"""The command line: parse, call one library function, print. torch is imported only by commands that compute."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from softprompt import __version__
from softprompt.console import speaks
from softprompt.errors import ConfigError, SoftpromptError

app = typer.Typer(
    help="Steer a frozen language model with a small learned prompt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


class ManyValues(TyperCommand):
    """A command whose `--refs` and `--metrics` take all words up to the next option: `--refs a.txt b.txt`."""

    many = ("--refs", "--metrics")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, which is how click takes several."""
        spread: list[str] = []
        option = None
        for word in args:
            if word.startswith("-") and word != "-":
                option = word if word in self.many else None
                if option is None:
                    spread.append(word)
            else:
                spread += [word] if option is None else [option, word]
        return super().parse_args(ctx, spread)


Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. train.lr=1e-3 seed=2")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the hub.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


@app.command("run")
def run_command(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a path to a YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/<recipe name>.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for seed=N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    allow_change: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="With --resume: a field that may have changed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count parameters, steps and memory.")] = False,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Train, decode, score and report: everything that a recipe says."""
    from softprompt.config import load_recipe

    extra = [f"seed={seed}"] if seed is not None else []
    loaded = load_recipe(recipe, [*(overrides or []), *extra])
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if dry_run:
        _print_dry_run(loaded, as_json)
        return
    from softprompt import report
    from softprompt.run import run_recipe
    from softprompt.table import as_text

    folder = out or Path("runs") / loaded.name
    results = run_recipe(loaded, folder, resume=resume, allow_change=allow_change or (), quiet=quiet)
    if not speaks():  # another process of the same job has the results
        return
    report.write_card(loaded, folder, results)
    if as_json:
        print(report.as_json(loaded, folder, results))
        return
    print(as_text(report.table(results)))
    below = [*report.notes(results), *report.published(loaded, results)]
    print("\n".join(["", *below, f"Run folder: {folder} (start with README.md)"]))


def _print_dry_run(recipe: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from softprompt.plan import dry_run

    plan = dry_run(recipe)
    print(json.dumps(asdict(plan), indent=2) if as_json else "\n".join(plan.lines()))


@app.command("sweep")
def sweep_command(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a path to a YAML file.")],
    arguments: Annotated[
        list[str], typer.Argument(metavar="KEY=V1,V2,... [KEY=VALUE]...", help="e.g. method.length=1,5,20 seed=1,2,3")
    ],
    out: Annotated[Path | None, typer.Option(help="Sweep folder. Default: runs/<recipe name>-sweep.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count cells, parameters, steps and memory.")] = False,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe once for each combination of values; report mean and deviation over seeds."""
    from softprompt.grid import load_grid

    grid = load_grid(recipe, arguments)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from softprompt import sweep, sweep_report
    from softprompt.table import as_text

    if dry_run:
        plans = sweep.dry_sweep(grid)
        print(_as_dicts(plans) if as_json else as_text(sweep.dry_table(plans)))
        return
    folder = out or Path("runs") / f"{grid.name}-sweep"
    outcomes = sweep.run_sweep(grid, folder, resume=resume, quiet=quiet)
    if as_json:
        print(sweep_report.as_json(grid, outcomes))
    else:
        print(as_text(sweep_report.table(sweep_report.rows(grid, outcomes))))
        print("\n".join(["", *sweep_report.notes(outcomes), f"Sweep folder: {folder} (start with README.md)"]))
    sweep.require_done(outcomes)


def _as_dicts(named: Any) -> str:
    from dataclasses import asdict

    return json.dumps({name: asdict(one) for name, one in named.items()}, indent=2)


@app.command("inspect")
def inspect_command(
    what: Annotated[str, typer.Argument(help="A recipe's name or file, a run folder, or a kept prompt.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Of a recipe: read neither weights nor data.")] = False,
    as_json: Json = False,
) -> None:
    """Show sites, parameters by arm, steps and memory of a recipe; or what a kept prompt is."""
    from softprompt.config import load_recipe

    folder = Path(what)
    if folder.is_dir():
        if overrides or dry_run:
            raise ConfigError("inspect: overrides and --dry-run are of recipes; a folder is read as it is. Drop them.")
        from softprompt.inspection import inspect_kept, kept_text

        kept = inspect_kept(folder)
        print(json.dumps(kept, indent=2) if as_json else kept_text(kept))
        return
    recipe = load_recipe(what, overrides or [])
    from softprompt.inspection import inspect_recipe, recipe_text

    found = inspect_recipe(recipe, whole=not dry_run)
    print(json.dumps(found, indent=2) if as_json else recipe_text(found))


@app.command("scale")
def scale_command(
    backbones: Annotated[
        list[str] | None, typer.Argument(metavar="[BACKBONE]...", help="Hub ids or folders. Default: docs/scale.md's.")
    ] = None,
    method: Annotated[str | None, typer.Option(metavar="M1,M2", help="prefix, prompt, dept.")] = None,
    length: Annotated[str | None, typer.Option(metavar="P1,P2", help="Virtual tokens.")] = None,
    processes: Annotated[str | None, typer.Option(metavar="N1,N2", help="Processes, a device each.")] = None,
    rows: Annotated[int | None, typer.Option(help="Pairs a step and process.")] = None,
    source: Annotated[int | None, typer.Option(help="Tokens of a source.")] = None,
    target: Annotated[int | None, typer.Option(help="Tokens of a target.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the frozen weights: bfloat16 or float32.")] = None,
    device_flops: Annotated[float | None, typer.Option(help="Operations a second.")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Bytes a second that a process sends.")] = None,
    device_memory: Annotated[float | None, typer.Option(help="Bytes.")] = None,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As docs/scale.md.")] = False,
) -> None:
    """Bytes sent, memory and time at the least of a training step on many processes; nothing is run or loaded."""
    from softprompt.scale_setting import BACKBONES, make_setting

    given = {"rows": rows, "source": source, "target": target, "dtype": dtype, "device_flops": device_flops}
    given |= {"bandwidth": bandwidth, "device_memory": device_memory}
    if as_json and markdown:
        raise ConfigError("scale: expected --json or --markdown, got both. Drop one of them.")
    setting = make_setting(methods=method, lengths=length, processes=processes, **given)
    from softprompt.scale import costs
    from softprompt.scale_page import scale_json, scale_page, scale_text

    found = {id: costs(id, setting) for id in backbones or BACKBONES}
    shown = scale_json if as_json else scale_page if markdown else scale_text
    print(shown(found, setting), end="" if markdown else "\n")


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(help="recipes, tasks, suites, methods or backbones")],
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As the page of the docs (tasks, recipes).")] = False,
) -> None:
    """Show what there is: recipes, tasks, suites, methods, backbones."""
    from softprompt.listing import LISTINGS, PAGES, as_lines

    if what not in LISTINGS:
        raise ConfigError(f"cannot list {what!r}. Expected one of: {', '.join(LISTINGS)}.")
    if markdown:
        if what not in PAGES or as_json:
            raise ConfigError(
                f"--markdown is a page of the docs: expected `list {' or '.join(PAGES)}`, without --json."
            )
        print(PAGES[what](), end="")
        return
    rows = LISTINGS[what]()
    print(json.dumps(rows, indent=2) if as_json else as_lines(rows))


@app.command("inspect-data")
def inspect_data_command(
    task: Annotated[str, typer.Argument(help="A task's name; or a recipe's name or YAML file.")],
    overrides: Overrides = None,
    as_json: Json = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the hub.")] = False,
) -> None:
    """Count the data, measure its lengths in the backbone's tokens, and show examples as the model will see them."""
    from softprompt.config import load_recipe, task_recipe
    from softprompt.recipe_files import list_recipes
    from softprompt.tasks import task_names

    recipes = {info.name for info in list_recipes()} - set(task_names())
    read = load_recipe if task in recipes or task.endswith((".yaml", ".yml")) else task_recipe
    recipe = read(task, overrides or [])
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from dataclasses import asdict

    from softprompt.data_inspection import inspect_data

    found = {name: inspect_data(part) for name, part in recipe.parts().items()}
    if as_json:
        facts = {name: asdict(one) for name, one in found.items()}
        print(json.dumps(facts if recipe.tasks else facts[""], indent=2, ensure_ascii=False))
        return
    print("\n\n".join("\n".join([*([f"task {name}"] if name else []), *one.lines()]) for name, one in found.items()))


@app.command("fetch")
def fetch_command(
    task: Annotated[str, typer.Argument(help="A task's name; see `softprompt list tasks`.")],
    folder: Annotated[Path | None, typer.Option("--dir", help="Where to. Default: data/<task>.")] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Download a task's official files, check them, and say where they are. Goes on with what was cut short."""
    from dataclasses import asdict

    from softprompt.console import say
    from softprompt.fetch import fetch
    from softprompt.tasks import load_task

    place = folder or Path("data") / task
    files = fetch(load_task(task), place, quiet=quiet)
    if as_json:
        print(json.dumps([{**asdict(file), "path": str(file.path)} for file in files], indent=2))
    else:
        print("\n".join(str(file) for file in files))
    say(f"Use them with data.task={task} data.dir={place}")


@app.command("recipe")
def recipe_command(name: Annotated[str, typer.Argument(help="A bundled recipe's name.")]) -> None:
    """Print a bundled recipe, to be saved and changed: `softprompt recipe e2e > mine.yaml`."""
    from softprompt.recipe_files import find_recipe

    print(find_recipe(name).read_text(encoding="utf-8"), end="")


Refs = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE [FILE ...]", help="Groups between blank lines, parallel files, or a SQuAD file."),
]
SuiteName = Annotated[str | None, typer.Option(help="See `softprompt list suites`. Default: the run's, else e2e.")]
Metrics = Annotated[list[str] | None, typer.Option(metavar="NAME [NAME ...]", help="Of the suite, or any other.")]
Positive = Annotated[str | None, typer.Option(metavar="LABEL", help="The label whose class F1 is about.")]
Seed = Annotated[int, typer.Option(help="Of the resamples.")]


@app.command("score", cls=ManyValues)
def score_command(
    hyp: Annotated[Path, typer.Argument(help="One output a line; a run folder or its predictions; or SQuAD's JSON.")],
    refs: Refs = None,
    suite: SuiteName = None,
    metrics: Metrics = None,
    bertscore: Annotated[str | None, typer.Option(metavar="MODEL[:LAYER]", help="BERTScore, by this model.")] = None,
    positive: Positive = None,
    parts: Annotated[Path | None, typer.Option(help="A label (seen, unseen, ...) a line: each scored apart.")] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for a 95% interval; 0: none.")] = 0,
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
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples of the paired test.")] = 1000,
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
    folder: Annotated[Path, typer.Argument(help="A prompt or a checkpoint folder, or a run with all that it keeps.")],
) -> None:
    """Check every byte of a prompt, a checkpoint or a run's against its manifest."""
    from softprompt.files import MANIFEST, verify_manifest

    kept = sorted(found.parent for found in folder.rglob(MANIFEST)) or [folder]
    for one in kept:
        verify_manifest(one)
        print(f"{one}: whole")


@app.callback(invoke_without_command=True)
def _global(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: every error a user can act on becomes one message and an exit code."""
    try:
        app(standalone_mode=True)
    except SoftpromptError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; what was saved can be resumed with --resume", EXIT_INTERRUPTED)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        advice = " Free some space and use --resume." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        _fail(f"{error.strerror or error}{where}.{advice}", EXIT_FAILED)


def _fail(message: str, code: int) -> None:
    who = "error" if speaks() else f"error in process {os.environ.get('RANK')}"
    print(f"{who}: {message}", file=sys.stderr)
    sys.exit(code)
