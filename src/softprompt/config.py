"""Recipe: everything that fixes a run, as frozen models, and its two spellings: YAML and `key=value` overrides.

Fields have a unit in their description. Paths are relative to the file that names them, those of overrides to the
working directory; in a recipe that is loaded they are absolute.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, ValidationError, ValidationInfo, field_validator, model_validator

from softprompt.data_config import DataConfig as DataConfig
from softprompt.decode_config import DecodeConfig as DecodeConfig
from softprompt.errors import ConfigError
from softprompt.method_config import MethodConfig, PrefixTuning, Section, alone_because
from softprompt.parts import PART_SECTIONS, Where, hidden, section_of, with_tasks, with_typed_decode, without_methods
from softprompt.paths import located
from softprompt.published import Published
from softprompt.recipe_files import list_recipes, read_recipe
from softprompt.recipe_messages import Schema, check, explain, names
from softprompt.recipes import (
    KeyPath,
    expand,
    locator,
    nearest,
    overlay,
    parse_overrides,
    write_yaml,
)
from softprompt.tasks import load_task, task_names
from softprompt.train_config import OPTIMIZER_FIELDS as OPTIMIZER_FIELDS
from softprompt.train_config import TrainConfig as TrainConfig

MAIN, UNTUNED = "main", "untuned"
MOST_ARMS, MOST_TASKS, MOST_PARTS = 100, 100, 400
"""Arms of `compare`, `tasks`, and arms times tasks."""


class BackboneConfig(Section):
    """The pretrained model and its tokenizer."""

    id: str = Field(default="bundled", min_length=1, description="bundled backbone's name, local folder or hub id")
    revision: str | None = Field(default=None, description="hub branch, tag or commit; null: the default")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        default="float32", description="type of the loaded weights; auto: as stored"
    )
    attention: Literal["sdpa", "eager"] = Field(default="sdpa", description="attention arithmetic")
    quantize: Literal["8bit", "4bit"] | None = Field(
        default=None, description="bits of the frozen weights, by bitsandbytes; null: as `dtype` says"
    )
    shard: bool = Field(default=False, description="split the frozen weights over the processes of torchrun (FSDP2)")


class ScoreConfig(Section):
    """Scoring of the test predictions."""

    suite: str | None = Field(
        default=None, description="scoring suite; null: the task's own, accuracy for own labels, or text"
    )
    metrics: Annotated[tuple[str, ...], Strict(False)] = Field(
        default=(), description="list of metrics, of the suite or any other; empty: all of the suite"
    )
    bertscore: str | None = Field(default=None, description="model[:layer] of BERTScore beside the suite; null: none")


SECTION_CONFIGS: dict[str, type[Section]] = {
    "backbone": BackboneConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "decode": DecodeConfig,
    "score": ScoreConfig,
}


class Recipe(Section):
    """A whole run. `compare` names further arms: overrides laid over this recipe.

    `tasks` names tasks that are trained together, each with a prompt of its own: overrides too. `data` is then what
    they share.
    """

    version: Literal[1] = Field(default=1, description="version of the recipe format")
    name: str = Field(
        pattern=r"^\w[\w.-]*$", max_length=120, description="name of the run's folder; default: the file's"
    )
    seed: int = Field(default=101, ge=0, lt=2**32, description="seed of all random numbers")
    backbone: BackboneConfig = Field(default_factory=lambda: BackboneConfig(), description="the pretrained model")
    method: Annotated[MethodConfig, Field(discriminator="name")] = Field(
        default_factory=lambda: PrefixTuning(), description="what is learned"
    )
    tasks: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        max_length=MOST_TASKS,
        description="tasks trained together, a prompt each: name -> data, method, decode, score",
    )
    data: DataConfig = Field(description="what is learned from and scored on")
    train: TrainConfig = Field(default_factory=lambda: TrainConfig(), description="the training loop")
    decode: DecodeConfig = Field(default_factory=lambda: DecodeConfig(), description="generation")
    score: ScoreConfig = Field(default_factory=lambda: ScoreConfig(), description="scoring")
    compare: dict[str, dict[str, Any]] = Field(
        default_factory=dict, max_length=MOST_ARMS, description="further arms: name -> overrides"
    )
    untuned: bool = Field(default=True, description="also score the backbone with nothing learned")
    published: Published | None = Field(default=None, description="scores of a paper, shown beside the run's own")

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        out = expand(raw)
        if isinstance(out.get("method"), Mapping):
            out["method"] = {"name": "prefix", **out["method"]}
        return out

    @field_validator("data")
    @classmethod
    def _has_source(cls, data: DataConfig, info: ValidationInfo) -> DataConfig:
        if not info.data.get("tasks") and data.task is None and data.train is None:
            raise ValueError("expected a task name or a training file, got neither. Set data.task or data.train")
        return data

    @model_validator(mode="after")
    def _mixes_what_it_can(self) -> Self:
        if not self.tasks and self.train.mixing != "proportional":
            raise ValueError("train.mixing has no effect without tasks. Drop it, or name tasks to train together")
        return self

    @model_validator(mode="after")
    def _trains_what_it_can(self) -> Self:
        if self.method.name == "finetune" and self.backbone.quantize is not None:
            raise ValueError(
                f"method finetune trains the weights themselves, which {self.backbone.quantize} ones do not allow. "
                "Set backbone.quantize=null, or take method lora"
            )
        return self

    @model_validator(mode="after")
    def _splits_what_it_can(self) -> Self:
        if not self.backbone.shard:
            return self
        if self.method.name == "finetune":
            raise ValueError(
                "backbone.shard splits weights that stay frozen, and method finetune trains them. Set "
                "backbone.shard=false, or take method lora"
            )
        if self.backbone.quantize is not None:
            raise ValueError("backbone.shard and backbone.quantize do not go together. Set one of them to its default")
        if self.train.micro_batch == "auto":
            raise ValueError(
                "train.micro_batch=auto: with backbone.shard a process that is out of memory cannot step back alone. "
                "Give train.micro_batch a number"
            )
        return self

    @model_validator(mode="after")
    def _captures_what_it_can(self) -> Self:
        if not self.train.graphs:
            return self
        if self.tasks or self.backbone.shard or self.backbone.quantize is not None:
            other = "tasks" if self.tasks else "backbone.shard" if self.backbone.shard else "backbone.quantize"
            raise ValueError(
                f"train.graphs and {other} do not go together: a captured pass is the same for every batch. Set "
                "train.graphs=false"
            )
        return self

    @model_validator(mode="after")
    def _compiles_what_it_can(self) -> Self:
        if self.train.compile and (self.backbone.shard or self.backbone.quantize is not None):
            other = "backbone.shard" if self.backbone.shard else "backbone.quantize"
            raise ValueError(
                f"train.compile and {other} do not go together: weights have to be there as they are. Set "
                "train.compile=false"
            )
        return self

    @model_validator(mode="after")
    def _computes_in_one_type(self) -> Self:
        if (self.backbone.dtype, self.train.precision) == ("float16", "bfloat16"):
            raise ValueError(
                "train.precision bfloat16 does not go with backbone.dtype float16. Set one of them to the other's type"
                ", or train.precision=auto"
            )
        return self

    @model_validator(mode="after")
    def _arms_resolve(self, info: ValidationInfo) -> Self:
        context = info.context or {}
        where, root = context.get("where", lambda path: f"recipe {self.name}"), context.get("root", ())
        if len(self.tasks) * (1 + len(self.compare)) > MOST_PARTS:
            raise ValueError(
                f"expected at most {MOST_PARTS} prompts in all, got {len(self.tasks)} tasks in {1 + len(self.compare)} "
                "arms. Make several recipes of it"
            )
        for name in self.tasks:
            self._part(name, where, root)
        for name in self.compare:
            self._arm(name, where)
        return self

    def arm(self, name: str) -> "Recipe":
        """Return one arm as a recipe of its own, called `<recipe>-<arm>` (`main`: this recipe without `compare`).

        `untuned` is always there: this recipe with nothing learned. ConfigError for a name that is not an arm.
        """
        return self._arm(name, lambda path: f"recipe {self.name}")

    def arms(self) -> tuple[str, ...]:
        """Return the arms to run, in order: `main`, those of `compare`, and `untuned` where it is asked for."""
        untuned = self.untuned and self.method.name != UNTUNED
        return (MAIN, *self.compare, *([UNTUNED] if untuned else []))

    def parts(self) -> dict[str, "Recipe"]:
        """Each of `tasks` as a recipe of its own, called `<recipe>-<task>`; without any, this recipe under \"\"."""
        return {name: self._part(name, lambda path: f"recipe {self.name}") for name in self.tasks} or {"": self}

    def _part(self, name: str, where: Where, root: KeyPath = ()) -> "Recipe":
        root, base = (*root, "tasks", name), to_dict(self) | {"tasks": {}, "compare": {}, "untuned": False}
        if not re.fullmatch(r"\w[\w-]*", name):
            raise ConfigError(
                f"{where(root)}: expected a task's name of letters, digits, _ and -, got {name!r}. Rename it."
            )
        for key in self.tasks[name].keys() - {*PART_SECTIONS}:
            raise ConfigError(
                f"{where((*root, key))}: {'.'.join((*root, key))}: a task of several has its own "
                f"{', '.join(PART_SECTIONS)}; the rest is of all. Set {key} at the top."
            )
        base["train"]["mixing"] = "proportional"
        part = build(overlay(base, self.tasks[name]) | {"name": f"{self.name}-{name}"}, where, root)
        reason = alone_because(part.method)
        if reason is not None:
            raise ConfigError(
                f"{where((*root, 'method'))}: {'.'.join((*root, 'method'))}: {part.method.name} cannot be trained on "
                f"several tasks at once: {reason}. Take method prefix or prompt, or a run for each task."
            )
        return part

    def _arm(self, name: str, where: Where) -> "Recipe":
        base = to_dict(self) | {"compare": {}, "untuned": False}
        if name == MAIN and name not in self.compare:
            return build(base, where)
        base["published"] = None
        if name == UNTUNED and name not in self.compare:
            untuned = {"method": UNTUNED, "name": f"{self.name}-{name}"}
            return build(overlay(without_methods(base), untuned), where)
        if name not in self.compare:
            guess = nearest(name, self.arms())
            raise ConfigError(f"recipe {self.name}: no arm {name!r}{guess}. Arms: {', '.join(self.arms())}.")
        base, root = with_typed_decode(base), ("compare", name)
        if name in (MAIN, UNTUNED) or not re.fullmatch(r"\w[\w-]*", name):
            raise ConfigError(
                f"{where(root)}: expected an arm name of letters, digits, _ and -, other than {MAIN} and {UNTUNED}, "
                f"got {name!r}. Rename the arm."
            )
        for key in self.compare[name].keys() & {"version", "name", "compare", "untuned", "published"}:
            raise ConfigError(f"{where((*root, key))}: compare.{name}.{key}: an arm cannot set this. Drop it.")
        over = self.compare[name]
        if section_of(over, "method").get("name", self.method.name) != self.method.name:
            base = without_methods(base)
        for section, key, task in hidden(over, base["tasks"]):
            raise ConfigError(
                f"{where((*root, section, key))}: compare.{name}.{section}.{key} does not reach task {task!r}, which "
                f"has its own (tasks.{task}.{section}.{key}). Set compare.{name}.tasks.{task}.{section}.{key}."
            )
        return build(with_tasks(overlay(base, over), where) | {"name": f"{self.name}-{name}"}, where, root)


def load_recipe(ref: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a bundled recipe (by name) or a YAML file (by path), lay it over its base, and overrides over it.

    Overrides are merged with each other first (the later wins), then over the file. One that changes the method
    drops the old method's fields; `section=null` sets a section back to its defaults. Where the recipe is silent, the
    task's own decode settings hold. ConfigError names the file and line, or the override.
    """
    if ref in task_names() and ref not in {info.name for info in list_recipes()} and not Path(ref).exists():
        raise ConfigError(
            f"{ref!r} is a task, not a recipe. Expected a recipe of it: a YAML file with the line "
            f"`data: {{task: {ref}, dir: FOLDER}}`."
        )
    text = read_recipe(ref)
    mine = located(parse_overrides(overrides), None)
    where = locator(text.path, text.places, overrides)
    raw = {"name": text.name, "data": {}} | expand(text.data)
    check(_schema(), raw, where, ())
    raw = overlay(raw, mine)
    return build(with_tasks(raw, where), where)


def task_recipe(task: str, overrides: Sequence[str] = ()) -> Recipe:
    """The default recipe for a task, with `key=value` overrides; errors as `load_recipe`."""
    where = locator(Path(task), {}, overrides)
    mine = located(parse_overrides(overrides), None)
    raw = overlay({"name": task, "data": {"task": load_task(task).name}}, mine)
    return build(with_tasks(raw, where), where)


def build(raw: Mapping[str, Any], where: Where, root: KeyPath = ()) -> Recipe:
    """Validate a merged recipe; ConfigError lists every problem. `root` is put before the names of an arm's keys."""
    check(_schema(), raw, where, root)
    try:
        return Recipe.model_validate(dict(raw), context={"where": where, "root": root})
    except ValidationError as error:
        raise explain(_schema(), error, where, root) from None


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the resolved recipe as plain data (text, numbers, lists, mappings), defaults included."""
    return recipe.model_dump(mode="json")


def dump_yaml(recipe: Recipe) -> str:
    """Return YAML that loads back as an equal recipe."""
    return write_yaml(to_dict(recipe))


def field_names() -> list[str]:
    """Return the dotted name of every field of a recipe; the fields of all methods are under `method`."""
    return names(_schema())


def _schema() -> Schema:
    return Schema(Recipe.model_fields, SECTION_CONFIGS)
