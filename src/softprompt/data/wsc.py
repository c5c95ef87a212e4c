"""Winograd schemas of SuperGLUE: which words of a text are asked about, marked as T5 marks them."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from softprompt.data.table import Record, need_columns
from softprompt.errors import DataError

_WORD = re.compile(r"\S+")


def wsc_rows(record: Record) -> Iterator[Record]:
    """Yield the record with a column `marked`: `* Mark * told Pete lies, so # he # said.`

    The spans are given by the number of their first word (words are what white space parts) and their text, in a
    mapping `target` (the official files) or in columns of their own (the hub). Where the text is not found there
    (some rows differ in case or punctuation), as many words as it has are marked. DataError for a span outside of the
    text.
    """
    target = record.values.get("target")
    values = {**record.values, **(target if isinstance(target, Mapping) else {})}
    flat = replace(record, values={key: value for key, value in values.items() if key != "target"})
    need_columns(flat, ("text", "span1_index", "span1_text", "span2_index", "span2_text"))
    marks = {"*": _span(flat, "span1"), "#": _span(flat, "span2")}
    yield replace(flat, values={**flat.values, "marked": _marked(str(values["text"]), marks)})


def _marked(text: str, marks: Mapping[str, tuple[int, int]]) -> str:
    """Put each mark on both sides of its span; of two spans that begin or end together the longer is outside."""
    outside_in = sorted(marks.items(), key=lambda item: item[1][0] - item[1][1])
    opening: defaultdict[int, str] = defaultdict(str)
    closing: defaultdict[int, str] = defaultdict(str)
    for mark, (start, end) in outside_in:
        opening[start] += f"{mark} "
        closing[end] = f" {mark}{closing[end]}"
    for place in sorted({*opening, *closing}, reverse=True):
        text = f"{text[:place]}{closing[place]}{opening[place]}{text[place:]}"
    return text


def _span(record: Record, name: str) -> tuple[int, int]:
    """The span's place in the text, in characters."""
    text, index, wanted = (record.values[key] for key in ("text", f"{name}_index", f"{name}_text"))
    words = list(_WORD.finditer(str(text)))
    count = len(str(wanted).split())
    if not isinstance(index, int) or count == 0 or not 0 <= index <= len(words) - count:
        raise DataError(
            f"{record.where}: expected {name}_index and {name}_text of words in the text of {len(words)} words, "
            f"got {_shown(index)} and {_shown(wanted)}."
        )
    start, end = words[index].start(), words[index + count - 1].end()
    found = str(text).lower().find(str(wanted).lower(), start, end)
    return (start, end) if found < 0 else (found, found + len(str(wanted)))


def _shown(value: Any) -> str:
    return repr(value)[:60]
