"""A record's columns -> source and target text: linearised tables and user templates. Pure text, no tokenizer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

from softprompt.errors import ConfigError, DataError
from softprompt.recipes import nearest

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def linearise(fields: Mapping[str, Any]) -> str:
    """Return `name : X | Type : Y`, in the mapping's own order (Li & Liang 2021's format for tables)."""
    return " | ".join(f"{key} : {as_text(value)}" for key, value in fields.items())


@dataclass(frozen=True, slots=True)
class Template:
    """Literal texts and column names, alternating: `literals[0] columns[0] literals[1] ... literals[-1]`.

    Only `{column}` is special: what stands between the braces is the column's whole name, or the path into a column of
    objects (`{meta.name}`), so there is no attribute access, index, conversion or format spec. `{{` and `}}` stand for
    braces.
    """

    literals: tuple[str, ...]
    columns: tuple[str, ...]

    def expand(self, values: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """Fill the columns in: one text, or one for each item where a column holds a list (at most one may).

        The texts are stripped of outer white space. Raises DataError, starting with `where`, for a column that is
        not there, a value that is no text (null, not a number, bytes), two lists, or a text that is empty.
        """
        lists = [name for name in dict.fromkeys(self.columns) if isinstance(self._value(name, values, where), list)]
        if len(lists) > 1:
            raise DataError(f"{where}: expected at most one list in a template, got lists in columns {lists}.")
        if not lists:
            return (self._fill(values, where),)
        items = self._value(lists[0], values, where)
        if not items:
            raise DataError(f"{where}: expected at least one text in column {lists[0]!r}, got an empty list.")
        return tuple(self._fill({**values, lists[0]: item}, where) for item in items)

    def render(self, values: Mapping[str, Any], where: str) -> str:
        """Fill the columns in to one text; as `expand`, and the items of a list are joined by `, `."""
        return self._fill(values, where, joined=True)

    def _fill(self, values: Mapping[str, Any], where: str, *, joined: bool = False) -> str:
        parts = [self.literals[0]]
        for name, literal in zip(self.columns, self.literals[1:], strict=True):
            value = self._value(name, values, where)
            if not (isinstance(value, str) or type(value) is int):
                wrong = no_text(value, joined=joined)
                if wrong:
                    raise DataError(f"{where}: expected a text in column {name!r}, got {wrong}")
            parts += [as_text(value), literal]
        text = "".join(parts).strip()
        if not text:
            raise DataError(
                f"{where}: expected a text in {self.columns}, got only white space. Fill it or drop the row."
            )
        if not is_unicode(text):
            raise DataError(
                f"{where}: expected Unicode text in {self.columns}, got a lone surrogate in {text[:60]!r}. Correct it "
                "or drop the row."
            )
        return text

    @staticmethod
    def _value(name: str, values: Mapping[str, Any], where: str) -> Any:
        if name in values:
            return values[name]
        if has_column(values, name):
            return _followed(values, name)
        raise DataError(
            f"{where}: the template asks for column {name!r}, which is not there{nearest(name, values)}. "
            f"Columns here: {', '.join(map(repr, values))}. Set data.input and data.target to the columns you have."
        )


def has_column(values: Mapping[str, Any], name: str) -> bool:
    """Whether a row has the column, or the path with dots into a column of objects."""
    return name in values or ("." in name and _followed(values, name, _ABSENT) is not _ABSENT)


def column_value(values: Mapping[str, Any], name: str) -> Any:
    """What a row has in a column, or where a path leads; None where there is nothing."""
    return values[name] if name in values else _followed(values, name)


def is_blank(value: Any) -> bool:
    """Whether a cell is empty: null, NaN, or white space."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


_ABSENT = object()


def _followed(values: Mapping[str, Any], path: str, otherwise: Any = None) -> Any:
    """What `meta.place.area` leads to. A key that holds dots itself is found where it stands."""
    head, dot, rest = path.partition(".")
    while True:
        found = values.get(head, _ABSENT)
        if found is not _ABSENT and not dot:
            return found
        if isinstance(found, Mapping):
            deeper = _followed(found, rest, _ABSENT)
            if deeper is not _ABSENT:
                return deeper
        if not dot:
            return otherwise
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"


def no_text(value: Any, *, joined: bool) -> str:
    """What is wrong with a value as (part of) a text, and what to do; "" where nothing is. `joined`: lists may be."""
    if value is None:
        return "null. Fill it or drop the row."
    if (isinstance(value, float) and not isfinite(value)) or (isinstance(value, Decimal) and not value.is_finite()):
        return f"{value}, which stands for no value. Fill it or drop the row."
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes. Write the column as text."
    if isinstance(value, Mapping):
        return next((wrong for item in value.values() if (wrong := no_text(item, joined=True))), "")
    if not isinstance(value, list | tuple):
        return ""
    if not joined:
        return "a list in a list. Write one text an item."
    for item in value:
        if isinstance(item, Mapping):
            if "role" in item or "from" in item:
                return (
                    "a list of chat messages, which are not read. Write what is asked and what is answered as two "
                    'columns: {"source": ..., "target": ...}.'
                )
            return "a list of objects. Name a column of texts, or a path such as {meta.name}."
        if isinstance(item, list | tuple):
            return "a list in a list. Write one text an item."
        if wrong := no_text(item, joined=True):
            return f"a list with {wrong}"
    return ""


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: a lone surrogate, as `\\ud800` in JSON, cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_template(text: str, name: str) -> Template:
    """Parse a template such as `{name} in {area}`; `name` (`data.input`, say) starts the ConfigError if it is wrong."""
    literals, columns, end = [""], [], 0
    for piece in _PIECE.finditer(text):
        literals[-1] += text[end : piece.start()]
        end = piece.end()
        if piece[0] in ("{{", "}}"):
            literals[-1] += piece[0][0]
        elif piece[1]:
            columns.append(piece[1])
            literals.append("")
        else:
            raise ConfigError(
                f"{name}: expected {{column}} in the template {text!r}, got a lone {piece[0]!r} at character "
                f"{piece.start() + 1}. Write {{{{ and }}}} for braces themselves."
            )
    literals[-1] += text[end:]
    if not columns:
        raise ConfigError(f"{name}: expected at least one {{column}} in the template, got {text!r}.")
    return Template(tuple(literals), tuple(columns))


def as_text(value: Any) -> str:
    """A column's value as templates write it: a mapping linearised, a list joined, `true` and `false`, else `str`."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return linearise(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
