"""Rows of a data set on the Hugging Face hub, through the library `datasets` and its cache."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt.data.table import Record
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Hub, Split

OTHERWISE = "Or get the official files (softprompt fetch TASK) and set data.dir=FOLDER."


@dataclass(frozen=True, slots=True)
class HubPart:
    """One split of a hub data set: it stands where else a file does."""

    hub: Hub
    split: Split

    def __str__(self) -> str:
        """As messages call it."""
        config = f"/{self.hub.config}" if self.hub.config else ""
        return f"{self.hub.id}{config} ({self.hub.splits[self.split]})"


def read_hub(part: HubPart) -> Iterator[Record]:
    """Read one split, in the hub's order, a record for each row; it is downloaded to the cache of `datasets` first.

    `hub.id` may be a local folder of Parquet files. Raises ConfigError where `datasets` is not installed, the data set
    or its split is not there, cannot be reached and is not in the cache, or needs a loading script, which is never run;
    DataError for a class number out of range.
    """
    hub, name = part.hub, part.hub.splits[part.split]
    for number, row in enumerate(_load(hub, name), 1):
        place = f"{hub.config or 'default'}/{name}, row {number}"
        values = row | {column: _pick(row, path, hub, place) for column, path in hub.columns.items()}
        values |= {column: _class(values, column, names, hub, place) for column, names in hub.classes.items()}
        yield Record(values, Path(hub.id), None, place)


def hub_fingerprint(part: HubPart) -> str:
    """Return the SHA-256 (hexadecimal) of the cached copy of one split; errors as `read_hub`."""
    digest = hashlib.sha256()
    for cached in _load(part.hub, part.hub.splits[part.split]).cache_files:
        with open(cached["filename"], "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _load(hub: Hub, name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            f"the hub data set {hub.id!r} needs the library datasets, which is not installed. "
            f"Install it: pip install 'softprompt[data]'. {OTHERWISE}"
        ) from None
    try:
        return datasets.load_dataset(hub.id, hub.config, split=name, revision=hub.revision)
    except RuntimeError as error:
        if "script" not in str(error):
            raise ConfigError(f"the hub data set {hub.id!r} cannot be read: {error}. {OTHERWISE}") from None
        raise ConfigError(
            f"the hub data set {hub.id!r} needs a loading script ({error}), which is never run. "
            f"Expected a data set stored as Parquet, such as rajpurkar/squad or nyu-mll/glue. {OTHERWISE}"
        ) from None
    except (ConnectionError, FileNotFoundError) as error:
        raise ConfigError(
            f"the hub data set {hub.id!r} is neither in the cache nor within reach ({_first_line(error)}). "
            f"Check the id and the network, and that HF_HUB_OFFLINE is not set. {OTHERWISE}"
        ) from None
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(
            f"the hub data set {hub.id!r} ({hub.config or 'default'}, split {name!r}) cannot be read: "
            f"{_first_line(error)}. {OTHERWISE}"
        ) from None


def _pick(row: Mapping[str, Any], path: str, hub: Hub, place: str) -> Any:
    """Follow `answers.text` into a row."""
    value: Any = row
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise ConfigError(
                f"{hub.id}: {place}: expected a column {path!r}; columns here: {', '.join(map(repr, row))}. "
                "The data set has changed: give its revision in the task file."
            )
        value = value[key]
    return value


def _class(values: Mapping[str, Any], column: str, names: Sequence[str], hub: Hub, place: str) -> str:
    """The name of a class number."""
    number = values.get(column)
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise DataError(
            f"{hub.id}: {place}: expected a class number from 0 to {len(names) - 1} in column {column!r}, "
            f"got {number!r}. (-1 is a label that the publishers keep to themselves.)"
        )
    return names[number]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
