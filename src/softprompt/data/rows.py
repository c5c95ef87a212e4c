"""The rows of one split as examples: records read, shaped, worded and verbalised. One example a row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from softprompt.data.dart import read_dart
from softprompt.data.e2e import read_e2e
from softprompt.data.hub import HubPart, read_hub
from softprompt.data.lines import suffix_of
from softprompt.data.mrqa import read_mrqa
from softprompt.data.multirc import multirc_rows
from softprompt.data.qa import qa_rows
from softprompt.data.record import record_rows
from softprompt.data.scitldr import read_scitldr
from softprompt.data.squad import read_squad
from softprompt.data.table import JSON, PARQUET, Record, need_columns, read_table
from softprompt.data.webnlg import read_webnlg
from softprompt.data.wsc import wsc_rows
from softprompt.data.xsum import read_xsum, xsum_rows
from softprompt.data_config import DataConfig
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Labels, Numbers, Source, Wording
from softprompt.template import Template, as_text, column_value, has_column, is_blank, parse_template
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


def own_source(data: DataConfig) -> Source:
    """How they are read by the recipe's delimiter, quoting and encoding. ConfigError for one that has no effect."""
    options = {"delimiter": data.delimiter, "quoting": data.quoting, "encoding": data.encoding}
    given = {name: value for name, value in options.items() if value is not None}
    kinds = [suffix_of(path) for path in (data.train, data.dev, data.test) if path is not None]
    for name in given:
        idle = (PARQUET,) if name == "encoding" else (PARQUET, *JSON)
        if all(kind in idle for kind in kinds):
            raise ConfigError(
                f"data.{name}: has no effect on files that end in {', '.join(dict.fromkeys(kinds))}. Drop it."
            )
    return OWN.model_copy(update={"options": given})


def read_rows(
    origins: Sequence[Origin],
    source: Source,
    wording: Wording,
    names: tuple[str, str],
    fields: Sequence[str] = (),
    met: set[str] | None = None,
) -> Iterator[Example]:
    """Yield one example a row of the files (or of the hub), with all its targets.

    `meta` has the columns in `source.keep`, or else all that no template uses; those in `fields` in any case. `names`
    are what messages call the two templates. Of several target templates each row uses those that it has texts for;
    `met` gets those whose columns were there. DataError for an origin without a row.
    """
    input_, targets = parse_template(wording.input, names[0]), target_templates(wording, names[1])
    scored = parse_template(wording.references, "references") if wording.references else None
    single = next(iter(targets.values())).columns if len(targets) == 1 else ()
    needed = (*input_.columns, *single, *(scored.columns if scored else ()), *fields)
    used = {*input_.columns, *(column for target in targets.values() for column in target.columns)}
    for origin in origins:
        empty = True
        for record in records(origin, source):
            if empty:
                need_columns(record, needed, "" if source.files else _ADVICE)
                empty = False
            text = input_.render(record.values, record.where)
            values = verbalise(wording, record)
            kept = set(record.values) - used if source.keep is None else set(source.keep)
            meta = {key: value for key, value in record.values.items() if key in kept}
            meta |= {key: column_value(record.values, key) for key in fields}
            references = scored.expand(values, record.where) if scored else ()
            texts = _targets(targets, values, record.where, met)
            yield Example(text, texts, meta, references, record.place if record.line is None else record.line)
        if empty:
            raise DataError(f"{origin}: expected at least one row, got none. Is it the right file?")


_ADVICE = (
    " Set data.input and data.target to columns that are here. Where the files' columns differ, data.target may be a "
    "list such as ['{target}', '{ref1}', '{ref2}'], of which each row takes those that it has."
)


def target_templates(wording: Wording, name: str) -> dict[str, Template]:
    """The target templates as they are written, parsed."""
    texts = (wording.target,) if isinstance(wording.target, str) else wording.target
    return {text: parse_template(text, name) for text in texts}


def _targets(
    templates: Mapping[str, Template], values: Mapping[str, Any], where: str, met: set[str] | None
) -> tuple[str, ...]:
    """The target of the one template, or those of several for which there are texts."""
    if len(templates) == 1:
        return next(iter(templates.values())).expand(values, where)
    found: list[str] = []
    for text, template in templates.items():
        if all(has_column(values, column) for column in template.columns):
            if met is not None:
                met.add(text)
            if not any(is_blank(column_value(values, column)) for column in template.columns):
                found += template.expand(values, where)
    if not found:
        raise DataError(
            f"{where}: expected a text for one of the targets {', '.join(templates)}, got none. Columns here: "
            f"{', '.join(map(repr, values))}. Fill one or drop the row."
        )
    return tuple(found)


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
    value = as_text(column_value(record.values, labels.column)).strip()
    if value not in labels.words:
        known = ", ".join(f"{key!r} ({word})" for key, word in labels.words.items())
        raise DataError(
            f"{record.where}: expected a label out of {known} in column {labels.column!r}, got {value[:60]!r}. "
            "Correct or drop the row, or add the label to the words."
        )
    return labels.words[value]


def _rounded(numbers: Numbers, record: Record) -> str:
    need_columns(record, (numbers.column,))
    value = column_value(record.values, numbers.column)
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
