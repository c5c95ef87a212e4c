"""The house: a module imports only what stands to its left, and the few things that are nobody's to do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import softprompt

ROOT = Path(softprompt.__file__).parent
FLOW = (
    *("errors", "types", "yaml_text", "recipes", "paths", "recipe_files", "tasks", "method_config", "published"),
    *("data_config", "train_config", "decode_config", "parts", "recipe_messages", "config", "grid", "scale_setting"),
    *("template", "data", "table", "metrics", "segments", "predictions", "score_recipe", "finite"),
    *("plain", "files", "facts", "tensors", "sealed", "places", "identity", "env", "console", "score_run"),
    *("fetch", "lock", "signals", "machine", "board", "ahead", "distributed", "sharding"),
    *("active", "masks", "joined", "probing", "inject", "reach", "quantize"),
    *("texts", "loading", "promises", "framing"),
    "backbone",
    *("embed", "positions", "in_front", "forms", "artefact", "prompt", "init", "methods"),
    *(
        "per_row",
        "multitask",
        "batch",
        "truncate",
        "incontext",
        "chunked",
        "loss",
        "precision",
        "graphs",
        "compiled",
        "passes",
    ),
    *("labels", "decode"),
    *(
        "ensemble",
        "answers",
        "attached",
        "adafactor",
        "optim",
        "steps",
        "train",
        "footprint",
        "metrics_log",
        "checkpoint",
        "fit",
        "fit_tasks",
    ),
    *("resume", "folder", "look", "prepare", "results", "report", "run"),
    *("ensemble_runs", "plan", "inspection", "data_inspection"),
    *("scale", "scale_page"),
    *("sweep_report", "sweep", "verify", "listing", "quiet", "guard"),
    *("cli_app", "cli_run", "cli_show", "cli_scoring", "cli", "__main__"),
)
MODULES = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in sorted(ROOT.rglob("*.py"))}
IDS = [str(path.relative_to(ROOT)) for path in MODULES]


def part(path: Path) -> str:
    """The name in the flow that a file belongs to: a module, or the package that it is in."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports, those inside functions included; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_flow_names_every_module_once() -> None:
    there = {part(path) for path in MODULES} - {"__init__"}
    assert len(FLOW) == len(set(FLOW)) and there == set(FLOW)


@pytest.mark.parametrize("path", [path for path in MODULES if part(path) != "__init__"], ids=str)
def test_a_module_imports_only_what_stands_to_its_left(path: Path) -> None:
    here = FLOW.index(part(path))
    for name in imported(MODULES[path]):
        package, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if package == "softprompt" and target in FLOW and target != part(path):
            assert FLOW.index(target) < here, f"{part(path)} imports {name}, which stands to its right"
        elif package == "softprompt":
            assert target in (part(path), "__version__"), f"{part(path)} imports {name} from the package itself"


def test_the_package_itself_imports_nothing_at_run_time() -> None:
    body = MODULES[ROOT / "__init__.py"].body
    run_time = [node for node in body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    names = {name for node in run_time for name in imported(node)}
    assert names == {"importlib.import_module", "typing.TYPE_CHECKING", "typing.Any"}


def test_every_public_name_can_be_had() -> None:
    assert set(softprompt._HOMES) == set(softprompt.__all__)
    for name in softprompt.__all__:
        assert getattr(softprompt, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = softprompt.nothing


def test_only_inject_imports_transformers_attention_interface() -> None:
    importers = {
        path.name
        for path, tree in MODULES.items()
        for name in imported(tree)
        if name.startswith("transformers") and ("Attention" in name or "masking_utils" in name or "sdpa" in name)
    }
    assert importers == {"inject.py"}


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_a_models_type_is_printed_and_never_decided_on(path: Path) -> None:
    tree = MODULES[path]
    printed = {id(node) for text in ast.walk(tree) if isinstance(text, ast.JoinedStr) for node in ast.walk(text)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("model_type", "architectures"):
            assert id(node) in printed, f"line {node.lineno}: .{node.attr} outside a message"
        if isinstance(node, ast.Constant) and node.value in ("model_type", "architectures"):
            raise AssertionError(f"line {node.lineno}: {node.value!r} looked up by name")
    assert not [name for name in imported(tree) if name.startswith("transformers.models")]


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_nothing_is_ever_pickled_or_evaluated(path: Path) -> None:
    tree = MODULES[path]
    modules = {name.split(".")[0] for name in imported(tree)}
    assert not modules & {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
    assert not {"torch.load", "torch.save"} & set(imported(tree))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"torch.load", "torch.save", "np.load", "numpy.load", "eval", "exec", "yaml.unsafe_load"} & set(calls)
