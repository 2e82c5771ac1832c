"""``gitpipe add`` amidst git's own merges: what the other side did comes along, file by file, and nothing is hidden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gitpipe.project import open_project
from tests.conftest import Shell
from tests.scenarios.served import Desk, listed, served


@pytest.fixture
def desk(scratch: Path) -> Iterator[Desk]:
    """On training, which has seven files; branch `side` changed a, deleted b, added new and d/new."""
    with served(scratch) as made:
        made.git("switch", "-q", "training")
        made.commit(**dict.fromkeys("abcxyz", "1"), d__e="1")
        made.git("switch", "-qc", "side")
        (made.data / "b").unlink()
        made.commit(a="side", new="side", d__new="side")
        made.git("switch", "-q", "training")
        yield made


def held(desk: Desk, commit: str = "HEAD") -> dict[str, str]:
    """Path -> text of a commit's files."""
    from gitpipe.datatree import read_listing

    project = open_project(desk.top)
    sha = project.repo.resolve(commit)
    assert sha
    return {
        path: project.blobs.read(md5).decode() for path, md5 in read_listing(project.repo, project.blobs, sha).items()
    }


MERGED = {"a": "side", "c": "ours", "x": "1", "y": "1", "d/e": "1", "new": "side", "d/new": "side", "mine": "ours"}


class TestConflict:
    @pytest.mark.parametrize("command", ["merge side", "merge --squash side", "cherry-pick side"])
    def test_files_of_one_side_only(self, desk: Desk, command: str) -> None:
        """Changed, added, deleted there; changed, added, deleted here."""
        (desk.data / "z").unlink()
        desk.commit(c="ours", mine="ours")
        assert "CONFLICT" in desk.git(*command.split(), status=1)
        desk.write(late="not added before")
        said = desk.pipe("add", "data")
        assert "taken from the other side: data/a and 3 more\n" in said
        desk.git("commit", "-qm", "both")
        assert held(desk) == desk.files() == {**MERGED, "late": "not added before"}
        assert desk.git("status", "--porcelain") == ""

    def test_revert(self, desk: Desk) -> None:
        desk.git("merge", "-q", "side")
        desk.commit(c="later")
        assert "CONFLICT" in desk.git("revert", "--no-edit", "HEAD~", status=1)
        desk.pipe("add", "data")
        desk.git("-c", "core.editor=true", "revert", "--continue")
        assert held(desk) == desk.files() == {**dict.fromkeys(["a", "b", "x", "y", "z", "d/e"], "1"), "c": "later"}

    def test_adding_a_part_takes_it_too(self, desk: Desk) -> None:
        """As the conflict is resolved with it."""
        desk.commit(c="ours")
        desk.git("merge", "side", status=1)
        desk.write(part="p", rest="r")
        desk.pipe("add", "data/part")
        desk.git("commit", "-qm", "both")
        assert listed(desk.top, "HEAD") == ["a", "c", "d/e", "d/new", "new", "part", "x", "y", "z"]
        assert desk.files()["rest"] == "r"

    def test_clash(self, desk: Desk) -> None:
        """Nothing is done, all are named; theirs by get-file, ours by leaving it."""
        desk.commit(a="ours", b="ours", new="ours", d__new="side")
        assert "CONFLICT" in desk.git("merge", "side", status=1)
        before = desk.files(), desk.git("status", "--porcelain")
        said = desk.pipe("add", "data", status=1)
        assert "\n  data/a\n  data/b (deleted there)\n  data/new\n" in said
        assert (desk.files(), desk.git("status", "--porcelain")) == before
        command = said[said.index("`gitpipe get-file") + 1 :].partition("`")[0]
        desk.pipe(*command.replace("FILE", "a").split()[1:])
        assert "data/a\n" not in desk.pipe("add", "data", status=1)
        desk.pipe("add", "--force", "data")
        desk.git("commit", "-qm", "both")
        assert held(desk) == desk.files()
        assert (held(desk)["a"], held(desk)["b"], held(desk)["new"]) == ("side", "ours", "ours")

    def test_theirs_of_a_branch_that_can_be_no_repo(self, desk: Desk, sh: Shell) -> None:
        desk.commit(a="ours")
        desk.git("branch", "-m", "side", "team/side")
        desk.git("merge", "team/side", status=1)
        said = desk.pipe("add", "data", status=1)
        command = said[said.index("`dvc get") + 1 :].partition("`")[0]
        sh(command.replace("FILE", "a"), desk.top)
        desk.pipe("add", "data")
        assert desk.files()["a"] == "side"

    def test_many_clashes(self, desk: Desk) -> None:
        many = {f"m{number:02}": "1" for number in range(12)}
        desk.git("switch", "-q", "side")
        desk.commit(**many)
        desk.git("switch", "-q", "training")
        desk.commit(**dict.fromkeys(many, "2"))
        desk.git("merge", "side", status=1)
        assert "\n  data/m09\n  and 2 more\n" in desk.pipe("add", "data", status=1)

    def test_file_against_folder(self, desk: Desk) -> None:
        """What stands in the way of the other side's file is named, and stays with --force."""
        desk.commit(new__inside="ours")
        desk.git("merge", "side", status=1)
        assert "\n  data/new\n" in desk.pipe("add", "data", status=1)
        desk.pipe("add", "--force", "data")
        assert desk.files()["new/inside"] == "ours"
        assert desk.files()["a"] == "side"

    def test_given_up(self, desk: Desk) -> None:
        """After add and `merge --abort` nothing of ours is gone."""
        desk.commit(c="ours")
        desk.git("merge", "side", status=1)
        desk.write(late="l")
        desk.pipe("add", "data")
        desk.git("merge", "--abort")
        desk.git("switch", "-q", "training")
        assert (desk.files()["c"], desk.files()["late"]) == ("ours", "l")


class TestStaged:
    @pytest.mark.parametrize("command", ["cherry-pick -n side", "merge -q --squash side", "checkout side -- data.dvc"])
    def test_comes_into_data(self, desk: Desk, command: str) -> None:
        desk.write(c="ours", mine="ours")
        (desk.data / "z").unlink()
        desk.git(*command.split())
        assert "taken from the other side: data/a and 3 more\n" in desk.pipe("add", "data")
        assert desk.files() == MERGED
        assert "(0 added, 0 changed, 0 deleted)" in desk.pipe("add", "data"), "add twice is as ever"
        desk.git("commit", "-qm", "picked")
        assert held(desk) == desk.files() == MERGED

    def test_what_is_changed_here_too_is_named(self, desk: Desk) -> None:
        desk.write(a="ours")
        desk.git("cherry-pick", "-n", "side")
        said = desk.pipe("add", "data", status=1)
        assert "\n  data/a\n" in said
        assert desk.files()["a"] == "ours"
        desk.pipe("add", "--force", "data")
        assert (desk.files()["a"], desk.files()["new"]) == ("ours", "side")
        assert desk.kept() == {}

    def test_not_what_was_added_here(self, desk: Desk) -> None:
        """A pointer that an add staged, but was killed before it noted that, is no commit's."""
        stamp = desk.top / ".git/gitpipe-stamp.json"
        before = stamp.read_bytes()
        desk.write(a="ours", more="ours")
        desk.pipe("add", "data")
        stamp.write_bytes(before)
        desk.write(a="ours again")
        (desk.data / "more").unlink()
        assert "other side" not in desk.pipe("add", "data")
        assert desk.files()["a"] == "ours again"
        assert "more" not in desk.files()

    def test_where_data_is_another_branch_s(self, desk: Desk) -> None:
        """Refused as ever, before anything is brought."""
        desk.git("-c", "core.hooksPath=/dev/null", "switch", "-q", "attributes")
        desk.git("-c", "core.hooksPath=/dev/null", "checkout", "side", "--", "data.dvc")
        before = desk.files()
        assert "data/ holds the files of training" in desk.pipe("add", "data", status=1)
        assert desk.files() == before
