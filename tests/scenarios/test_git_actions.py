"""What people do with git, and what gitpipe does then: the matrix of ``docs/hooks.md``; real git, hooks and runner.

One repository lives through many actions.  After each: the jobs that are due have run, each once; the newest output
names the head that it is made from and holds its files; and no file of the working trees was harmed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitpipe.datatree import read_listing
from gitpipe.project import open_project
from tests.conftest import ROOT, Shell, end_runner

COPY = "cp -R /pfs/a/. /pfs/out"


class World:
    """A repository with data repo `a` in a worktree beside it, and pipeline `p` that copies it."""

    def __init__(self, root: Path, sh: Shell) -> None:
        self.root, self.a, self._sh = root, root.parent / "a", sh
        spec = {
            "pipeline": {"name": "p"},
            "transform": {"cmd": ["sh", "-c", COPY]},
            "input": {"pfs": {"repo": "a", "glob": "/"}},
            "code": [],
            "datum_tries": 1,
        }
        self.main("gitpipe init && git config gitpipe.engine local && gitpipe create-repo a")
        (root / "p.json").write_text(json.dumps(spec))
        self.main("gitpipe create-pipeline -f p.json && git worktree add -q ../a a")
        self.add(x="1", same="1", q__y="1")
        self("git commit -qm one")
        self.due(1)

    def main(self, command: str, **more: object) -> str:
        """A command in the main worktree; what it printed."""
        return self._sh(command, cwd=self.root, **more).strip()

    def __call__(self, command: str, **more: object) -> str:
        """A command in the worktree of `a`."""
        return self._sh(command, cwd=self.a, **more).strip()

    def add(self, **files: str) -> None:
        """Write files below ``data/`` (``a__b`` is ``a/b``) and add them."""
        for name, text in files.items():
            path = self.a / "data" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        # In this process, as all that is no part of the matrix: a command takes half a second to start.
        open_project(self.a).checkouts.add([str(self.a / "data")], self.a)

    def commit(self, what: str, **files: str) -> None:
        """One commit on whatever branch is checked out."""
        self.add(**files)
        self(f"git commit -qm '{what}'")

    def files(self) -> dict[str, str]:
        """Path -> text of the files below ``data/``."""
        data = self.a / "data"
        return {p.relative_to(data).as_posix(): p.read_text() for p in data.rglob("*") if p.is_file()}

    def holds(self, branch: str) -> dict[str, str]:
        """Path -> text of what a branch holds, as gitpipe reads it."""
        project = open_project(self.root)
        listing = read_listing(project.repo, project.blobs, self.main(f"git rev-parse {branch}"))
        return {path: project.blobs.read(md5).decode() for path, md5 in listing.items()}

    def wait(self) -> None:
        """``gitpipe wait``."""
        open_project(self.root).wait(timeout=60)

    def outputs(self) -> list[str]:
        """The commit of `a` that each output names, oldest first."""
        log = self.main("git log --reverse --format='%(trailers:key=Provenance,valueonly)' p --")
        return re.findall(r"^a@(\w+)", log, re.MULTILINE)

    def due(self, new: int, *, changed: dict[str, str] | None = None) -> None:
        """The hooks alone bring `new` more output commits and jobs; then all stands as it should.

        Args:
            changed: files below ``data/`` that the person changed and did not add.
        """
        before = getattr(self, "before", 0)
        self.wait()
        made = self.outputs()
        assert len(made) - before == new, self.main("gitpipe list-job; git log --oneline --all --graph")
        self.before = len(made)
        jobs = [row.state.value for row in open_project(self.root).journal.jobs("1 = 1", [])]
        assert jobs == ["success"] * len(made)
        ids = self.main("git log --format='%(trailers:key=Job,valueonly,separator=)' p --").split()
        assert len(ids) == len(set(ids)) == len(made)
        if new:  # a commit that changed the data; the head itself where the branch went another way (reset, amend)
            changing = self.main("git log -1 --first-parent --format=%H a -- data.dvc")
            assert made[-1] in (changing, self.main("git rev-parse a"))
        assert self.main(f"git rev-parse {made[-1]}:data.dvc") == self.main("git rev-parse a:data.dvc")
        assert self.main("git rev-parse p:data.dvc") == self.main("git rev-parse a:data.dvc")
        if self("git branch --show-current") == "a":
            assert self.files() == {**self.holds("a"), **(changed or {})}
        assert self("git status --porcelain") == ""


@pytest.fixture(scope="module")
def worlds() -> Iterator[list[World]]:
    """The one world of this module, once it is made."""
    made: list[World] = []
    yield made
    for world in made:
        end_runner(world.root)


@pytest.fixture
def world(worlds: list[World], sh: Shell, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same one for all tests: each leaves `a` clean, and checked out in its worktree."""
    if not worlds:
        folder = tmp_path_factory.mktemp("actions")
        sh("git init -q -b main repo && cd repo && git commit -q --allow-empty -m Begin", folder)
        worlds.append(World(folder / "repo", sh))
    return worlds[0]


def test_commit(world: World) -> None:
    world.commit("two", x="2")
    world.due(1)


def test_commit_without_data(world: World) -> None:
    """A commit on the data branch that changes no data is none for the pipeline, and neither is one elsewhere."""
    world("echo read me > README && git add README && git commit -qm readme")
    world.main("git commit -q --allow-empty -m elsewhere")
    world.due(0)


def test_amend(world: World) -> None:
    world.commit("wrong", x="wrong")
    world.due(1)
    world.add(x="right")
    world("git commit -q --amend --no-edit")
    world.due(1)
    world("git commit -q --amend -m 'another message'")
    world.wait()
    assert world.outputs()[-1] in world("git log -g --format=%H a").split()
    world.before = len(world.outputs())


def test_no_verify(world: World) -> None:
    """It leaves out the guards; the nudge is a post-hook and runs."""
    world.add(x="3")
    world("git commit -q --no-verify -m three")
    world.due(1)
    assert "is the output of a pipeline" in world.main(
        "git worktree add -q ../p p && cd ../p && git commit -q --allow-empty -m mine", status=1, stderr=True
    )
    world.main("git worktree remove ../p")


def test_merge(world: World) -> None:
    """Fast-forward, with a merge commit, squashed; commits on a topic branch that nobody reads make no job."""
    world("git switch -q -c topic")
    world.commit("t1", t="1")
    world.commit("t2", t="2")
    world("git switch -q a")
    world.due(0)
    world("git merge -q --ff-only topic")
    world.due(2)  # both are first-parent commits of `a` now
    for number, how in enumerate(("--no-ff -m merged", "--squash")):
        world("git switch -q topic && git reset -q --hard a")
        world.commit("t", t=f"{how}")
        world("git switch -q a")
        world(f"git merge -q {how} topic")
        if number:
            assert world("git status --porcelain") == "M  data.dvc"
            world("git commit -qm squashed")
        world.due(1)
    world("git branch -q -D topic")


def test_rebase(world: World) -> None:
    """Whole, stopped half-way and continued, aborted: only the end counts, and of it the head alone."""
    world("git switch -q -c base")
    world.commit("base", base="1")
    world("git switch -q a")
    world("echo 1 > notes && git add notes && git commit -qm notes && echo 2 > notes && git commit -qam 'more notes'")
    world.due(0)
    world("git rebase -q base")
    world.due(1)
    assert world.files()["base"] == "1"
    world("git switch -q base")
    world.commit("theirs", x="theirs")
    world("git switch -q a")
    world.commit("ours", x="ours")
    world.due(1)
    world("git rebase -q base", status=1)
    world.wait()
    assert len(world.outputs()) == world.before
    world("git rebase --abort")  # runs no hook
    assert "`git switch a`" in world("gitpipe add data", status=1, stderr=True)
    world("git switch -q a")
    world.due(0)
    world("git rebase -q base", status=1)
    world("git checkout -q --theirs data.dvc && git add data.dvc && git -c core.editor=true rebase --continue")
    world.due(1)
    assert world.files()["x"] == "ours"
    world("git branch -q -D base")


def test_cherry_pick_and_revert(world: World) -> None:
    world("git switch -q -c topic")
    world.commit("picked", picked="1")
    world("git switch -q a && git cherry-pick topic && git branch -q -D topic")
    world.due(1)
    world("git revert --no-edit HEAD")
    world.due(1)
    assert "picked" not in world.files()
    world("git revert --no-commit HEAD")
    assert world("git status --porcelain") == "M  data.dvc"
    world("git revert --abort")
    world.due(0)


def test_am(world: World) -> None:
    world("git switch -q -c topic")
    world.commit("mailed", mailed="1")
    world("git format-patch -q -1 --stdout > ../patch && git switch -q a && git branch -q -D topic")
    world("git am -q ../patch")
    world.due(1)
    assert world.files()["mailed"] == "1"


def test_reset(world: World) -> None:
    """git runs no hook: the runner finds out at its next look, and ``data/`` follows where somebody says `switch`."""
    start = world("git rev-parse HEAD")
    world.commit("late", late="1")
    world.due(1)
    world(f"git reset -q --hard {start} && git switch -q a")
    world.due(1)
    assert "late" not in world.files()
    for how in ("--soft", "--mixed"):
        world.commit("late", late=how)
        world.due(1)
        world(f"git reset -q {how} HEAD~")
        assert world.files()["late"] == how
        world.wait()
        world.before = len(world.outputs())
        assert world.outputs()[-1] == start
        world("git add -A && git commit -qm again")
        world.due(1)
        world(f"git reset -q --hard {start} && git switch -q a")
        world.due(1)
    world.commit("late", late="keep")
    world.due(1)
    (world.a / "data" / "mine").write_text("mine")
    world(f"git reset -q --keep {start} && git switch -q a")
    world.due(1, changed={"mine": "mine"})
    (world.a / "data" / "mine").unlink()


def test_stash(world: World) -> None:
    """What was added and not committed goes and comes with its pointer; nothing runs, and no file is lost."""
    world.add(x="stashed", new="stashed")
    world("git stash -q")
    world.wait()
    assert len(world.outputs()) == world.before
    assert world.files()["new"] == "stashed"
    world("git stash pop -q")
    world("git commit -qam 'from the stash'")
    world.due(1)
    assert world.files()["x"] == "stashed"


@pytest.fixture
def clone(world: World) -> Iterator[Callable[[str], str]]:
    """Another person's clone of the repository, on branch `a`, with gitpipe's files and DVC's cache shared."""
    world.main("git clone -q -b a . ../clone")
    cache = world.main("realpath .git/dvc/cache")
    folder = world.root.parent / "clone"
    world.main(f"cd ../clone && gitpipe init >/dev/null && git config gitpipe.cache {cache} && git switch -q a")

    def there(command: str) -> str:
        return world.main(f"cd {folder} && GITPIPE=0; export GITPIPE; {command}")

    yield there
    end_runner(folder)
    world.main("rm -rf ../clone")


def write(name: str) -> str:
    return f"echo {name} > data/{name} && gitpipe add --force data && git commit -qm {name}"


def test_pull_and_push_to_here(world: World, clone: Callable[[str], str]) -> None:
    """Pull by fast-forward and by rebase; a push is noticed once `gitpipe.receive` is on."""
    clone("gitpipe add data >/dev/null; " + write("pulled"))
    world("git pull -q --ff-only ../clone a")
    world.due(1)
    assert world.files()["pulled"] == "pulled\n"

    clone(f"git pull -q origin a && {write('theirs')}")
    world("echo note > note && git add note && git commit -qm note")
    world("git pull -q --rebase ../clone a")
    world.due(1)

    clone(f"git pull -q origin a && {write('pushed')}")
    world.main("git config receive.denyCurrentBranch updateInstead")
    push = "unset GITPIPE; git push -q origin a"  # our hooks over there would see the variable, too
    clone(push)
    assert not list((world.root / ".git/gitpipe/nudge").glob("post-receive*"))
    world("git switch -q a")
    world.due(1)
    world.main("git config gitpipe.receive true")
    clone(f"{write('again')} && {push}")
    world.due(1)
    assert world.files()["again"] == "again\n"


def test_branches_and_update_ref(world: World) -> None:
    """Renamed, deleted, moved with no hook: the outputs stay, and are true of what they name."""
    world.commit("to be moved", moved="1")
    world.due(1)
    world("git branch -m a b")
    world.wait()
    assert len(world.outputs()) == world.before
    world("git branch -m b a")
    world.due(0)
    world.main("git branch a@old a && git branch -q -D a@old")
    world.due(0)
    head = world("git rev-parse a")
    world("git checkout -q --detach && git update-ref refs/heads/a HEAD~ && git switch -q a")
    world.due(1)
    assert "moved" not in world.files()
    world(f"git checkout -q --detach && git update-ref refs/heads/a {head} && git switch -q a")
    world.due(1)


def test_deleted_source(world: World) -> None:
    """Without its input a pipeline has nothing to do; when the branch is back, its output stands already (I2, I8)."""
    head = world("git rev-parse a")
    world("git checkout -q --detach")
    world.main("git branch -q -D a")
    world.wait()
    assert len(world.outputs()) == world.before
    world.main("git reflog expire --expire=now --all && git gc -q --prune=now")
    assert world.main(f"git cat-file -t {head}") == "commit"
    world("git switch -q -c a")
    world.due(0)


def test_switch_and_worktrees(world: World) -> None:
    """``data/`` follows; a file that was changed and not added is kept aside, comes back, and nothing runs."""
    (world.a / "data" / "x").write_text("mine")
    said = world("git switch -q -c elsewhere main 2>&1")
    assert "kept your changed data/x" in said
    assert world.files() == {}
    world("git switch -q a 2>&1")
    assert world.files()["x"] == "mine"
    world.due(0, changed={"x": "mine"})
    world.add(x="mine")
    world("git commit -qm mine && git branch -q -D elsewhere")
    world.due(1)
    world.main("git worktree add -q -b a@side ../side a")
    side = world.root.parent / "side" / "data"
    assert {p.relative_to(side).as_posix() for p in side.rglob("*") if p.is_file()} == set(world.files())
    world.main("git worktree remove ../side && git branch -q -D a@side")
    world.due(0)


def test_gitpipe_0_and_hooks_off(world: World) -> None:
    """I9: what no hook saw is found at the next look."""
    world.add(x="unseen")
    world("GITPIPE=0 git commit -qm unseen")
    world.due(1)
    world.add(x="unseen too")
    world("git -c core.hooksPath=/dev/null commit -qm unseen")
    world.due(1)


def test_the_table_names_these_tests() -> None:
    """``docs/hooks.md``: the tests that it names are there, and none of here is left out."""
    table = (ROOT / "docs" / "hooks.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", table))
    files = [*Path(__file__).parent.glob("test_*.py"), ROOT / "tests" / "test_hooks.py"]
    there = {name for file in files for name in re.findall(r"^ *def (test_\w+)", file.read_text(), re.MULTILINE)}
    assert named <= there, named - there
    here = set(re.findall(r"^def (test_\w+)\(world", Path(__file__).read_text(), re.MULTILINE))
    assert here <= named, here - named
