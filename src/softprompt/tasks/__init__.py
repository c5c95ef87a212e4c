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


class Download(_Part):
    """An official file that `softprompt fetch` gets."""

    url: str = Field(pattern=r"^https?://")
    file: str = Field(description="name in the folder, with its subfolder if it has one")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="of the file; None: not known")
    unpack: Mapping[str, str] = Field(default_factory=dict, description="file in the folder -> member of the archive")


class Hub(_Part):
    """A data set on the Hugging Face hub, stored as Parquet."""

    id: str
    config: str | None = None
    revision: str | None = Field(default=None, description="branch, tag or commit; None: the default")
    splits: Mapping[Split, str] = Field(description="our split -> the hub's")
    columns: Mapping[str, str] = Field(
        default_factory=dict, description="our column -> the hub's, as a path with dots; the others keep their names"
    )
    classes: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="column of class numbers -> what the official files write for 0, 1, ..."
    )


class Source(_Part):
    """Where a task's rows come from."""

    kind: str = Field(description="reader, a key of softprompt.data.READERS")
    bundled: str | None = Field(default=None, description="folder in the package's assets; None: the user's data.dir")
    files: Mapping[Split, str] = Field(min_length=1, description="file name of each split, in the folder")
    fetch: tuple[Download, ...] = Field(default=(), description="where the files come from")
    hub: Hub | None = Field(default=None, description="read where data.dir is not given")
    train_targets: Literal["all", "first"] = Field(default="all", description="targets of a row that are trained on")
    unit: Literal["source", "row"] = Field(
        default="source", description="what is one example of dev and test: all rows of the same source, or each row"
    )
    keep: tuple[str, ...] | None = Field(
        default=None, description="columns kept as meta; None: all that no template uses"
    )


class Templates(_Part):
    """The task's own source and target templates, over the columns of its reader."""

    input: str = Field(description="source text template")
    target: str = Field(description="target text template")


class Counts(_Part):
    """The size of one split as published."""

    pairs: int | None = Field(default=None, description="(source, target) pairs; None: not published")
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
    counts: Mapping[Split, Counts] = Field(
        default_factory=dict, description="checked when the task's own files are read"
    )
    mean_tokens: MeanTokens | None = None
    decode: Mapping[str, Any] = Field(default_factory=dict, description="fields of a recipe's decode section")

    def train_pairs(self) -> int | None:
        """Return the number of training pairs as published; None where it is not."""
        count = self.counts.get("train")
        if count is not None and self.source.unit == "row" and self.source.train_targets == "first":
            return count.sources
        return count.pairs if count is not None else None

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
