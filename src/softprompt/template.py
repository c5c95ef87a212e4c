"""A record's columns -> source and target text: linearised tables and user templates. Pure text, no tokenizer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
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

    Only `{column}` is special: what stands between the braces is the column's whole name, so there is no attribute
    access, index, conversion or format spec. `{{` and `}}` stand for braces.
    """

    literals: tuple[str, ...]
    columns: tuple[str, ...]

    def expand(self, values: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """Fill the columns in: one text, or one for each item where a column holds a list (at most one may).

        The texts are stripped of outer white space. Raises DataError, starting with `where`, for a column that is
        not there, a null, two lists, or a text that is empty.
        """
        lists = [name for name in dict.fromkeys(self.columns) if isinstance(self._value(name, values, where), list)]
        if len(lists) > 1:
            raise DataError(f"{where}: expected at most one list in a template, got lists in columns {lists}.")
        rows = [{**values, lists[0]: item} for item in values[lists[0]]] if lists else [values]
        if not rows:
            raise DataError(f"{where}: expected at least one text in column {lists[0]!r}, got an empty list.")
        return tuple(self._fill(row, where) for row in rows)

    def render(self, values: Mapping[str, Any], where: str) -> str:
        """Fill the columns in to one text; as `expand`, and a list is refused."""
        for name in self.columns:
            if isinstance(self._value(name, values, where), list):
                raise DataError(
                    f"{where}: expected a text in column {name!r}, got a list. Only a target may be a list."
                )
        return self._fill(values, where)

    def _fill(self, values: Mapping[str, Any], where: str) -> str:
        parts = [self.literals[0]]
        for name, literal in zip(self.columns, self.literals[1:], strict=True):
            value = self._value(name, values, where)
            if value is None or isinstance(value, list):
                got = "null" if value is None else "a list in a list"
                raise DataError(f"{where}: expected a text in column {name!r}, got {got}.")
            parts += [as_text(value), literal]
        text = "".join(parts).strip()
        if not text:
            raise DataError(
                f"{where}: expected a text in {self.columns}, got only white space. Fill it or drop the row."
            )
        return text

    @staticmethod
    def _value(name: str, values: Mapping[str, Any], where: str) -> Any:
        if name not in values:
            guess = nearest(name, values)
            raise DataError(
                f"{where}: the template asks for column {name!r}, which is not there{guess}. "
                f"Columns here: {', '.join(map(repr, values))}. Set data.input and data.target to the columns you have."
            )
        return values[name]


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
    """A column's value as templates write it: a mapping linearised, `true` and `false`, else `str`."""
    if isinstance(value, Mapping):
        return linearise(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
