"""Spec files as text: JSON or YAML, one document or several, into plain values that know their lines.

Knows nothing of pipelines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gitpipe.errors import BadSpec

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000  # a YAML file of a few lines can expand to billions through its aliases
MAX_DEPTH = 100
Path: TypeAlias = "tuple[str | int, ...]"
Children: TypeAlias = "dict[str | int, tuple[int, int]]"  # member -> where it begins, where its value begins
SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class Document:
    """One spec: its value, and the line (from 1) of the member at a path, or of what is nearest to it."""

    value: Any
    line_of: Callable[[Path], int]


class _Twice(Exception):
    """A key stands twice in one object of JSON."""


def _twice(source: str, line: int, key: str) -> BadSpec:
    return BadSpec(f"{source}:{line}: {key!r} stands twice in one object; keep one of them")


def snake(key: str) -> str:
    """``datumTries`` -> ``datum_tries``, as both spellings name one field."""
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda found: "_" + found.group().lower(), key)


def documents(data: bytes, source: str) -> list[Document]:
    """Every document in `data`; the members of an array at the top count as documents.

    Args:
        source: the file's name, for messages and to tell YAML by its ending.

    Raises:
        BadSpec: ``source[:line]: what is wrong``.
    """
    text = _decode(data, source)
    try:
        if text.lstrip()[0] in "{[" and not source.endswith((".yaml", ".yml")):
            found = list(_json_documents(text, source))
        else:
            found = _yaml_documents(text, source)
    except json.JSONDecodeError as e:
        problem = e.msg[:1].lower() + e.msg[1:]
        raise BadSpec(f"{source}:{e.lineno}: not valid JSON: {problem} (column {e.colno})") from None
    except RecursionError:
        raise BadSpec(f"{source}: nested too deeply for a pipeline spec") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise BadSpec(f"{source}: a number with too many digits for a pipeline spec") from None
    if not found:
        raise BadSpec(f"{source}: empty; expected a pipeline spec in JSON or YAML")
    return found


def _decode(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise BadSpec(f"{source}: {len(data) / 1e6:.1f} MB is too large for a pipeline spec (at most 1 MB)")
    if b"\0" in data:
        raise BadSpec(f"{source}: binary; expected a pipeline spec in JSON or YAML")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadSpec(f"{source}: not UTF-8 text; expected a pipeline spec in JSON or YAML") from None
    if not text.strip():
        raise BadSpec(f"{source}: empty; expected a pipeline spec in JSON or YAML")
    return text


# JSON


def _json_documents(text: str, source: str) -> Iterator[Document]:
    at = _skip(text, 0)
    while at < len(text):
        try:
            value, end = _DECODER.raw_decode(text, at)
        except _Twice:
            key, begins = _json_twice(text, at) or ("a key", at)
            raise _twice(source, text.count("\n", 0, begins) + 1, key) from None
        if isinstance(value, list):
            for index, each in enumerate(value):
                yield Document(each, _json_lines(text, at, (index,)))
        else:
            yield Document(value, _json_lines(text, at, ()))
        at = _skip(text, end)


def _json_lines(text: str, start: int, prefix: Path) -> Callable[[Path], int]:
    """Looks for lines only when asked, that is when there is something to complain about."""

    def line_of(path: Path) -> int:
        begins = value = start
        for step in prefix + path:
            children = _json_children(text, value)
            if step not in children:
                break
            begins, value = children[step]
        return text.count("\n", 0, begins) + 1

    return line_of


def _json_children(text: str, at: int) -> Children:
    """The members of the object or array at `at`, of a text that is known to be valid JSON."""
    out: Children = {}
    for name, begins, value in _json_members(text, at):
        for each in (name, snake(name) if isinstance(name, str) else name):
            out[each] = (begins, value)
    return out


def _json_members(text: str, at: int) -> Iterator[tuple[str | int, int, int]]:
    """(name or index, where it begins, where its value begins) of the members of the object or array at `at`."""
    opening, index = text[at], 0
    if opening not in "{[":
        return
    at = _skip(text, at + 1)
    while text[at] not in "}]":
        begins, name = at, index
        if opening == "{":
            name, at = _PLAIN.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        yield name, begins, at
        at = _skip(text, _PLAIN.raw_decode(text, at)[1])
        if text[at] == ",":
            at = _skip(text, at + 1)
        index += 1


def _json_twice(text: str, at: int) -> tuple[str, int] | None:
    """The first name that stands twice in one object, and where it does so again; `text` may end in no valid JSON."""
    seen: set[str | int] = set()
    for name, begins, value in _json_members(text, at):
        if name in seen:
            return str(name), begins
        seen.add(name)
        if found := _json_twice(text, value):
            return found
    return None


def _skip(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise _Twice
    return out


_PLAIN = json.JSONDecoder()
_DECODER = json.JSONDecoder(object_pairs_hook=_object)


# YAML


def _yaml_documents(text: str, source: str) -> list[Document]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_yaml(yaml.parse(text, Loader=loader), source)
        values = list(yaml.load_all(text, Loader=loader))
    except yaml.MarkedYAMLError as e:
        where = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise BadSpec(f"{source}{where}: not valid YAML: {e.problem or e.context}") from None
    except ValueError:  # of a date or a number
        raise BadSpec(f"{source}: not valid YAML: a date that there is not, or a number with too many digits") from None
    except yaml.YAMLError as e:
        raise BadSpec(f"{source}: not valid YAML: {' '.join(str(e).split())}") from None
    out: list[Document] = []
    for number, value in enumerate(values):
        if isinstance(value, list):
            out += [Document(each, _yaml_lines(text, number, (index,))) for index, each in enumerate(value)]
        elif value is not None:
            out.append(Document(value, _yaml_lines(text, number, ())))
    return out


@dataclass(slots=True)
class _Open:
    """A sequence or mapping whose end has not come yet."""

    anchor: str | None
    mapping: bool
    size: int = 1
    members: int = 0
    keys: set[str] = field(default_factory=set)


def _check_yaml(events: Iterable[Any], source: str) -> None:
    """Refuse what would take the loader too far, before it builds anything.

    The C loader recurses without a limit (it crashes the process), and expands aliases and ``<<`` without one.
    """
    stack: list[_Open] = [_Open(None, False)]
    sizes: dict[str, int] = {}
    for event in events:
        kind, top = type(event).__name__, stack[-1]
        if kind in ("SequenceStartEvent", "MappingStartEvent"):
            stack.append(_Open(event.anchor, kind[0] == "M"))
            if len(stack) > MAX_DEPTH:
                raise BadSpec(f"{source}:{event.start_mark.line + 1}: nested too deeply for a pipeline spec")
            continue
        if kind in ("SequenceEndEvent", "MappingEndEvent"):
            stack.pop()
            anchor, size, top = top.anchor, top.size, stack[-1]
        elif kind == "AliasEvent":
            if event.anchor not in sizes and any(each.anchor == event.anchor for each in stack):
                raise BadSpec(f"{source}:{event.start_mark.line + 1}: {event.anchor!r} holds itself")
            anchor, size = None, sizes.get(event.anchor, 1)
        elif kind == "ScalarEvent":
            anchor, size = event.anchor, 1
            if top.mapping and top.members % 2 == 0:
                if event.value in top.keys:
                    raise _twice(source, event.start_mark.line + 1, event.value)
                top.keys.add(event.value)
        else:
            continue
        top.members += 1
        top.size += size
        if anchor:
            sizes[anchor] = size
        if top.size > MAX_VALUES:
            raise BadSpec(f"{source}: expands to more than {MAX_VALUES} values, too many for a pipeline spec")


def _yaml_lines(text: str, number: int, prefix: Path) -> Callable[[Path], int]:
    def line_of(path: Path) -> int:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        node: Any = list(yaml.compose_all(text, Loader=loader))[number]
        line = int(node.start_mark.line)
        for step in prefix + path:
            children = _yaml_children(node)
            if step not in children:
                break
            line, node = children[step]
        return line + 1

    return line_of


def _yaml_children(node: Any) -> dict[str | int, tuple[int, Any]]:
    out: dict[str | int, tuple[int, Any]] = {}
    if node.id == "sequence":
        for index, each in enumerate(node.value):
            out[index] = (each.start_mark.line, each)
    elif node.id == "mapping":
        for key, each in node.value:
            for name in (key.value, snake(str(key.value))):
                out[name] = (key.start_mark.line, each)
    return out
