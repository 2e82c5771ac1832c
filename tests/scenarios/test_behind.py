"""Working trees whose branch moved without them: nothing that the branch gained is taken back, and they come along.

A kill between the two, a commit by hand on an output branch, changes that a person has there, a rebase (I6, I7).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Shell
from tests.scenarios.served import Desk, listed, real_hooks, served

COPY = (
    '{"pipeline": {"name": "copied"}, "input": {"pfs": {"repo": "training", "glob": "/*"}},'
    ' "transform": {"cmd": ["sh", "-c", "cp /pfs/training/* /pfs/out/"]}, "code": []}'
)


@pytest.fixture
def desk(scratch: Path) -> Iterator[Desk]:
    with served(scratch) as made:
        yield made


def killed(desk: Desk, *command: str, at: str = "after-ref") -> None:
    """A gitpipe command that is killed, when its branch has moved and the working trees on it have not."""
    done = subprocess.run(
        ["gitpipe", *command],
        cwd=desk.top,
        env={**os.environ, "GITPIPE": "0", "GITPIPE_KILL_AT": at},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done


@pytest.fixture
def behind(desk: Desk) -> Desk:
    """The working tree of training, which has t and u; it got u, and a new t, by a command that was killed."""
    training = desk.worktree("training")
    training.commit(t="1", w="1")
    for name, text in (("t", "2"), ("u", "2")):
        (desk.top.parent / name).write_text(text)
    opened = desk.pipe("start-commit", "training").strip()
    desk.pipe("put-file", "training", opened, "-f", "../t", "-f", "../u")
    killed(desk, "finish-commit", "training", opened)
    assert training.git("status", "--porcelain") == "M  data.dvc\n"
    assert training.files() == {"t": "1", "w": "1"}
    return training


class TestKilled:
    def test_add(self, behind: Desk) -> None:
        """I7: files that never came are not recorded as deleted; what the person did in between stays."""
        behind.write(mine="3")
        (behind.data / "w").unlink()
        said = behind.pipe("add", "data")
        assert "training moved while this working tree did not" in said
        assert "1 added, 0 changed, 1 deleted" in said
        assert behind.files() == {"t": "2", "u": "2", "mine": "3"}
        behind.git("commit", "-qm", "mine")
        assert behind.repo("training") == ["mine", "t", "u"]
        assert behind.git("status", "--porcelain") == ""

    def test_add_of_a_file_that_the_branch_changed_too(self, behind: Desk) -> None:
        behind.write(t="mine")
        assert "kept your changed data/t as" in behind.pipe("add", "data")
        assert behind.files() == {"t": "2", "u": "2", "w": "1"}
        assert behind.kept() == {"t": "mine"}

    def test_a_pointer_that_something_else_wrote(self, behind: Desk, sh: Shell) -> None:
        """`dvc add` made a data.dvc of what is there, without what came: nobody can tell what was wanted."""
        behind.write(mine="3")
        sh("dvc add -q data", behind.top)
        said = behind.pipe("add", "data", status=1)
        assert "data.dvc is changed in it" in said
        advice = said.split("`")[1]
        assert "data.dvc is changed in it" in behind.pipe("status")
        sh(advice, behind.top)
        behind.pipe("add", "data")
        assert behind.files() == {"t": "2", "u": "2", "w": "1", "mine": "3"}

    def test_commit_is_stopped(self, desk: Desk, behind: Desk, sh: Shell) -> None:
        """The index is the old one: a commit of anything would take back what came."""
        real_hooks(desk.top)
        desk.git("config", "gitpipe.python", "x")  # no runner is wanted; the hooks know their interpreter
        (behind.top / "notes").write_text("x")
        behind.git("add", "notes")
        for how in ("-qm", "-qam"):
            assert "git switch training" in behind.git("commit", how, "notes", status=1)
        assert f"{behind.top} is behind training" in behind.pipe("status")
        assert "moved while" in behind.git("switch", "training")
        behind.git("commit", "-qm", "notes")
        assert behind.git("show", "--format=", "--name-only") == "notes\n"
        assert behind.files() == {"t": "2", "u": "2", "w": "1"}
        assert "is behind" not in behind.pipe("status")

    def test_commit_is_stopped_by_pre_commit(self, behind: Desk, sh: Shell) -> None:
        guard = "gitpipe pre-commit guard"
        assert "is behind training" in sh(guard, behind.top, status=1, stderr=True)
        behind.pipe("add", "data")
        assert sh(guard, behind.top) == ""

    def test_killed_before_the_branch_moved(self, desk: Desk, sh: Shell) -> None:
        """Nothing happened, and nothing is in anybody's way."""
        training = desk.worktree("training")
        training.commit(t="1")
        killed(desk, "put-file", "training", "-f", "README", at="before-ref")
        assert "behind" not in desk.pipe("status")
        real_hooks(desk.top)
        desk.git("config", "gitpipe.python", "x")  # no runner is wanted; the hooks know their interpreter
        training.commit(t="2")
        training.commit(t="3")
        desk.pipe("put-file", "training", "-f", "README")
        assert training.files() == {"t": "3", "README": "scratch\n"}
        assert training.git("status", "--porcelain") == ""

    def test_many_at_once(self, desk: Desk) -> None:
        """Each moves the branch and its working tree together; nobody takes another's move for a change by hand."""
        training = desk.worktree("training")
        puts = [
            subprocess.Popen(
                ["gitpipe", "put-file", "training", name, "-f", "README"],
                cwd=desk.top,
                env={**os.environ, "GITPIPE": "0"},
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            for name in "abcde"
        ]
        assert [put.communicate()[1] for put in puts] == [""] * 5
        assert sorted(training.files()) == list("abcde")
        assert training.git("status", "--porcelain") == ""

    @pytest.mark.parametrize("command", ["run", "put-file training -f README"])
    def test_other_commands_bring_it_along(self, desk: Desk, behind: Desk, command: str) -> None:
        desk.pipe(*command.split())
        assert behind.git("status", "--porcelain") == ""
        assert {"t": "2", "u": "2", "w": "1"}.items() <= behind.files().items()

    def test_a_revert_that_is_staged_by_hand(self, desk: Desk) -> None:
        """It looks like one that was left behind, and is none: the person wants it."""
        training = desk.worktree("training")
        training.commit(t="1")
        desk.pipe("put-file", "training", "-f", "README")
        training.git("revert", "--no-commit", "HEAD")
        desk.pipe("run")
        assert training.git("status", "--porcelain") == "M  data.dvc\n"
        training.git("commit", "-qm", "back")
        assert training.files() == {"t": "1"}
        training.write(t="2")
        training.pipe("add", "data")
        training.git("commit", "-qm", "2")
        training.write(t="1")
        training.pipe("add", "data")
        desk.pipe("run")
        assert training.git("status", "--porcelain") == "M  data.dvc\n"
        assert "behind" not in training.pipe("status")


@pytest.fixture
def copied(desk: Desk) -> Desk:
    """The working tree of an output branch that holds t."""
    (desk.top / "copy.json").write_text(COPY)
    desk.git("config", "gitpipe.engine", "local")
    desk.pipe("create-pipeline", "-f", "copy.json")
    (desk.top / "copy.json").unlink()
    put(desk, "t", "1")
    return desk.worktree("copied")


def put(desk: Desk, name: str, text: str) -> str:
    """Change training, and run; what that printed."""
    (desk.top.parent / name).write_text(text)
    desk.pipe("put-file", "training", "-f", f"../{name}")
    return desk.pipe("run")


class TestOutput:
    def test_reverted_by_hand(self, desk: Desk, copied: Desk) -> None:
        """git runs no pre-commit for a revert; the next commit of the pipeline puts it right, here too."""
        for again in ("2", "3"):
            put(desk, "t", again)
            copied.git("revert", "--no-edit", "HEAD")
            assert copied.files() != {"t": again}
            desk.pipe("run")
            assert copied.git("status", "--porcelain") == ""
            assert copied.files() == {"t": again}
        copied.git("switch", "-q", "attributes")

    def test_reverted_while_the_pipeline_was_quicker(self, desk: Desk, copied: Desk) -> None:
        """The hook of the revert comes when the branch has moved on already: data/ is new then, and the index old."""
        put(desk, "t", "2")
        desk.git("config", "core.hooksPath", "/dev/null")
        copied.git("revert", "--no-edit", "HEAD")
        old = copied.git("rev-parse", "HEAD").strip()
        copied.git("checkout", "-q", "--detach")
        desk.pipe("run")
        new = copied.git("rev-parse", "copied").strip()
        assert new != old
        copied.git("symbolic-ref", "HEAD", "refs/heads/copied")
        desk.git("config", "--unset", "core.hooksPath")
        copied.git("checkout", "-q")
        assert copied.git("status", "--porcelain") == ""
        assert copied.files() == {"t": "2"}

    def test_unrelated_changes_come_along(self, desk: Desk, copied: Desk) -> None:
        """As with `git merge --ff-only`: what the move does not touch stays, staged or not."""
        (copied.top / ".gitignore").write_text("/data\n*.tmp\n")
        (copied.top / "notes").write_text("staged")
        copied.git("add", "notes")
        (copied.top / "untracked").write_text("x")
        copied.write(mine="m")
        before = copied.git("status", "--porcelain")
        put(desk, "t", "2")
        assert copied.git("status", "--porcelain") == before
        assert copied.files() == {"t": "2", "mine": "m"}
        assert "behind" not in desk.pipe("status")

    def test_changes_in_the_way_are_named(self, desk: Desk, copied: Desk) -> None:
        """A changed data.dvc, a changed file of data/: the tree stays as it is, and `status` says what to do."""
        copied.write(t="mine")
        assert f"Warning: {copied.top} is behind copied, as data/t is changed in it" in put(desk, "t", "2")
        assert copied.files() == {"t": "mine"}
        assert "data/t is changed in it" in desk.pipe("status")
        copied.write(t="1")
        text = (copied.top / "data.dvc").read_text()
        (copied.top / "data.dvc").write_text(text + "desc: mine\n")
        put(desk, "t", "3")
        said = desk.pipe("status")
        assert f"{copied.top} is behind copied" in said
        assert "data.dvc is changed in it" in said
        assert copied.files() == {"t": "1"}
        copied.git("reset", "-q", "--hard")
        desk.pipe("run")
        assert copied.git("status", "--porcelain") == ""
        assert copied.files() == {"t": "3"}

    def test_all_that_is_in_the_way_counts(self, desk: Desk, copied: Desk) -> None:
        put(desk, "u", "1")
        copied.write(t="mine", u="mine")
        desk.pipe("delete-file", "training", "t")
        desk.pipe("delete-file", "training", "u")
        desk.pipe("run")
        assert "as data/t and 1 more are changed in it" in desk.pipe("status")
        assert copied.files() == {"t": "mine", "u": "mine"}

    def test_one_that_was_checked_out_with_the_hooks_off(self, desk: Desk, copied: Desk, sh: Shell) -> None:
        """I6: it follows like others, or is named; else the next `git commit -a` there would take a result back."""
        sh("git worktree remove --force ../copied && GITPIPE=0 git worktree add -q ../plain copied", desk.top)
        plain = Desk(desk.top.parent / "plain")
        assert not plain.data.exists()
        put(desk, "t", "2")
        assert plain.git("status", "--porcelain") == ""
        assert plain.files() == {"t": "2"}
        put(desk, "u", "1")
        assert plain.files() == {"t": "2", "u": "1"}


class TestRebase:
    @pytest.mark.parametrize("backend", ["--merge", "--apply"])
    def test_forward(self, desk: Desk, backend: str) -> None:
        """git says nothing when the branch is back: what was not committed has to stay where it is."""
        desk.git("switch", "-q", "training")
        desk.commit(t="1", same="1")
        desk.git("branch", "ahead")
        desk.git("switch", "-q", "ahead")
        desk.commit(t="2", new="2")
        desk.git("switch", "-q", "training")
        desk.write(same="mine", mine="m")
        desk.git("rebase", "-q", backend, "ahead")
        files = {"t": "2", "new": "2", "same": "mine", "mine": "m"}
        assert desk.files() == files
        assert desk.kept() == {}
        desk.commit(last="l")
        assert desk.repo("training") == sorted({**files, "last": "l"})
        assert desk.git("status", "--porcelain") == ""

    def test_files_made_while_it_stands_still(self, desk: Desk) -> None:
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.git("branch", "side")
        desk.commit(t="2")
        desk.git("switch", "-q", "side")
        desk.commit(t="3")
        desk.write(before="b")
        desk.git("rebase", "-q", "training", status=1)
        desk.write(amidst="a")
        assert "a rebase stands still" in desk.pipe("add", "data", status=1)
        desk.git("rebase", "--abort")
        desk.git("switch", "-q", "side")
        assert desk.files() == {"t": "3", "before": "b", "amidst": "a"}
        desk.git("rebase", "-q", "training", status=1)
        desk.git("checkout", "-q", "--theirs", "data.dvc")
        desk.git("add", "data.dvc")
        desk.git("-c", "core.editor=true", "rebase", "--continue")
        assert desk.files() == {"t": "3", "before": "b", "amidst": "a"}
        assert desk.kept() == {}

    def test_add_at_an_edit_stop(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """As `git add` there: for the branch that is rebased, on top of the commit that the rebase has come to."""
        desk.git("switch", "-q", "training")
        base = desk.commit(t="1")
        desk.commit(u="1")
        desk.commit(v="1")
        monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "sed -i '1s/^pick/edit/'")
        desk.git("rebase", "-q", "-i", base)
        desk.write(t="edited")
        desk.pipe("add", "data")
        desk.git("commit", "-q", "--amend", "--no-edit")
        assert listed(desk.top, "HEAD") == ["t", "u"]
        desk.git("checkout", "-q")
        assert desk.files() == {"t": "edited", "u": "1"}

    def test_add_says_what_is_kept_aside(self, desk: Desk) -> None:
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.git("branch", "ahead")
        desk.git("switch", "-q", "ahead")
        desk.commit(t="2")
        desk.git("switch", "-q", "training")
        desk.write(t="mine")
        desk.git("merge", "-q", "ahead")
        desk.write(more="m")
        said = desk.pipe("add", "data")
        assert "data/t of training is kept aside" in said


class TestReset:
    @pytest.mark.parametrize("how", ["--hard", "--keep"])
    def test_status_names_data_that_did_not_follow(self, desk: Desk, how: str) -> None:
        desk.git("switch", "-q", "training")
        desk.commit(t="1")
        desk.commit(t="2")
        assert "git switch" not in desk.pipe("status")
        desk.git("reset", "-q", how, "HEAD~")
        assert "`git switch training` brings its own" in desk.pipe("status")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1"}
        assert "git switch" not in desk.pipe("status")
