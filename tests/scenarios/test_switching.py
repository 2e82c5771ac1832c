"""Safe switching (I6): whatever one does with git, worktrees and ``data/``, no file of one repo lands in another.

Nothing that was not committed is overwritten or lost, and no blob cache is committed.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitpipe.project import open_project
from tests.conftest import Shell
from tests.scenarios.served import Desk, listed, real_hooks, served


@pytest.fixture
def desk(scratch: Path) -> Iterator[Desk]:
    with served(scratch) as made:
        yield made


def test_with_the_real_hooks(scratch: Path, sh: Shell) -> None:
    """I6, as a person types it: switching in place brings each branch its own files."""
    with served(scratch) as desk:
        real_hooks(scratch)
        desk.git("config", "gitpipe.python", "x")  # no runner is wanted; the hooks know their interpreter
        sh("git switch -q training && echo t > data/t && gitpipe add data && GITPIPE=0 git commit -qm t", scratch)
        assert sh("git switch -q attributes && ls data", scratch) == ""
        sh("echo a > data/a", scratch)
        said = sh("git switch -q training", scratch, stderr=True)
        assert "kept your changed data/a as" in said
        assert desk.files() == {"t": "t\n"}
        assert "put back your changed data/a" in sh("git switch -q attributes", scratch, stderr=True)
        assert desk.files() == {"a": "a\n"}


class TestInPlace:
    def test_unadded_files_stay_with_their_branch(self, desk: Desk) -> None:
        """I6: new, changed and deleted files that were not added, over three branches and back."""
        desk.git("switch", "-q", "training")
        desk.commit(same="1", changed="1", gone="1", d__x="1")
        desk.write(changed="2", new="2", d__y="2")
        (desk.data / "gone").unlink()
        desk.git("switch", "-q", "attributes")
        assert desk.files() == {}
        assert desk.kept() == {"changed": "2", "new": "2", "y": "2"}
        desk.git("switch", "-q", "main")
        assert desk.files() == {}
        desk.git("add", "-A")
        assert desk.git("status", "--short") == ""
        desk.git("switch", "-q", "training")
        assert desk.files() == {"same": "1", "changed": "2", "new": "2", "d/x": "1", "d/y": "2"}
        assert desk.kept() == {}

    def test_added_files_stay_with_their_branch(self, desk: Desk) -> None:
        """I6: git carries a staged data.dvc along where both branches have the same one, as two empty repos do."""
        desk.git("switch", "-q", "training")
        desk.write(t="1")
        desk.pipe("add", "data")
        assert "was not taken along" in desk.git("switch", "attributes")
        assert desk.git("status", "--short") == ""
        assert desk.files() == {}
        desk.commit(a="1")
        assert desk.repo("attributes") == ["a"]
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1"}
        desk.pipe("add", "data")
        desk.git("commit", "-qm", "t")
        assert (desk.repo("training"), desk.repo("attributes")) == (["t"], ["a"])

    def test_added_for_the_first_time(self, desk: Desk) -> None:
        """I6: a branch that becomes a data repo; git would carry its new data.dvc to main."""
        desk.git("switch", "-qc", "fresh")
        desk.write(f="1")
        desk.pipe("add", "--force", "data")
        desk.git("switch", "-q", "main")
        assert not (desk.top / "data.dvc").exists()
        assert "data.dvc" not in desk.git("ls-files")
        desk.git("switch", "-q", "fresh")
        assert desk.files() == {"f": "1"}

    def test_dvc_add_stays_with_its_branch(self, desk: Desk, sh: Shell) -> None:
        """I6: the same with DVC's own add, staged or not."""
        desk.git("switch", "-q", "training")
        desk.write(t="1")
        sh("dvc add -q data", desk.top)
        desk.git("switch", "-q", "attributes")
        assert desk.git("status", "--short") == ""
        assert desk.files() == {}
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1"}

    @pytest.mark.parametrize("how", ["reset --hard", "stash", "switch -f training", "checkout -f"])
    def test_thrown_away_in_git_is_still_in_data(self, desk: Desk, how: str) -> None:
        """I6: what undoes a staged data.dvc leaves the files in data/, as changed ones."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.write(t="2", new="2")
        desk.pipe("add", "data")
        desk.git(*how.split())
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "2", "new": "2"}
        desk.git("switch", "-q", "main")
        assert desk.kept() == {"t": "2", "new": "2"}
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "2", "new": "2"}

    def test_stash_with_untracked_and_clean(self, desk: Desk) -> None:
        """I6: stash -u and clean -fd leave data/ alone; clean -x takes it as asked, and no blob of the cache."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.write(new="2")
        desk.git("stash", "-u", status=None)
        desk.git("clean", "-fdq")
        assert desk.files() == {"t": "1", "new": "2"}
        desk.git("clean", "-fdxq")
        assert not desk.data.exists()
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1"}

    def test_data_deleted_by_hand(self, desk: Desk) -> None:
        """I6: without data/ a switch brings what the branch has; deleted files alone stay deleted, and can be added."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1", u="1")
        shutil.rmtree(desk.data)
        desk.git("switch", "-q", "attributes")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1", "u": "1"}
        (desk.data / "t").unlink()
        desk.git("switch", "-q", "training")
        assert desk.files() == {"u": "1"}
        desk.commit()
        assert desk.repo("training") == ["u"]

    def test_detached(self, desk: Desk) -> None:
        """I6: an old commit's files, also with changes made there; adding is refused."""
        desk.git("switch", "-q", "training")
        old = desk.commit(t="1")
        desk.commit(t="2", u="2")
        desk.write(mine="3")
        desk.git("checkout", "-q", old)
        assert desk.files() == {"t": "1"}
        assert "HEAD is detached" in desk.pipe("add", "data", status=1)
        desk.write(lost="4")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "2", "u": "2", "mine": "3"}
        assert desk.kept() == {"lost": "4"}

    def test_a_link_or_a_file_for_data(self, desk: Desk, tmp_path: Path) -> None:
        """I6: data as a symbolic link is never written through; a file of that name is left alone."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        away = tmp_path / "away"
        away.mkdir()
        (away / "mine").write_text("mine")
        shutil.rmtree(desk.data)
        desk.data.symlink_to(away)
        assert "is not a folder" in desk.pipe("add", "data", status=1)
        assert "is not a folder" in desk.git("switch", "attributes")
        desk.pipe("add", "data", status=1)
        assert [p.name for p in away.iterdir()] == ["mine"]
        desk.data.unlink()
        desk.data.write_text("a file")
        assert "is not a folder" in desk.git("switch", "training")
        assert desk.data.read_text() == "a file"
        desk.data.unlink()
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1"}

    def test_a_link_inside_is_not_followed(self, desk: Desk, tmp_path: Path) -> None:
        """I6: a folder that became a link to elsewhere is not written into."""
        desk.git("switch", "-q", "training")
        desk.commit(d__x="1")
        desk.commit(d__x="2")
        away = tmp_path / "away"
        away.mkdir()
        shutil.rmtree(desk.data / "d")
        (desk.data / "d").symlink_to(away)
        assert "leads out of the working tree" in desk.pipe("add", "data", status=1)
        desk.git("switch", "-q", "attributes")
        desk.git("switch", "-q", "training")
        assert list(away.iterdir()) == []

    def test_file_and_folder_of_one_name(self, desk: Desk) -> None:
        """I6: a file on one branch and a folder on the other, changed or not."""
        desk.git("switch", "-q", "training")
        desk.commit(x="file")
        desk.git("switch", "-q", "attributes")
        desk.commit(x__y="folder")
        desk.write(x__z="changed")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"x": "file"}
        desk.git("switch", "-q", "attributes")
        assert desk.files() == {"x/y": "folder", "x/z": "changed"}
        shutil.rmtree(desk.data / "x")
        desk.commit(x="now a file")
        assert desk.repo("attributes") == ["x"]

    def test_data_from_before_goes_where_it_is_added(self, desk: Desk) -> None:
        """I6: files laid into data/ on main, before any switch, are carried as git carries untracked files."""
        desk.write(iris="1")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"iris": "1"}
        desk.commit()
        assert desk.repo("training") == ["iris"]
        desk.git("switch", "-q", "main")
        assert desk.files() == {}

    def test_no_cache_is_ever_committed(self, desk: Desk, sh: Shell) -> None:
        """No blob cache in git, also where a branch lost its .gitignore files and DVC was left to its own."""
        desk.git("switch", "-q", "training")
        desk.git("rm", "-q", ".gitignore", ".dvc/.gitignore", ".dvcignore")
        desk.git("commit", "-qm", "no ignore files")
        (desk.top / ".dvc/cache/files/md5/aa").mkdir(parents=True)
        (desk.top / ".dvc/cache/files/md5/aa/bb").write_text("a blob of DVC's own")
        desk.write(t="1")
        for branch in ("training", "main", "attributes"):
            desk.git("switch", "-qf", branch)
            desk.git("add", "-A")
            desk.git("commit", "-qm", "all of it", status=None)
            held = desk.git("ls-tree", "-r", "--name-only", "HEAD").split()
            assert not [p for p in held if p.startswith(("data/", ".dvc/cache", ".dvc/tmp"))], held
            assert ".dvc/config.local" not in held


class TestHistory:
    def test_merge_revert_reset_and_pull(self, desk: Desk, tmp_path: Path) -> None:
        """I6: data/ follows merge, revert and pull, and a changed file is kept where the branch changed it too."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.git("switch", "-qc", "side")
        desk.commit(t="2", s="2")
        desk.git("switch", "-q", "training")
        desk.write(mine="m")
        desk.git("merge", "-q", "side")
        assert desk.files() == {"t": "2", "s": "2", "mine": "m"}
        desk.git("revert", "--no-edit", "HEAD")
        assert desk.files() == {"t": "1", "mine": "m"}
        desk.git("clone", "-q", str(desk.top), str(tmp_path / "other"))
        other = Desk(tmp_path / "other")
        other.git("switch", "-q", "training")
        other.git("revert", "--no-edit", "HEAD")  # without gitpipe there: the pointer alone
        other.git("push", "-q", "origin", "training:incoming")
        desk.write(t="changed here")
        said = desk.git("pull", "-q", ".", "incoming")
        assert "kept your changed data/t" in said
        assert desk.files() == {"t": "2", "s": "2", "mine": "m"}
        assert desk.kept() == {"t": "changed here"}

    def test_rebase(self, desk: Desk) -> None:
        """I6: after a rebase, one that changed no data, and one given up, data/ is the branch's and can be added to."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.git("branch", "side")
        desk.commit(t="2")
        desk.git("switch", "-q", "side")
        (desk.top / "NOTES").write_text("x")
        desk.git("add", "NOTES")
        desk.git("commit", "-qm", "notes")
        desk.write(mine="m")
        desk.git("rebase", "-q", "training")
        assert desk.files() == {"t": "2", "mine": "m"}
        desk.commit()
        assert desk.repo("side") == ["mine", "t"]
        desk.git("switch", "-q", "training")
        desk.commit(t="3")
        desk.git("switch", "-q", "side")
        desk.git("rebase", "-q", "training", status=1)
        assert "a rebase stands still" in desk.pipe("add", "data", status=1)
        desk.git("rebase", "--abort")
        desk.git("switch", "-q", "side")
        assert desk.files() == {"t": "2", "mine": "m"}
        desk.commit(t="4")

    def test_renamed(self, desk: Desk) -> None:
        """I6: git branch -m takes data/ with its changes along."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.write(new="2")
        desk.git("branch", "-m", "training", "labels")
        desk.pipe("add", "data")
        desk.git("commit", "-qm", "new")
        assert desk.repo("labels") == ["new", "t"]
        desk.write(more="3")
        desk.git("branch", "-m", "labels", "again")
        desk.git("switch", "-q", "again")
        assert desk.files() == {"t": "1", "new": "2", "more": "3"}

    def test_reset_to_before(self, desk: Desk) -> None:
        """I6: reset --hard runs no hook; the next switch finds that the later files are committed, and takes them."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.commit(t="2", u="2")
        desk.git("reset", "-q", "--hard", "HEAD^")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1"}
        assert desk.kept() == {}

    def test_add_after_a_reset(self, desk: Desk) -> None:
        """What was reset away does not come back with the next add; after reset --soft and --mixed it is wanted."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.commit(u="2")
        desk.git("reset", "-q", "--hard", "HEAD^")
        desk.write(new="3")
        assert "`git switch training` brings its own" in desk.pipe("add", "data", status=1)
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1", "new": "3"}
        desk.commit()
        assert desk.repo("training") == ["new", "t"]
        for how in ("--soft", "--mixed"):
            desk.git("reset", "-q", how, "HEAD^")
            desk.commit(last="4")
            assert desk.repo("training") == ["last", "new", "t"]

    def test_add_where_the_files_never_came(self, desk: Desk, tmp_path: Path, sh: Shell) -> None:
        """In a clone without the blobs, add does not commit a listing that lacks all the files that are not here."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        clone = tmp_path / "clone"
        desk.git("clone", "-q", ".", str(clone))
        (clone / "data").mkdir(exist_ok=True)
        (clone / "data/new").write_text("2")
        sh("gitpipe init", cwd=clone)
        for path in ("data", "data/new"):
            assert "would be lost: `dvc pull`" in sh(f"gitpipe add {path} 2>&1", cwd=clone, status=1)
        sh("gitpipe add --force data", cwd=clone)


class TestWorktrees:
    def test_each_its_own(self, desk: Desk) -> None:
        """I6: add, move and remove worktrees; switching in one leaves the others alone."""
        training, attributes = desk.worktree("training"), desk.worktree("attributes")
        training.commit(t="1")
        attributes.commit(a="1")
        desk.git("worktree", "move", "../training", "../moved")
        moved = Desk(desk.top.parent / "moved")
        moved.commit(u="1")
        assert moved.files() == {"t": "1", "u": "1"}
        assert attributes.files() == {"a": "1"}
        moved.git("switch", "-q", "--detach", "attributes")
        assert moved.files() == {"a": "1"}
        moved.git("switch", "-q", "training")
        desk.git("worktree", "remove", "--force", "../moved")
        assert desk.repo("training") == ["t", "u"]
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1", "u": "1"}

    def test_the_repository_moves(self, desk: Desk, sh: Shell) -> None:
        """The cache is found again where a repository was renamed, by gitpipe and by DVC."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        elsewhere = desk.top.parent / "elsewhere"
        desk.top.rename(elsewhere)
        moved = Desk(elsewhere)
        moved.commit(u="2")
        assert moved.repo("training") == ["t", "u"]
        assert not desk.top.exists()
        assert "up to date" in sh("dvc status", elsewhere)
        elsewhere.rename(desk.top)  # for the fixture

    def test_two_at_once(self, desk: Desk) -> None:
        """I2, I7: two repos' worktrees that add and commit at the same time do not mix."""
        desks = {"training": desk.worktree("training"), "attributes": desk.worktree("attributes")}
        wrong: list[BaseException] = []

        def work(name: str) -> None:
            project = open_project(desks[name].top)
            try:
                for number in range(4):
                    desks[name].write(**{f"{name}{number}": str(number), "same": str(number)})
                    project.checkouts.add(["data"], desks[name].top)
                    project.repo.git("commit", "-qm", str(number), cwd=desks[name].top)  # hooks off
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=[name]) for name in desks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        for name in desks:
            assert desk.repo(name) == sorted(["same", *(f"{name}{number}" for number in range(4))])

    def test_put_file_moves_a_clean_checkout(self, desk: Desk) -> None:
        """I6: put-file, delete-file and finish-commit move a clean working tree along; a dirty one stops them."""
        training = desk.worktree("training")
        training.commit(t="1")
        file = desk.top / "u"
        file.write_text("2")
        desk.pipe("put-file", "training", "-f", str(file))
        assert training.files() == {"t": "1", "u": "2"}
        assert training.git("status", "--short") == ""
        before = training.git("rev-parse", "HEAD")
        training.write(t="changed")
        for command in ("put-file training v -f u", "delete-file training u"):
            said = desk.pipe(*command.split(), status=1)
            assert str(training.top) in said
            assert "data/t is changed" in said
        training.pipe("add", "data")
        assert str(training.top) in desk.pipe("put-file", "training", "v", "-f", "u", status=1)
        assert training.git("rev-parse", "HEAD") == before
        training.git("commit", "-qm", "t")
        desk.pipe("delete-file", "training", "u")
        assert training.files() == {"t": "changed"}
        desk.pipe("put-file", "attributes", "a", "-f", "u")  # not checked out: nothing moves
        assert training.files() == {"t": "changed"}


class TestRefusals:
    def test_where_add_is_refused(self, desk: Desk, tmp_path: Path) -> None:
        """Each refusal names what to do, and stages nothing."""
        desk.write(x="1")
        assert "gitpipe create-repo" in desk.pipe("add", "data", status=1)
        desk.git("switch", "-q", "training")
        outside = tmp_path / "outside"
        outside.write_text("x")
        for path in (str(outside), "README", "../outside", "data/../README", "."):
            assert "data" in desk.pipe("add", path, status=None)
            assert desk.git("status", "--short") == ""
        assert "neither" in desk.pipe("add", "data/none", status=1)
        assert "data/ holds the files of" in _with_foreign_stamp(desk)

    def test_output_branches(self, desk: Desk) -> None:
        """I6: neither add nor put-file nor a commit by hand on a branch that a pipeline owns."""
        spec = desk.top / "copy.json"
        spec.write_text(
            '{"pipeline": {"name": "copied"}, "input": {"pfs": {"repo": "training", "glob": "/*"}},'
            ' "transform": {"cmd": ["sh", "-c", "cp /pfs/training/* /pfs/out/"]}, "code": []}'
        )
        desk.git("config", "gitpipe.engine", "local")
        desk.pipe("create-pipeline", "-f", "copy.json")
        spec.unlink()
        desk.pipe("put-file", "training", "t", "-f", "README")
        desk.pipe("run")
        assert desk.repo("copied") == ["t"]
        assert "output of a pipeline" in desk.pipe("put-file", "copied", "x", "-f", "README", status=1)
        assert "output of a pipeline" in desk.pipe("start-commit", "copied", status=1)
        copied = desk.worktree("copied")
        copied.write(mine="1")
        assert "output of a pipeline" in copied.pipe("add", "data", status=1)
        assert "output of a pipeline" in copied.git("commit", "--allow-empty", "-m", "x", status=1)
        desk.pipe("put-file", "training", "u", "-f", "README")
        desk.pipe("run")
        assert desk.repo("copied") == ["t", "u"]
        assert copied.files() == {**dict.fromkeys("tu", "scratch\n"), "mine": "1"}, "a tree moves with its branch"
        assert copied.git("status", "--short") == ""


def _with_foreign_stamp(desk: Desk) -> str:
    """A branch that was switched with the hooks off, so that data/ is another's."""
    desk.write(t="1")
    desk.pipe("add", "data")
    desk.git("commit", "-qm", "t")
    desk.git("-c", "core.hooksPath=/dev/null", "switch", "-q", "attributes")
    return desk.pipe("add", "data", status=1)


# -- at random


BRANCHES = ("training", "attributes", "main")


class Person:
    """Does things at random in one working tree, and remembers every content that was written and not deleted."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self.desk, self.chance, self.number = desk, random.Random(seed), 0
        self.written: dict[str, str] = {}  # content -> the repo it was written in
        self.done: list[str] = []

    def branch(self) -> str:
        return self.desk.git("symbolic-ref", "-q", "--short", "HEAD", status=None).strip() or "detached"

    def step(self) -> None:
        often = [self.write, self.switch, self.add_and_commit, self.add]
        rare = [self.add_all, self.delete, self.reset, self.stash, self.revert, self.put_file, self.detach, self.merge]
        action = self.chance.choice([*rare, *often, *often, self.write, self.switch, self.write, self.switch])
        self.done.append(f"{self.branch()}: {action.__name__}")
        action()

    def write(self) -> None:
        self.number += 1
        name = self.chance.choice(["a", "b", "c", "d/x", "d/y", "d"])
        path = self.desk.data / name
        if path.is_dir() or not all(parent.is_dir() or not parent.exists() for parent in path.parents):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        branch = self.branch()
        self.forget(path)
        path.unlink(missing_ok=True)
        path.write_text(f"{branch} {self.number}")
        self.written[path.read_text()] = branch

    def forget(self, path: Path) -> None:
        """Overwriting or deleting a file by hand is on purpose."""
        if path.is_file():
            self.written.pop(path.read_text(), None)

    def delete(self) -> None:
        files = sorted(p for p in self.desk.data.rglob("*") if p.is_file()) if self.desk.data.is_dir() else []
        if files:
            path = self.chance.choice(files)
            self.forget(path)
            path.unlink()

    def switch(self) -> None:
        flags = self.chance.choice([[], [], ["-f"]])
        self.desk.git("switch", "-q", *flags, self.chance.choice(BRANCHES), status=None)

    def detach(self) -> None:
        self.desk.git("checkout", "-q", "--detach", self.chance.choice(BRANCHES), status=None)

    def add(self) -> None:
        self.desk.pipe("add", "data", status=None)

    def add_and_commit(self) -> None:
        self.add()
        self.desk.git("commit", "-qm", "data", status=None)

    def add_all(self) -> None:
        self.desk.git("add", "-A")
        self.desk.git("commit", "-qm", "all", status=None)

    def reset(self) -> None:
        self.desk.git(
            "reset", "-q", "--hard", self.chance.choice(["HEAD", "HEAD", f"{self.branch()}@{{1}}"]), status=None
        )

    def stash(self) -> None:
        self.desk.git("stash", "-qu", status=None)

    def revert(self) -> None:
        if self.branch() in ("training", "attributes"):
            self.desk.git("revert", "--no-edit", "HEAD", status=None)
            self.desk.git("revert", "--abort", status=None)

    def merge(self) -> None:
        """A merge with what the branch was before, after a reset to what is ahead of it: its own data only."""
        branch = self.branch()
        if branch in ("training", "attributes"):
            self.desk.git("merge", "-q", f"{branch}@{{1}}", status=None)
            self.desk.git("merge", "--abort", status=None)

    def put_file(self) -> None:
        repo = self.chance.choice(["training", "attributes"])
        self.number += 1
        file = self.desk.top / ".git" / "put"
        file.write_text(f"{repo} {self.number}")
        if "gitpipe:" not in self.desk.pipe("put-file", repo, self.chance.choice("ab"), "-f", str(file), status=None):
            self.written[file.read_text()] = repo

    def check(self) -> None:
        told = "\n".join(self.done)
        project = open_project(self.desk.top)
        committed: set[str] = set()
        for sha in self.desk.git("rev-list", "--all", "--reflog", "--", "data.dvc").split():
            committed |= {project.blobs.read(md5).decode() for md5 in _listing(project, sha).values()}
        for branch in ("training", "attributes"):
            for sha in self.desk.git("rev-list", branch).split():
                for md5 in _listing(project, sha).values():
                    text = project.blobs.read(md5).decode()
                    # What was written on main (no repo) or detached may be taken into one by adding it there.
                    assert text.split()[0] in (branch, "main", "detached"), f"{text!r} is in {branch}\n{told}"
                held = self.desk.git("ls-tree", "-r", "--name-only", sha).split()
                assert not [p for p in held if p.startswith(("data/", ".dvc/cache"))], told
        assert "data.dvc" not in self.desk.git("ls-tree", "-r", "--name-only", "main"), told
        found = {p.read_text() for p in self.desk.data.rglob("*") if p.is_file()} if self.desk.data.is_dir() else set()
        kept = {p.read_text() for p in self.desk.top.glob(".git/gitpipe-kept/*/files/**/*") if p.is_file()}
        lost = set(self.written) - found - kept - committed
        assert not lost, f"lost: {lost}\n{told}"


def _listing(project, sha):  # type: ignore[no-untyped-def]
    from gitpipe.datatree import read_listing

    return read_listing(project.repo, project.blobs, sha)


@pytest.mark.parametrize("seed", range(3))
def test_at_random(desk: Desk, seed: int) -> None:
    """I6: whatever is done, each content is in data/, kept aside or committed, and only in the repo it was made for."""
    end = time.monotonic() + 3
    person = Person(desk, seed)
    while time.monotonic() < end:
        for _ in range(8):
            person.step()
        person.check()
    assert listed(desk.top, "training") is not None


def test_a_worktree_made_without_hooks_loses_no_files(desk: Desk, tmp_path: Path) -> None:
    """I6: what never came into ``data/`` was not deleted by anybody; adding a file keeps it, `--force` drops it."""
    desk.git("switch", "-q", "training")
    desk.commit(one="1", d__two="2")
    desk.git("switch", "-q", "main")
    top = tmp_path / "without hooks"
    desk.git("-c", "core.hooksPath=/dev/null", "worktree", "add", "-q", str(top), "training")
    bare = Desk(top)
    bare.write(three="3")
    assert "the files of training were never brought here" in bare.pipe("add", "data", status=1)
    assert bare.git("status", "--short") == ""
    bare.pipe("add", "data/three")
    bare.git("-c", "core.hooksPath=/dev/null", "commit", "-qm", "three")
    assert desk.repo("training") == ["d/two", "one", "three"]


def test_a_worktree_made_without_hooks_and_filled_by_dvc(desk: Desk, tmp_path: Path, sh: Shell) -> None:
    """I6: deletions count where the files were there."""
    desk.git("switch", "-q", "training")
    desk.commit(one="1", two="2")
    desk.git("switch", "-q", "main")
    top = tmp_path / "filled"
    desk.git("-c", "core.hooksPath=/dev/null", "worktree", "add", "-q", str(top), "training")
    filled = Desk(top)
    filled.data.mkdir()
    filled.pipe("add", "data", status=1)
    sh("dvc checkout -q && rm data/one", top)
    assert "1 deleted" in filled.pipe("add", "data")
