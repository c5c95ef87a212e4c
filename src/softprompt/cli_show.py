"""Commands that show or fetch what there is: recipes, data, tasks, kept prompts, costs."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from softprompt.cli_app import Json, Overrides, app
from softprompt.errors import ConfigError


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
