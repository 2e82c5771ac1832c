"""Repos, files and commits through the library; the commands around them are in `scenarios/test_data_in`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitpipe.checkout import Checkouts
from gitpipe.datarepos import DataRepos
from gitpipe.errors import BadData, BadName, GitpipeError, NotFound, Refused, UsageError
from gitpipe.project import init, open_project
from gitpipe.repo import HEADS, RefUpdate, Signature
from tests.conftest import Shell
from tests.lab import EPOCH, Lab


@pytest.fixture
def data(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataRepos]:
    """An initialised repository with the empty repo training, and the current folder in it."""
    monkeypatch.setenv("GITPIPE", "0")
    monkeypatch.chdir(scratch)
    init(scratch)
    project = open_project(scratch)
    project.data.create_repo("training", "measured  by\nhand")
    yield project.data
    project.repo.close()


def put(data: DataRepos, path: str, text: str) -> str:
    return data.put_file([f"training:{path}"], ["-"], stdin=io.BytesIO(text.encode()))


def get(data: DataRepos, *words: str) -> bytes:
    sink = io.BytesIO()
    data.get_file(words, sink=sink)
    return sink.getvalue()


def test_repos(data: DataRepos, sh: Shell) -> None:
    """Created, listed with sizes, deleted; names that are taken or impossible are refused and leave nothing."""
    put(data, "a", "12345")
    sh("git branch plain && git tag other", data.repo.top)
    assert [(r.name, r.size, r.files) for r in data.list_repo()] == [("training", 5, 1)]
    assert "measured by hand" in sh("git log training", data.repo.top, stderr=True)
    data.create_repo("other")  # a tag of that name is no obstacle
    for name, error in (
        ("training", Refused),
        ("plain", Refused),
        ("__spec__", BadName),
        ("a/b", BadName),
        ("-x", BadName),
        ("", BadName),
    ):
        with pytest.raises(error):
            data.create_repo(name)
    data.delete_repo("other")
    with pytest.raises(NotFound):
        data.delete_repo("other")
    assert [r.name for r in data.list_repo()] == ["training"]
    assert "refs/tags/other" in data.repo.refs("refs/tags")


def test_a_checked_out_repo_is_not_deleted(data: DataRepos, sh: Shell) -> None:
    """I6: naming the working tree."""
    sh("git worktree add -q ../training training", data.repo.top)
    with pytest.raises(Refused, match=r"checked out in .*/training"):
        data.delete_repo("training")


def test_files_out(data: DataRepos, tmp_path: Path) -> None:
    """list, glob and get, on the newest and on an old commit; folders with their sizes."""
    old = put(data, "a.csv", "old")
    put(data, "a.csv", "newer")
    put(data, "d/e/b.csv", "b")
    put(data, "d/c.csv", "cc")
    assert [(f.name, f.type, f.size) for f in data.list_file(["training"])] == [("a.csv", "file", 5), ("d", "dir", 3)]
    assert [f.name for f in data.list_file(["training", "d"])] == ["d/c.csv", "d/e"]
    assert [f.name for f in data.list_file(["training", "d/c.csv"])] == ["d/c.csv"]
    assert [f.name for f in data.glob_file(["training", "/*"])] == ["a.csv", "d"]
    assert get(data, f"training@{old}:a.csv") == b"old"
    assert get(data, "training", "master^", "a.csv") == b"newer"
    data.get_file(["training", "/"], recursive=True, out=tmp_path / "all")
    assert (tmp_path / "all/d/e/b.csv").read_text() == "b"
    data.get_file(["training", "d/c.csv"], out=tmp_path / "all")
    assert (tmp_path / "all/c.csv").read_text() == "cc"
    with pytest.raises(UsageError):
        get(data, "training", "d")
    for words in (["training", "none"], ["training", "a.csv/x"]):
        with pytest.raises(NotFound):
            get(data, *words)


def test_what_cannot_be_put(data: DataRepos, tmp_path: Path, sh: Shell) -> None:
    """Nothing half-done: one bad source of several, and no commit is made."""
    (tmp_path / "good").write_text("x")
    sh(f"mkfifo {tmp_path}/pipe && mkdir {tmp_path}/folder && mkfifo {tmp_path}/folder/pipe")
    head = data.repo.ref("refs/heads/training")
    for sources, error in (
        (["good", "none"], NotFound),
        (["good", "pipe"], BadData),
        (["good", "folder"], BadData),
    ):
        with pytest.raises(error):
            data.put_file(["training"], [str(tmp_path / name) for name in sources], recursive=True)
    with pytest.raises(GitpipeError):
        data.put_file(["training"], ["ftp://127.0.0.1/x"])
    for words in (["training", "..", "x"], ["training:../x"], ["none"], ["main"]):
        with pytest.raises(GitpipeError):
            data.put_file(words, [str(tmp_path / "good")])
    assert data.repo.ref("refs/heads/training") == head


def test_put_keeps_what_else_the_branch_holds(data: DataRepos, sh: Shell) -> None:
    """A README and a hand-made .gitignore on a data branch stay."""
    top = data.repo.top
    sh("git worktree add -q ../training training && cd ../training && echo about > README && git add README", top)
    sh("cd ../training && echo '*.tmp' >> .gitignore && git commit -qam about", top)
    put(data, "a", "1")
    assert sh("git show training:README", top) == "about\n"
    assert sh("git show training:.gitignore", top) == "/data\n*.tmp\n"


def test_other_shapes_of_data_are_read(data: DataRepos, sh: Shell) -> None:
    """Nested .dvc files and plain files in git below data/ are one listing."""
    top = data.repo.top
    sh("env -u GITPIPE git worktree add -q ../training training", top)  # the hook points DVC to the one cache
    sh("cd ../training && git rm -q data.dvc .gitignore && mkdir -p data/d/sub && echo plain > data/plain", top)
    sh("cd ../training/data/d && echo one > one && echo two > sub/two", top)
    sh("cd ../training && dvc add -q data/d/one data/d/sub && git add -Af data/d/*.dvc data/plain .dvc", top)
    sh("cd ../training && git commit -qm shapes && git worktree remove --force .", top)
    assert [f.name for f in data.list_file(["training"])] == ["d", "plain"]
    assert get(data, "training", "d/one") == b"one\n"
    assert get(data, "training", "d/sub/two") == b"two\n"
    with pytest.raises(Refused, match="is not a data repo"):  # only data.dvc, or a pipeline that reads it, makes one
        put(data, "new", "3")


def test_put_to_another_branch_of_a_repo(data: DataRepos, sh: Shell) -> None:
    """REPO@BRANCH is the git branch of that name; master stays."""
    sh("git branch training@staging training", data.repo.top)
    data.put_file(["training", "staging", "s"], ["-"], stdin=io.BytesIO(b"s"))
    assert [f.name for f in data.list_file(["training@staging"])] == ["s"]
    assert data.list_file(["training"]) == []
    assert [r.name for r in data.list_repo()] == ["training"]


def test_commits(data: DataRepos) -> None:
    """Newest first, the open one before them, with sizes and parents."""
    first = put(data, "a", "1")
    opened = data.start_commit(["training"], "nightly")
    put(data, "b", "22")  # goes into the one that is open
    infos = data.list_commit(["training"])
    assert [i.sha for i in infos][:2] == [opened, first]
    assert infos[0].finished is None
    sha = data.finish_commit(["training"])
    info = data.inspect_commit([f"training@{opened}"])
    assert (info.sha, info.parent, info.size, info.subject) == (sha, first, 3, "nightly")


def test_two_who_append_at_once_both_count(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.data("a", {"x": "0"})
    for name in "12":
        (tmp_path / name).write_text(name)
    slow = lab.project
    change = slow.data._change

    def overtaken(*args: Any) -> str:
        lab.project.data.put_file(["a", "x"], [str(tmp_path / "2")], append=True)
        return change(*args)

    monkeypatch.setattr(slow.data, "_change", overtaken)
    slow.data.put_file(["a", "x"], [str(tmp_path / "1")], append=True)
    assert lab.files("a") == {"x": "021"}


def test_trailers_in_a_data_commit_are_not_its_provenance(lab: Lab) -> None:
    """A cherry-pick of an output commit takes its message along; the commit is a person's all the same."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    project = lab.project
    message = project.repo.commit(lab.head("p")).message
    old = lab.head("a")
    who = Signature("Eve <eve@example.org>", EPOCH)
    forged = project.repo.write_commit(project.repo.commit(old).tree, [old], message, who)
    assert project.repo.update_refs([RefUpdate(HEADS + "a", forged, old)], "test")
    info = project.data.inspect_commit(["a"])
    assert (info.pipeline, info.job, info.provenance) == ("", "", ())
    assert project.data.inspect_commit([f"a@{forged}"]).sha == forged
    assert project.history.lineage(["a"])[0].children == ()


def test_a_working_tree_that_a_kill_left_behind_is_brought_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """I6: killed between the branch and its working tree, put-file must not be refused ever after."""
    lab.data("a", {"x": "1"})
    tree = lab.root.parent / "a-tree"
    lab.git("worktree", "add", "-q", str(tree), "a")
    data = lab.project.data
    lab.project.checkouts.refresh(tree)
    source = lab.root.parent / "y"
    source.write_text("2")
    with monkeypatch.context() as killed:
        killed.setattr(Checkouts, "_follow", lambda *_: None)
        data.put_file(["a", "y"], [str(source)])
    assert not (tree / "data" / "y").exists()
    data.put_file(["a", "z"], [str(source)])
    assert sorted(path.name for path in (tree / "data").iterdir()) == ["x", "y", "z"]
    (tree / "data" / "x").write_text("mine")
    with pytest.raises(Refused, match="not committed"):
        data.put_file(["a", "w"], [str(source)])
