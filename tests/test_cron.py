"""Cron inputs: who ticks, when, and never twice.  The time is an argument, but for the one test with a real runner."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gitpipe import nudges
from gitpipe.errors import BadSpec, NotFound, Refused
from gitpipe.repo import HEADS, RefUpdate
from gitpipe.schedule import moment, rfc3339
from tests.conftest import Shell
from tests.lab import EPOCH, Lab, new_lab

PATIENCE = 120.0
START = rfc3339(EPOCH)
LIST = "for f in /pfs/tick/*; do basename $f; done > /pfs/out/seen"


def create(lab: Lab, name: str = "p", script: str = LIST, **cron: Any) -> list[str]:
    """A pipeline with one cron input; every ten seconds since the lab's epoch if nothing else is said."""
    given = {"name": "tick", "spec": "@every 10s", "start": START, **cron}
    given = {key: value for key, value in given.items() if value is not None}
    path = lab.write_spec(name, {"none": "/"}, script, input={"cron": given})
    return lab.project.pipelines.create([str(path)])


def ticks(lab: Lab, branch: str = "p_tick") -> list[str]:
    return [c.subject.removeprefix("tick ") for c in lab.commits(branch) if c.subject.startswith("tick ")]


def advance(lab: Lab, seconds: float) -> float | None:
    """Let it be so many seconds after the epoch, for a process that is new; when the next tick is due, after it too."""
    project = lab.project
    due = project.clock.advance(EPOCH + seconds)
    project.repo.close()
    assert not project.clock.blocked
    return None if due is None else due - EPOCH


def test_a_tick_is_a_commit_with_a_file_named_by_its_time(lab: Lab) -> None:
    assert create(lab) == ["p: created"]
    assert lab.files("p_tick") == {} and sorted(r.name for r in lab.project.data.list_repo()) == ["p", "p_tick"]
    assert advance(lab, 9) == 10 and not ticks(lab)
    assert advance(lab, 10) == 20
    assert lab.files("p_tick") == {"2023-11-14T22:13:30Z": ""}
    commit = lab.commits("p_tick")[-1]
    assert commit.time == commit.author_time == EPOCH + 10 and commit.author == "gitpipe <gitpipe@localhost>"
    assert commit.message.endswith("\n\nTick: 2023-11-14T22:13:30Z\n")
    assert advance(lab, 10) == 20 and len(ticks(lab)) == 1, "the same moment again"
    assert advance(lab, 20) == 30
    assert list(lab.files("p_tick")) == ["2023-11-14T22:13:30Z", "2023-11-14T22:13:40Z"]


def test_each_tick_is_a_datum_unless_it_overwrites(lab: Lab) -> None:
    create(lab, script="ls /pfs/tick > /pfs/out/$(ls /pfs/tick)")
    create(lab, "q", overwrite=True)
    for seconds in (10, 20):
        advance(lab, seconds)
        lab.project.reconciler.plan()
    lab.run()
    first, second = "2023-11-14T22:13:30Z", "2023-11-14T22:13:40Z"
    assert [c.subject for c in lab.commits("p")][:2] == [
        "p: 1 processed, 0 skipped of 1 datum",
        "p: 1 processed, 1 skipped of 2 datums",
    ]
    assert {first, second} <= lab.files("p").keys()
    assert [c.subject for c in lab.commits("q")][:2] == ["q: 1 processed, 0 skipped of 1 datum"] * 2
    assert list(lab.files("q_tick")) == ticks(lab, "q_tick")[-1:]


def test_what_was_missed_is_one_tick(lab: Lab) -> None:
    """However long no runner lived; and it falls on the schedule, so that all who look late make the same one."""
    create(lab)
    assert advance(lab, 1_000_007) == 1_000_010
    assert ticks(lab) == [rfc3339(EPOCH + 1_000_000)]
    create(lab, "d", spec="@daily")
    advance(lab, 1_000_007)
    assert ticks(lab, "d_tick") == ["2023-11-26T00:00:00Z"]


def test_the_clock_is_put_back(lab: Lab) -> None:
    create(lab)
    advance(lab, 100)
    before = lab.head("p_tick")
    for seconds in (50, 0, -5000, 100, 109):
        assert advance(lab, seconds) == 110
    assert lab.head("p_tick") == before
    with pytest.raises(Refused, match="later than now: see to the clock"):
        lab.project.clock.run_cron("p", EPOCH + 50)


def test_two_machines_make_the_same_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I4: also where one of them looks later, and has another user and time zone."""
    monkeypatch.setenv("GITPIPE", "0")
    monkeypatch.setenv("GIT_COMMITTER_DATE", f"{EPOCH} +0000")
    monkeypatch.setenv("GIT_AUTHOR_DATE", f"{EPOCH} +0000")
    heads = set()
    for name, zone, seconds in (("one", "Asia/Kolkata", 30), ("two", "America/New_York", 39)):
        lab = new_lab(tmp_path / name)
        create(lab)
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        monkeypatch.setenv("GIT_AUTHOR_NAME", zone)
        advance(lab, seconds)
        heads.add(lab.head("p_tick"))
        monkeypatch.setenv("GIT_AUTHOR_NAME", "Ada")
    monkeypatch.undo()
    time.tzset()
    assert len(heads) == 1


def test_without_start_it_counts_from_the_creation(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_COMMITTER_DATE", f"{EPOCH + 3} +0000")
    create(lab, start=None)
    assert advance(lab, 12) == 13
    assert advance(lab, 13) == 23 and ticks(lab) == [rfc3339(EPOCH + 13)]


def test_a_start_in_the_future_is_waited_for(lab: Lab) -> None:
    create(lab, start=rfc3339(EPOCH + 1000))
    assert advance(lab, 100) == 1010 and not ticks(lab)
    assert advance(lab, 1010) == 1020 and len(ticks(lab)) == 1


def test_several_at_once_make_each_tick_once(lab: Lab) -> None:
    """I2 of ticks: eight threads with projects of their own, and the same five moments."""
    create(lab)
    together = threading.Barrier(8, timeout=PATIENCE)

    def look() -> None:
        clock = lab.project.clock
        for step in range(1, 6):
            together.wait()
            clock.advance(EPOCH + 10 * step)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ticks(lab) == [rfc3339(EPOCH + 10 * step) for step in range(1, 6)]


def test_killed_before_the_branch_moves(lab: Lab) -> None:
    create(lab)
    code = (
        "from gitpipe.project import open_project; from pathlib import Path; "
        f"open_project(Path('.')).clock.advance({EPOCH + 10})"
    )
    env = {**os.environ, "GITPIPE_KILL_AT": "before-tick"}
    done = subprocess.run([sys.executable, "-c", code], cwd=lab.root, env=env, capture_output=True)
    assert done.returncode == -signal.SIGKILL and not ticks(lab)
    advance(lab, 10)
    assert len(ticks(lab)) == 1
    lab.git("fsck", "--strict")


def test_stopped_and_untrusted_pipelines_do_not_tick(lab: Lab) -> None:
    """I12"""
    create(lab)
    lab.project.pipelines.stop("p")
    assert advance(lab, 100) is None and not ticks(lab)
    assert lab.project.status().clocks == ("p, tick: its pipeline is stopped",)
    with pytest.raises(Refused, match="start-pipeline p"):
        lab.project.pipelines.run_cron("p")
    lab.project.pipelines.start("p")
    lab.git("config", "--unset-all", "gitpipe.trusted")
    assert advance(lab, 100) is None and not ticks(lab)
    assert lab.project.status().clocks == ("p, tick: its pipeline is not trusted here",)
    with pytest.raises(Refused, match="gitpipe trust"):
        lab.project.pipelines.run_cron("p")
    lab.project.trust(True, lambda _: True)
    assert advance(lab, 100) == 110 and len(ticks(lab)) == 1


def test_run_cron_ticks_now(lab: Lab) -> None:
    create(lab)
    for _ in range(2):
        lab.project.clock.run_cron("p", EPOCH + 3.7)
    assert ticks(lab) == [rfc3339(EPOCH + 3)]
    assert lab.project.clock.run_cron("p", EPOCH + 3) == [f"p_tick: tick {rfc3339(EPOCH + 3)} is there already"]
    assert advance(lab, 12) == 13, "@every counts from the newest tick, whoever made it"
    lab.data("a", {"x": "1"})
    lab.pipeline("q", {"a": "/"})
    for name, error, text in [("q", Refused, "has no cron input"), ("nope", NotFound, "does not exist")]:
        with pytest.raises(error, match=text):
            lab.project.pipelines.run_cron(name)


def test_beside_other_inputs(lab: Lab) -> None:
    """The usual way to run something each night on all that is there."""
    lab.data("a", {"x": "1", "y": "2"})
    path = lab.write_spec(
        "p",
        {"a": "/"},
        "cat /pfs/a/* /pfs/tick/* > /pfs/out/all",
        input={
            "cross": [
                {"pfs": {"repo": "a", "glob": "/"}},
                {"cron": {"name": "tick", "spec": "@yearly", "start": START, "overwrite": True}},
            ]
        },
    )
    lab.project.pipelines.create([str(path)])
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    (made,) = lab.made("p")
    assert set(made.sources) == {"a", "p_tick"} and lab.files("p") == {"all": "12"}
    assert len(ticks(lab)) == 1, "`gitpipe run` makes up for what was missed, once"
    assert lab.ran() == []


def test_gitpipe_run_comes_to_an_end_beside_a_fast_clock(lab: Lab) -> None:
    create(lab, spec="@every 1s", script=f"sleep 1.2; {LIST}")
    lab.run()
    assert len(ticks(lab)) == 1


def test_the_repo_comes_and_goes_with_its_pipeline(lab: Lab, tmp_path: Path) -> None:
    create(lab)
    create(lab, "q", repo="clock")
    lab.project.data.create_repo("mine")
    create(lab, "r", repo="mine")
    for _ in range(2):
        advance(lab, 10)
    assert set(lab.files("mine")) == {rfc3339(EPOCH + 10)}
    with pytest.raises(Refused, match="p_tick is read by pipeline p"):
        lab.project.data.delete_repo("p_tick")
    lab.git("worktree", "add", "-q", str(tmp_path / "tree"), "p_tick")
    with pytest.raises(Refused, match="p_tick is checked out in"):
        lab.project.pipelines.delete("p")
    lab.git("worktree", "remove", "--force", str(tmp_path / "tree"))
    lab.pipeline("reader", {"clock": "/*"})
    said = [lab.project.pipelines.delete(name) for name in ("p", "q", "r")]
    assert said == [["p: deleted, and with it p_tick"], ["q: deleted"], ["r: deleted"]]
    assert not lab.head("p_tick")
    assert lab.head("clock"), "somebody else reads it"
    assert lab.head("mine"), "it was there before"
    assert advance(lab, 1000) is None


def test_a_cron_input_that_an_update_drops(lab: Lab) -> None:
    """Its repo stays as long as the pipeline, and longer where another one reads it."""
    create(lab)
    advance(lab, 10)
    for name in ("tock", "tack"):
        cron = {"name": name, "spec": "@every 10s", "start": START}
        path = lab.write_spec("p", {"none": "/"}, LIST, input={"cron": cron})
        plan = lab.project.pipelines.plan_update([str(path)])
        said = lab.project.pipelines.update([str(path)])
        old = "p_tick" if name == "tock" else "p_tock"
        assert said == [f"p: {old} gets no more ticks of it and stays: `gitpipe delete-repo {old}`", "p: updated"]
        assert plan.notes == said[:1]
        advance(lab, 20)
    assert [len(ticks(lab, f"p_{name}")) for name in ("tick", "tock", "tack")] == [1, 1, 1]
    lab.git("branch", "copy", "p_tick")
    lab.pipeline("reader", {"p_tock": "/*"})
    assert lab.project.pipelines.delete("p", keep_repo=True) == [
        "p: deleted, and with it p_tack, p_tick (its repo is kept)"
    ]
    assert lab.head("p_tock") and lab.head("copy") and not lab.head("p_tick") and not lab.head("p_tack")
    create(lab, script="ls /pfs/tick > /pfs/out/seen")
    advance(lab, 30)
    assert list(lab.files("p_tick")) == [rfc3339(EPOCH + 30)], "no old ticks"


def test_what_cannot_be_is_refused_and_nothing_is_made(lab: Lab) -> None:
    create(lab)
    before = lab.git("for-each-ref")
    with pytest.raises(Refused, match="cron repo p is the output of a pipeline"):
        create(lab, "q", repo="p")
    for repo in ("main", "__spec__"):
        with pytest.raises(Refused, match=f"branch {repo} is not a data repo"):
            create(lab, "q", repo=repo)
    with pytest.raises(BadSpec, match="expected a schedule"):
        create(lab, "q", spec="@never")
    assert lab.git("for-each-ref") == before


def test_a_tick_replaces_ticks_only(lab: Lab) -> None:
    """A repo of data is refused, also under the default name; and what somebody puts beside the ticks stays."""
    tick = rfc3339(EPOCH)
    for branch, files in {"p_tick": {"x": "1"}, "odd": {tick: "not empty"}, "deep": {f"d/{tick}": ""}}.items():
        lab.data(branch, files)
        before = lab.git("for-each-ref")
        repo = None if branch == "p_tick" else branch
        with pytest.raises(Refused, match=f'repo {branch} holds files that are no ticks: give .* tick another "repo"'):
            create(lab, repo=repo, overwrite=True)
        with pytest.raises(Refused, match="no ticks"):
            path = str(lab.root / "specs" / "p.json")
            lab.project.pipelines.plan_update([path], create=True)
        assert lab.git("for-each-ref") == before
    lab.data("clock", {tick: ""})
    create(lab, repo="clock", overwrite=True)
    advance(lab, 10)
    (lab.root / "x").write_text("1")
    lab.project.data.put_file(["clock", "x"], [str(lab.root / "x")])
    advance(lab, 20)
    assert lab.files("clock") == {"x": "1", rfc3339(EPOCH + 20): ""}
    create(lab, "q", overwrite=True)
    lab.project.data.put_file(["q_tick", "x"], [str(lab.root / "x")])
    assert lab.project.pipelines.update([str(lab.root / "specs" / "q.json")]) == ["q: unchanged"], "made for its ticks"
    advance(lab, 30)
    assert lab.files("q_tick") == {"x": "1", rfc3339(EPOCH + 30): ""}


def test_a_dirty_working_tree_holds_the_tick_back(lab: Lab, tmp_path: Path) -> None:
    """I6: it is not touched, status says so, and once it is clean the tick comes."""
    create(lab)
    advance(lab, 10)
    tree = tmp_path / "tree"
    lab.git("worktree", "add", "-q", str(tree), "p_tick")
    lab.project.checkouts.refresh(tree)
    (tree / ".gitignore").write_text("mine\n")
    project = lab.project
    assert project.clock.advance(EPOCH + 20) is None, "looked at again now and then, not at once"
    assert "is checked out in" in project.clock.blocked["p_tick"] and len(ticks(lab)) == 1
    (tree / ".gitignore").write_text("/data\n")
    assert advance(lab, 20) == 30
    assert len(list((tree / "data").iterdir())) == 2, "a clean one moves along"


def test_a_tick_that_was_reverted_or_reset_away(lab: Lab) -> None:
    create(lab)
    for seconds in (10, 20):
        advance(lab, seconds)
    first = lab.commits("p_tick")[-2].sha
    lab.git("update-ref", "refs/heads/p_tick", first)
    assert advance(lab, 29) == 30
    assert ticks(lab) == [rfc3339(EPOCH + 10), rfc3339(EPOCH + 20)]


def test_a_deleted_pipeline_gets_no_tick_any_more(lab: Lab) -> None:
    """A tick that was being made when `__spec__` moved does not bring the branch back."""
    create(lab)
    project = lab.project
    (cron,) = [c for _, c in project.clock._crons(project.store.head())]
    moved: list[bool] = []
    sync = project.repo.sync

    def meanwhile() -> None:
        sync()
        if not moved:
            moved.append(True)
            lab.project.pipelines.delete("p")

    project.repo.sync = meanwhile  # type: ignore[method-assign]
    assert project.clock._strike(cron, EPOCH + 10) is None
    assert moved and not lab.head("p_tick")


def test_a_branch_that_is_gone_comes_back_with_the_next_tick(lab: Lab) -> None:
    """As in a clone that took `__spec__` only."""
    create(lab)
    project = lab.project
    assert project.repo.update_refs([RefUpdate(HEADS + "p_tick", None, lab.head("p_tick"))], "test")
    assert advance(lab, 10) == 20 and list(lab.files("p_tick")) == [rfc3339(EPOCH + 10)]
    lab.project.pipelines.delete("p")
    assert not lab.head("p_tick")


# ---------------------------------------------------------------- real time


def test_a_runner_in_the_foreground(scratch: Path, sh: Shell) -> None:
    """`gitpipe run --watch` ticks, runs, tells of each job, and ends cleanly when it is asked to."""
    sh("gitpipe init && git config gitpipe.engine local", cwd=scratch)
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["sh", "-c", "ls /pfs/tick > /pfs/out/seen"]},
        "input": {"cron": {"name": "tick", "spec": "@every 1s", "overwrite": True}},
        "code": [],
    }
    (scratch / "p.json").write_text(json.dumps(spec))
    sh("GITPIPE=0 gitpipe create-pipeline -f p.json", cwd=scratch)
    assert "needs a runner: `gitpipe run --watch`" in sh("gitpipe status", cwd=scratch)
    watch = subprocess.Popen(
        [sys.executable, "-I", "-m", "gitpipe", "run", "--watch"],
        cwd=scratch,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        assert watch.stdout is not None
        assert watch.stdout.readline() == "watching; Ctrl-C ends\n"
        for _ in range(2):
            assert watch.stdout.readline() == "p: 1 + 0 / 1 success\n"
        assert re.search(r"Cron: p, tick: (next tick at \S+Z|a tick is due)\n", sh("gitpipe status", cwd=scratch))
        second = subprocess.Popen(
            [sys.executable, "-I", "-m", "gitpipe", "run", "--watch"],
            cwd=scratch,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert second.stdout is not None and "waiting for its turn" in second.stdout.readline()
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(PATIENCE) == 0 and "Ended." in watch.stdout.read()
        assert second.stdout.readline() == "watching; Ctrl-C ends\n", "it was its turn"
        assert second.stdout.readline() == "p: 1 + 0 / 1 success\n"
        second.send_signal(signal.SIGINT)
        assert second.wait(PATIENCE) == 0 and "Ended." in second.stdout.read()
    finally:
        for each in (watch, second):
            each.kill()
            each.wait()
    assert not nudges.runner_lives(scratch / ".git") and nudges.marked(scratch / ".git") is None
    named = sh("git log --reverse --format=%s p_tick --", cwd=scratch).split("\n")[1:-1]
    assert len(named) == len(set(named)) >= 3
    times = [moment(name.removeprefix("tick ")) for name in named]
    assert times == sorted(times)
