"""Files kept aside (I6): where they lie, that they come back, and that what does not is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.served import Desk, served


@pytest.fixture
def desk(scratch: Path) -> Iterator[Desk]:
    with served(scratch) as made:
        made.git("switch", "-q", "training")
        made.commit(t="1", u="1")
        yield made


class TestWorktrees:
    def test_outlive_their_worktree(self, desk: Desk) -> None:
        """`git worktree remove` takes the git dir of the worktree along; what is kept aside is not in it."""
        desk.git("switch", "-q", "main")
        linked = desk.worktree("training")
        linked.write(t="mine")
        assert str(desk.top / ".git/gitpipe-kept/training+training-1") in linked.git("switch", "attributes")
        desk.git("worktree", "remove", "--force", str(linked.top))
        desk.git("worktree", "prune")
        assert "data/t of training is kept aside in" in desk.pipe("status")
        assert "put back your changed data/t" in desk.git("switch", "training")
        assert desk.files() == {"t": "mine", "u": "1"}
        assert "kept aside" not in desk.pipe("status")

    def test_do_not_mix(self, desk: Desk) -> None:
        """Two worktrees that leave one branch with changes each get back their own."""
        desk.git("switch", "-q", "main")
        one = desk.worktree("training")
        one.write(t="one")
        one.git("switch", "-q", "--detach", "main")
        desk.git("worktree", "add", "-q", "../two", "training")
        two = Desk(desk.top.parent / "two")
        assert two.files() == {"t": "1", "u": "1"}
        two.write(t="two")
        two.git("switch", "-q", "--detach", "main")
        one.git("switch", "-q", "training")
        assert one.files() == {"t": "one", "u": "1"}
        one.git("switch", "-q", "--detach", "main")
        two.git("switch", "-q", "training")
        assert two.files() == {"t": "two", "u": "1"}

    def test_where_they_lay_at_first(self, desk: Desk) -> None:
        """What was kept in the git dir of the worktree itself, with a manifest of then, comes back from there."""
        desk.git("switch", "-q", "main")
        linked = desk.worktree("training")
        linked.write(t="mine")
        linked.git("switch", "-q", "attributes")
        (now,) = (desk.top / ".git/gitpipe-kept").iterdir()
        then = desk.top / ".git/worktrees/training/gitpipe-kept/training-1"
        then.parent.mkdir()
        now.rename(then)
        manifest = json.loads((then / "manifest.json").read_text())
        del manifest["tree"], manifest["deleted"]
        (then / "manifest.json").write_text(json.dumps(manifest))
        assert f"data/t of training is kept aside in {then}" in desk.pipe("status")
        linked.git("switch", "-q", "training")
        assert linked.files() == {"t": "mine", "u": "1"}
        assert not then.exists()


class TestRenamed:
    def test_kept_then_renamed(self, desk: Desk) -> None:
        desk.write(t="mine")
        desk.git("switch", "-q", "main")
        desk.git("branch", "-m", "training", "labels")
        assert "data/t of training is kept aside" in desk.pipe("status")
        desk.git("switch", "-q", "labels")
        assert desk.files() == {"t": "mine", "u": "1"}

    def test_renamed_twice(self, desk: Desk) -> None:
        """While it is checked out, and while it is not."""
        desk.write(t="mine")
        desk.git("branch", "-m", "training", "labels")
        desk.git("branch", "-m", "labels", "truth")
        desk.git("switch", "-q", "main")
        assert desk.kept() == {"t": "mine"}
        desk.git("branch", "-m", "truth", "again")
        desk.git("branch", "-m", "again", "last")
        desk.git("switch", "-q", "last")
        assert desk.files() == {"t": "mine", "u": "1"}

    def test_detached_in_between(self, desk: Desk) -> None:
        desk.write(t="mine")
        desk.git("switch", "-q", "--detach")
        desk.git("branch", "-m", "training", "labels")
        desk.git("switch", "-q", "labels")
        assert desk.files() == {"t": "mine", "u": "1"}

    def test_the_old_name_is_another_branch_now(self, desk: Desk) -> None:
        """Then what is kept under it is not the renamed one's; `status` goes on to name it."""
        desk.write(t="mine")
        desk.git("switch", "-q", "main")
        desk.git("branch", "-m", "training", "labels")
        desk.git("branch", "training", "labels")
        desk.git("switch", "-q", "labels")
        assert desk.files() == {"t": "1", "u": "1"}
        assert "data/t of training is kept aside" in desk.pipe("status")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "mine", "u": "1"}


class TestComesBack:
    def test_in_exchange_for_another_branch_s(self, desk: Desk) -> None:
        desk.git("branch", "side")
        for _ in range(2):
            desk.write(t="of training")
            desk.git("switch", "-q", "side")
            desk.write(t="of side")
            desk.git("switch", "-q", "training")
            assert desk.files() == {"t": "of training", "u": "1"}
            assert desk.kept() == {"t": "of side"}

    def test_a_folder_where_the_branch_has_a_file(self, desk: Desk) -> None:
        (desk.data / "t").unlink()
        desk.write(t__x="mine")
        desk.git("switch", "-q", "main")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t/x": "mine", "u": "1"}

    def test_a_file_where_the_branch_has_a_folder(self, desk: Desk) -> None:
        desk.commit(d__x="1", d__y="1")
        shutil.rmtree(desk.data / "d")
        desk.write(d="mine")
        desk.git("switch", "-q", "main")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"d": "mine", "t": "1", "u": "1"}

    def test_a_deletion(self, desk: Desk) -> None:
        """Also where the other branch has the same file."""
        desk.git("branch", "side")
        for other in ("main", "side"):
            (desk.data / "t").unlink(missing_ok=True)
            desk.git("switch", "-q", other)
            assert "deleted again, as you had left it: data/t\n" in desk.git("switch", "training")
            assert desk.files() == {"u": "1"}
        assert "1 deleted" in desk.pipe("add", "data")

    def test_a_deletion_of_what_the_branch_changed_since(self, desk: Desk) -> None:
        desk.git("branch", "side")
        (desk.data / "t").unlink()
        desk.git("switch", "-q", "side")
        new = desk.commit(t="2")
        desk.git("branch", "-f", "training", new)
        desk.git("switch", "-q", "main")
        assert "you had deleted what the branch has another version of now: data/t\n" in desk.git("switch", "training")
        assert desk.files() == {"t": "2", "u": "1"}

    def test_what_does_not_come_back_is_named(self, desk: Desk) -> None:
        """By `status` whatever its branch, by `add` on its own, until it is deleted by hand."""
        desk.git("branch", "side")
        desk.write(t="mine", new="mine too")
        desk.git("switch", "-q", "side")
        desk.git("branch", "-f", "training", desk.commit(t="2", new="2"))
        assert "(and 1 more) of training is kept aside" in desk.pipe("status")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "2", "new": "2", "u": "1"}
        for command in (["status"], ["add", "data"]):
            assert "copy it back if you want it" in desk.pipe(*command)
        shutil.rmtree(desk.top / ".git/gitpipe-kept")
        for command in (["status"], ["add", "data"]):
            assert "kept aside" not in desk.pipe(*command)

    def test_of_a_deleted_branch(self, desk: Desk) -> None:
        desk.write(t="mine")
        desk.git("switch", "-q", "main")
        desk.git("branch", "-qD", "training")
        assert "data/t of training is kept aside" in desk.pipe("status")

    def test_what_somebody_else_laid_there_stays(self, desk: Desk) -> None:
        desk.write(t="mine")
        desk.git("switch", "-q", "main")
        (folder,) = (desk.top / ".git/gitpipe-kept").iterdir()
        (folder / "files/notes").write_text("not gitpipe's")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "mine", "u": "1"}
        assert (folder / "files/notes").read_text() == "not gitpipe's"


class TestNewBranch:
    @pytest.mark.parametrize("before", ["training", "--detach"])
    def test_made_here(self, desk: Desk, before: str) -> None:
        """`git switch -c` takes along what is changed, added or not, as git does; only that first time."""
        desk.git("switch", "-q", before)
        desk.write(t="mine", new="mine too")
        (desk.data / "u").unlink()
        assert "data/" not in desk.git("switch", "-qc", "topic")
        assert desk.files() == {"t": "mine", "new": "mine too"}
        assert desk.kept() == {}
        assert "1 added, 1 changed, 1 deleted" in desk.pipe("add", "data")
        desk.git("switch", "-qc", "other")
        assert "data.dvc" in desk.git("status", "--porcelain")
        desk.git("commit", "-qm", "mine")
        desk.git("switch", "-q", "training")
        assert desk.files() == {"t": "1", "u": "1"}
        desk.write(t="of training")
        desk.git("switch", "-q", "topic")
        assert desk.files() == {"t": "1", "u": "1"}
        assert desk.kept() == {"t": "of training"}

    def test_made_elsewhere(self, desk: Desk) -> None:
        """From another commit, or before: then it is a branch like any other."""
        desk.commit(t="2")
        desk.write(u="mine")
        desk.git("switch", "-qc", "topic", "HEAD~")
        assert desk.files() == {"t": "1", "u": "1"}
        desk.git("switch", "-q", "training")
        desk.git("branch", "plain")
        desk.git("switch", "-q", "plain")
        assert desk.files() == {"t": "2", "u": "1"}
