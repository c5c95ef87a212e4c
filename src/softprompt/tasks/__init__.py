"""Tasks: a data source, a template and a scoring suite, one YAML file each. A new file is a new task."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from softprompt.errors import ConfigError
from softprompt.recipes import nearest, read_yaml

Split = Literal["train", "dev", "test"]
Policy = Literal["native", "half_validation", "dev_from_train"]
"""How the three parts are made: see `softprompt.data.split`."""


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
    splits: Mapping[Split, str] = Field(description="our split -> the hub's, or several: train+validation")
    columns: Mapping[str, str] = Field(
        default_factory=dict, description="our column -> the hub's, as a path with dots; the others keep their names"
    )
    classes: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="column of class numbers -> what the official files write for 0, 1, ..."
    )


class Source(_Part):
    """Where a task's rows come from."""

    kind: str = Field(description="reader, a key of softprompt.data.READERS")
    options: Mapping[str, Any] = Field(default_factory=dict, description="arguments of the reader")
    shape: str | None = Field(
        default=None, description="what makes rows of its records, a key of softprompt.data.SHAPES"
    )
    skip: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="column -> values; rows that have one of them are left out"
    )
    bundled: str | None = Field(default=None, description="folder in the package's assets; None: the user's data.dir")
    files: Mapping[Split, str | tuple[str, ...]] = Field(description="file name or names of each split, in the folder")
    fetch: tuple[Download, ...] = Field(default=(), description="where the files come from")
    hub: Hub | None = Field(default=None, description="read where data.dir is not given")
    train_targets: Literal["all", "first"] = Field(default="all", description="targets of a row that are trained on")
    unit: Literal["source", "row"] = Field(
        default="source", description="what is one example of dev and test: all rows of the same source, or each row"
    )
    keep: tuple[str, ...] | None = Field(
        default=None, description="columns kept as meta; None: all that no template uses"
    )

    def names(self, split: Split) -> tuple[str, ...]:
        """The file names of one split."""
        names = self.files[split]
        return (names,) if isinstance(names, str) else names


class FieldValues(_Part):
    """Rows whose column `field` holds one of `values` (compared as text)."""

    field: str = Field(description="column of the data")
    values: tuple[str, ...] = Field(min_length=1, description="list of its values")


class Labels(_Part):
    """A verbaliser: the word that is learned for each value that a column of the data may have."""

    column: str = Field(description="column with the label")
    words: Mapping[str, str] = Field(min_length=1, description="value in the data (as text) -> word")
    positive: str | None = Field(
        default=None, description="value, or word, of the class that F1 is about; None: that of the task, or none"
    )

    @model_validator(mode="after")
    def _knows_its_positive(self) -> Self:
        if self.positive is not None and self.positive not in (*self.words, *self.words.values()):
            raise ValueError(
                f"labels.positive: expected one of {', '.join(map(repr, self.words))} or of their words, got "
                f"{self.positive!r}. Name the value of the class that F1 is about"
            )
        return self

    def distinct(self) -> tuple[str, ...]:
        """The words, each once, in their order: labels of two tasks correspond by it."""
        return tuple(dict.fromkeys(self.words.values()))


class Numbers(_Part):
    """A column of numbers that is learned as text with one decimal, rounded to a multiple of `step`."""

    column: str = Field(description="column with the number")
    step: float = Field(gt=0, description="the texts are multiples of it")
    low: float
    high: float


class Wording(_Part):
    """Source and target templates over the columns of the reader, and what stands for the label."""

    input: str = Field(description="source text template")
    target: str | tuple[str, ...] = Field(description="target text template, or several, each a reference")
    references: str | None = Field(
        default=None, description="template of what predictions are scored against; None: the target"
    )
    labels: Labels | None = None
    numbers: Numbers | None = None


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
    templates: Mapping[str, Wording] = Field(min_length=1, description="by name; the first is the default")
    suite: str = Field(description="scoring suite")
    split: Policy = Field(default="native", description="how train, dev and test are made where a recipe is silent")
    dev_size: int | None = Field(default=None, description="rows that `dev_from_train` takes where a recipe is silent")
    hold_out: FieldValues | None = Field(default=None, description="rows that only the test has, and it no others")
    keep: FieldValues | None = Field(default=None, description="only rows that train and dev have; None: all")
    references: int | None = Field(
        default=None,
        ge=1,
        description="files of references of the official scorer: the first texts of a test row; None: all",
    )
    counts: Mapping[Split, Counts] = Field(
        default_factory=dict, description="checked when the task's own files are read"
    )
    mean_tokens: MeanTokens | None = None
    decode: Mapping[str, Any] = Field(default_factory=dict, description="fields of a recipe's decode section")
    join: tuple[str, ...] = Field(
        default=(), description="columns: outputs of rows that agree in them are scored as one text"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_template(cls, raw: Any) -> Any:
        """`template: {...}` is short for `templates: {default: {...}}`."""
        if not isinstance(raw, Mapping) or "template" not in raw or "templates" in raw:
            return raw
        rest = {key: value for key, value in raw.items() if key != "template"}
        return rest | {"templates": {"default": raw["template"]}}

    def train_pairs(self) -> int | None:
        """Return the number of training pairs as published; None where it is not."""
        count = self.counts.get("train")
        if count is not None and self.source.unit == "row" and self.source.train_targets == "first":
            return count.sources
        return count.pairs if count is not None else None

    @property
    def template(self) -> Wording:
        """The default wording."""
        return next(iter(self.templates.values()))

    def wording(self, name: str | None) -> Wording:
        """The wording called `name` (None: the default); ConfigError if there is none."""
        if name is None:
            return self.template
        if name not in self.templates:
            raise ConfigError(
                f"data.template: the task {self.name!r} has no template {name!r}{nearest(name, self.templates)}. "
                f"Expected one of: {', '.join(self.templates)}."
            )
        return self.templates[name]

    def decode_for(self, strategy: object, labels: object = None) -> dict[str, Any]:
        """Return the decode settings for a recipe that asks for `strategy` and `labels` (None: it does not say).

        Beams are left out where answers are label words, of which none is dropped.
        """
        same = strategy in (None, self.decode.get("strategy", "beam"))
        lengths = ("max_new_tokens", "min_new_tokens", "ban_newline")
        found = {key: value for key, value in self.decode.items() if same or key in lengths}
        return {key: value for key, value in found.items() if key != "beams" or labels is not True}


def task_folder() -> Path:
    """Return the folder of the task files."""
    return Path(str(files("softprompt"))) / "tasks"


def task_names() -> list[str]:
    """Return the names of all tasks; reads no file."""
    return sorted(path.stem for path in task_folder().glob("*.yaml"))


def list_tasks() -> list[Task]:
    """Return all tasks by name."""
    return [load_task(name) for name in task_names()]


@cache
def load_task(name: str) -> Task:
    """Return the task called `name`; ConfigError with the nearest names if there is none."""
    known = {path.stem: path for path in task_folder().glob("*.yaml")}
    if name not in known:
        guess = nearest(name, known)
        raise ConfigError(f"unknown task {name!r}{guess}. Expected one of: {', '.join(sorted(known))}.")
    data = read_yaml(known[name], quick=True).data
    try:
        return Task.model_validate({"name": name, **data})
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{known[name]}: not a task file: {error}") from None
