"""Recipe files: a recipe laid over its base, names with a folder, former names, and refusals that name the line."""

from pathlib import Path

import pytest

from softprompt.config import load_recipe
from softprompt.errors import ConfigError
from softprompt.recipe_files import FORMER_NAMES, find_recipe, list_recipes

BASE = """
seed: 7
name: below
backbone: {id: gpt2, revision: abc}
method: {name: prefix, length: 5, hidden: 64}
data: {task: e2e}
train: {epochs: 3, lr: 1e-3}
compare: {tuned: {method: finetune}}
published: {table: Somewhere, scores: {bleu: 1}}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path / "base.yaml"


def over(base: Path, text: str, name: str = "own.yaml") -> str:
    path = base.parent / name
    path.write_text(f"base: {base}\n{text}")
    return str(path)


def test_sections_are_merged_and_the_rest_replaced(base: Path) -> None:
    recipe = load_recipe(over(base, "method: {length: 9}\ntrain: {lr: 1e-4}\ncompare: {more: {train: {epochs: 1}}}\n"))
    assert (recipe.method.length, recipe.method.hidden) == (9, 64)
    assert (recipe.train.lr, recipe.train.epochs, recipe.seed) == (1e-4, 3, 7)
    assert recipe.backbone.revision == "abc" and list(recipe.compare) == ["tuned", "more"]


def test_another_method_takes_nothing_over(base: Path) -> None:
    recipe = load_recipe(over(base, "method: {name: prompt, length: 4}\nbackbone: {id: gpt2-medium}\n"))
    assert recipe.method.name == "prompt" and recipe.backbone.revision is None


def test_what_a_recipe_says_of_itself_is_its_own(base: Path) -> None:
    recipe = load_recipe(over(base, ""))
    assert recipe.published is None and recipe.name == "own"
    assert load_recipe(str(base)).name == "below"


def test_a_base_may_have_a_base_and_overrides_stand_above_all(base: Path) -> None:
    middle = over(base, "train: {lr: 1e-4}\n")
    top = over(Path(middle), "seed: 8\n", "top.yaml")
    recipe = load_recipe(top, ["train.lr=1e-5"])
    assert (recipe.seed, recipe.train.lr, recipe.train.epochs, recipe.name) == (8, 1e-5, 3, "top")


def test_a_mistake_is_named_where_it_stands(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"own.yaml:2: train.lr: expected"):
        load_recipe(over(base, "train: {lr: fast}\n"))
    base.write_text(BASE.replace("epochs: 3", "epoch: 3"))
    with pytest.raises(ConfigError, match=r"base.yaml:7: unknown key 'train.epoch'; nearest: 'train.epochs'"):
        load_recipe(over(base, "seed: 1\n"))


def test_refusals(base: Path) -> None:
    own = base.parent / "own.yaml"
    for text, part in {
        "base: [a]": r"own.yaml:1: base: expected the name or the file of a recipe, got a list of 1",
        "seed: 1\nbase: dept/glue-colla": r"own.yaml:2: base: recipe 'dept/glue-colla'.*nearest: 'dept/glue-cola'",
        f"base: {own}": r"own.yaml:1: base: .* is based on this recipe itself",
    }.items():
        own.write_text(text)
        with pytest.raises(ConfigError, match=part):
            load_recipe(str(own))
    base.write_text(f"base: {over(base, '')}\n")
    with pytest.raises(ConfigError, match=r"own.yaml:1: base: .* is based on this recipe itself"):
        load_recipe(str(base))


def test_names() -> None:
    assert find_recipe("dept/glue-cola").parts[-2:] == ("dept", "glue-cola.yaml")
    with pytest.raises(ConfigError, match="nearest: 'dept/glue-cola'"):
        find_recipe("glue-cola")
    listed = {info.name for info in list_recipes()}
    for old, new in FORMER_NAMES.items():
        assert old not in listed and new in listed and load_recipe(old) == load_recipe(new)
