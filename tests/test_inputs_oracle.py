"""Inputs nested in any way, against an oracle that is as plain as their definitions: product, sum, equal keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from gitpipe.commit import CommitRef, Listing, git_branch
from gitpipe.datum import Datum
from gitpipe.errors import BadSpec
from gitpipe.inputs import Cross, Group, Input, Join, Pfs, Union, datums, from_dict

Files = dict[str, frozenset[str]]  # repo -> paths
Part = tuple[str, str, str, str, tuple[str, ...]]  # name, match, join key, group key, files
Row = tuple[Part, ...]

# Glob -> a regular expression for one whole path; with keys where it captures.
GLOBS = {
    "/": None,
    "/*": r"/[^/]+",
    "/*/*": r"/[^/]+/[^/]+",
    "/(*)-(*)": r"/([^/]+)-([^/]+)",
    "/(?)*": r"/([^/])[^/]*",
    "/*/(*)": r"/[^/]+/([^/]+)",
    "/a*": r"/a[^/]*",
}
KEYS = {"/(*)-(*)": ("$1", "$2", "$1$2", "x$2"), "/(?)*": ("$1",), "/*/(*)": ("$1", "${1}")}

paths = st.sampled_from(["a-x", "a-y", "b-x", "b-y", "a", "d/a-x", "d/b", "e/a-x", "a-x-y"])
repos = st.sampled_from(["r", "s", "t"])
files = st.fixed_dictionaries({name: st.frozensets(paths, max_size=6) for name in ("r", "s", "t")})


@st.composite
def leaf(draw: st.DrawFn, keyed: str = "") -> Pfs:
    glob = draw(st.sampled_from(sorted(KEYS) if keyed else sorted(GLOBS)))
    keys = {"join_on": "", "group_by": ""}
    if glob in KEYS:
        for key in keys:
            keys[key] = draw(st.sampled_from(KEYS[glob])) if key == keyed else draw(st.sampled_from(("", *KEYS[glob])))
    name = draw(st.sampled_from(["", "n", "m", "o", "p", "q"]))
    outer = draw(st.booleans()) if keyed == "join_on" else False
    return Pfs(name, draw(repos), glob=glob, outer_join=outer, **keys)


def combined(inner: st.SearchStrategy[Input]) -> st.SearchStrategy[Input]:
    joins = st.lists(leaf("join_on"), min_size=1, max_size=3).map(tuple).filter(fits(Join)).map(Join)
    sides = st.lists(leaf("group_by") | joins, min_size=1, max_size=3).map(tuple)
    several = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return several.filter(fits(Cross)).map(Cross) | several.map(Union) | joins | sides.filter(fits(Group)).map(Group)


def fits(kind: type[Cross] | type[Join] | type[Group]):  # type: ignore[no-untyped-def]
    def check(parts: tuple[Input, ...]) -> bool:
        try:
            kind(parts)
        except BadSpec:
            return False
        return True

    return check


inputs = st.recursive(leaf(), combined, max_leaves=6)


def entries(found: frozenset[str]) -> set[str]:
    """Files and the folders that hold them, with the slash at the front."""
    return {"/" + "/".join(path.split("/")[: n + 1]) for path in found for n in range(path.count("/") + 1)}


def below(entry: str, found: frozenset[str]) -> tuple[str, ...]:
    """The files that a match brings along."""
    return tuple(sorted(p for p in legal(found) if entry == "/" or f"/{p}" == entry or f"/{p}".startswith(entry + "/")))


def rows(given: Input, repos: Files) -> Iterator[Row]:
    if isinstance(given, Pfs):
        pattern = GLOBS[given.glob]
        if pattern is None:
            if repos[given.repo]:  # of a repo without files even `/` makes no datum
                yield ((given.name, "/", given.join_on, given.group_by, below("/", repos[given.repo])),)
            return
        for entry in sorted(entries(legal(repos[given.repo]))):
            found = re.fullmatch(pattern, entry)
            if found:
                keys = filled(given.join_on, found), filled(given.group_by, found)
                yield ((given.name, entry, *keys, below(entry, repos[given.repo])),)
        return
    sides = [list(rows(each, repos)) for each in given.inputs]  # type: ignore[attr-defined]
    if isinstance(given, Cross):
        yield from (sum(chosen, ()) for chosen in product(*sides))
    elif isinstance(given, Union):
        yield from dict.fromkeys(row for side in sides for row in side)
    elif isinstance(given, Join):
        for key in {row[0][2] for side in sides for row in side}:
            matches = [[row for row in side if row[0][2] == key] for side in sides]
            if not all(matches):
                matches = [m for m, each in zip(matches, given.inputs, strict=True) if m and each.outer_join]
            if matches:
                yield from (sum(chosen, ()) for chosen in product(*matches))
    else:
        for key in {group_key(row) for side in sides for row in side}:
            yield sum((row for side in sides for row in side if group_key(row) == key), ())


def group_key(row: Row) -> str:
    return next((part[3] for part in row if part[3]), "")


def filled(key: str, found: re.Match[str]) -> str:
    return re.sub(r"\$\{?(\d)\}?", lambda number: found[int(number[1])], key)


def legal(found: frozenset[str]) -> frozenset[str]:
    """Without files that are folders of others: no listing has both."""
    return frozenset(path for path in found if not any(other.startswith(path + "/") for other in found))


@settings(max_examples=200, deadline=None)
@given(inputs, files)
def test_any_nesting_agrees_with_the_oracle(given: Input, repos: Files) -> None:
    def read(leaf: Pfs) -> tuple[CommitRef, Listing]:
        listing = {path: f"{sum(map(ord, path)):032x}" for path in sorted(legal(repos[leaf.repo]))}
        return CommitRef(git_branch(leaf.repo, leaf.branch), "0" * 40), listing

    found = [_row(datum) for datum in datums(given, read)]
    expected = list(rows(given, repos))
    assert sorted(tuple(sorted(row)) for row in found) == sorted(tuple(sorted(row)) for row in expected)
    assert from_dict(given.to_dict()) == given
    assert found == [_row(datum) for datum in datums(given, read)]


def _row(datum: Datum) -> Row:
    return tuple(
        (part.name, part.match, part.join_on, part.group_by, tuple(sorted(path for path, _ in part.files)))
        for part in datum.inputs
    )
