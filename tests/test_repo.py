"""The one door to git: objects, refs by compare-and-swap, history, worktrees; whatever the user's settings are."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from gitpipe.errors import GitpipeError, NotARepo, NotFound
from gitpipe.repo import BLOB, EXE, HEADS, LINK, TREE, Entry, RefUpdate, Repo, Signature, Worktree
from tests.conftest import Shell
from tests.lab import EPOCH, Lab

WHO = Signature("Ada Lovelace <ada@example.org>", 1_700_000_000)


@pytest.fixture
def repo(scratch: Path) -> Repo:
    return Repo(scratch)


def commit(repo: Repo, files: dict[str, str], *parents: str, when: int = 0, message: str = "m") -> str:
    tree = repo.write_paths({p: Entry(BLOB, repo.write_blob(t.encode())) for p, t in files.items()})
    return repo.write_commit(tree, parents, message, Signature(WHO.who, WHO.time + when))


def test_what_is_written_is_what_git_would_write(repo: Repo, sh: Shell, scratch: Path) -> None:
    """Trees in git's own order, commits that `git fsck --strict` takes, whatever i18n and signing settings say (I4)."""
    sh(
        "git config i18n.commitEncoding ISO-8859-1; git config commit.gpgSign true; git config gpg.program false",
        scratch,
    )
    blob = repo.write_blob(b"x\n")
    names = ["a", "a.b", "a-b", "a0", "ä", "b/c", "b.c", "b0"]
    entries = {name: Entry(BLOB, blob) for name in names} | {"run": Entry(EXE, blob), "ln": Entry(LINK, blob)}
    tree = repo.write_paths(entries)
    sha = repo.write_commit(tree, [], "Größe\n\nKey: value\n", WHO)
    assert sh("git fsck --strict --no-dangling", scratch) == ""
    assert sh(f"git show -s --encoding=UTF-8 --format=%B {sha}", scratch) == "Größe\n\nKey: value\n\n"
    listed = sh(f"git ls-tree -r -z {sha}", scratch).rstrip("\0").split("\0")
    assert {line.partition("\t")[2]: line.split()[0] for line in listed} == {p: e.mode for p, e in entries.items()}
    assert dict(repo.walk(tree)) == entries
    built = sh(f"git read-tree {sha} && git write-tree && git read-tree HEAD", scratch).strip()
    assert built == tree
    grafted = repo.write_paths({"b/d": Entry(BLOB, blob), "sub": Entry(TREE, tree)}, base=tree)
    assert repo.entry(grafted, "sub/b/c") == repo.entry(grafted, "b/c") == Entry(BLOB, blob)
    assert repo.entry(grafted, "b/d") and repo.entry(grafted, "b/none") is repo.entry(grafted, "a/deeper") is None
    parsed = repo.commit(sha)
    assert (parsed.author, parsed.author_time, parsed.author_zone) == (WHO.who, WHO.time, "+0000")
    assert parsed.subject == "Größe"


def test_refs_move_by_compare_and_swap_all_or_none(repo: Repo) -> None:
    one, two = commit(repo, {"f": "1"}), commit(repo, {"f": "2"})
    a, b = HEADS + "a", HEADS + "b"
    assert repo.update_refs([RefUpdate(a, one, None)], "make")
    assert not repo.update_refs([RefUpdate(a, two, None)], "make again")
    assert not repo.update_refs([RefUpdate(b, one, None), RefUpdate(a, one, two)], "half wrong")
    assert repo.refs("refs/heads/a", "refs/heads/b") == {a: one}
    assert not repo.update_refs([RefUpdate(b, one, None), RefUpdate(a, two, two)], "only verifies")
    assert repo.update_refs([RefUpdate(b, one, None), RefUpdate(a, one, one)], "verified")
    assert repo.update_refs([RefUpdate(a, None, one), RefUpdate(b, two, one)], "away")
    assert repo.ref(a) is None and repo.ref(b) == two
    assert repo.reflog_says(b, two) == "away" and repo.reflog_says(b, "0" * 40) is None


def test_of_many_swaps_at_once_one_wins(repo: Repo) -> None:
    """I2 stands on this."""
    base, ref = commit(repo, {"f": "0"}), HEADS + "a"
    repo.update_refs([RefUpdate(ref, base, None)], "base")
    shas = [commit(repo, {"f": str(n)}, base) for n in range(1, 9)]
    won: list[str] = []

    def swap(sha: str) -> None:
        try:
            if repo.update_refs([RefUpdate(ref, sha, base)], "swap"):
                won.append(sha)
        except GitpipeError as error:
            assert "lock" in str(error)

    threads = [threading.Thread(target=swap, args=(sha,)) for sha in shas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [repo.ref(ref)] == won


def test_full_names_are_never_mistaken(repo: Repo, sh: Shell, scratch: Path) -> None:
    one, two = commit(repo, {"f": "1"}), commit(repo, {"f": "2"})
    repo.update_refs([RefUpdate(HEADS + "a", one, None), RefUpdate("refs/tags/a", two, None)], "both")
    repo.update_refs([RefUpdate(HEADS + "a-longer", two, None)], "prefix")
    (scratch / "a").write_text("a file of that name, too\n")
    assert repo.ref(HEADS + "a") == one and repo.refs(HEADS + "a") == {HEADS + "a": one}
    sh("git pack-refs --all", scratch)
    assert repo.ref(HEADS + "a") == one
    assert repo.resolve("refs/heads/a") == one and repo.resolve("--help") is None and repo.resolve("none") is None


def test_first_parents(repo: Repo) -> None:
    c0 = commit(repo, {"data.dvc": "0"})
    c1 = commit(repo, {"data.dvc": "0", "README": "1"}, c0, when=1)
    side = commit(repo, {"data.dvc": "9"}, c0, when=2)
    c2 = commit(repo, {"data.dvc": "9", "README": "1"}, c1, side, when=3)
    c3 = commit(repo, {"data.dvc": "3", "README": "1"}, c2, when=4)
    paths = ["data.dvc", "data"]
    found = repo.first_parents(c3, c0)
    assert found is not None and [c.sha for c in found] == [c1, c2, c3]
    changed = repo.first_parents(c3, c0, paths)
    assert changed is not None and [c.sha for c in changed] == [c2, c3]  # a merge that brings data changes it
    assert repo.first_parents(c3, side) is None and repo.first_parents(c0, c3) is None
    assert repo.first_parents(c3, c3) == []
    everything = repo.first_parents(c3, None)
    assert everything is not None and [c.sha for c in everything] == [c0, c1, c2, c3]
    logged = list(repo.log([c3, f"^{c1}"], "--first-parent"))
    assert [c.message for c in logged] == ["m\n", "m\n"] and logged[0] == repo.commit(c3)


def test_messages_come_through_the_log_unchanged(repo: Repo) -> None:
    message = "s\n\n    indented\n\nProvenance: a@b\n"
    sha = commit(repo, {"f": "1"}, message=message)
    assert [c.message for c in repo.log([sha])] == [message] == [repo.commit(sha).message]
    repo.set_config("i18n.commitEncoding", "ISO-8859-1")
    env = {"GIT_AUTHOR_NAME": "B\udce9la", "GIT_COMMITTER_NAME": "Ada"}
    repo.git("commit", "-q", "--allow-empty", "-m", "Gr\udcf6\udcdfe", env=env)  # bytes of ISO 8859-1
    head = repo.ref(HEADS + "main") or ""
    for found in (repo.commit(head), *repo.log([head], "-n", "1")):
        assert (found.subject, found.author) == ("Größe", "Béla <ada@example.org>")


def test_a_helper_that_died_is_replaced(repo: Repo) -> None:
    sha = repo.write_blob(b"one")
    assert repo.blob(sha) == b"one"
    helper = repo._repo.git.cat_file_all.proc
    helper.kill()
    helper.wait()
    assert repo.blob(sha) == b"one"
    with pytest.raises(NotFound, match="not in this repository"):
        repo.read("1" * 40)
    assert repo.blob(sha) == b"one"
    with pytest.raises(NotFound, match="not a commit"):
        repo.commit(sha)


def test_variables_that_git_sets_for_hooks_do_not_lead_elsewhere(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "init", "-q", str(other)], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    repo = Repo(scratch)
    assert repo.common == scratch.resolve() / ".git"
    assert repo.ref(HEADS + "main") and "GIT_DIR" not in os.environ


def test_places_that_are_no_repository(tmp_path: Path) -> None:
    with pytest.raises(NotARepo, match="git init"):
        Repo(tmp_path)
    with pytest.raises(NotARepo):
        Repo(tmp_path / "none")
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "bare")], check=True)
    bare = Repo(tmp_path / "bare")
    assert bare.bare and bare.top is None and bare.worktrees() == [] and bare.refs() == {}


def test_worktrees(repo: Repo, scratch: Path, sh: Shell) -> None:
    """I6: only a clean one is moved along; a file that changed meanwhile is never overwritten."""
    sh("git worktree add -q -b side ../side && git worktree add -q --detach '../with space'", scratch)
    side, space = scratch.parent / "side", scratch.parent / "with space"
    assert {(t.top, t.ref) for t in repo.worktrees()} == {
        (scratch, HEADS + "main"),
        (side, HEADS + "side"),
        (space, None),
    }
    assert Repo(side).common == repo.common and Repo(side).git_dir != repo.common
    old = repo.ref(HEADS + "main") or ""
    new = commit(repo, {"README": "new\n", "more": "x\n"}, old)
    (tree,) = (t for t in repo.worktrees() if t.top == side)
    assert repo.tracked_clean(tree, old) and not repo.tracked_clean(tree, new)
    (side / "README").write_text("mine\n")
    assert not repo.tracked_clean(tree, old)
    with pytest.raises(GitpipeError):
        repo.move_worktree(tree, old, new)
    assert (side / "README").read_text() == "mine\n" and not (side / "more").exists()
    sh("git checkout -q README", side)
    repo.move_worktree(tree, old, new)
    assert (side / "README").read_text() == "new\n" and (side / "more").exists()
    sh("rm -r ../side", scratch)
    assert side not in {t.top for t in repo.worktrees()}


def test_settings_and_who_commits(repo: Repo, scratch: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.add_config("gitpipe.trusted", "one")
    repo.add_config("gitpipe.trusted", "two\nlines")
    repo.set_config("gitpipe.engine", "local")
    assert repo.config("gitpipe.") == {"gitpipe.trusted": ["one", "two\nlines"], "gitpipe.engine": ["local"]}
    assert repo.user().who == "Ada <ada@example.org>"
    for name in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name)
    sh("git config user.useConfigOnly true", scratch)
    with pytest.raises(GitpipeError, match=r"git config user\.name"):
        repo.user()


def test_worktrees_of_a_submodule_and_of_a_separate_git_dir(tmp_path: Path, sh: Shell) -> None:
    """`git worktree list` names the git dir there, which is no working tree."""
    sh("git init -q sub && git -C sub commit -q --allow-empty -m 1 && git init -q top")
    sh("cd top && git -c protocol.file.allow=always submodule add -q ../sub in/sub")
    sh("git -C top/in/sub worktree add -q ../w")
    for where in ("in/sub", "in/w"):
        trees = {tree.top: tree.git_dir for tree in Repo(tmp_path / "top" / where).worktrees()}
        common = tmp_path / "top/.git/modules/in/sub"
        assert trees == {tmp_path / "top/in/sub": common, tmp_path / "top/in/w": common / "worktrees/w"}
    sh("git init -q --separate-git-dir elsewhere apart && git -C apart commit -q --allow-empty -m 1")
    assert [tree.top for tree in Repo(tmp_path / "apart").worktrees()] == [tmp_path / "apart"]
    assert Repo(tmp_path / "elsewhere").worktrees() == []


def test_what_a_gc_removes_before_a_ref_names_it_is_written_again(lab: Lab) -> None:
    """I8: ``git gc --prune=now`` removes any object that no ref names, be it a moment old."""
    repo = lab.project.repo
    who = Signature("Ada <ada@example.org>", EPOCH)

    def commit(text: str) -> str:
        blob = Entry(BLOB, repo.write_blob(text.encode()))
        return repo.write_commit(repo.write_paths({"some/where": blob}), [], text, who)

    first = commit("first")
    lab.git("gc", "-q", "--prune=now")
    assert not lab.git("cat-file", "-t", first, check=False)
    assert repo.update_refs([RefUpdate(f"{HEADS}kept", first, None)], "test")
    lab.git("fsck", "--strict")
    # Git runs this hook when all is ready but no ref has moved: such a prune knows nothing of them.
    hook = lab.root / ".git" / "hooks" / "reference-transaction"
    hook.write_text('#!/bin/sh\nif [ "$1" = prepared ]; then cat >/dev/null; git prune --expire=now; fi\n')
    hook.chmod(0o755)
    second = commit("second")
    assert repo.update_refs([RefUpdate(f"{HEADS}kept", second, first)], "test")
    lab.git("fsck", "--strict")
    assert lab.git("show", "kept:some/where") == "second"
    repo.close()


def test_a_working_tree_that_is_just_being_removed_is_none(lab: Lab) -> None:
    """I6: git removes its files first; what is left of the folder was taken for the main working tree."""
    lab.git("worktree", "add", "-q", "../tree", "-b", "other")
    repo = lab.project.repo
    assert [tree.ref for tree in repo.worktrees()] == ["refs/heads/main", "refs/heads/other"]
    (lab.root.parent / "tree" / ".git").unlink()
    assert [(tree.top, tree.ref) for tree in repo.worktrees()] == [(lab.root, "refs/heads/main")]
    repo.close()


def test_a_working_tree_that_is_removed_while_it_is_looked_at_stops_nobody(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run` and `status` look at each working tree; somebody says `git worktree remove` just then."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    lab.git("worktree", "add", "-q", "../tree", "p")
    lab.git("update-ref", "refs/heads/p", "refs/heads/a")
    listed = Repo.worktrees

    def remove(repo: Repo) -> list[Worktree]:
        trees = listed(repo)
        if len(trees) > 1:
            lab.git("worktree", "remove", "--force", "../tree")
        return trees

    project = lab.project
    assert len(project.behind()) == 1
    monkeypatch.setattr(Repo, "worktrees", remove)
    assert project.behind() == []


def test_what_a_killed_gc_left_keeps_nobody_waiting(lab: Lab) -> None:
    """Its file names a process id that another program has by now."""
    host = os.uname().nodename
    who = Signature("Ada <ada@example.org>", EPOCH)
    repo = lab.project.repo
    for left in (f"{os.getpid()} {host}", f"{2**22 + 1} {host}", f"{os.getpid()} elsewhere", "", "x y"):
        (lab.root / ".git" / "gc.pid").write_text(left)
        commit = repo.write_commit(repo.write_tree({}), [], left, who)
        begun = time.monotonic()
        assert repo.update_refs([RefUpdate(f"{HEADS}kept", commit, repo.ref(f"{HEADS}kept"))], "test")
        assert time.monotonic() - begun < 180
    repo.close()
