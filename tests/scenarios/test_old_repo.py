"""A repository that is years old: `gitpipe init` leaves its history, DVC, hooks and files as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gitpipe.project import init, open_project
from tests.conftest import Shell
from tests.scenarios.served import Desk


def snapshot(repo: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a repository with its bytes and mode, but for the local state and git's index (stat cache)."""
    return {
        str(p.relative_to(repo)): (p.read_bytes(), p.stat().st_mode)
        for p in repo.rglob("*")
        if p.is_file() and ".git/gitpipe" not in str(p) and p.name != "index"
    }


@pytest.fixture
def old(scratch: Path, sh: Shell) -> Path:
    """data/ under DVC on main, nested .dvc files, a pre-commit and a post-checkout hook of its own."""
    sh("dvc init -q && mkdir -p data nested/deep && echo own > data/own && echo deep > nested/deep/file", scratch)
    sh("dvc add -q data nested/deep/file && git add -A && git commit -qm 'years ago'", scratch)
    for name in ("pre-commit", "post-checkout"):
        hook = scratch / ".git/hooks" / name
        hook.write_text(f"#!/bin/sh\necho {name} >> {scratch}/.git/own-hooks\n")
        hook.chmod(0o755)
    return scratch


def test_all_goes_on_working(old: Path, sh: Shell) -> None:
    """I6, I9: DVC's own blobs are found, hooks run, the working tree is as before; twice changes no byte."""
    before = {name: value for name, value in snapshot(old).items() if not name.startswith(".git/")}
    init(old)
    after = snapshot(old)
    changed = {name for name in after if not name.startswith(".git/") and after[name] != before.get(name)}
    assert changed == {".dvc/config.local"}
    assert not set(before) - set(after)
    init(old)
    assert snapshot(old) == after
    assert sh("git status --short", old) == ""
    sh("rm -rf data nested/deep/file .dvc/tmp && dvc checkout -q && dvc status | grep 'up to date'", old)
    assert (old / "data/own").read_text() == "own\n"
    assert (old / "nested/deep/file").read_text() == "deep\n"
    desk = Desk(old)
    desk.pipe("create-repo", "training")
    desk.git("config", "gitpipe.python", "x")
    training = desk.worktree("training")
    assert training.files() == {}
    assert "post-checkout" in (old / ".git/own-hooks").read_text()
    desk.git("commit", "-q", "--allow-empty", "-m", "x")
    assert "pre-commit" in (old / ".git/own-hooks").read_text()
    assert desk.repo("main") == ["own"]
    assert desk.files() == {"own": "own\n"}


def test_a_cache_elsewhere(scratch: Path, tmp_path: Path, sh: Shell) -> None:
    """cache.dir, cache.type and remotes of main hold for data branches too, whatever worktree a command runs in."""
    sh(f"dvc init -q && dvc config cache.dir {tmp_path}/blobs && dvc config cache.type hardlink", scratch)
    sh(f"dvc remote add -q -d store {tmp_path}/store && git add -A && git commit -qm dvc", scratch)
    init(scratch)
    desk = Desk(scratch)
    desk.pipe("create-repo", "training")
    desk.pipe("put-file", "training", "-f", "README")
    os.environ["GITPIPE"] = "0"
    try:
        training = desk.worktree("training")
    finally:
        del os.environ["GITPIPE"]
    open_project(training.top).checkouts.refresh(training.top)
    assert training.files() == {"README": "scratch\n"}
    assert (training.data / "README").stat().st_nlink == 2
    training.write(more="1")
    training.pipe("add", "data")
    assert (training.data / "more").stat().st_nlink == 2
    sh("GITPIPE=0 git commit -qm more && dvc status | grep 'up to date' && dvc push -q", training.top)
    assert sorted(p.name for p in (tmp_path / "store/files/md5").iterdir())
    assert desk.pipe("get-file", "training", "more") == "1"
    assert not (scratch / ".git/dvc").exists()


def test_git_tracks_files_below_data(scratch: Path, sh: Shell) -> None:
    """I6: files of git's below data/ stay git's: init says so, add is refused, switching back and forth loses none."""
    sh("mkdir data && echo own > data/own && git add data && git commit -qm data", scratch)
    assert "git tracks files below data/" in "\n".join(init(scratch))
    desk = Desk(scratch)
    desk.pipe("create-repo", "training")
    sh("echo new > data/new && git add data/new && git commit -qm new", scratch)
    said = desk.pipe("add", "data", status=1)
    assert "git tracks files below data/" in said
    desk.pipe("put-file", "training", "-f", "README")
    sh("git switch -q training", scratch)
    assert desk.files() == {"README": "scratch\n"}
    sh("echo changed > data/README && echo mine > data/mine && git switch -q main", scratch)
    assert desk.files() == {"own": "own\n", "new": "new\n"}
    assert sh("git status --short", scratch) == ""
    sh("git switch -q training", scratch)
    assert desk.files() == {"README": "changed\n", "mine": "mine\n"}
