"""The papers' recipes: their parameters, what is published for them, and that each runs on a tiny backbone."""

from functools import cache
from pathlib import Path
from typing import Any

import factories
import pytest
from tiny_tasks import write_task

from softprompt import data, report
from softprompt.config import Recipe, load_recipe
from softprompt.inspection import ArmCounts, arm_counts
from softprompt.metrics import SUITES
from softprompt.plan import dry_run
from softprompt.prepare import suite_of
from softprompt.recipe_files import list_recipes
from softprompt.run import run_recipe
from softprompt.tasks import load_task

PAPERS = [info.name for info in list_recipes() if info.group]
FAMILIES = {  # backbone -> tiny architecture of its family, and what makes room for long prompts
    "gpt2-medium": ("gpt2", {"n_positions": 512}),
    "gpt2-large": ("gpt2", {"n_positions": 512}),
    "facebook/bart-large": ("bart", {"max_position_embeddings": 512}),
    "t5-base": ("t5", {}),
    "google/t5-v1_1-base": ("t5_v1_1", {}),
    "google/t5-base-lm-adapt": ("t5_v1_1", {}),
    "google/t5-large-lm-adapt": ("t5_v1_1", {}),
    "google/t5-xxl-lm-adapt": ("t5_v1_1", {}),
    "meta-llama/Llama-2-7b-hf": ("llama", {"max_position_embeddings": 1024}),
}


@cache
def loaded(name: str) -> Recipe:
    return load_recipe(name)


def kind(name: str) -> tuple[Any, ...]:
    """What decides which code a recipe runs: the family, the method and where it starts, data and optimiser."""
    recipe = loaded(name)
    how = [getattr(recipe.method, key, None) for key in ("name", "place", "init")]
    read = load_task(str(recipe.data.task)).source.kind
    few = (recipe.data.low_data is None, recipe.data.test_task is None, recipe.train.optimizer)
    return (FAMILIES[recipe.backbone.id][0], read, *how, *few)


FIRST = list({kind(name): name for name in reversed(PAPERS)}.values())
"""One recipe of each kind."""


def _marked(names: list[str]) -> list[Any]:
    return [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in names]


def counts(name: str) -> ArmCounts:
    (main,) = arm_counts(loaded(name))
    return main


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, (family, changes) in FAMILIES.items():
        made[name] = factories.backbone_folder(tmp_path_factory.mktemp(family), family, **changes)
    return made


@pytest.mark.parametrize("name", _marked(PAPERS))
def test_two_steps_on_a_tiny_backbone(
    name: str, backbones: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All settings but the sizes are the recipe's own; the files are laid out as the task's official ones."""
    monkeypatch.setattr(data, "_check_counts", lambda *given: None)  # of the official files
    full = loaded(name)
    small = [f"backbone.id={backbones[full.backbone.id]}", "train.max_steps=2", "train.log_every=1", "data.max_dev=2"]
    small += ["data.max_test=2", "decode.max_new_tokens=3", "decode.min_new_tokens=0"]
    small += [f"data.dir={write_task(tmp_path / 'data', str(full.data.task), full.data.low_data or 9)}"]
    if full.data.test_task:
        small.append(f"data.test_dir={write_task(tmp_path / 'other', full.data.test_task)}")
    if data.policy_of(full.data) == "dev_from_train":
        small.append("data.dev_size=2")
    if full.method.name == "adapter":
        small.append("method.share=0.2")  # 0.1% of a tiny backbone is less than a bottleneck of 1
    recipe = load_recipe(name, small)
    (result,) = run_recipe(recipe, tmp_path / "run", quiet=True)
    assert result.training is not None and result.training["steps"] == 2
    assert result.scores.keys() | result.missing.keys() == SUITES[suite_of(recipe)].metrics.keys()
    report.write_card(recipe, tmp_path / "run", [result])
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert ("stands for" in card) == (recipe.published is not None)


def test_every_published_score_is_one_that_its_run_is_scored_by() -> None:
    for name in PAPERS:
        recipe = loaded(name)
        if recipe.published is not None:
            known = SUITES[suite_of(recipe)].metrics.keys()
            assert recipe.published.scores.keys() <= known, name
            assert all(scores.keys() <= known for scores in recipe.published.groups.values()), name
            assert recipe.published.scores, name


def test_a_score_of_its_own_for_each_recipe() -> None:
    """No two recipes stand for the same row, but for the two lengths that the paper gives for one."""
    rows = [recipe.published.table for recipe in map(loaded, PAPERS) if recipe.published is not None]
    assert [row for row in rows if rows.count(row) > 1] == ["Li & Liang 2021 (ACL), Table 3, Prefix (2%), XSum"] * 2


COUNTED = {  # as the papers state them, or as follows from their lengths and widths
    "prefix-tuning/e2e": (25_739_776 + 1024 * 5, 245_760),
    "prefix-tuning/webnlg": (25_739_776 + 1024 * 5, 245_760),
    "prefix-tuning/dart": (25_739_776 + 1024 * 10, 491_520),
    "prefix-tuning/e2e-large": (1280 * 5 + 1280 * 512 + 512 + 513 * 36 * 2 * 1280, 5 * 36 * 2 * 1280),
    "prefix-tuning/xsum": (3 * (20_505_376 + 1024 * 200), 14_745_600),
    "prefix-tuning/xsum-100": (3 * (20_505_376 + 1024 * 100), 7_372_800),
    "prefix-tuning/e2e-infix-10": (25_739_776 + 1024 * 10, 491_520),
    "prefix-tuning/e2e-embedding-20": (20 * 1024 + 2 * 1024 * 512 + 512 + 1024, 20 * 1024),
    "prefix-tuning/e2e-finetune": (354_823_168, 354_823_168),
    "dept/glue-sst2": (76_800, 76_800),
    "dept/glue-cola": (76_800, 76_800),
    "dept/superglue-boolq": (76_800, 76_800),
    "dept/superglue-multirc": (79_560, 79_560),
    "dept/mrqa-newsqa": (76_800, 76_800),
    "dept/glue-rte-prompt-tuning": (76_800, 76_800),
    "prompt-tuning/squad-base": (76_800, 76_800),
    "prompt-tuning/squad-large": (102_400, 102_400),
    "prompt-tuning/squad-xxl": (409_600, 409_600),
}


@pytest.mark.parametrize("name", COUNTED)
def test_counts_are_the_papers(name: str) -> None:
    found = counts(name)
    assert (found.trained, found.stored) == COUNTED[name]


@pytest.mark.parametrize("share", [0.03, 0.001])
@pytest.mark.parametrize("task", ["e2e", "webnlg", "dart"])
def test_adapters_are_as_wide_as_the_share_lets_them(task: str, share: float) -> None:
    found = counts(f"prefix-tuning/{task}-adapter-{share * 100:g}")
    assert share * 0.85 < found.trained / found.backbone <= share


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_every_recipe_passes_the_dry_run(name: str) -> None:
    """Without weights, data, tokenizer or network."""
    plan = dry_run(loaded(name))
    assert plan.trained > 0 and plan.steps is not None and plan.steps > 0


def test_settings_of_table_6() -> None:
    """Li & Liang 2021: rate, passes, batch."""
    table = {
        "e2e": (8e-5, 5, 10),
        "webnlg": (5e-5, 5, 5),
        "dart": (5e-5, 10, 5),
        "e2e-adapter-3": (5e-5, 5, 5),
        "e2e-adapter-0.1": (8e-5, 10, 5),
        "webnlg-adapter-3": (5e-5, 5, 5),
        "webnlg-adapter-0.1": (5e-5, 10, 5),
        "dart-adapter-3": (5e-5, 5, 5),
        "dart-adapter-0.1": (8e-5, 5, 5),
        "e2e-finetune": (5e-5, 5, 10),
        "webnlg-finetune": (1e-5, 10, 6),
        "dart-finetune": (1e-5, 10, 6),
        "e2e-finetune-top2": (5e-5, 5, 10),
        "webnlg-finetune-top2": (5e-5, 10, 9),
        "dart-finetune-top2": (5e-5, 5, 5),
        "xsum-100": (5e-5, 30, 14),
        "xsum-within-news": (5e-5, 30, 36),
        "xsum-news-to-sports": (5e-5, 15, 36),
        "xsum-within-news-finetune": (3e-5, 5, 18),
        "xsum-news-to-sports-finetune": (3e-5, 5, 18),
    }
    for name, settings in table.items():
        train = loaded(f"prefix-tuning/{name}").train
        assert (train.lr, train.epochs, train.batch_size) == settings, name
        assert (train.warmup_steps, train.schedule, train.select) == (0, "linear", "last"), name
        prefix = loaded(f"prefix-tuning/{name}").method.name == "prefix"
        by_sentence = prefix and not name.startswith("xsum")
        assert train.loss == ("sentence_sum" if by_sentence else "token_mean"), name
        assert train.frozen_dropout == (prefix and name.startswith("xsum")), name


def test_no_number_of_passes_ends_a_run_before_its_steps_do() -> None:
    for name in PAPERS:
        recipe = loaded(name)
        if recipe.train.max_steps is not None:
            pairs = recipe.data.low_data or recipe.data.max_train or load_task(str(recipe.data.task)).train_pairs()
            assert recipe.train.epochs * (pairs or 0) >= recipe.train.max_steps * recipe.train.batch_size, name
