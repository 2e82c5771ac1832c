"""What differs between two commits: files, inputs, versions of pipelines."""

from __future__ import annotations

import json

import pytest

from gitpipe import cli
from gitpipe.errors import GitpipeError, NotFound, UsageError
from gitpipe.views import CommitDiff, FileChange, ProvenanceChange
from tests.lab import Lab


def diff(lab: Lab, *words: str, paths: tuple[str, ...] = (), provenance: bool = False) -> CommitDiff:
    project = lab.project
    found = project.commit_diffs.diff(words, paths, provenance=provenance)
    project.repo.close()
    return found


def how(files: tuple[FileChange, ...]) -> dict[str, tuple[int | None, int | None]]:
    """Path -> sizes before and after."""
    return {each.path: (each.old_size, each.new_size) for each in files}


@pytest.fixture
def made(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """`t` -> `m` -> `p`, with `a`; then a file of `a` changes, one comes, one goes, and `m` gets another command."""
    monkeypatch.chdir(lab.root)
    lab.data("t", {"rows": "1"})
    lab.data("a", {"x": "x", "y": "yy", "d/z": "zzz"})
    lab.pipeline("m", {"t": "/"}, transform={"cmd": ["sh", "-c", "echo $0 > /pfs/out/m", "1"]})
    lab.pipeline(
        "p",
        {"a": "/"},
        "cp -R /pfs/a/. /pfs/out",
        input={"cross": [{"pfs": {"repo": "a", "glob": "/"}}, {"pfs": {"repo": "m", "glob": "/"}}]},
    )
    lab.run()
    lab.data("a", {"x": "x", "y": "y", "new": "n"})
    lab.pipeline("m", {"t": "/"}, transform={"cmd": ["sh", "-c", "echo $0 > /pfs/out/m", "2"]})
    lab.run()
    return lab


def test_files(made: Lab) -> None:
    wanted = {"d/z": (3, None), "new": (None, 1), "y": (2, 1)}
    found = diff(made, "a")
    assert how(found.files) == wanted and found.provenance is None and found.differs
    assert (str(found.old), str(found.new)) == (f"a@{made.git('rev-parse', 'a~1')}", f"a@{made.head('a')}")
    assert how(diff(made, "a", "master~1", "a", "master").files) == wanted
    assert how(diff(made, "a", "a", "master~1").files) == {p: (new, old) for p, (old, new) in wanted.items()}
    assert how(diff(made, "a", paths=("d", "/new")).files) == {"d/z": (3, None), "new": (None, 1)}
    assert how(diff(made, "a~1").files) == {"d/z": (None, 3), "x": (None, 1), "y": (None, 2)}  # the first commit
    assert diff(made, "a~1").old is None
    assert how(diff(made, "t", "a").files) == {"new": (None, 1), "rows": (1, None), "x": (None, 1), "y": (None, 1)}


@pytest.mark.parametrize("form", ["a@{0}", "a {0}", "{0}", "a@{1}", "a {1}", "{1}", "a@{2}", "a {2}", "{3}"])
def test_every_way_to_name_a_commit(made: Lab, form: str) -> None:
    """As the old one and as the new one of two, beside each of the others."""
    sha = made.git("rev-parse", "a~1")
    old = form.format(sha, sha[:9], "master~1", "a~1").split()
    assert how(diff(made, *old, "a").files) == {"d/z": (3, None), "new": (None, 1), "y": (2, 1)}
    assert how(diff(made, "a@master", *old).files) == {"d/z": (None, 3), "new": (1, None), "y": (1, 2)}
    found = diff(made, *old, "a@master")
    assert found.old is not None and (found.old.branch, found.old.sha) == ("a", sha)


def test_jobs_and_other_branches(made: Lab) -> None:
    job = made.made("m")[0].origin.job
    assert how(diff(made, job[:10], "m").files) == how(diff(made, "m", job, "m").files) == {"m": (2, 2)}
    made.data("a@staging", {"x": "staged"})
    assert how(diff(made, "a", "a@staging").files)["x"] == (1, 6)
    assert how(diff(made, "a", "staging").files) == {"x": (None, 6)}  # one commit: the branch of that repo


def test_provenance(made: Lab) -> None:
    """Which inputs differ, also further up, and which pipelines, in which fields and files."""
    found = diff(made, "p~2", "p", provenance=True)
    assert found.provenance is not None
    assert [(m.branch, m.ahead, m.behind) for m in found.provenance.inputs] == [("a", 1, 0), ("m", 1, 0)]
    assert found.provenance.inputs[0].subject.startswith("data ")
    (version,) = found.provenance.versions
    assert version.pipeline == "m" and [(f.field, f.text) for f in version.fields] == [("cmd", "1 → 2")]
    assert (version.old, version.new) == tuple(m.origin.version for m in made.made("m"))
    back = diff(made, "p", "p~2", provenance=True).provenance
    assert back is not None and [(m.ahead, m.behind) for m in back.inputs] == [(0, 1), (0, 1)]
    # Data repos have none, and an output against data has all of its own.
    assert diff(made, "a", provenance=True).provenance == ProvenanceChange()
    assert diff(made, "p", "p", provenance=True).provenance == ProvenanceChange(environments=())
    against = diff(made, "a", "p", provenance=True).provenance
    assert against is not None and [m.branch for m in against.inputs] == ["a", "m", "t"]
    assert [(v.pipeline, v.old) for v in against.versions] == [("m", None), ("p", None)]
    # By provenance alone two commits can differ.
    made.data("t", {"rows": "1", "more": "2"})
    made.run()
    assert diff(made, "p").files == () and not diff(made, "p").differs
    assert diff(made, "p", provenance=True).differs


def test_code_files(lab: Lab) -> None:
    lab.data("a", {"x": "x"})
    specs = lab.root / "specs"
    specs.mkdir()
    for name in ("kept", "changed", "gone"):
        (specs / name).write_text(name)
    lab.pipeline("p", {"a": "/*"}, code=["kept", "changed", "gone"])
    lab.run()
    (specs / "changed").write_text("other")
    (specs / "new").write_text("new")
    lab.pipeline("p", {"a": "/*"}, code=["kept", "changed", "new"])
    lab.run()
    more = diff(lab, "p", provenance=True).provenance
    assert more is not None and more.inputs == ()
    assert [(c.path, c.change) for c in more.versions[0].code] == [
        ("changed", "changed"),
        ("gone", "removed"),
        ("new", "added"),
    ]
    assert more.versions[0].fields == ()


def test_it_is_read_from_the_commits(made: Lab) -> None:
    """I1: without local state, and when `__spec__` no longer has the older version."""
    before = diff(made, "p", provenance=True)
    made.forget()
    made.git("update-ref", "refs/heads/__spec__", made.git("commit-tree", "__spec__^{tree}", "-m", "squashed"))
    made.prune()
    assert diff(made, "p", provenance=True) == before


def test_what_is_printed(made: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*args: str, status: int = 0) -> str:
        assert cli.run(["diff", *args]) == status
        return capsys.readouterr().out

    out = say("a")
    assert out.splitlines()[1:] == [
        "removed  d/z  3B",
        "added    new  1B",
        "changed  y    2B → 1B",
        "3 files differ: 1 added, 1 removed, 1 changed",
    ]
    assert out.splitlines()[0] == f"a@{made.git('rev-parse', 'a~1')[:12]} → a@{made.head('a')[:12]}"
    assert say("a", "--", "d/z", "y").splitlines()[-1] == "2 files differ: 1 removed, 1 changed"
    assert say("a", "--", "y").splitlines()[-1] == "1 file differs: 1 changed"
    assert say("a", "a").splitlines()[-1] == "no file differs"
    assert say("p", "p", "--provenance").splitlines()[-2:] == ["Inputs: the same", "Pipelines: the same"]
    assert "    cmd: 1 → 2\n" in say("--provenance", "p~2", "p")
    document = json.loads(say("p~2", "p", "--raw", "--provenance"))
    assert {each["path"] for each in document["files"]} == {"d/z", "new", "y"}
    assert document["provenance"]["versions"][0]["fields"][0]["text"] == "1 → 2"
    assert json.loads(say("p", "--raw"))["provenance"] is None
    for words, status in ((["a"], 1), (["a", "a"], 0), (["a", "--", "x"], 0), (["p", "p", "--provenance"], 0)):
        say("--exit-code", *words, status=status)


def test_names_that_are_none(made: Lab) -> None:
    for words in (
        ["nope"],
        ["a", "nope"],
        ["a", "p", "nope"],
        ["ffffffff"],
        ["a~9"],
        ["a@nope"],
        [""],
        ["é"],
        ["main"],
    ):
        with pytest.raises(NotFound):
            diff(made, *words)
    with pytest.raises(UsageError):
        diff(made, "a", "p", "m")
    with pytest.raises(NotFound, match="neither commit has a file nope"):
        diff(made, "a", paths=("nope",))
    with pytest.raises(GitpipeError):
        diff(made, "a", paths=("../x",))
    made.project.data.create_repo("empty")
    assert diff(made, "empty").files == () and how(diff(made, "empty", "t").files) == {"rows": (None, 1)}
