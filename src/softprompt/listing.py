"""What `softprompt list` shows. Needs neither torch nor transformers."""

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from softprompt.table import terminal_width

if TYPE_CHECKING:
    from softprompt.tasks import Task

Row = dict[str, str]


def recipes() -> list[Row]:
    """Bundled recipes with their title lines, group by group: a paper's are one."""
    from softprompt.recipe_files import list_recipes

    return [{"name": info.name, "title": info.title, "group": info.group} for info in list_recipes()]


def tasks() -> list[Row]:
    """Tasks with what they are read from, their size, metrics, split policy and templates."""
    from softprompt.metrics import SUITES
    from softprompt.tasks import list_tasks

    return [
        {
            "name": task.name,
            "title": task.title,
            "source": _source(task),
            "size": ", ".join(f"{split} {count.sources:,}" for split, count in task.counts.items()),
            "metrics": ", ".join(SUITES[task.suite].metrics),
            "split": task.split,
            "templates": ", ".join(task.templates),
        }
        for task in list_tasks()
    ]


def _source(task: "Task") -> str:
    names = [name for split in task.source.files for name in task.source.names(split)]
    hub = task.source.hub
    on_hub = f"; hub {hub.id}{f' ({hub.config})' if hub.config else ''}" if hub else ""
    return f"{'bundled' if task.source.bundled else ', '.join(names)}{on_hub}"


def suites() -> list[Row]:
    """Scoring suites with their metrics."""
    from softprompt.metrics import SUITES

    return [{"name": name, "title": f"{suite.title}: {', '.join(suite.metrics)}"} for name, suite in SUITES.items()]


def methods() -> list[Row]:
    """Methods with the first line of their config's docstring."""
    from softprompt.method_config import METHOD_CONFIGS

    return [{"name": name, "title": (config.__doc__ or "").splitlines()[0]} for name, config in METHOD_CONFIGS.items()]


def backbones() -> list[Row]:
    """The bundled backbone, and which others can be used."""
    return [
        {"name": "bundled", "title": "GPT-2 architecture, comes with the package, English descriptions of records"},
        {"name": "FOLDER", "title": "a local folder with config.json, model.safetensors and tokenizer files"},
        {"name": "HUB_ID", "title": "any text generator whose attention uses transformers' AttentionInterface"},
    ]


LISTINGS: dict[str, Callable[[], list[Row]]] = {
    "recipes": recipes,
    "tasks": tasks,
    "suites": suites,
    "methods": methods,
    "backbones": backbones,
}


def as_lines(rows: Sequence[Row], width: int | None = None) -> str:
    """Names and titles in two columns, what else there is to a row below them, a blank line before each group.

    Lines longer than `width` (default: the terminal's) go on below, under the second column.
    """
    width = terminal_width() if width is None else width
    indent = max(len(row["name"]) for row in rows) + 2
    lines: list[str] = []
    for above, row in zip([None, *rows], rows, strict=False):
        if above is not None and above.get("group") != row.get("group"):
            lines.append("")
        rest = [f"{key}: {value}" for key, value in row.items() if key not in ("name", "title", "group") and value]
        found = [f"{row['name'].ljust(indent)}{row['title']}", *([" " * indent + " | ".join(rest)] if rest else [])]
        lines += found if width is None else [part for line in found for part in _wrapped(line, indent, width)]
    return "\n".join(lines)


def _wrapped(line: str, indent: int, width: int) -> list[str]:
    """A line in parts of at most `width`; a name too long for the second column to begin beside it stands alone."""
    if indent > width // 2:
        indent = 4
    whole = textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_on_hyphens=False, drop_whitespace=True,
        replace_whitespace=False,
    )  # fmt: skip
    return whole or [line]


def as_markdown(rows: Sequence[Row]) -> str:
    """A table with all that there is to each row."""
    head = list(rows[0])
    body = [[f"`{row['name']}`", *(row[key].replace("|", "\\|") for key in head[1:])] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *body])


def tasks_page() -> str:
    """docs/tasks.md: all tasks, and how one is added."""
    return f"""# Tasks

{as_markdown(tasks())}

Sizes are those of the published files: sources, or rows where each row is an example of its own. A task reads its files
from `data.dir`; `softprompt fetch TASK FOLDER` gets those whose addresses are known. Without `data.dir` it reads the
data set of the hub, where it names one. `softprompt inspect-data TASK data.dir=FOLDER` shows what becomes of them.

The first template is the one used unless `data.template` names another. `dept`: digits for labels, as in DePT's code
(Shi and Lipani 2024). `t5`: T5's words for labels, without the task's name (Lester, Al-Rfou and Constant 2021).
`lester`: questions and answers with their punctuation set apart, as the same paper's code has them.

| split | what it does |
| --- | --- |
| native | train, dev and test are the files; without a test file, test is dev |
| half_validation | dev and test are the halves of the dev file, shuffled with seed 42 |
| dev_from_train | rows of the train file become dev (`data.dev_size`, 1,000 by default), and the dev file is the test |

On top of it: `data.low_data` and `data.shots` with `data.subset`, `data.hold_out`, `data.keep`, `data.test_task`.
What a run chose is in its `splits.json`.

A task is one YAML file in `src/softprompt/tasks/`; to add one is to add a file.
This page is written by `softprompt list tasks --markdown > docs/tasks.md`.
"""


def recipes_page() -> str:
    """docs/recipes.md: all recipes, with what is published for them."""
    groups: dict[str, list[Row]] = {}
    for row in recipes():
        rest = _published(row["name"]) if row["group"] else {}
        groups.setdefault(row["group"], []).append({"name": row["name"], "title": row["title"], **rest})
    tables = [f"## {group or 'Of no paper'}\n\n{as_markdown(rows)}" for group, rows in groups.items()]
    return f"""# Recipes

A recipe fixes a whole run. `softprompt run NAME data.dir=FOLDER` runs one, `softprompt run NAME --dry-run` counts its
parameters, steps and memory without weights or data, and `softprompt recipe NAME > mine.yaml` copies it to be changed.
A line `base: NAME` takes over all that the file itself does not say.

The leading comment of each says what it reproduces, how it differs, and what it needs. A published score is in the
scale of our metrics and is shown beside the run's own in the run folder's README.md; `-` where none is printed in the
paper or could be had. Nothing here says that a run has reached it.

{chr(10).join(f"{table}{chr(10)}" for table in tables)}
This page is written by `softprompt list recipes --markdown > docs/recipes.md`.
"""


def _published(name: str) -> Row:
    """The cells of a recipe of a paper: table and row, and scores."""
    from softprompt.config import load_recipe
    from softprompt.table import metric_title, show_score

    known = load_recipe(name).published
    if known is None:
        return {"stands for": "-", "published": "-"}
    parts = {"": known.scores} | {f"{part}: ": scores for part, scores in known.groups.items()}
    shown = [
        part + ", ".join(f"{metric_title(metric)} {show_score(metric, score)}" for metric, score in scores.items())
        for part, scores in parts.items()
    ]
    return {"stands for": known.table, "published": "; ".join(shown)}


PAGES: dict[str, Callable[[], str]] = {"tasks": tasks_page, "recipes": recipes_page}
"""What `--markdown` can print."""
