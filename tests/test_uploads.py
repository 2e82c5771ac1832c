"""Blobs go before commits: what is brought to the DVC remote for a push, with real git and real DVC."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gitpipe.errors import BadData, GitpipeError
from gitpipe.project import open_project
from gitpipe.uploads import PushedRef

from .conftest import Shell
from .lab import Lab


@pytest.fixture
def remote(lab: Lab, tmp_path: Path) -> Path:
    """The lab's default DVC remote, a folder."""
    folder = tmp_path / "storage"
    folder.mkdir()
    (lab.root / ".dvc").mkdir()
    (lab.root / ".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {folder}\n")
    return folder


def held(remote: Path) -> int:
    return sum(path.is_file() for path in (remote / "files/md5").glob("??/*"))


def push(lab: Lab, *shas: str, old: str = "", remote: str = "") -> int:
    return lab.project.push_blobs([PushedRef(sha, old) for sha in shas], remote)


def test_a_clone_can_pull_with_dvc_what_was_pushed(lab: Lab, remote: Path, tmp_path: Path, sh: Shell) -> None:
    lab.data("training", {"a.csv": "1", "deep/b.csv": "2"})
    head = lab.data("training", {"a.csv": "one"})
    assert push(lab, head) == 5  # three files, two listings: of both commits, and each once
    assert push(lab, head) == 0
    assert held(remote) == 5
    lab.git("clone", "-q", "--branch", "training", str(lab.root), str(tmp_path / "clone"))
    sh(f"dvc remote add -q -d store {remote} && dvc pull -q", tmp_path / "clone")
    assert (tmp_path / "clone/data/a.csv").read_text() == "one"


def test_only_what_the_other_side_lacks_is_looked_at(lab: Lab, remote: Path) -> None:
    first = lab.data("training", {"a": "1"})
    second = lab.data("training", {"a": "2"})
    assert push(lab, second, old=first) == 2
    assert push(lab, second, old="1" * 40) == 2  # what it has there is unknown here: all is looked at
    third = lab.data("training", {"a": "3"})
    lab.git("update-ref", "refs/remotes/origin/training", third)
    lab.git("update-ref", "refs/remotes/origin2/training", first)
    assert push(lab, third, remote="origin") == 0
    assert push(lab, third, remote="origin2") == 2
    assert push(lab, "0" * 40) == 0  # the ref is deleted


def test_outputs_go_with_their_datum_index_and_merges_with_both_sides(lab: Lab, remote: Path) -> None:
    lab.data("training", {"a": "1"})
    lab.pipeline("copy", {"training": "/*"})
    lab.run()
    assert push(lab, lab.head("copy")) == 4  # a file, its listing, a segment of the index, its listing
    base = lab.data("side", {"x": "0"})
    assert push(lab, base) == 2
    one = lab.data("side", {"x": "0", "only": "here"})
    tree = lab.git("rev-parse", f"{base}^{{tree}}")
    merge = lab.git("commit-tree", "-p", base, "-p", one, "-m", "as it was", tree)
    assert push(lab, merge, old=base) == 2


def test_without_a_remote_there_is_nothing_to_do(lab: Lab) -> None:
    assert push(lab, lab.data("training", {"a": "1"})) == 0


def test_a_worktree_without_a_remote_takes_that_of_another(lab: Lab, remote: Path, tmp_path: Path) -> None:
    from gitpipe.project import open_project

    head = lab.data("training", {"a": "1"})
    lab.git("worktree", "add", "-q", str(tmp_path / "training"), "training")
    assert open_project(tmp_path / "training").push_blobs([PushedRef(head)]) == 2


def test_a_missing_blob_is_a_failure_unless_the_remote_has_it(lab: Lab, remote: Path) -> None:
    head = lab.data("training", {"a": "1"})
    cache = lab.project.blobs.cache / "files"
    shutil.move(cache, lab.root / "aside")
    with pytest.raises(BadData, match=r"blob [0-9a-f]{32}.dir is neither in the cache .* nor on DVC remote store: "):
        push(lab, head)
    assert not held(remote)
    shutil.move(lab.root / "aside", cache)
    assert push(lab, head) == 2
    shutil.rmtree(cache)
    assert push(lab, head) == 0


def test_a_damaged_blob_is_not_pushed(lab: Lab, remote: Path) -> None:
    head = lab.data("training", {"a": "12345"})
    path = Path(lab.project.blobs.path_of(lab.project.blobs.put_bytes(b"12345")))
    path.chmod(0o644)
    path.write_text("123")
    path.chmod(0o444)
    with pytest.raises(BadData, match=f"blob {path.parent.name}{path.name} .* is damaged"):
        push(lab, head)
    assert not held(remote)


def test_a_remote_that_cannot_be_written_is_one_line(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (lab.root / ".dvc").mkdir()
    config = f"['remote \"store\"']\n    url = {tmp_path}/file/below\n    verify = true\n"
    (lab.root / ".dvc/config").write_text(config)
    head = lab.data("training", {"a": "1"})
    with pytest.raises(GitpipeError, match="cannot push to DVC remote store: ") as failed:
        push(lab, head)
    assert "\n" not in str(failed.value)
    assert not list((lab.project.blobs.cache / "gitpipe-tmp").iterdir())


def server(lab: Lab, tmp_path: Path) -> Lab:
    """A bare repository to which the data of the lab and a pipeline were pushed, and none of the files."""
    lab.data("training", {"a": "1\n", "b": "2\n"})
    lab.pipeline("copy", {"training": "/*"})
    lab.git("init", "-q", "--bare", str(tmp_path / "far.git"))
    lab.git("push", "-q", "--no-verify", str(tmp_path / "far.git"), "training", "__spec__")
    far = Lab(tmp_path / "far.git")
    assert far.project.pipelines.trust(True, lambda _: True)
    return far


def test_a_bare_repository_fetches_from_the_remote_that_its_owner_named(lab: Lab, remote: Path, tmp_path: Path) -> None:
    """I12: the owner says where from, not who pushed; until then the advice is one that can be followed there."""
    far = server(lab, tmp_path)
    (line,) = far.ran()
    assert line.endswith(": `git config gitpipe.remote URL` names the DVC remote that has it")
    far.git("config", "gitpipe.remote", "../storage")
    (line,) = far.ran()
    assert line.endswith(f": `dvc push` it to {remote} from where it is")
    assert push(lab, lab.head("training")) == 3
    assert far.ran() == ["copy: 2 + 0 / 2 success"]
    assert far.files("copy") == {"a": "1\n", "b": "2\n"}


def test_the_runner_fetches_as_a_command_does(lab: Lab, remote: Path, tmp_path: Path, sh: Shell) -> None:
    """It works from the git dir, and goes by the configuration of the main working tree."""
    far = server(lab, tmp_path)
    assert push(lab, lab.head("training")) == 3
    sh("git clone -q -b training far.git clone && git -C clone branch -q __spec__ origin/__spec__", tmp_path)
    here = Lab(tmp_path / "clone")
    sh(f"dvc remote add -q --local -d s {remote}", here.root)
    assert here.project.pipelines.trust(True, lambda _: True)
    runner = open_project(here.root / ".git")
    assert [job.state for job in runner.run()] == ["success"]
    assert here.files("copy") == {"a": "1\n", "b": "2\n"} and not far.head("copy")


def test_a_runner_that_lives_takes_up_the_remote(lab: Lab, remote: Path, tmp_path: Path) -> None:
    far = server(lab, tmp_path)
    assert push(lab, lab.head("training")) == 3
    project = far.project
    assert [job.state for job in project.run()] == ["failed"]
    far.git("config", "gitpipe.remote", str(remote))
    assert [job.state for job in project.run()] == ["success"]
