"""The rows of one split as examples: records read, shaped, worded and verbalised. One example a row."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from softprompt.data.dart import read_dart
from softprompt.data.e2e import read_e2e
from softprompt.data.hub import HubPart, read_hub
from softprompt.data.mrqa import read_mrqa
from softprompt.data.multirc import multirc_rows
from softprompt.data.qa import qa_rows
from softprompt.data.record import record_rows
from softprompt.data.scitldr import read_scitldr
from softprompt.data.squad import read_squad
from softprompt.data.table import Record, need_columns, read_table
from softprompt.data.webnlg import read_webnlg
from softprompt.data.wsc import wsc_rows
from softprompt.data.xsum import read_xsum, xsum_rows
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Labels, Numbers, Source, Wording
from softprompt.template import as_text, parse_template
from softprompt.types import Example

READERS: dict[str, Callable[..., Iterator[Record]]] = {
    "table": read_table,
    "e2e": read_e2e,
    "webnlg": read_webnlg,
    "dart": read_dart,
    "xsum": read_xsum,
    "scitldr": read_scitldr,
    "squad": read_squad,
    "mrqa": read_mrqa,
}
"""Reader by a task's `source.kind`: (file, **source.options) -> its records, lazily, in file order."""

SHAPES: dict[str, Callable[[Record], Iterator[Record]]] = {
    "multirc": multirc_rows,
    "qa": qa_rows,
    "record": record_rows,
    "wsc": wsc_rows,
    "xsum": xsum_rows,
}
"""What makes rows of one record, by a task's `source.shape`: for nested files and columns made of others.

Records of the hub come to it as well as those of the reader.
"""

Origin = Path | HubPart
"""What records are read from."""

OWN = Source(kind="table", files={})
"""How the user's own files are read."""


def read_rows(
    origins: Sequence[Origin], source: Source, wording: Wording, names: tuple[str, str], fields: Sequence[str] = ()
) -> Iterator[Example]:
    """Yield one example a row of the files (or of the hub), with all its targets.

    `meta` has the columns in `source.keep`, or else all that no template uses; those in `fields` in any case. `names`
    are what messages call the two templates. DataError for an origin without a row.
    """
    input_, target = parse_template(wording.input, names[0]), parse_template(wording.target, names[1])
    scored = parse_template(wording.references, "references") if wording.references else None
    needed = (*input_.columns, *target.columns, *(scored.columns if scored else ()), *fields)
    used = {*input_.columns, *target.columns}
    for origin in origins:
        empty = True
        for record in records(origin, source):
            if empty:
                need_columns(record, needed)
                empty = False
            text = input_.render(record.values, record.where)
            values = verbalise(wording, record)
            kept = set(record.values) - used if source.keep is None else set(source.keep)
            meta = {key: value for key, value in record.values.items() if key in kept or key in fields}
            references = scored.expand(values, record.where) if scored else ()
            yield Example(text, target.expand(values, record.where), meta, references)
        if empty:
            raise DataError(f"{origin}: expected at least one row, got none. Is it the right file?")


def records(origin: Origin, source: Source) -> Iterator[Record]:
    """Yield the records of one file (or split of the hub), shaped, without those that the source skips."""
    shape = SHAPES[source.shape] if source.shape else None
    if source.kind not in READERS:
        raise ConfigError(f"a task names the reader {source.kind!r}; there are {', '.join(READERS)}.")
    raw = read_hub(origin) if isinstance(origin, HubPart) else READERS[source.kind](origin, **source.options)
    for record in raw:
        if any(as_text(record.values.get(name)) in unwanted for name, unwanted in source.skip.items()):
            continue
        if shape is None:
            yield record
        else:
            yield from shape(record)


def verbalise(wording: Wording, record: Record) -> dict[str, Any]:
    """The record's values with the label or number put into words. DataError, with `file:line`, for another value."""
    values = dict(record.values)
    if wording.labels is not None:
        values[wording.labels.column] = _word(wording.labels, record)
    if wording.numbers is not None:
        values[wording.numbers.column] = _rounded(wording.numbers, record)
    return values


def _word(labels: Labels, record: Record) -> str:
    need_columns(record, (labels.column,))
    value = as_text(record.values[labels.column]).strip()
    if value not in labels.words:
        known = ", ".join(f"{key!r} ({word})" for key, word in labels.words.items())
        raise DataError(
            f"{record.where}: expected a label out of {known} in column {labels.column!r}, got {value[:60]!r}. "
            "Correct or drop the row, or add the label to the words."
        )
    return labels.words[value]


def _rounded(numbers: Numbers, record: Record) -> str:
    need_columns(record, (numbers.column,))
    value = record.values[numbers.column]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not numbers.low <= number <= numbers.high:
        raise DataError(
            f"{record.where}: expected a number from {numbers.low:g} to {numbers.high:g} in column "
            f"{numbers.column!r}, got {str(value)[:60]!r}. Correct or drop the row."
        )
    return f"{round(number / numbers.step) * numbers.step:.1f}"
