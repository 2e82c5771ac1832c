"""Pachyderm's glob language: which files and folders of a listing make one match each.

Knows paths and patterns; nothing of inputs, commits or datums.

| pattern | matches |
|---|---|
| `*`, `?` | any text, one character, within a path part |
| `**` | any text, across parts; files before the folders that they lie in |
| `[a-z]`, `[!a]`, `[[:digit:]]` | one character of a set |
| `{a,b}` | one of several, not captured |
| `(a|b)`, `@(a|b)` | one of several, captured |
| `*(a|b)`, `+(a|b)`, `?(a|b)`, `!(a|b)` | any number, at least one, at most one, anything else; captured |
| `\\*` | the character itself |
| `/a/` | a folder only |
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple, NoReturn, TypeAlias

from gitpipe.errors import BadSpec

MAX_PATTERN = 1000
MAX_NESTING = 8
STAR = "[^/]*"
DEEP = ".*"
CAPTURE = "\0"  # opens a capturing group in a half-made regex; a pattern cannot hold NUL itself
QUANTIFIERS = {"@": "", "*": "*", "+": "+", "?": "?"}
POSIX = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "space": r"\s",
    "word": r"\w",
    "xdigit": "0-9A-Fa-f",
    "punct": re.escape("!\"#$%&'()*+,-.:;<=>?@[\\]^_`{|}~"),
}


class Match(NamedTuple):
    """One match of a glob: `path` begins with ``/``; `files` are (path below ``data/``, md5), sorted by path."""

    path: str
    files: tuple[tuple[str, str], ...]
    captures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """A group of alternatives; `kind` is one of ``@ * + ? !``, or ``{`` for one that is not captured."""

    kind: str
    options: tuple[_Sequence, ...]


_Sequence: TypeAlias = "tuple[str | _Group, ...]"  # regex pieces and groups, left to right


class Glob:
    """A compiled pattern.

    Args:
        pattern: as in the table above; a missing leading ``/`` is the same as one.

    Attributes:
        groups: how many captures a match has.
        depth: of how many path parts every match consists, or None where that varies (``**``, ``{a,b/c}``).
        deep: the pattern has ``**``.
        folders_only: the pattern ends in ``/``, so that it matches no file.

    Raises:
        BadSpec: naming the pattern and what is wrong with it.
    """

    __slots__ = ("_regex", "deep", "depth", "folders_only", "groups", "pattern", "prefix")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        body = pattern[:-1] if len(pattern) > 1 and pattern.endswith("/") and not pattern.endswith("\\/") else pattern
        self.folders_only = body != pattern
        sequence = _Parser(pattern, body).parse()
        # Where the leading "/" is left out it may still come first in a group: "{/a,/b}".
        lead = "" if body.startswith("/") else "(?:/|(?=/))"
        regex = lead + _regex(sequence, r"\Z")
        self.groups = regex.count(CAPTURE)
        self._regex = re.compile(regex.replace(CAPTURE, "(") + r"\Z", re.DOTALL)
        slashes = sequence.count("/") + (not body.startswith("/"))
        self.depth = None if _crosses_parts(sequence) else slashes
        self.deep = _is_deep(sequence)
        self.prefix = _literal_folder(body)

    def captures(self, path: str) -> tuple[str, ...] | None:
        """What the groups matched in `path` (a file or folder, with or without a leading ``/``); None: no match."""
        return self._captured("/" + path.strip("/"))

    def _captured(self, path: str) -> tuple[str, ...] | None:
        """As `captures`, for a path that begins with its one ``/``: asked 100,000 times by one job."""
        found = self._regex.match(path)
        if found is None:
            return None
        return tuple([group or "" for group in found.groups()]) if self.groups else ()

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"


def cut(pattern: str, listing: Mapping[str, str]) -> Iterator[Match]:
    """Every match of `pattern` in `listing`, sorted by path.

    ``/`` is one match of everything (none where there is nothing).  A matched folder contributes all files below it.
    With ``**`` a folder is no match where a file in it is one: ``/**`` is each file, once.

    Raises:
        BadSpec: a pattern that makes no sense.
    """
    if pattern == "/":
        if listing:
            yield Match("/", tuple(sorted(listing.items())), ())
        return
    glob = Glob(pattern)
    paths = _below(sorted(listing), glob.prefix)
    found = _at_any_depth(glob, paths) if glob.depth is None else _at_depth(glob, paths, glob.depth)
    for path, captures, members in sorted(found, key=itemgetter(0)):
        yield Match("/" + path, tuple([(member, listing[member]) for member in members]), captures)


_Found: TypeAlias = tuple[str, tuple[str, ...], Sequence[str]]


def _at_depth(glob: Glob, paths: list[str], depth: int) -> Iterator[_Found]:
    """Matches of a pattern whose every match has `depth` parts: one pass, one regex a candidate.

    Paths that share a folder lie side by side in a sorted list, so comparing with the folder before is enough.
    """
    members: list[str] = []
    folder = ""  # with "/" at the end, or "" before the first one
    for path in paths:
        if folder and path.startswith(folder):
            members.append(path)
            continue
        slashes = path.count("/")
        if slashes < depth - 1 or (slashes == depth - 1 and glob.folders_only):
            continue
        is_folder = slashes >= depth
        name = "/".join(path.split("/", depth)[:depth]) if is_folder else path
        captures = glob._captured("/" + name)
        if is_folder:
            # A folder that does not match gets a list too, which nobody sees: its other files need no regex.
            # The list goes on growing after the match was handed out; `cut` looks at it when all is done.
            folder, members = name + "/", [path]
        if captures is not None:
            yield name, captures, members if is_folder else [path]


def _at_any_depth(glob: Glob, paths: list[str]) -> Iterator[_Found]:
    """Matches of a pattern whose matches differ in depth: files, and folders that hold no match of their own.

    What Pachyderm documents of ``**``; its program makes a datum of each folder too, so that a file is in several.
    """
    matched: list[str] = []
    if not glob.folders_only:
        for path in paths:
            captures = glob.captures(path)
            if captures is not None:
                matched.append(path)
                yield path, captures, [path]
    opened = _folders(matched) if glob.deep else frozenset[str]()
    for path in _folders(paths) - opened:
        captures = glob.captures(path)
        if captures is not None:
            yield path, captures, _below(paths, path + "/")


def _folders(paths: Sequence[str]) -> set[str]:
    out: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in out:
            out.add(parent)
            parent = parent.rpartition("/")[0]
    return out


def _below(paths: list[str], folder: str) -> list[str]:
    """Those of sorted `paths` that begin with `folder` (which ends in ``/``, or is empty for all)."""
    if not folder:
        return paths
    return paths[bisect_left(paths, folder) : bisect_left(paths, folder[:-1] + "0")]  # "0" follows "/"


def _literal_folder(body: str) -> str:
    """The folders at the head of a pattern that hold nothing special: ``/a/b*`` -> ``a/``; else ""."""
    literal = re.match(r"[^][*?{}()|,!@+\\]*", body.lstrip("/"))
    return body.lstrip("/")[: literal.end()].rpartition("/")[0] + "/" if literal and "/" in literal.group() else ""


def _crosses_parts(sequence: _Sequence) -> bool:
    """Whether matches may differ in their number of path parts."""
    return any(
        any(_has_slash(option) for option in node.options) if isinstance(node, _Group) else node == DEEP
        for node in sequence
    )


def _is_deep(sequence: _Sequence) -> bool:
    return any(
        any(_is_deep(option) for option in node.options) if isinstance(node, _Group) else node == DEEP
        for node in sequence
    )


def _has_slash(sequence: _Sequence) -> bool:
    return "/" in sequence or _crosses_parts(sequence)


def _regex(sequence: _Sequence, rest: str) -> str:
    """The regex of `sequence`; `rest` is the (uncaptured) regex of what must follow it.

    Made from right to left, because ``!(…)`` has to know what follows: "not a" in ``!(a).txt`` means "not a.txt".
    """
    out = ""
    for node in reversed(sequence):
        after = (out + rest).replace(CAPTURE, "(?:")
        out = (_group_regex(node, after) if isinstance(node, _Group) else node) + out
    return out


def _group_regex(group: _Group, rest: str) -> str:
    options = "|".join(_regex(option, rest) for option in group.options)
    if group.kind == "{":
        return f"(?:{options})"
    if group.kind == "!":
        unnumbered = options.replace(CAPTURE, "(?:")
        return f"{CAPTURE}(?!(?:{unnumbered}){rest}){STAR})"
    if group.kind in "*+" and group.options in ((((STAR,)),), (((DEEP,)),)):
        return f"{CAPTURE}{options})"  # "*(*)" says no more than "(*)", and a star of a star backtracks for ever
    quantifier = QUANTIFIERS[group.kind]
    return f"{CAPTURE}(?:{options}){quantifier})"


class _Parser:
    """Reads a pattern into a sequence, by recursive descent."""

    def __init__(self, pattern: str, body: str) -> None:
        self.pattern = pattern
        self.body = body
        self.at = 0

    def parse(self) -> _Sequence:
        if not self.body:
            self._fail("is empty; use / for the whole repo or /* for each file or folder at the top")
        if len(self.body) > MAX_PATTERN:
            self._fail(f"is longer than {MAX_PATTERN} characters")
        if "\0" in self.body:
            self._fail("holds a NUL character")
        parts = self.body.lstrip("/").split("/") if not self.body.startswith("//") else [""]
        if self.pattern != "/" and any(part in ("", ".", "..") for part in parts):
            self._fail("has an empty, '.' or '..' part, which no path has")
        sequence = self._sequence("", 0)
        if self.at < len(self.body):
            self._fail(f"has {self.body[self.at]!r} without its opening bracket")
        return sequence

    def _sequence(self, stops: str, nesting: int) -> _Sequence:
        out: list[str | _Group] = []
        while self.at < len(self.body) and self.body[self.at] not in (stops or ")}"):
            out.append(self._node(nesting))
        return tuple(out)

    def _node(self, nesting: int) -> str | _Group:
        char, following = self.body[self.at], self.body[self.at + 1 : self.at + 2]
        if char in "@*+?!" and following == "(":
            self.at += 1
            return self._group(char, "|", ")", nesting)
        if char == "(":
            return self._group("@", "|", ")", nesting)
        if char == "{":
            return self._group("{", ",", "}", nesting)
        if char == "[":
            return self._set()
        self.at += 1
        if char == "*":
            return self._stars()
        if char == "?":
            return "[^/]"
        if char == "\\":
            if not following:
                self._fail("ends in a lone backslash")
            self.at += 1
            return re.escape(following)
        return "/" if char == "/" else re.escape(char)

    def _stars(self) -> str:
        start = self.at
        while self.body[self.at : self.at + 1] == "*" and self.body[self.at + 1 : self.at + 2] != "(":
            self.at += 1
        if self.body[self.at : self.at + 2] == "*(" and self.at == start:
            self.at += 1  # "**(…)": across parts, then a plain group
            return DEEP
        return DEEP if self.at > start else STAR

    def _group(self, kind: str, separator: str, end: str, nesting: int) -> _Group:
        opening = self.at
        if nesting >= MAX_NESTING:
            self._fail(f"nests brackets deeper than {MAX_NESTING}")
        options: list[_Sequence] = []
        while True:
            self.at += 1
            options.append(self._sequence(separator + end, nesting + 1))
            if self.at >= len(self.body):
                self._fail(f"has {self.body[opening]!r} that is never closed")
            if self.body[self.at] == end:
                break
        self.at += 1
        return _Group(kind, tuple(options))

    def _set(self) -> str:
        opening = self.at
        self.at += 1
        negated = self.body[self.at : self.at + 1] in ("!", "^")
        self.at += negated
        inside: list[str] = []
        while True:
            if self.at >= len(self.body):
                self._fail("has '[' that is never closed")
            if self.body[self.at] == "]":
                break
            inside.append(self._set_member())
        self.at += 1
        if not inside:
            self._fail(f"has an empty set {self.body[opening : self.at]}")
        return f"(?!/)[{'^' if negated else ''}{''.join(inside)}]"

    def _set_member(self) -> str:
        named = re.compile(r"\[:(\w+):\]").match(self.body, self.at)
        if named:
            if named.group(1) not in POSIX:
                self._fail(f"has an unknown set {named.group()}")
            self.at = named.end()
            return POSIX[named.group(1)]
        low = self._set_char()
        if self.body[self.at : self.at + 1] != "-" or self.body[self.at + 1 : self.at + 2] in ("]", ""):
            return re.escape(low)
        self.at += 1
        high = self._set_char()
        if low > high:
            self._fail(f"has a range that runs backwards: {low}-{high}")
        return f"{re.escape(low)}-{re.escape(high)}"

    def _set_char(self) -> str:
        if self.body[self.at] == "\\" and self.at + 1 < len(self.body):
            self.at += 1
        self.at += 1
        return self.body[self.at - 1]

    def _fail(self, problem: str) -> NoReturn:
        shown = self.pattern if len(self.pattern) <= 80 else self.pattern[:77] + "..."
        raise BadSpec(f"glob {shown!r} {problem}")
