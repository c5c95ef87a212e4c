"""env.json of a run: what it ran on and was made from. Sealed: damage means "not known" and never "nothing changed"."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from softprompt.errors import CheckpointError
from softprompt.identity import Record
from softprompt.places import ENV
from softprompt.sealed import read_sealed_json, write_sealed_json

FORMAT = 2
"""1: without a checksum and records, as versions before this wrote it."""


class Env(BaseModel):
    """The part of env.json that is read back; versions and machine are kept beside it."""

    model_config = ConfigDict(extra="allow", strict=True)

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    data: dict[str, str] = {}
    """Name of a data file -> SHA-256."""
    backbones: dict[str, str] = {}
    """Id, revision and dtype -> hash."""
    accepted: list[str] = []
    """Changes that the user accepted by name."""
    records: dict[str, list[Record]] = {}
    """Arm -> what it is made from; what it was made from before accepted changes stands first."""
    unrecorded: bool = False
    """Begun by a version without records: a file of the run without one is taken for its own."""

    def write(self, folder: Path) -> None:
        """Replace the file at once."""
        own = {key: getattr(self, key) for key in type(self).model_fields} | {"format": FORMAT}
        records = {arm: [asdict(record) for record in several] for arm, several in self.records.items()}
        write_sealed_json(folder / ENV, {**(self.model_extra or {}), **own, "records": records})


def read_env(folder: Path) -> Env:
    """env.json of a run.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is damaged: no JSON, not what its seal is of, or without one though it once had one.
    """
    path = folder / ENV
    found, sealed = read_sealed_json(path)
    try:
        env = Env.model_validate_json(json.dumps(found | ({} if sealed else {"format": 1})))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: damaged: {where}: {first['msg']}.") from None
    if not sealed and (set(found) & {"format", "records", "unrecorded"} or "packages" not in found):
        raise CheckpointError(f"{path}: damaged: its checksum is gone.")
    return env
