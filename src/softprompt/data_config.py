"""The `data` part of a recipe: what is read, how it becomes text, and how it is split."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from softprompt.method_config import MOST_STEPS, Section
from softprompt.tasks import FieldValues, Labels, Policy

FilePath = Annotated[Path, Strict(False)]


class DataConfig(Section):
    """What is learned from and scored on: a task's name, or the user's own JSONL, CSV, TSV or Parquet files."""

    task: str | None = Field(default=None, description="task name; null: the user's own files")
    dir: FilePath | None = Field(default=None, description="folder with the task's files")
    train: FilePath | None = Field(default=None, description="training file; null: the task's")
    dev: FilePath | None = Field(default=None, description="development file; null: the task's, or none")
    test: FilePath | None = Field(default=None, description="test file; null: the task's, or the dev file")
    template: str | None = Field(default=None, description="one of the task's templates; null: its first")
    input: str | None = Field(default=None, description="source template over columns; null: the task's, or {source}")
    target: str | None = Field(default=None, description="target template over columns; null: the task's, or {target}")
    labels: Labels | None = Field(
        default=None, description="column of the label, and its word for each value; null: the template's"
    )
    split: Policy | None = Field(default=None, description="how train, dev and test are made; null: the task's way")
    dev_size: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="rows that split dev_from_train takes; null: the task's, or 1000"
    )
    hold_out: FieldValues | None = Field(
        default=None, description="rows that only the test has; null: the task's, or none"
    )
    keep: FieldValues | None = Field(
        default=None, description="only rows that train and dev have; null: the task's, or all"
    )
    low_data: int | None = Field(
        default=None, ge=2, le=MOST_STEPS, description="training pairs, with 30% as many for dev; null: all"
    )
    shots: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="training pairs, the same number a label; null: all"
    )
    subset: int | None = Field(
        default=None, ge=0, le=MOST_STEPS, description="which of the random draws of low_data or shots; null: number 0"
    )
    test_task: str | None = Field(default=None, description="task whose test split is scored; null: this task's")
    test_dir: FilePath | None = Field(default=None, description="folder with the files of test_task")
    truncate: Literal["none", "source"] = Field(
        default="none", description="sources too long for the window: refused (none), or cut at their end (source)"
    )
    max_train: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="training pairs drawn with `seed`; null: all"
    )
    max_dev: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="dev sources drawn with `seed`; null: all"
    )
    max_test: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="test sources drawn with `seed`; null: all"
    )

    @model_validator(mode="after")
    def _uses_all(self) -> Self:
        """Refuse what would have no effect: a setting is never skipped in silence."""
        for given, needed, why in _NEEDS:
            if getattr(self, given) is not None and all(getattr(self, other) is None for other in needed):
                raise ValueError(f"data.{given} {why}. Set data.{' or data.'.join(needed)}, or drop it")
        for one, other in _CLASHES:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"data.{one} and data.{other} exclude each other. Drop one of them")
        if self.test is not None and self.split == "half_validation":
            raise ValueError("split half_validation makes the test split out of dev, but data.test is given. Drop one")
        if self.dev_size is not None and self.split not in (None, "dev_from_train"):
            raise ValueError(f"data.dev_size has no effect with split {self.split}. Set data.split=dev_from_train")
        return self


_NEEDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("dir", ("task",), "is the folder of a task's files, but there is no task"),
    ("template", ("task",), "is one of a task's templates, but there is no task"),
    ("subset", ("low_data", "shots"), "numbers the draws of low_data or shots, but neither is asked for"),
    ("test_dir", ("test_task",), "is the folder of test_task's files, but there is no test_task"),
)
_CLASHES = (("low_data", "shots"), ("test", "test_task"), ("template", "labels"))
