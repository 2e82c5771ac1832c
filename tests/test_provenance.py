"""Trailers and back, closures, job ids; git's own tools read the same."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitpipe.commit import CommitRef
from gitpipe.errors import BadData
from gitpipe.provenance import Inconsistent, Origin, closure, job_id, output_message, read_origin, trailers
from tests.lab import Lab

SHAS = st.text("0123456789abcdef", min_size=40, max_size=40)
BRANCHES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,8}(@[a-z]{1,5})?", fullmatch=True)
REFS = st.builds(CommitRef, BRANCHES, SHAS)
A, B = "a" * 40, "b" * 40


@given(BRANCHES, SHAS, SHAS, st.sets(REFS, max_size=5), st.integers(0, 9), st.integers(0, 9))
def test_what_a_message_says_is_read_again(
    name: str, version: str, job: str, refs: set[CommitRef], processed: int, skipped: int
) -> None:
    origin = Origin(name, version, job[:32], tuple(sorted(refs)))
    message = output_message(origin, processed, skipped)
    assert read_origin(message) == origin
    assert message == output_message(origin, processed, skipped)
    assert message.startswith(f"{name}: {processed} processed, {skipped} skipped of {processed + skipped} datum")


def test_only_the_last_paragraph_counts_and_malformed_trailers_are_a_persons() -> None:
    origin = Origin("p", A, "1" * 32, (CommitRef("a", B),))
    message = output_message(origin, 1, 0)
    assert read_origin(message + "\nand a word\n") == Origin()
    assert read_origin(message.replace(B, "short")) == Origin()
    assert read_origin("Quote: Pipeline: p@x\n\nno trailers\n") == Origin()
    assert read_origin("") == read_origin("Job: 1") == Origin()
    assert trailers(message)["Provenance"] == [f"a@{B}"]


def test_a_closure_names_one_commit_a_branch() -> None:
    """I3: two commits of one branch are no closure, wherever they come from."""
    a, b, c = CommitRef("a", A), CommitRef("b", A), CommitRef("c", A)
    assert closure([(c, [a]), (b, [a])]) == (a, b, c)
    with pytest.raises(Inconsistent, match="two commits of a: aaaaaaaaaaaa and bbbbbbbbbbbb"):
        closure([(c, [a]), (b, [CommitRef("a", B)])])
    with pytest.raises(Inconsistent):
        closure([(a, []), (c, [CommitRef("a", B)])])


@given(SHAS, st.lists(REFS, max_size=3, unique=True), st.none() | SHAS)
def test_a_job_id_depends_on_all_that_makes_the_job(version: str, refs: list[CommitRef], parent: str | None) -> None:
    """I2: version, closure and parent, and nothing else."""
    one = job_id(version, refs, parent)
    assert one == job_id(version, tuple(refs), parent) and len(one) == 32
    assert one != job_id("f" * 39 + "g", refs, parent)
    assert one != job_id(version, [*refs, CommitRef("zz", A)], parent)
    assert one != job_id(version, refs, "f" * 39 + "g")


@pytest.mark.parametrize("text", ["a", "a@", f"@{A}", f"a@{A[1:]}", f"a@{A.upper()}", f"a {A}"])
def test_what_is_no_commit_reference(text: str) -> None:
    with pytest.raises(BadData):
        CommitRef.parse(text)
    assert CommitRef.parse(f"training@staging@{A}") == CommitRef("training@staging", A)


def test_git_reads_the_trailers(lab: Lab) -> None:
    """The format of DESIGN section 2, by `git log`'s own means; the record in the tree says the same in JSON."""
    lab.data("a", {"x": "1"})
    lab.git("branch", "b@staging", "a")
    lab.data("b@staging", {"x": "2"})
    staged = {"pfs": {"name": "b", "repo": "b", "branch": "staging", "glob": "/"}}
    lab.pipeline("p", {"a": "/"})
    spec = {"cross": [{"pfs": {"repo": "p", "glob": "/"}}, staged]}
    lab.pipeline("q", {"p": "/"}, "cat /pfs/p/x /pfs/b/x > /pfs/out/x", input=spec)
    lab.run()
    (made,) = lab.made("q")
    expected = [f"{b}@{lab.head(b)}" for b in ("a", "b@staging", "p")]
    assert lab.git("log", "-1", "--format=%(trailers:key=Provenance,valueonly)", "q", "--").split() == expected
    body = lab.git("log", "-1", "--format=%B", "q", "--")
    found = subprocess.run(["git", "interpret-trailers", "--parse"], input=body, capture_output=True, text=True)
    version = lab.git("rev-parse", "__spec__:q")
    assert found.stdout.splitlines() == [
        f"Pipeline: q@{version}",
        f"Job: {made.origin.job}",
        *(f"Provenance: {each}" for each in expected),
    ]
    assert lab.git("show", "-s", "--format=%an <%ae> %cn <%ce> %ad", "--date=raw", "q", "--").endswith("+0000")
    assert lab.git("ls-tree", "-r", "--name-only", "q").split() == [
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        ".gitignore",
        ".gitpipe/.gitignore",
        ".gitpipe/datums.dvc",
        ".gitpipe/job.json",
        "data.dvc",
    ]
    # upward and downward
    up = lab.project.history.lineage(["q"])[0]
    assert [c.commit.repo for c in up.children] == ["b", "p"]
    down = lab.project.history.lineage(["a"], descendants=True)[0]
    assert [c.commit.repo for c in down.children] == ["p"]
    assert [c.commit.repo for c in down.children[0].children] == ["q"]
