"""YAML as recipes and tasks are written in it: plain data, read within bounds, and written so that it reads back.

The dialect is YAML 1.2's core schema on PyYAML's parser: `1e-3` is a number, `no`, `yes`, `on` and `off` are text,
keys are always text, a key may appear once, and only plain data can be built.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from softprompt.errors import ConfigError

KeyPath = tuple[str, ...]
MOST_BYTES, MOST_DEPTH, MOST_VALUES = 1_000_000, 100, 100_000
"""Of a document: size, nesting, and values where every alias stands for all that it names."""
_LONG = 20_000
"""Characters from which on libyaml reads a text, where it is there: in seconds less."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text holds, and the line (from 1) on which each key stands."""

    data: Any
    lines: Mapping[KeyPath, int]


def read_yaml(path: Path, *, quick: bool = False) -> Document:
    """Parse a YAML file (UTF-8); ConfigError with `file:line` if it cannot be read or parsed.

    `quick` is for the package's own files: libyaml where there is one, whose messages are not PyYAML's.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from None
    try:
        text = raw[:MOST_BYTES].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: expected UTF-8 text, got byte {raw[error.start]:#04x}.") from None
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{path}: expected at most {MOST_BYTES:,} bytes of YAML, got more. Put data in data files.")
    return parse_yaml(text, str(path), quick=quick)


def parse_yaml(text: str, where: str, *, quick: bool = False) -> Document:
    """Parse one YAML document; ConfigError that starts with `where:line` if it is not valid, or beyond the bounds."""
    loader = None
    try:
        if len(text) > _LONG and not quick:
            _require_flat(text)
            quick = True
        loader = (_QuickLoader if quick else _Loader)(text)
        node = loader.get_single_node()
        if node is None:
            return Document(None, {})
        lines: dict[KeyPath, int] = {}
        _walk(node, (), lines, {}, where)
        return Document(loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: not valid YAML: {error.problem}. Check quotes and indentation there.") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigError(f"{where}:{line}: not valid YAML: a control or broken character. Remove it.") from None
    except (_TooDeepError, RecursionError):
        raise ConfigError(f"{where}: not valid YAML: nested too deep (more than {MOST_DEPTH} levels).") from None
    except UnicodeEncodeError:
        raise ConfigError(f"{where}: not valid YAML: a lone surrogate, which is no character. Remove it.") from None
    finally:
        if loader is not None:
            loader.dispose()


def flaw_of(text: str) -> str | None:
    """What keeps a text from being written to a file or used as a name: a lone surrogate or a NUL; None: nothing."""
    return "a NUL character" if "\0" in text else surrogate_in(text)


def surrogate_in(text: str) -> str | None:
    """Says which lone surrogate, half of a character, a text has; None: none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"a lone surrogate ({text[error.start]!r})"
    return None


def write_yaml(data: Mapping[str, Any]) -> str:
    """Return YAML text that `parse_yaml` (and any YAML 1.1 reader) reads back as exactly `data`."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


class _TooDeepError(Exception):
    """A document beyond `MOST_DEPTH`."""


def _require_flat(text: str) -> None:
    """Raise `_TooDeepError` where brackets or indents go too deep; what else is wrong is left to the parser proper."""
    loader, depth = _QuickLoader(text), 0
    try:
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MOST_DEPTH:
                raise _TooDeepError
    except yaml.YAMLError:
        pass
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], sizes: dict[int, int], where: str) -> int:
    """Note each key's line in `lines`; refuse keys that are not plain text or appear twice, and text that is none.

    Returns how many values `node` has, what aliases stand for counted each time; `sizes` keeps it by node, 0 where it
    is not known yet.
    """
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ConfigError(
                f"{where}:{_line(node)}: not valid YAML: an alias stands inside of what it names. Write it out."
            )
        return sizes[id(node)]
    sizes[id(node)], size = 0, 1
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            size = _sum(size, _walk(item, (*path, "[]"), lines, sizes, where), where)
    elif isinstance(node, yaml.MappingNode):
        mine: dict[str, int] = {}
        for key, value in node.value:
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where}:{line}: expected a plain key such as 'train', got a list or a mapping.")
            name = str(key.value)
            if name in mine:
                raise ConfigError(
                    f"{where}:{line}: the key {name[:80]!r} stands twice (first in line {mine[name]}). Keep one."
                )
            _require_text(name, where, line)
            mine[name] = lines[(*path, name)] = line
            size = _sum(size, _walk(value, (*path, name), lines, sizes, where), where)
    else:
        _require_text(str(node.value), where, _line(node))
    sizes[id(node)] = size
    return size


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _sum(size: int, more: int, where: str) -> int:
    if size + more > MOST_VALUES:
        raise ConfigError(
            f"{where}: expected at most {MOST_VALUES:,} values with all aliases written out, got more. Shorten it."
        )
    return size + more


def _require_text(text: str, where: str, line: int) -> None:
    if flaw := flaw_of(text):
        raise ConfigError(f"{where}:{line}: expected text, got {flaw}. Take it out.")


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the core schema's resolvers and constructors only."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML's, to a bounded depth."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise _TooDeepError
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _QuickLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same on libyaml."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper that also quotes what our loader would not read as text, and never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _scalar(kind: str) -> Any:
    converters: dict[str, Callable[[str], Any]] = {
        "bool": lambda text: {"true": True, "false": False}[text.lower()],
        "int": lambda text: int(text, 0) if text[:2] in ("0o", "0x") else int(text),
        "float": lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
        "null": lambda text: None,
        "str": lambda text: text,
    }
    convert = converters[kind]

    def construct(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        text = node.value
        try:
            if not isinstance(text, str):
                raise ValueError
            return convert(text)
        except (ValueError, KeyError, OverflowError):
            raise yaml.constructor.ConstructorError(
                None, None, f"cannot read this value as {kind}", node.start_mark
            ) from None

    return construct


def _undefined(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag!r} is not allowed", node.start_mark)


def _sequence(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any]:
    return [loader.construct_object(item, deep=True) for item in _children(node, yaml.SequenceNode)]


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[str, Any]:
    pairs = _children(node, yaml.MappingNode)
    return {str(key.value): loader.construct_object(value, deep=True) for key, value in pairs}


def _children(node: yaml.Node, kind: type[yaml.CollectionNode]) -> list[Any]:
    if not isinstance(node, kind):
        raise yaml.constructor.ConstructorError(None, None, "the tag and the value do not fit", node.start_mark)
    return list(node.value)


for _class in (_Loader, _QuickLoader):
    _class.yaml_implicit_resolvers = {}
    _class.yaml_constructors = {}
_PATTERNS = (  # YAML 1.2.2, section 10.3.2; tried in this order
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
)
for _kind, _pattern, _first in _PATTERNS:
    for _either in (_Loader, _QuickLoader, _Dumper):
        _either.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), _first)
for _class in (_Loader, _QuickLoader):
    for _kind in ("null", "bool", "int", "float", "str"):
        _class.add_constructor(f"tag:yaml.org,2002:{_kind}", _scalar(_kind))
    _class.add_constructor("tag:yaml.org,2002:seq", _sequence)
    _class.add_constructor("tag:yaml.org,2002:map", _mapping)
    _class.add_constructor(None, _undefined)
