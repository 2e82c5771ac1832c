"""Branches of data repos, copies between repos, and what differs between two places."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import pytest

from gitpipe.cli.argv import one_or_two_places, two_places
from gitpipe.errors import BadName, NotFound, Refused, UsageError
from tests.lab import Lab

# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("words", "first", "second"),
    [
        ("a:x b:y", "a:x", "b:y"),
        ("a@dev:x b@master:y", "a@dev:x", "b@master:y"),
        ("a x b y", "a x", "b y"),
        ("a master x b dev y", "a master x", "b dev y"),
        ("a:x b y", "a:x", "b y"),
        ("a x b:y", "a x", "b:y"),
        ("a@dev x b dev y", "a@dev x", "b dev y"),
        ("a dev x b@dev y", "a dev x", "b@dev y"),
    ],
)
def test_two_places(words: str, first: str, second: str) -> None:
    """Both spellings of Pachyderm, and one of each."""
    assert two_places(words.split(), "") == (first.split(), second.split())
    assert one_or_two_places(words.split(), "") == (first.split(), second.split())


@pytest.mark.parametrize("words", ["a", "a x b", "a x b dev y", "a b c d e f g", ""])
def test_two_places_that_cannot_be_told_apart(words: str) -> None:
    with pytest.raises(UsageError, match="name two places: like this"):
        two_places(words.split(), "like this")


@pytest.mark.parametrize("words", ["a", "a:x", "a x", "a@dev x", "a dev x"])
def test_one_place(words: str) -> None:
    assert one_or_two_places(words.split(), "") == (words.split(), [])


# ---------------------------------------------------------------- branches


def test_branches_come_move_and_go(lab: Lab) -> None:
    """Deferred processing: what was tried on staging becomes master, and only then do pipelines run on it."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    branches = lab.project.branches
    first = branches.create(["a", "staging"], "master")
    assert first == lab.head("a") == lab.head("a@staging")
    lab.project.data.put_file(["a", "staging", "y"], ["-"], stdin=io.BytesIO(b"2"))
    assert lab.ran() == [] and set(lab.files("a@staging")) == {"x", "y"}

    assert branches.create(["a@master"], "staging") == lab.head("a@staging") == lab.head("a")
    assert lab.ran() == ["p: 1 + 1 / 2 success"]
    branches.create(["a", "master"], "a@master~1")  # back again
    assert lab.head("a") == first
    assert lab.ran() == ["p: 0 + 1 / 1 success"]

    assert [(b.branch, b.head) for b in branches.list("a")] == [
        ("master", first),
        ("staging", lab.head("a@staging")),
    ]
    branches.delete(["a@staging"])
    assert not lab.head("a@staging") and [b.branch for b in branches.list("a")] == ["master"]


def test_a_new_branch_is_empty_and_no_data_for_a_pipeline(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.project.branches.create(["a", "dev"])
    assert lab.files("a@dev") == {} and lab.git("rev-list", "--count", "a@dev") == "1"


def test_branches_that_are_refused(lab: Lab, tmp_path: Path) -> None:
    lab.data("a", {"x": "1"})
    path = lab.write_spec("p", {"a": "/*"})
    spec = json.loads(path.read_text())
    spec["input"]["pfs"]["branch"] = "dev"
    path.write_text(json.dumps(spec))
    branches = lab.project.branches
    branches.create(["a", "dev"], "master")
    lab.project.pipelines.update([str(path)], create=True)
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    before = lab.git("for-each-ref")
    for words, head, error, text in [
        (["a", "dev"], None, Refused, "exists already"),
        (["a", "dev"], "nope", NotFound, "no branch or commit"),
        (["b", "dev"], None, NotFound, "does not exist"),
        (["main", "dev"], None, Refused, "not a data repo"),
        (["p", "master"], lab.head("p"), Refused, "output of a pipeline"),
        (["p", "prod"], None, Refused, "--head"),
        (["a"], None, UsageError, "name a repo and a branch"),
        (["a", "b", "c"], None, UsageError, "name a repo and a branch"),
        *[
            (["a", bad], None, BadName, "branch name")
            for bad in ("", "a b", "..", "a..b", "-x", "x.lock", ".x", "x.", "HEAD", "ü", "a/b", "a\n")
        ],
    ]:
        with pytest.raises(error, match=text):
            branches.create(words, head)
    for words, error, text in [
        (["a", "dev"], Refused, "read by pipeline p"),
        (["a", "master"], Refused, "delete-repo a"),
        (["p", "master"], Refused, "delete-pipeline p"),
        (["a", "nope"], NotFound, "no branch"),
    ]:
        with pytest.raises(error, match=text):
            branches.delete(words)
    lab.git("worktree", "add", "-q", str(tmp_path / "dev"), "a@dev")
    with pytest.raises(Refused, match="checked out"):
        branches.delete(["a", "dev"], force=True)
    assert lab.git("for-each-ref") == before
    lab.git("worktree", "remove", "--force", str(tmp_path / "dev"))
    branches.delete(["a", "dev"], force=True)
    assert not lab.head("a@dev")


def test_a_moved_branch_takes_its_clean_working_tree_along(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I6"""
    old = lab.data("a", {"x": "1"})
    lab.data("a", {"x": "1", "y": "2"})
    tree = tmp_path / "a"
    monkeypatch.delenv("GITPIPE")  # the hook brings the files
    lab.git("worktree", "add", "-q", str(tree), "a")
    assert {p.name for p in (tree / "data").iterdir()} == {"x", "y"}
    lab.project.branches.create(["a", "master"], old)
    assert {p.name for p in (tree / "data").iterdir()} == {"x"}
    (tree / "data" / "x").unlink()
    (tree / "data" / "x").write_text("mine")
    with pytest.raises(Refused, match="commit it first"):
        lab.project.branches.create(["a", "master"], lab.git("rev-parse", "a@{1}"))
    assert (tree / "data" / "x").read_text() == "mine" and lab.head("a") == old


def test_subscribe_sees_what_is_there_and_what_comes(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    second = lab.data("a", {"x": "2"})
    seen: list[str] = []

    def watch() -> None:
        for info in lab.project.branches.subscribe(["a"]):
            seen.append(info.sha)
            if len(seen) == 4:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    third = lab.data("a", {"x": "3"})
    fourth = lab.data("a", {"x": "4"})
    thread.join(timeout=30)
    assert seen[1:] == [second, third, fourth]
    newer = lab.project.branches.subscribe(["a", "master"], since=second)
    assert [next(newer).sha, next(newer).sha] == [third, fourth]
    reset = lab.data("a", {"x": "5"}, parent=second)
    again = lab.project.branches.subscribe(["a@master"], since=fourth)
    assert next(again).sha == reset
    with pytest.raises(NotFound, match="b does not exist"):
        next(lab.project.branches.subscribe(["b"]))


# ---------------------------------------------------------------- copy-file


def test_copies_share_their_blobs(lab: Lab) -> None:
    old = lab.data("a", {"x": "1", "d/y": "2", "d/e/z": "3"})
    lab.data("a", {"x": "changed"})
    lab.data("b", {"keep": "0"})
    data = lab.project.data
    data.copy_file(["a", old, "x"], ["b@master:copy"])
    data.copy_file([f"a@{old}:d"], ["b", "e"])
    data.copy_file([f"a@{old}:d"], ["b", "into/"])
    data.copy_file([f"a@{old}:x"], ["b", "keep"], append=True)
    assert lab.files("b") == {
        "copy": "1",
        "e/e/z": "3",
        "e/y": "2",
        "into/d/e/z": "3",
        "into/d/y": "2",
        "keep": "01",
    }
    lab.data("c", {})
    data.copy_file(["a", old, "/"], ["c", "/"])
    assert lab.files("c") == {"x": "1", "d/y": "2", "d/e/z": "3"}
    assert lab.git("log", "-1", "--format=%s", "c") == "copy-file a:/ /"


def test_copies_that_are_refused(lab: Lab) -> None:
    lab.data("a", {"x": "1", "d/y": "2"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    before = lab.git("for-each-ref")
    data = lab.project.data
    for source, target, error, text in [
        (["a", "nope"], ["a", "z"], NotFound, "has no file nope"),
        (["a", "d"], ["a", "x"], Refused, "both a file and a folder"),
        (["a", "x"], ["p", "x"], Refused, "output of a pipeline"),
        (["a", "x"], ["nope", "x"], NotFound, "nope does not exist"),
        (["a", "x"], ["a", "../x"], BadName, "bad path"),
        (["a", "x"], ["a", ".git/x"], BadName, "bad path"),
        (["a", "x"], ["main", "x"], Refused, "not a data repo"),
    ]:
        with pytest.raises(error, match=text):
            data.copy_file(source, target)
    assert lab.git("for-each-ref") == before
    data.copy_file(["p", "x"], ["a", "from-p"])  # out of an output is fine
    assert lab.files("a")["from-p"] == "1"


# ---------------------------------------------------------------- diff-file, inspect-file


def test_what_differs(lab: Lab) -> None:
    odd = "d/ü\t1.txt"
    lab.data("a", {"x": "one\ntwo\n", "same": "s", "gone": "g\n", "bin": "\0\1"})
    lab.data("a", {"x": "one\n2\n", "same": "s", odd: "n\n", "bin": "\0\2"})
    diffs = lab.project.diffs
    changes = diffs.changes(["a"])
    assert [(c.path, bool(c.old), bool(c.new)) for c in changes] == [
        ("bin", True, True),
        (odd, False, True),
        ("gone", True, False),
        ("x", True, True),
    ]
    text = diffs.text(changes)
    assert "-two\n+2\n" in text and "Binary files a/bin and b/bin differ" in text and "+++ /dev/null" in text
    assert "--- a/x\n+++ b/x\n" in text and "same" not in text and "\x1b" not in text
    assert "\x1b[31m-two" in diffs.text(changes, colour=True)
    assert sorted(diffs.counts(changes)) == [("bin", None, None), (odd, 1, 0), ("gone", 0, 1), ("x", 1, 1)]

    assert [c.path for c in diffs.changes(["a", "x"])] == ["x"]
    assert diffs.changes(["a", "same"]) == [] and diffs.text([]) == "" and diffs.counts([]) == []
    assert [c.path for c in diffs.changes(["a", odd], ["a", "x"])] == [odd]
    assert [c.path for c in diffs.changes(["a@master:d"], ["a@master~1:d"])] == [odd]
    assert [c.path for c in diffs.changes(["a", "master~1"])] == ["bin", "gone", "same", "x"]  # against nothing
    with pytest.raises(NotFound, match="has no file nope"):
        diffs.changes(["a", "nope"])
    assert not list((lab.root / ".git/gitpipe/scratch").iterdir())


def test_inspect_file(lab: Lab) -> None:
    lab.data("a", {"x": "1", "d/y": "22", "d/e/z": "333"})
    data = lab.project.data
    file, folder, everything = (data.inspect_file(["a", path]) for path in ("d/y", "d", "/"))
    assert (file.path, file.type, file.size, file.files) == ("/d/y", "file", 2, 1) and len(file.md5) == 32
    assert (folder.path, folder.type, folder.size, folder.files, folder.md5) == ("/d", "dir", 5, 2, "")
    assert (everything.path, everything.size, everything.files) == ("/", 6, 3)
    assert file.commit == lab.head("a") and file.here
    Path(lab.project.blobs.path_of(file.md5)).unlink()
    assert not data.inspect_file(["a", "d/y"]).here and not data.inspect_file(["a", "d"]).here
    assert data.inspect_file(["a", "x"]).here
