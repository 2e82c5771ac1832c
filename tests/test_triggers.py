"""Triggers: a branch moves up to another one when a condition holds, by a pipeline's input or by create-branch."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitpipe.errors import BadName, BadSpec, Refused
from gitpipe.inputs import Backlog, Trigger
from tests.lab import EPOCH, Lab

HOUR = 3600


def create(lab: Lab, name: str = "p", repo: str = "a", watched: str = "master", **conditions: Any) -> None:
    """A pipeline that copies what the branch which its trigger moves holds."""
    trigger = {"branch": watched, **conditions}
    path = lab.write_spec(name, {repo: "/*"}, input={"pfs": {"repo": repo, "glob": "/*", "trigger": trigger}})
    lab.project.pipelines.update([str(path)], create=True)


def look(lab: Lab, seconds: float = 10**6) -> float | None:
    """Let it be so many seconds after the epoch; when the next move is due, after it too."""
    project = lab.project
    due = project.clock.advance(EPOCH + seconds)
    project.repo.close()
    assert not project.clock.blocked, project.clock.blocked
    return None if due is None else due - EPOCH


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("trigger", "backlog", "now", "moves"),
    [
        (Trigger(commits=3), Backlog(2, 10**9, 0), 10**9, False),
        (Trigger(commits=3), Backlog(3, 0, 0), 0, True),
        (Trigger(size="1MB"), Backlog(1, 999_999, 0), 10**9, False),
        (Trigger(size="1MB"), Backlog(1, 1_000_000, 0), 0, True),
        (Trigger(cron_spec="@hourly"), Backlog(1, 0, HOUR + 1), 2 * HOUR - 1, False),
        (Trigger(cron_spec="@hourly"), Backlog(1, 0, HOUR + 1), 2 * HOUR, True),
        (Trigger(cron_spec="@every 10s"), Backlog(1, 0, 100), 110, True),
        (Trigger(commits=3, size="1MB"), Backlog(3, 0, 0), 0, True),
        (Trigger(commits=3, size="1MB", all=True), Backlog(3, 0, 0), 0, False),
        (Trigger(commits=3, size="1MB", all=True), Backlog(3, 10**6, 0), 0, True),
        (Trigger(commits=2, cron_spec="@hourly", all=True), Backlog(2, 0, 1), HOUR - 1, False),
        (Trigger(commits=2, cron_spec="@hourly", all=True), Backlog(2, 0, 1), HOUR, True),
    ],
)
def test_when_a_trigger_holds(trigger: Trigger, backlog: Backlog, now: float, moves: bool) -> None:
    assert trigger.holds(backlog, now) is moves


@given(
    st.builds(
        Trigger,
        size=st.sampled_from(["", "10"]),
        commits=st.integers(1, 3),
        cron_spec=st.sampled_from(["", "@every 10s"]),
        all=st.booleans(),
    ),
    st.builds(Backlog, st.just(0), st.just(0), st.just(0)),
    st.integers(0, 10**9),
)
def test_nothing_new_moves_nothing(trigger: Trigger, backlog: Backlog, now: int) -> None:
    assert not trigger.holds(backlog, now)


def test_how_it_is_shown() -> None:
    assert Trigger("staging", "1MB", 3).describe() == "staging on Size(1MB) or Commits(3)"
    assert Trigger("staging", "1MB", 0, "@daily", True).describe() == "staging on Cron(@daily) and Size(1MB)"


# ---------------------------------------------------------------- of an input


def test_a_pipeline_runs_on_every_third_commit(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    create(lab, commits=3)
    assert lab.git("branch", "--list", "a@*", "--format=%(refname:short)") == "a@p-trigger-1"
    assert [(b.branch, b.trigger) for b in lab.project.branches.list("a")] == [
        ("master", ""),
        ("p-trigger-1", "master on Commits(3)"),
    ]
    assert lab.ran() == [], "one commit, and no data on the trigger's branch"
    lab.data("a", {"x": "2"})
    assert lab.ran() == []
    third = lab.data("a", {"x": "3"})
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    (made,) = lab.made("p")
    assert made.sources == {"a@p-trigger-1": third} and lab.files("p") == {"x": "3"}
    for number in range(4, 9):
        lab.data("a", {"x": str(number)})
    assert lab.ran() == ["p: 1 + 0 / 1 success"], "one job for five commits"
    assert lab.files("p") == {"x": "8"}
    assert lab.ran() == []


def test_commits_that_change_no_data_do_not_count(lab: Lab) -> None:
    lab.project.data.create_repo("a")
    create(lab, commits=2)
    lab.data("a", {"x": "1"})
    lab.data("a", None, extra={"README": "words"})
    look(lab)
    assert lab.ran() == []
    lab.data("a", {"x": "2"})
    assert lab.ran() == ["p: 1 + 0 / 1 success"]


def test_so_much_new_data(lab: Lab) -> None:
    lab.data("a", {"x": "1" * 60})
    create(lab, size="100")
    assert lab.ran() == []
    lab.data("a", {"x": "1" * 60, "y": "2" * 60})
    assert lab.ran() == ["p: 2 + 0 / 2 success"]
    lab.data("a", {"x": "1" * 60, "y": "2" * 60, "z": "3" * 60})
    assert lab.ran() == []


def test_by_the_clock(lab: Lab) -> None:
    """Counted from the first commit that was not taken yet, so that each strike moves the branch once."""
    lab.data("a", {"x": "1"}, when=0)
    create(lab, cron_spec="@every 100s")
    assert look(lab, 99) == 100 and lab.project.data.list_file(["a@p-trigger-1"]) == []
    second = lab.data("a", {"x": "2"}, when=50)
    assert look(lab, 99) == 100
    assert look(lab, 100) is None and lab.head("a@p-trigger-1") == second
    lab.data("a", {"x": "3"}, when=170)
    assert look(lab, 200) == 270 and lab.head("a@p-trigger-1") == second
    assert look(lab, 270) is None and lab.head("a@p-trigger-1") == lab.head("a")


def test_it_watches_the_branch_that_it_names(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    create(lab, commits=1, watched="staging")
    assert lab.ran() == [], "which need not be there yet"
    lab.project.branches.create(["a@staging"], "master")
    assert lab.ran() == ["p: 1 + 0 / 1 success"]


def test_on_the_output_of_a_pipeline(lab: Lab) -> None:
    """The provenance goes all the way up (I3); the second job of the first pipeline wakes the second one."""
    first = lab.data("a", {"x": "1"})
    lab.pipeline("up", {"a": "/*"})
    create(lab, "down", "up", commits=2)
    assert lab.ran() == ["up: 1 + 0 / 1 success"]
    second = lab.data("a", {"x": "2"})
    assert lab.ran() == ["up: 1 + 0 / 1 success", "down: 1 + 0 / 1 success"]
    assert first != second
    (made,) = lab.made("down")
    assert made.sources == {"a": second, "up@down-trigger-1": lab.head("up")} and lab.files("down") == {"x": "2"}


def test_found_out_anew_without_local_state(lab: Lab) -> None:
    """I1"""
    lab.data("a", {"x": "1"})
    create(lab, commits=2)
    lab.data("a", {"x": "2"})
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    before = lab.made("p")
    lab.forget()
    lab.run()
    assert lab.made("p") == before
    lab.data("a", {"x": "3"})
    lab.data("a", {"x": "4"})
    lab.forget()
    lab.run()
    assert len(lab.made("p")) == 2 and lab.files("p") == {"x": "4"}


def test_the_branch_comes_and_goes_with_its_pipeline(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    create(lab, commits=1)
    lab.run()
    with pytest.raises(Refused, match="read by pipeline p"):
        lab.project.branches.delete(["a@p-trigger-1"])
    lab.pipeline("p", {"a": "/*"})
    assert not lab.head("a@p-trigger-1"), "the input has no trigger any more"
    create(lab, commits=1)
    assert lab.head("a@p-trigger-1")
    lab.project.pipelines.delete("p")
    assert not lab.head("a@p-trigger-1") and lab.head("a")
    with pytest.raises(BadSpec, match=r"^specs/p\.json: pipeline p: input repo nope does not exist"):
        create(lab, repo="nope", commits=1)


def test_an_untrusted_pipeline_moves_no_branch(lab: Lab) -> None:
    """I12"""
    lab.data("a", {"x": "1"})
    create(lab, commits=1)
    lab.git("config", "--unset-all", "gitpipe.trusted")
    before = lab.head("a@p-trigger-1")
    look(lab)
    assert lab.head("a@p-trigger-1") == before
    lab.project.trust(True, lambda _: True)
    look(lab)
    assert lab.head("a@p-trigger-1") == lab.head("a")


def test_what_would_go_round_for_ever_is_refused(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.pipeline("up", {"a": "/*"})
    create(lab, "down", "up", commits=1)
    before = lab.git("for-each-ref")
    path = lab.write_spec("up", {"a": "/*"}, input={"pfs": {"repo": "down", "glob": "/", "trigger": {"commits": 1}}})
    with pytest.raises(BadSpec, match=r"^specs/up\.json: pipelines .* in a circle: down → up → down"):
        lab.project.pipelines.update([str(path)])
    with pytest.raises(BadSpec, match=r"in a circle: p → p"):
        create(lab, "p", "p", commits=1)
    assert lab.git("for-each-ref") == before


# ---------------------------------------------------------------- of a branch


def test_create_branch_with_a_trigger(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    branches = lab.project.branches
    branches.create(["a@staging"], "master")
    branches.create(["a@master"], trigger=Trigger("staging", commits=2))
    assert [(b.branch, b.trigger) for b in branches.list("a")] == [
        ("master", "staging on Commits(2)"),
        ("staging", ""),
    ]
    assert lab.git("log", "-1", "--format=%s", "__spec__") == "trigger a: staging on Commits(2)"
    put = lab.project.data.put_file
    put(["a@staging:y"], ["-"], stdin=io.BytesIO(b"2"))
    assert lab.ran() == []
    put(["a@staging:z"], ["-"], stdin=io.BytesIO(b"3"))
    assert lab.ran() == ["p: 2 + 1 / 3 success"], "both commits in one job"
    assert lab.head("a") == lab.head("a@staging")
    branches.create(["a@master"], "master~1")  # by hand, the trigger stays
    assert branches.list("a")[0].trigger


def test_a_trigger_is_changed_and_forgotten(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    branches = lab.project.branches
    branches.create(["a@b"], trigger=Trigger("master", commits=1))
    assert lab.files("a@b") == {}
    branches.create(["a@b"], trigger=Trigger("master", commits=5))
    head = lab.head("__spec__")
    branches.create(["a@b"], trigger=Trigger("master", commits=5))
    assert lab.head("__spec__") == head, "the same again says nothing new"
    assert branches.list("a")[1].trigger == "master on Commits(5)"
    branches.create(["a@b"], forget=True)
    assert branches.list("a")[1].trigger == ""
    branches.create(["a@b"], trigger=Trigger("master", commits=1))
    branches.delete(["a@b"])
    branches.create(["a@b"])
    look(lab)
    assert branches.list("a")[1].trigger == "" and lab.files("a@b") == {}
    branches.create(["a@b"], trigger=Trigger("master", commits=1))
    lab.project.data.delete_repo("a")
    assert lab.project.store.set_triggers(lab.head("__spec__")) == {} and not lab.head("a@b")


def test_triggers_that_are_refused(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    create(lab, commits=1)
    lab.run()
    branches = lab.project.branches
    branches.create(["a@b"], trigger=Trigger("master", commits=1))
    before = lab.git("for-each-ref")
    for words, trigger, error, text in [
        (["a@b"], Trigger("b", commits=1), Refused, "follow itself"),
        (["a@master"], Trigger("b", commits=1), Refused, "follow itself"),
        (["a@p-trigger-1"], Trigger("master", commits=1), Refused, "input of pipeline p"),
        (["p@master"], Trigger("b", commits=1), Refused, "output of a pipeline"),
        (["p@b"], Trigger("master", commits=1), Refused, "give its new branch a commit"),
    ]:
        with pytest.raises(error, match=text):
            branches.create(words, trigger=trigger)
    with pytest.raises(BadSpec, match="a trigger needs a condition"):
        branches.trigger("b", "", 0, "", True)
    with pytest.raises(BadName, match="trigger branch 'a@b'"):
        branches.trigger("a@b", "", 1, "", False)
    assert lab.git("for-each-ref") == before


def test_nobody_loses_commits_by_a_trigger(lab: Lab) -> None:
    """What was committed to the branch itself is not taken away: status says how it can go on."""
    lab.data("a", {"x": "1"})
    branches = lab.project.branches
    branches.create(["a@staging"], "master")
    branches.create(["a@master"], trigger=Trigger("staging", commits=1))
    mine = lab.data("a", {"x": "mine"})
    lab.data("a@staging", {"x": "theirs"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    assert lab.head("a") == mine
    assert [w for w in lab.project.status().warnings if "create-branch a@master --head staging" in w]
    branches.create(["a@master"], "staging")
    lab.run()
    assert not lab.project.status().warnings and lab.files("p") == {"x": "theirs"}


def test_a_trigger_that_came_from_elsewhere_moves_no_code(lab: Lab) -> None:
    """I12: whatever stands on `__spec__`."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    for branch in ("main", "p"):
        lab.git("branch", f"{branch}@b", "a")
    repo, store = lab.project.repo, lab.project.store
    trigger = Trigger("b", commits=1)
    store.put({}, {}, "odd", repo.user(), triggers={"main": trigger, "p": trigger, "__spec__": trigger})
    before = lab.git("for-each-ref")
    clock = lab.project.clock
    clock.advance(EPOCH + 10**6)
    assert lab.git("for-each-ref") == before
    assert list(clock.blocked) == ["main"] and "holds no data" in clock.blocked["main"]


def test_a_chain_of_triggers(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    branches = lab.project.branches
    branches.create(["a@three"], trigger=Trigger("two", commits=1))
    branches.create(["a@two"], trigger=Trigger("one", commits=1))
    branches.create(["a@one"], trigger=Trigger("master", commits=1))
    look(lab)
    assert {lab.head(f"a@{name}") for name in ("one", "two", "three")} == {lab.head("a")}


def test_clones_know_the_trigger(lab: Lab, tmp_path: Path) -> None:
    lab.data("a", {"x": "1"})
    lab.project.branches.create(["a@b"], trigger=Trigger("master", commits=9))
    lab.git("clone", "-q", "--bare", str(lab.root), str(tmp_path / "clone.git"))
    clone = Lab(tmp_path / "clone.git")
    assert clone.project.branches.list("a")[1].trigger == "master on Commits(9)"


def test_the_clean_working_tree_moves_along_and_the_dirty_one_stays(lab: Lab, tmp_path: Path) -> None:
    """I6"""
    lab.data("a", {"x": "1"})
    branches = lab.project.branches
    branches.create(["a@b"], "master")
    branches.create(["a@b"], trigger=Trigger("master", commits=1))
    tree = tmp_path / "tree"
    lab.git("worktree", "add", "-q", str(tree), "a@b")
    lab.project.checkouts.refresh(tree)
    lab.data("a", {"x": "1", "y": "2"})
    look(lab)
    assert {p.name for p in (tree / "data").iterdir()} == {"x", "y"}
    (tree / "data" / "mine").write_text("mine")
    (tree / "data" / "x").unlink()
    old = lab.head("a@b")
    lab.data("a", {"x": "3"})
    project = lab.project
    project.clock.advance(EPOCH)
    assert "commit it first" in project.clock.blocked["a@b"] and lab.head("a@b") == old
    assert {p.name for p in (tree / "data").iterdir()} == {"mine", "y"}


def test_a_kill_between_branch_and_working_tree_is_mended(lab: Lab, tmp_path: Path) -> None:
    lab.data("a", {"x": "1"})
    lab.project.branches.create(["a@b"], "master")
    lab.project.branches.create(["a@b"], trigger=Trigger("master", commits=1))
    tree = tmp_path / "tree"
    lab.git("worktree", "add", "-q", str(tree), "a@b")
    lab.project.checkouts.refresh(tree)
    new = lab.data("a", {"x": "1", "y": "2"})
    code = (
        "from gitpipe.project import open_project; from pathlib import Path; "
        f"open_project(Path('.')).clock.advance({EPOCH})"
    )
    env = {**os.environ, "GITPIPE_KILL_AT": "after-ref"}
    done = subprocess.run([sys.executable, "-c", code], cwd=lab.root, env=env, capture_output=True)
    assert done.returncode == -signal.SIGKILL and lab.head("a@b") == new
    assert {p.name for p in (tree / "data").iterdir()} == {"x"}
    lab.run()
    assert {p.name for p in (tree / "data").iterdir()} == {"x", "y"}
    assert lab.git("-C", str(tree), "status", "--porcelain") == ""
