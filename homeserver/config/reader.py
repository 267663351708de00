"""Turns a YAML file into records and finds every mistake in it at once.

What keys there are, and what each may hold, is said by the dataclasses handed in
(``config/__init__.py``): this module only knows how to walk a file beside them.  It never
puts a value from the file into a message, because a value may be a secret.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from yaml.constructor import SafeConstructor

T = TypeVar("T")

#: In the metadata of a field: how its key is written, where that is not a name in Python.
KEY = "key"

_TAG = "tag:yaml.org,2002:"
_FROM_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: The YAML parser quotes what it stumbled over; longer quotations may hold part of a secret.
_QUOTATION = re.compile(r"'[^']{2,}'|\"[^\"]{2,}\"")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be, beyond its type: written as ``Annotated[T, Rule(...)]``.

    ``says`` completes the sentence "must be …"; ``parse`` receives a value of the
    type ``reads`` and the folder of the file, and returns the value to keep or
    raises ``ValueError``.
    """

    says: str
    parse: Callable[[Any, Path], Any]
    reads: Any = str


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in the file: where it is, and what is allowed there."""

    key: str
    line: int
    message: str

    def __str__(self) -> str:
        return (
            f"line {self.line}: {self.key}: {self.message}"
            if self.key
            else f"line {self.line}: {self.message}"
        )


class ConfigErrors(Exception):
    """A file that cannot be used, with every mistake in it, in the order of its lines."""

    def __init__(self, path: Path, mistakes: list[Mistake]) -> None:
        self.path = path
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.line))
        super().__init__("\n".join(f"{path}: {mistake}" for mistake in self.mistakes))


class _Wrong(Exception):
    """A value was refused and its mistake noted; the record around it goes on to its next key."""


@dataclass(frozen=True, slots=True)
class _Source:
    folder: Path
    environ: Mapping[str, str]
    mistakes: list[Mistake]

    def refuse(self, node: yaml.Node, key: str, message: str) -> _Wrong:
        self.mistakes.append(Mistake(key, node.start_mark.line + 1, message))
        return _Wrong()


def read_file(path: Path, kind: type[T], environ: Mapping[str, str]) -> T:
    """The record of class ``kind`` that the YAML file holds.

    Relative paths are taken from the file's folder, and a text that is wholly
    ``${NAME}`` from ``environ``.  A class whose ``OTHER_KEYS_ALLOWED`` is true reads a file
    that others put keys into as well.  Raises ``ConfigErrors`` with all mistakes.
    """
    path = path.absolute()
    mistakes: list[Mistake] = []
    try:
        root = _compose(path)
        record = _record(_Source(path.parent, environ, mistakes), root, "", kind)
    except _Wrong:
        raise ConfigErrors(path, mistakes) from None
    except _Unreadable as unreadable:
        raise ConfigErrors(path, [unreadable.mistake]) from None
    return record


def line_of(path: Path, key: str) -> int:
    """The line of a top-level key of a file that was read."""
    root = _compose(path)
    lines = (name.start_mark.line + 1 for name, _ in root.value if name.value == key)
    return next(lines, 1)


class _Unreadable(Exception):
    """The file is not YAML, so there is just this one thing to say about it."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.mistake = Mistake("", line, message)


def _compose(path: Path) -> yaml.Node:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _Unreadable(1, f"the file cannot be read: {error.strerror}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _Unreadable(data.count(b"\n", 0, error.start) + 1, "the file must be UTF-8 text") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = _QUOTATION.sub("(left out)", error.problem or error.context or "not understood")
        raise _Unreadable(mark.line + 1 if mark else 1, f"not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Unreadable(line, "not valid YAML: a character that YAML does not allow") from None
    except RecursionError:
        raise _Unreadable(1, "not valid YAML: nested too deep") from None
    if root is None:
        raise _Unreadable(1, "the file is empty")
    return root


def _record(source: _Source, node: yaml.Node, key: str, kind: type[T]) -> T:
    """Read every key of a mapping, going on after mistakes; ``_Wrong`` when there was one."""
    if not isinstance(node, yaml.MappingNode) and not _is_null(node):
        raise source.refuse(node, key, "must be a section of keys and values")
    declared = dataclasses.fields(kind)  # type: ignore[arg-type]
    fields = {field.metadata.get(KEY, field.name): field for field in declared}
    hints = get_type_hints(kind, include_extras=True)
    before = len(source.mistakes)
    given = _entries(source, node, key, list(fields), is_open=getattr(kind, "OTHER_KEYS_ALLOWED", False))
    values: dict[str, Any] = {}
    for name, (name_node, value_node) in given.items():
        where = _below(key, name)
        # An empty value is easiest to find at its key: YAML places it at the line's end or the next one.
        value_node.start_mark = name_node.start_mark if _is_null(value_node) else value_node.start_mark
        try:
            values[fields[name].name] = _value(source, value_node, where, hints[fields[name].name])
        except _Wrong:
            continue
    for name, field in fields.items():
        optional = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        )
        if name not in given and not optional:
            source.refuse(node, _below(key, name), "is missing, and has no default")
    if len(source.mistakes) > before:
        raise _Wrong
    try:
        return kind(**values)
    except ValueError as error:
        raise source.refuse(node, key, str(error)) from None


def _nearest(name: str, known: list[str]) -> str:
    import difflib  # noqa: PLC0415  a server whose configuration is right does without

    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def _entries(
    source: _Source, node: yaml.Node, key: str, known: list[str], *, is_open: bool
) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The known keys of a mapping with their nodes; what is unknown or given twice is noted."""
    found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for name_node, value_node in node.value if isinstance(node, yaml.MappingNode) else ():
        name = name_node.value
        if not isinstance(name_node, yaml.ScalarNode):
            source.refuse(name_node, key, "a key must be a plain word")
        elif name not in known and is_open:
            continue
        elif name not in known:
            message = f"unknown key; the nearest known key is {_below(key, _nearest(name, known))}"
            source.refuse(name_node, _below(key, name), message)
        elif name in found:
            first = found[name][0].start_mark.line + 1
            source.refuse(name_node, _below(key, name), f"is given twice, first on line {first}")
        else:
            found[name] = (name_node, value_node)
    return found


def _value(source: _Source, node: yaml.Node, key: str, hint: Any, says: str | None = None) -> Any:
    """A value of the type ``hint``; ``says`` is the sentence of the rule that it is read for."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _ruled(source, node, key, args[1])
    if origin in (Union, types.UnionType):
        present = next(kind for kind in args if kind is not types.NoneType)
        return None if _is_null(node) else _value(source, node, key, present)
    if hint is Mapping:
        return _free(source, node, key)
    if origin is tuple:
        return _list(source, node, key, args[0], says)
    if origin is Literal:
        says = "one of: " + ", ".join(args)
        text = _scalar(source, node, key, str, says)
        if text not in args:
            raise source.refuse(node, key, f"must be {says}")
        return text
    if dataclasses.is_dataclass(hint):
        return _record(source, node, key, hint)  # type: ignore[arg-type]
    return _scalar(source, node, key, hint, says)


def _ruled(source: _Source, node: yaml.Node, key: str, rule: Rule) -> Any:
    value = _value(source, node, key, rule.reads, rule.says)
    try:
        return rule.parse(value, source.folder)
    except ValueError:
        raise source.refuse(node, key, f"must be {rule.says}") from None


def _list(source: _Source, node: yaml.Node, key: str, kind: Any, says: str | None) -> tuple[Any, ...]:
    if _is_null(node):
        return ()
    if not isinstance(node, yaml.SequenceNode):
        raise source.refuse(node, key, f"must be {says or 'a list'}")
    before = len(source.mistakes)
    values = []
    for index, item in enumerate(node.value):
        try:
            values.append(_value(source, item, f"{key}[{index}]", kind))
        except _Wrong:
            continue
    if len(source.mistakes) > before:
        raise _Wrong
    return tuple(values)


def _free(source: _Source, node: yaml.Node, key: str) -> Mapping[str, Any]:
    """A mapping whose keys are for somebody else to know."""
    if not isinstance(node, yaml.MappingNode):
        raise source.refuse(node, key, "must be a section of keys and values")
    try:
        value: Mapping[str, Any] = SafeConstructor().construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise source.refuse(node, key, "must be made of texts, numbers, lists and sections") from None
    return value


_SAYS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text (in quotes if it looks like a number)",
}


def _scalar(source: _Source, node: yaml.Node, key: str, kind: Any, says: str | None) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise source.refuse(node, key, f"must be {says or _SAYS[kind]}")
    tag = node.tag.removeprefix(_TAG)
    try:
        if kind is str and tag == "str":
            return _from_environment(source, node, key)
        if kind is bool and tag == "bool":
            return SafeConstructor.bool_values[node.value.lower()]
        if kind in (int, float) and tag == "int":
            return kind(SafeConstructor().construct_yaml_int(node))
        if kind is float and tag == "float":
            return SafeConstructor().construct_yaml_float(node)
    except (ValueError, KeyError, OverflowError):
        tag = ""  # An explicit tag, or a number longer than any limit: not a value of its kind.
    raise source.refuse(node, key, f"must be {says or _SAYS[kind]}")


def _from_environment(source: _Source, node: yaml.Node, key: str) -> str:
    text: str = node.value
    named = _FROM_ENVIRONMENT.fullmatch(text)
    if named is None:
        return text
    if named[1] not in source.environ:
        raise source.refuse(node, key, f"names the environment variable {named[1]}, which is not set")
    return source.environ[named[1]]


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
