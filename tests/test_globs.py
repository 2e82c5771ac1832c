"""Pachyderm's glob language, by example and against a slow oracle."""

from __future__ import annotations

import re
import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitpipe.errors import BadSpec
from gitpipe.globs import Glob, cut


def listing(*paths: str) -> dict[str, str]:
    return {path: f"{number:032x}" for number, path in enumerate(sorted(paths))}


def matches(pattern: str, *paths: str) -> dict[str, list[str]]:
    return {m.path: [path for path, _ in m.files] for m in cut(pattern, listing(*paths))}


TREE = ("a/x", "a/y", "a/b/z", "b/x", "c", "a-b")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/", {"/": sorted(TREE)}),
        ("/*", {"/a": ["a/b/z", "a/x", "a/y"], "/a-b": ["a-b"], "/b": ["b/x"], "/c": ["c"]}),
        ("*", {"/a": ["a/b/z", "a/x", "a/y"], "/a-b": ["a-b"], "/b": ["b/x"], "/c": ["c"]}),
        ("/*/", {"/a": ["a/b/z", "a/x", "a/y"], "/b": ["b/x"]}),
        ("/a", {"/a": ["a/b/z", "a/x", "a/y"]}),
        ("/a/*", {"/a/b": ["a/b/z"], "/a/x": ["a/x"], "/a/y": ["a/y"]}),
        ("/**", {f"/{path}": [path] for path in TREE}),
        ("/a/**", {"/a/b/z": ["a/b/z"], "/a/x": ["a/x"], "/a/y": ["a/y"]}),
        ("/**/", {"/a": ["a/b/z", "a/x", "a/y"], "/a/b": ["a/b/z"], "/b": ["b/x"]}),
        ("/**b", {"/a-b": ["a-b"], "/a/b": ["a/b/z"], "/b": ["b/x"]}),
        ("/(**)", {f"/{path}": [path] for path in TREE}),
        ("/{a,a/b}", {"/a": ["a/b/z", "a/x", "a/y"], "/a/b": ["a/b/z"]}),
        ("/*/*", {"/a/b": ["a/b/z"], "/a/x": ["a/x"], "/a/y": ["a/y"], "/b/x": ["b/x"]}),
        ("/**/x", {"/a/x": ["a/x"], "/b/x": ["b/x"]}),
        ("/**z", {"/a/b/z": ["a/b/z"]}),
        ("/{a/b,c}", {"/a/b": ["a/b/z"], "/c": ["c"]}),
        ("{/a,/c}", {"/a": ["a/b/z", "a/x", "a/y"], "/c": ["c"]}),
        ("/a?b", {"/a-b": ["a-b"]}),
        ("/nothing", {}),
    ],
)
def test_which_files_make_a_match(pattern: str, expected: dict[str, list[str]]) -> None:
    assert matches(pattern, *TREE) == expected


def test_nothing_matches_in_nothing() -> None:
    assert [list(cut(pattern, {})) for pattern in ("/", "/*", "/**")] == [[], [], []]


def test_matches_are_sorted_by_path_and_carry_the_md5() -> None:
    files = listing("a/1", "a-b", "a0")
    assert [m.path for m in cut("/*", files)] == ["/a", "/a-b", "/a0"]
    assert [m.files for m in cut("/a", files)] == [(("a/1", files["a/1"]),)]


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/*.csv", "/1.csv", ()),
        ("/*.csv", "1.csv", ()),
        ("/*.csv", "/x/1.csv", None),
        ("/[ab]1", "/a1", ()),
        ("/[!ab]1", "/a1", None),
        ("/[!ab]1", "/c1", ()),
        ("/[^ab]1", "/a1", None),
        ("/a[!b]c", "/a/c", None),
        ("/[a-c]", "/b", ()),
        ("/[[:digit:]]", "/7", ()),
        ("/[[:digit:]x]", "/x", ()),
        ("/[-a]", "/-", ()),
        ("/[.]", "/a", None),
        ("/{cat,bat,[fr]at}", "/rat", ()),
        ("/{cat,}", "/cat", ()),
        ("/a.b", "/aXb", None),
        (r"/\*", "/*", ()),
        (r"/\*", "/x", None),
        ("/(a|b)/x", "/a/x", ("a",)),
        ("/@(a|b)/x", "/c/x", None),
        ("/a*(a|b)/x", "/a/x", ("",)),
        ("/a*(a|b)/x", "/aba/x", ("ba",)),
        ("/+(a|b)/x", "/aba/x", ("aba",)),
        ("/+(a|b)", "/", None),
        ("/a?(a|b)/x", "/ab/x", ("b",)),
        ("/a?(a|b)/x", "/abb/x", None),
        ("/(a|b)/(*).go", "/a/x.go", ("a", "x")),
        ("/*(*).go", "/x.go", ("x",)),
        ("/*(/?(+(a|b)/*.go))", "//a/x.go", None),
        ("/t*(/?(+(a|b)/*.go))", "/t/a/x.go", ("/a/x.go", "a/x.go", "a")),
        ("/(*)-(*).txt", "/a-b-c.txt", ("a-b", "c")),
        ("/!(a)", "/a", None),
        ("/!(a)", "/aa", ("aa",)),
        ("/!(a|b)", "/b", None),
        ("/!(a).txt", "/a.txt", None),
        ("/!(a).txt", "/ab.txt", ("ab",)),
        ("/!(*.csv)", "/x.csv", None),
        ("/!(*.csv)", "/x.txt", ("x.txt",)),
        ("/!(*.csv)", "/x.csv.gz", ("x.csv.gz",)),
        ("/(**).txt", "/a/b.txt", ("a/b",)),
        ("/**(.txt)", "/a/b.txt", (".txt",)),
        ("/a,b|c", "/a,b|c", ()),
        ("/é*", "/été", ()),
        ("/a*", "/a\nb", ()),
    ],
)
def test_captures(pattern: str, path: str, expected: tuple[str, ...] | None) -> None:
    assert Glob(pattern).captures(path) == expected


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "is empty"),
        ("//", "empty, '.' or '..' part"),
        ("/a//b", "empty, '.' or '..' part"),
        ("/../a", "empty, '.' or '..' part"),
        ("/./a", "empty, '.' or '..' part"),
        ("/[a", "never closed"),
        ("/(a", "never closed"),
        ("/{a,(b}", "never closed"),
        ("/a)", "without its opening bracket"),
        ("/a}", "without its opening bracket"),
        ("/[]", "empty set"),
        ("/[z-a]", "runs backwards"),
        ("/[[:nope:]]", "unknown set"),
        ("/a\\", "lone backslash"),
        ("/a\0", "NUL"),
        ("/" + "a" * 2000, "longer than"),
        ("/" + "(" * 20 + ")" * 20, "deeper than"),
    ],
)
def test_nonsense_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(BadSpec, match=re.escape(problem)) as error:
        Glob(pattern)
    assert str(error.value).startswith("glob ")


def test_a_star_of_a_star_ends() -> None:
    started = time.perf_counter()
    assert Glob("/*(*).go").captures("/" + "x" * 200) is None
    assert time.perf_counter() - started < 60, "it would take years if each * were tried with each other"


# The oracle: every file and folder, one by one, with a matcher of its own that tries everything.

names = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
pieces = st.sampled_from(["*", "**", "?", "a", "b", ".", "/", "[ab]", "[!a]", "{a,b.}"])
patterns = st.lists(pieces, min_size=1, max_size=6).map(lambda parts: "/" + "".join(parts))


@cache
def oracle(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern.startswith("**"):
        return any(oracle(pattern.lstrip("*"), text[at:]) for at in range(len(text) + 1))
    if pattern.startswith("*"):
        part = len(text.partition("/")[0])
        return any(oracle(pattern[1:], text[at:]) for at in range(part + 1))
    if pattern.startswith("{"):
        options, _, rest = pattern[1:].partition("}")
        return any(text.startswith(each) and oracle(rest, text[len(each) :]) for each in options.split(","))
    if not text:
        return False
    if pattern.startswith("["):
        inside, _, rest = pattern[1:].partition("]")
        hit = (text[0] in inside.lstrip("!")) != inside.startswith("!") and text[0] != "/"
        return hit and oracle(rest, text[1:])
    hit = text[0] != "/" if pattern[0] == "?" else text[0] == pattern[0]
    return hit and oracle(pattern[1:], text[1:])


@given(st.sets(paths, max_size=12), patterns)
def test_cut_agrees_with_the_oracle(found: set[str], pattern: str) -> None:
    files = listing(*(path for path in found if not any(other.startswith(path + "/") for other in found)))
    try:
        Glob(pattern)
    except BadSpec:
        return
    folders_only = len(pattern) > 1 and pattern.endswith("/")
    folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    expected = {}
    for candidate in sorted(folders if folders_only else folders | set(files)):
        if oracle(pattern.rstrip("/"), "/" + candidate):
            below = [path for path in sorted(files) if path == candidate or path.startswith(candidate + "/")]
            expected["/" + candidate] = below
    if "**" in pattern:
        hits = [path for path in expected if path[1:] in files]
        expected = {p: below for p, below in expected.items() if not any(hit.startswith(p + "/") for hit in hits)}
    if pattern == "/":
        expected = {"/": sorted(files)} if files else {}
    assert {m.path: [path for path, _ in m.files] for m in cut(pattern, files)} == expected


@given(st.text(r"ab/*?![]{}()@+|,\-^:", max_size=12))
def test_any_text_compiles_or_is_refused_by_name(pattern: str) -> None:
    try:
        Glob(pattern).captures("/a/b")
    except BadSpec as e:
        assert "\n" not in str(e)


@pytest.mark.parametrize(("pattern", "count"), [("/*", 100_000), ("/dir/*", 100_000), ("/*/*", 100_000)])
def test_a_hundred_thousand_files(pattern: str, count: int) -> None:
    prefix = "" if pattern == "/*" else "dir/"
    files = {f"{prefix}{number:06}.json": f"{number:032x}" for number in range(count)}
    started = time.perf_counter()
    assert sum(1 for _ in cut(pattern, files)) == count
    assert time.perf_counter() - started < 60, "a second; were it quadratic, hours"
