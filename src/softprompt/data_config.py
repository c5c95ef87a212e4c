"""The `data` part of a recipe: what is read, how it becomes text, and how it is split."""

import codecs
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, Strict, field_validator, model_validator

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
    target: str | Annotated[tuple[str, ...], Strict(False)] | None = Field(
        default=None,
        description="target template over columns, or a list of them, each a reference; null: the task's, or {target}",
    )
    delimiter: str | None = Field(
        default=None, description="what separates the fields of own files, one character or tab; null: by the ending"
    )
    quoting: bool | None = Field(
        default=None, description="whether double quotes hold a field of own CSV and TSV files together; null: they do"
    )
    encoding: str | None = Field(
        default=None, description="of own files, such as latin-1; null: by the byte order mark, or UTF-8"
    )
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

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str | None) -> str | None:
        named = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
        if named is not None and (len(named) != 1 or named in '"\r\n\0'):
            raise ValueError(f"data.delimiter: expected one character such as ; or the word tab, got {delimiter!r}")
        return named

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            if encoding is not None:
                codecs.getincrementaldecoder(encoding)
                with suppress(UnicodeError):
                    b"a".decode(encoding)  # hex and rot13 are no encodings of text
        except (LookupError, ValueError):
            raise ValueError(
                f"data.encoding: expected an encoding such as utf-8, latin-1, cp1252 or utf-16, got {encoding!r}"
            ) from None
        return encoding

    @field_validator("target")
    @classmethod
    def _some_target(cls, target: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if target == ():
            raise ValueError("data.target: expected at least one template, got an empty list")
        return target

    @model_validator(mode="after")
    def _uses_all(self) -> Self:
        """Refuse what would have no effect: a setting is never skipped in silence."""
        for given, needed, why in _NEEDS:
            if getattr(self, given) is not None and all(getattr(self, other) is None for other in needed):
                raise ValueError(f"data.{given} {why}. Set data.{' or data.'.join(needed)}, or drop it")
        for one, other in _CLASHES:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"data.{one} and data.{other} exclude each other. Drop one of them")
        for given in ("delimiter", "quoting", "encoding"):
            if getattr(self, given) is not None and self.task is not None:
                raise ValueError(f"data.{given} is of own files, but task {self.task} says how its are read. Drop it")
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
