"""Provenance down to the file, upward and downward."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gitpipe.errors import BadData, NotFound
from gitpipe.views import FileLineage
from tests.lab import Lab

COPY = 'for f in /pfs/a/*; do cat "$f" /pfs/m/m > "/pfs/out/${f##*/}"; done'


def names(entry: FileLineage) -> list[str]:
    return sorted(f"{child.commit.branch}:{child.path}" for child in entry.children)


def lineage(lab: Lab, *words: str, descendants: bool = False) -> list[FileLineage]:
    project = lab.project
    found = list(project.file_history.lineage(words, descendants))
    project.repo.close()
    return found


@pytest.fixture
def chain(lab: Lab) -> Lab:
    """`t` -> model `m` -> `p`, which pairs each file of `a` with the model; then one file of `a` changes."""
    lab.data("t", {"rows": "1"})
    lab.data("a", {"x": "x", "y": "y"})
    lab.pipeline("m", {"t": "/"}, "cp /pfs/t/rows /pfs/out/m")
    lab.pipeline("p", {"a": "/*", "m": "/"}, COPY)
    lab.run()
    lab.data("a", {"x": "x", "y": "changed", 'odd "name" [1]': "o"})
    lab.run()
    return lab


def test_upward(chain: Lab) -> None:
    new, old = chain.head("p"), chain.git("rev-parse", "p~1")
    changed, first = lineage(chain, "p", "y")
    assert (changed.commit.sha, first.commit.sha) == (new, old)
    assert names(changed) == ["a:y", "m:m"] and changed.pipeline.startswith("p@") and len(changed.datum) == 64
    model = next(child for child in changed.children if child.commit.branch == "m")
    assert names(model) == ["t:rows"] and model.commit.sha == chain.head("m")
    source = model.children[0]
    assert (source.commit.sha, source.datum, source.children) == (chain.head("t"), "", ())
    (unchanged,) = lineage(chain, "p", "x")  # told once, where it was made, although a later commit has it as well
    assert unchanged.commit.sha == old
    (there,) = lineage(chain, f"p@{new}", "x")  # but asked of that commit, with what it says of its inputs
    assert {c.commit.sha for c in there.children} == {chain.head("a"), chain.head("m")}
    (odd,) = lineage(chain, "p", 'odd "name" [1]')
    assert names(odd) == ['a:odd "name" [1]', "m:m"]
    assert [entry.path for entry in lineage(chain, f"p@{old}:/")] == ["x", "y"]
    assert [entry.commit.sha for entry in lineage(chain, "a", "y")] == [chain.head("a"), chain.git("rev-parse", "a~1")]


def test_downward(chain: Lab) -> None:
    (rows,) = lineage(chain, "t", "rows", descendants=True)
    (model,) = rows.children
    assert (model.commit.branch, model.path) == ("m", "m")
    assert len(model.children) == 2 + 3  # the results of both commits of `p`
    (y,) = lineage(chain, "a", "y", descendants=True)
    assert [(c.commit.sha, c.path) for c in y.children] == [(chain.head("p"), "y")]
    (before,) = lineage(chain, "a", "master~1", "y", descendants=True)
    assert [(c.commit.sha, c.path) for c in before.children] == [(chain.git("rev-parse", "p~1"), "y")]
    (leaf,) = lineage(chain, "p", "y", descendants=True)
    assert leaf.children == () and len(leaf.datum) == 64


def test_a_datum_that_vanished_made_nothing(chain: Lab) -> None:
    chain.data("a", {"x": "x"})
    chain.run()
    head = chain.head("p")
    with pytest.raises(NotFound, match="no file y"):
        lineage(chain, f"p@{head}", "y")
    assert [entry.commit.sha for entry in lineage(chain, "p", "y")] == [
        chain.git("rev-parse", "p~1"),
        chain.git("rev-parse", "p~2"),
    ]


def test_without_local_state_or_blobs(chain: Lab) -> None:
    """I1: it is read from the commits; and a lost index is named, not taken for no provenance."""
    chain.forget()
    assert names(lineage(chain, "p", "y")[0]) == ["a:y", "m:m"]
    project = chain.project
    from gitpipe import datumindex

    for md5 in datumindex.segments(project.repo, project.blobs, chain.head("p")).values():
        Path(project.blobs.path_of(md5)).unlink()
    with pytest.raises(BadData, match="datum index of p@"):
        lineage(chain, f"p@{chain.head('p')}", "y")
    shutil.rmtree(chain.root / ".git" / "gitpipe")


def test_unknown_files(chain: Lab) -> None:
    for words in (["p", "nope"], ["a", "master~1", "nope"], ["nope", "x"]):
        for descendants in (False, True):
            with pytest.raises(NotFound):
                lineage(chain, *words, descendants=descendants)


def test_inspect_file_tells_what_made_it(chain: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The datum, its inputs, the version and the job that made it, which is not the newest where it was skipped."""
    project = chain.project
    first, second = chain.made("p")
    for path, job in (("x", first), ("y", second)):
        making = project.file_history.inspect(["p", path]).making
        assert making is not None and making.made is not None and len(making.datum) == 64
        assert making.pipeline == f"p@{second.origin.version}"
        assert (making.made.commit.sha, making.made.job) == (job.sha, job.origin.job)
        assert {(str(f.commit), f.path) for f in making.inputs} == {
            (f"a@{chain.head('a')}", path),
            (f"m@{chain.head('m')}", "m"),
        }
        assert making.made.log == f"gitpipe logs --job {job.origin.job[:12]} --datum {making.datum[:12]}"
        details = project.datums.inspect("p", making.datum)
        assert details.made == making.made and details.version == second.origin.version
        (entry,) = project.file_history.lineage([f"p@{second.sha}", path])
        assert entry.making == making.made
    for words in (["a", "x"], ["p", "/"]):
        assert project.file_history.inspect(words).making is None
    monkeypatch.chdir(chain.root)
    from gitpipe import cli

    assert cli.run(making.made.log.split()[1:]) == 0  # the command that it names is one that works
    chain.forget()
    making = chain.project.file_history.inspect(["p", "x"]).making
    assert making is not None and making.made is not None
    assert (making.made.job, making.made.log) == (first.origin.job, "")


def test_inspect_file_without_the_index(chain: Lab) -> None:
    """What the file is can be told all the same."""
    from gitpipe import datumindex

    project = chain.project
    for md5 in datumindex.segments(project.repo, project.blobs, chain.head("p")).values():
        Path(project.blobs.path_of(md5)).unlink()
    found = project.file_history.inspect(["p", "x"])
    assert found.size == 2 and found.making is None


def tree(entry: FileLineage) -> list[str]:
    """Every file below, as ``branch:path``."""
    return [f"{entry.commit.branch}:{entry.path}", *(line for child in entry.children for line in tree(child))]


def test_downward_where_a_commit_is_the_head_of_two_branches(lab: Lab) -> None:
    """The pipeline's own branch is staging; `b` reads master, which was set to the same commit."""
    lab.data("A", {"f1": "1", "f2": "2"})
    lab.pipeline("a", {"A": "/*"}, output_branch="staging")
    lab.pipeline("b", {"a": "/*"})
    lab.run()
    lab.project.branches.create(["a", "master"], "staging")
    assert lab.ran() == ["b: 2 + 0 / 2 success"]
    (found,) = lineage(lab, "A", "f1", descendants=True)
    assert tree(found) == ["A:f1", "a@staging:f1", "b:f1"]
    for words in (["a@staging", "f1"], ["a", "f1"]):
        (found,) = lineage(lab, *words, descendants=True)
        assert tree(found)[1:] == ["b:f1"]
    lab.pipeline(
        "both",
        {},
        "cat /pfs/*/f1 > /pfs/out/f1",
        input={
            "cross": [
                {"pfs": {"repo": "a", "glob": "/f1"}},
                {"pfs": {"repo": "a", "branch": "staging", "name": "s", "glob": "/f1"}},
            ]
        },
    )
    assert lab.ran() == ["both: 1 + 0 / 1 success"]
    (found,) = lineage(lab, "a", "f1", descendants=True)
    assert tree(found)[1:] == ["b:f1", "both:f1"], "read as two branches, but it is one result"


def test_downward_to_earlier_output_branches(lab: Lab) -> None:
    lab.data("A", {"f1": "1"})
    lab.pipeline("a", {"A": "/*"}, output_branch="staging")
    lab.run()
    first = lab.head("A")
    lab.data("A", {"f1": "2"})
    lab.pipeline("a", {"A": "/*"}, output_branch="dev")
    lab.run()
    (found,) = lineage(lab, f"A@{first}", "f1", descendants=True)
    assert tree(found)[1:] == ["a@staging:f1"]
    (whole,) = lab.project.history.lineage([f"A@{first}"], descendants=True)
    assert [child.commit.branch for child in whole.children] == ["staging"]
