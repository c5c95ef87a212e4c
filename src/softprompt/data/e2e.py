"""Reader of the official E2E NLG Challenge files (Novikova, Dušek and Rieser 2017): CSV with the columns mr and ref."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from softprompt.data.e2e_tokens import tokenise
from softprompt.data.table import Record, need_columns, read_table
from softprompt.errors import DataError
from softprompt.template import linearise

SLOTS = {
    "name": "name",
    "eatType": "Type",
    "food": "food",
    "priceRange": "price",
    "customer rating": "customer rating",
    "area": "area",
    "familyFriendly": "family friendly",
    "near": "near",
}
"""Official slot -> its name in the formatted files of Li & Liang 2021."""

_SLOT = re.compile(r"\s*([^\[\],]+)\[(.*?)\]\s*(?:,(?=\s*[^\[\],]+\[)|\Z)", re.DOTALL)
_BREAK = re.compile(r"\s*[\r\n]+\s*")


def read_e2e(path: Path) -> Iterator[Record]:
    """Yield the rows of one official file, in its order: columns `mr` (as it is), `table` (linearised) and `ref`.

    A line break within a reference (three rows of the official files) becomes a space; nothing else is changed.
    `table_tokenised` and `ref_tokenised` are the two as Li & Liang's formatted files have them: see `tokenise`.
    Raises ConfigError for a missing file, DataError with `file:line` for its content.
    """
    tables: dict[str, dict[str, str]] = {}
    for record in read_table(path):
        need_columns(record, ("mr", "ref"))
        mr, ref = str(record.values["mr"]), _BREAK.sub(" ", str(record.values["ref"]))
        if mr not in tables:  # one mr has eight references
            tables[mr] = _tables(mr, record.where)
        values = {"mr": mr, **tables[mr], "ref": ref, "ref_tokenised": tokenise(ref)}
        yield replace(record, values=values)


def parse_mr(text: str, where: str) -> dict[str, str]:
    """Parse `name[The Vaults], area[city centre]` into {slot: value} in its own order; values may hold commas.

    Raises DataError, starting with `where`, for text that is not of this form, or a slot that is unknown or twice.
    """
    slots: dict[str, str] = {}
    end = 0
    while end < len(text):
        found = _SLOT.match(text, end)
        if found is None:
            raise DataError(
                f"{where}: expected slots such as name[The Vaults], area[riverside]; got {text[end:][:60]!r}."
            )
        slot, value = found[1].strip(), found[2].strip()
        if slot not in SLOTS or slot in slots:
            state = "twice" if slot in slots else f"unknown; the slots are {', '.join(SLOTS)}"
            raise DataError(f"{where}: the slot {slot!r} is {state}.")
        slots[slot] = value
        end = found.end()
    if not slots:
        raise DataError(f"{where}: expected slots such as name[The Vaults], got an empty mr.")
    return slots


def _tables(mr: str, where: str) -> dict[str, str]:
    table = linearise({SLOTS[slot]: value for slot, value in parse_mr(mr, where).items()})
    return {"table": table, "table_tokenised": tokenise(table)}
