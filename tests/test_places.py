"""What people type to say where: ``REPO [BRANCH|COMMIT] [PATH]`` and ``REPO@BRANCH:PATH`` mean the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gitpipe.errors import BadName, GitpipeError, NotFound, UsageError
from gitpipe.places import Places, clean_path
from gitpipe.project import init, open_project
from tests.conftest import Shell
from tests.lab import Lab


@pytest.fixture
def places(scratch: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """training with two commits, a branch staging, a file named like that, and a tag and a folder named training."""
    monkeypatch.setenv("GITPIPE", "0")
    init(scratch)
    project = open_project(scratch)
    project.data.create_repo("training")
    (scratch / "f").write_text("1")
    project.data.put_file(["training", "master", "staging"], [str(scratch / "f")])
    sh("git branch training@staging training && git tag training && mkdir training", scratch)
    project.data.put_file(["training", "d/f"], [str(scratch / "f")])
    yield project.data.places
    project.repo.close()


def test_spellings(places: Places) -> None:
    """Both spellings; the second word is a branch or commit if it names one, else a path; master may be left out."""
    head, staging = (places.repo.ref(f"refs/heads/training{rest}") for rest in ("", "@staging"))
    assert head
    assert staging
    cases: dict[tuple[str, ...], tuple[str, str | None, str]] = {
        ("training",): ("training", head, ""),
        ("training", "master"): ("training", head, ""),
        ("training@master",): ("training", head, ""),
        ("training", "staging"): ("training@staging", staging, ""),
        ("training@staging",): ("training@staging", staging, ""),
        ("training@staging:d/f",): ("training@staging", staging, "d/f"),
        ("training", "staging", "d/f"): ("training@staging", staging, "d/f"),
        ("training", "d/f"): ("training", head, "d/f"),
        ("training:staging",): ("training", head, "staging"),
        ("training", "master", "/d/"): ("training", head, "d"),
        ("training", "master", "/"): ("training", head, ""),
        ("training@" + head[:10],): ("training", head, ""),
        ("training", staging, "x"): ("training", staging, "x"),
        ("training@master^",): ("training", staging, ""),
        ("training", "master~1", "x"): ("training", staging, "x"),
    }
    for words, (branch, commit, path) in cases.items():
        found = places.locate(words)
        assert found.repo == "training", words
        assert (found.commit, found.path) == (commit, path), words
        # A commit that two branches hold belongs to the repo's own first.
        assert found.branch == branch or commit == staging, words


def test_refusals(places: Places, sh: Shell) -> None:
    """One line each: no such repo, branch, commit; too many words; a path that leads out."""
    other = places.repo.resolve("main")
    wrong: list[tuple[list[str], type[GitpipeError]]] = [
        ([], UsageError),
        ([""], UsageError),
        (["none"], NotFound),
        (["training@none"], NotFound),
        (["training", "master", "a", "b"], UsageError),
        (["training", "../x"], BadName),
        (["training:.git/config"], BadName),
        (["training", "a//b"], BadName),
        (["in.valid"], BadName),
        (["../training"], BadName),
        ([f"training@{other}"], NotFound),  # a commit, but of another branch
        (["-x"], BadName),
    ]
    for words, error in wrong:
        with pytest.raises(error) as caught:
            places.locate(words)
        assert "\n" not in str(caught.value), words
    with pytest.raises(NotFound):
        places.locate(["training", "d/f"], path=False)
    for words in (["training", "dev", "f"], ["training@dev:f"], ["training@dev"]):
        with pytest.raises(NotFound, match=r"`gitpipe create-branch training dev`$"):
            places.locate(words)
    for word in ("beef", "-x", "a..b"):
        with pytest.raises(NotFound, match=r"`gitpipe list-commit training`$"):
            places.locate(["training", word, "f"])


def test_a_commit_amended_away_is_still_of_its_repo(places: Places, sh: Shell) -> None:
    """I8: a commit that no branch holds any more resolves if its reflog or a result names it; else it is not found."""
    gone = places.repo.ref("refs/heads/training")
    top = places.repo.top
    sh("git update-ref refs/heads/training training@staging -m x 2>/dev/null || git branch -f training HEAD", top)
    assert places.locate([f"training@{gone}"]).commit == gone
    sh("git reflog expire --expire=all --all", top)
    with pytest.raises(NotFound):
        places.locate([f"training@{gone}"])
    message = f"derived: 1 processed\n\nProvenance: training@{gone}"
    sh(f"git branch derived $(git commit-tree -m '{message}' HEAD^{{tree}})", top)
    assert places.locate([f"training@{gone}"]).commit == gone


def test_a_commit_whose_branch_is_gone(lab: Lab, sh: Shell) -> None:
    """I8: what provenance names can be looked at, traced and made a branch again, also with the reflog gone."""
    lab.data("A", {"x": "1"})
    gone = lab.data("A@dev", {"x": "2"})
    leaf = {"pfs": {"repo": "A", "branch": "dev", "glob": "/"}}
    lab.pipeline("p", {"A": "/"}, "cp /pfs/A/x /pfs/out", input=leaf)
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    sh("gitpipe delete-branch A dev -f", lab.root)
    lab.prune()
    for word in (gone, gone[:10]):
        place = lab.project.data.locate(["A", word])
        assert (place.branch, place.commit) == ("A@dev", gone)
    assert f"A@dev@{gone}" in sh(f"gitpipe inspect-commit A {gone}", lab.root)
    assert sh(f"gitpipe get-file A@{gone}:x", lab.root) == "2"
    below = sh(f"gitpipe log --provenance --descendants A@{gone}", lab.root)
    assert f"p@{lab.head('p')[:7]}" in below
    with pytest.raises(NotFound):
        lab.project.data.locate([f"B@{gone}"])
    sh(f"gitpipe create-branch A dev --head {gone}", lab.root)
    assert lab.head("A@dev") == gone


@pytest.mark.parametrize(("typed", "clean"), [("/", ""), (".", ""), ("./a/b/", "a/b"), ("/a", "a"), ("", "")])
def test_clean_path(typed: str, clean: str) -> None:
    assert clean_path(typed) == clean


@pytest.mark.parametrize("typed", ["..", "a/../b", "a/.git/b", "a/.GIT", "a\0b", "a\udc80"])
def test_paths_that_cannot_be(typed: str) -> None:
    with pytest.raises(BadName):
        clean_path(typed)
