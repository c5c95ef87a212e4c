"""What `softprompt list` shows. Needs neither torch nor transformers."""

from collections.abc import Callable

Row = dict[str, str]


def recipes() -> list[Row]:
    """Bundled recipes with their title lines."""
    from softprompt.recipes import list_recipes

    return [{"name": info.name, "title": info.title} for info in list_recipes()]


def tasks() -> list[Row]:
    """Tasks with their titles."""
    from softprompt.tasks import list_tasks

    return [{"name": task.name, "title": task.title} for task in list_tasks()]


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
