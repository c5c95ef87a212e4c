"""What a file of a run belongs to: the recipe that counts, data, backbone and seed; and whether it is this run's.

A record that is missing or another's is "not known" or "another run's", and never "unchanged".
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from softprompt.config import Recipe
from softprompt.errors import CheckpointError
from softprompt.places import KEPT_IN

Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


@dataclass(frozen=True, slots=True)
class Record:
    """What was made from what, as every file of a run carries it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    recipe: Digest
    """Of the recipe's settings that are not the defaults, its name and what is only shown left out."""
    data: Digest
    """Of the digests of all that the data is read from, by split."""
    backbone: str
    """Its hash before training."""
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Made:
    """What an arm is made from, as far as it is known before its backbone is loaded."""

    recipe: str
    data: str | None
    """None: not looked at."""
    seed: int
    backbone: str
    """Key of the backbone in env.json."""

    @classmethod
    def of(cls, recipe: Recipe, inputs: Sequence[tuple[str, str, str]] | None) -> "Made":
        """`inputs`: split, name and digest of all that its data is read from."""
        own = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"published", "name"})
        own["method"] = {**own.get("method", {}), "name": recipe.method.name}
        if recipe.method.name not in KEPT_IN:
            own.pop("train", None)  # how it is trained does not act where nothing is
        read = None if inputs is None else _digest(sorted((split, digest) for split, _, digest in inputs))
        return cls(_digest(own), read, recipe.seed, backbone_key(recipe))

    def record(self, backbone_hash: str) -> Record:
        """The whole of it, on a backbone of this hash."""
        assert self.data is not None
        return Record(self.recipe, self.data, backbone_hash, self.seed)

    def fits(self, record: Record) -> bool:
        """Whether a record is of this, as far as it is known."""
        same_data = self.data in (None, record.data)
        return same_data and (self.recipe, self.seed) == (record.recipe, record.seed)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose files an arm takes for its own."""

    record: Record
    known: tuple[Record, ...] = ()
    """Of this run before changes that its user accepted by name."""
    unrecorded: bool = False
    """The run was begun by a version that kept no records: a file without one is taken."""

    def require(self, found: Record | None, path: Path) -> None:
        """Raise `CheckpointError` unless what lies at `path`, with this record, is of this run."""
        if found is None:
            if not self.unrecorded:
                raise CheckpointError(
                    f"{path}: it is not known what run it belongs to (no record). Move it away, or make it again."
                )
        elif found != self.record and found not in self.known:
            raise CheckpointError(
                f"{path}: belongs to another run ({self.record_difference(found)}). Move it away, and use --resume."
            )

    def record_difference(self, found: Record) -> str:
        """By what another record differs, in words."""
        if found.seed != self.record.seed:
            return f"expected seed {self.record.seed}, got {found.seed}"
        parts = ("recipe", "data", "backbone")
        unlike = [part for part in parts if getattr(found, part) != getattr(self.record, part)]
        return f"expected the run's {' and '.join(unlike)}, got another"


def backbone_key(recipe: Recipe) -> str:
    """What a backbone is called in env.json."""
    at = f"@{recipe.backbone.revision}" if recipe.backbone.revision else ""
    return f"{recipe.backbone.id}{at} in {recipe.backbone.dtype}"


def read_record(found: Any, path: Path) -> Record | None:
    """A record as JSON holds it, None where there is none; `CheckpointError` where it is something else."""
    if found is None:
        return None
    try:
        return _RECORD.validate_json(json.dumps(found))
    except ValueError:
        raise CheckpointError(f"{path}: damaged: its record is none.") from None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


_RECORD = TypeAdapter(Record)
