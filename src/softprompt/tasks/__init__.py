"""Tasks: a data source, a template and a scoring suite, one YAML file each. A new file is a new task."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from softprompt.errors import ConfigError
from softprompt.recipes import nearest, read_yaml

Split = Literal["train", "dev", "test"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """Where a task's rows come from."""

    kind: str = Field(description="reader, a key of softprompt.data.READERS")
    bundled: str | None = Field(None, description="folder in the package's assets; None: the user's data.dir")
    files: Mapping[Split, str] = Field(description="file name of each split, in the folder")
    unit: Literal["source", "row"] = Field(
        "source", description="what is one example of dev and test: all rows of the same source, or each row"
    )


class FieldValues(_Part):
    """Rows whose column `field` holds one of `values` (compared as text)."""

    field: str = Field(description="column of the data")
    values: tuple[str, ...] = Field(description="list of its values")


class Templates(_Part):
    """The task's own source and target templates, over the columns of its reader."""

    input: str = Field(description="source text template")
    target: str = Field(description="target text template")


class Counts(_Part):
    """The size of one split as published."""

    pairs: int = Field(description="(source, target) pairs")
    sources: int = Field(description="unique sources, or rows where `unit` is row")


class MeanTokens(_Part):
    """Published mean lengths, in GPT-2's byte-pair tokens."""

    source: float = Field(description="tokens a source")
    target: float = Field(description="tokens a target")


class Task(_Part):
    """One task as its YAML file says; `decode` holds the generation settings used where a recipe is silent."""

    name: str
    title: str
    citation: str
    licence: str
    url: str | None = None
    source: Source
    template: Templates
    suite: str = Field(description="scoring suite")
    hold_out: FieldValues | None = Field(None, description="rows that only the test has, and it no others")
    keep: FieldValues | None = Field(None, description="only rows that train and dev have; None: all")
    references: int | None = Field(
        None, ge=1, description="files of references of the official scorer: the first texts of a test row; None: all"
    )
    counts: Mapping[Split, Counts] = Field(
        default_factory=dict, description="checked when the task's own files are read"
    )
    mean_tokens: MeanTokens | None = None
    decode: Mapping[str, Any] = Field(default_factory=dict, description="fields of a recipe's decode section")

    def decode_for(self, strategy: object) -> dict[str, Any]:
        """Return the decode settings for a recipe that asks for `strategy` (None: it does not say)."""
        same = strategy in (None, self.decode.get("strategy", "beam"))
        lengths = ("max_new_tokens", "min_new_tokens", "ban_newline")
        return {key: value for key, value in self.decode.items() if same or key in lengths}


def task_folder() -> Path:
    """Return the folder of the task files."""
    return Path(str(files("softprompt"))) / "tasks"


def list_tasks() -> list[Task]:
    """Return all tasks by name."""
    return [load_task(path.stem) for path in sorted(task_folder().glob("*.yaml"))]


@cache
def load_task(name: str) -> Task:
    """Return the task called `name`; ConfigError with the nearest names if there is none."""
    known = {path.stem: path for path in task_folder().glob("*.yaml")}
    if name not in known:
        guess = nearest(name, known)
        raise ConfigError(f"unknown task {name!r}{guess}. Expected one of: {', '.join(sorted(known))}.")
    data = read_yaml(known[name]).data
    try:
        return Task.model_validate({"name": name, **data})
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{known[name]}: not a task file: {error}") from None
