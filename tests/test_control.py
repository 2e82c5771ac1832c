"""How jobs are held to limits and orders: timeouts, what is run again, what is passed over, what is caught up."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gitpipe import cli
from gitpipe.errors import BadSpec, NotFound, Refused, UsageError
from gitpipe.journal import JobState
from gitpipe.provenance import read_origin
from gitpipe.schedule import duration, spelled
from tests.conftest import ROOT, Shell
from tests.lab import Lab
from tests.test_datumviews import sleeping, states, states_or_none

PATIENCE = 180.0
"""Seconds after which what should happen does not; only a failure takes so long."""


def until(what: Callable[[], object]) -> None:
    """Wait until `what()` is true."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# ---------------------------------------------------------------- job_timeout


@pytest.mark.parametrize("text", ["1h30m", "90h", "1m30.5s", "1ms", "0.25ms", "2s", "1h1s", "0.3s"])
def test_a_duration_is_spelled_as_it_was_written(text: str) -> None:
    assert duration(spelled(duration(text))) == duration(text)
    assert spelled(duration(text)) == {"0.3s": "300ms"}.get(text, text)


def test_a_job_that_takes_too_long_is_ended_with_its_processes(lab: Lab) -> None:
    """I5: it publishes nothing, says why in one line, what it had finished is not run again; others go on."""
    lab.data("a", {"1": "quick", "2": "slow"})
    script = "if grep -q slow /pfs/a/*; then setsid sleep 987 & sleep 987; fi; cp /pfs/a/* /pfs/out"
    lab.pipeline("p", {"a": "/*"}, script, job_timeout="2s", datum_tries=3)
    lab.pipeline("below", {"p": "/*"})
    lab.pipeline("other", {"a": "/*"})
    assert sorted(lab.ran()) == [
        "below: unrunnable p failed",
        "other: 2 + 0 / 2 success",
        "p: failed timed out after 2s",
    ]
    until(lambda: not sleeping("987"))
    assert not lab.head("p") and states(lab, "p")["a:/2"] == "not run"

    def quick_one_is_done() -> bool:  # at once, but for a machine that is very busy
        return states(lab, "p")["a:/1"] in ("success", "skipped") or not lab.run()

    until(quick_one_is_done)
    lab.pipeline("p", {"a": "/*"}, script, job_timeout="1h30m")
    lab.data("a", {"1": "quick", "2": "not that"})
    assert "p: 1 + 1 / 2 success" in lab.ran()


def test_each_attempt_has_the_whole_time_and_keeps_what_was_done(lab: Lab) -> None:
    """Datums one after the other that take longer than the limit together get there by `run-pipeline`."""
    lab.data("a", {str(n): str(n) for n in range(4)})
    lab.pipeline(
        "p", {"a": "/*"}, "sleep 1.2; cp /pfs/a/* /pfs/out", job_timeout="2s", parallelism_spec={"constant": 1}
    )
    attempts = []

    def published() -> bool:
        attempts.extend(lab.run())
        return bool(lab.head("p"))

    until(published)
    assert lab.files("p") == {str(n): str(n) for n in range(4)}
    assert {job.reason for job in attempts[:-1]} == {"timed out after 2s"} and attempts[-1].skipped > 0


# ---------------------------------------------------------------- reprocess_spec


def test_every_job_runs_every_datum(lab: Lab) -> None:
    """I2: a job that has nothing to do is none all the same; each job that there is skips nothing."""
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"}, "echo ran; cp /pfs/a/* /pfs/out", reprocess_spec="every_job")
    assert lab.ran() == ["p: 2 + 0 / 2 success"]
    first = lab.head("p")
    assert lab.ran() == [] and "nothing to do" in lab.project.pipelines.run("p")[0]
    assert lab.ran() == [] and lab.head("p") == first
    lab.data("a", {"1": "1", "2": "2", "3": "3"})
    assert lab.ran() == ["p: 3 + 0 / 3 success"]
    lab.data("a", {"1": "1", "2": "2"})
    assert lab.ran() == ["p: 2 + 0 / 2 success"], "what stood there before is made again, too"
    assert [made.subject for made in lab.made("p")] == [
        "p: 2 processed, 0 skipped of 2 datums",
        "p: 3 processed, 0 skipped of 3 datums",
        "p: 2 processed, 0 skipped of 2 datums",
    ]
    assert lab.printed("p") == ["ran"] * 7 and lab.files("p") == {"1": "1", "2": "2"}
    assert set(states(lab, "p").values()) == {"success"}
    assert lab.project.pipelines.inspect("p").spec["reprocess_spec"] == "every_job"


def test_with_every_job_a_retry_goes_on_and_the_commits_are_the_same_everywhere(lab: Lab, tmp_path: Path) -> None:
    """I1, I4, I5: a second attempt is the same job, and without local state it is known as done."""
    done = tmp_path / "mended"
    lab.git("config", "gitpipe.sandbox", "none")
    lab.data("a", {"1": "1", "2": "2"})
    script = f"if grep -q 2 /pfs/a/* && ! [ -e {done} ]; then exit 1; fi; cp /pfs/a/* /pfs/out"
    lab.pipeline("p", {"a": "/*"}, script, reprocess_spec="every_job")
    assert [job.state for job in lab.run()] == ["failed"]
    done.touch()
    assert lab.ran() == ["p: 1 + 1 / 2 success"]
    assert [made.subject for made in lab.made("p")] == ["p: 2 processed, 0 skipped of 2 datums"]
    head = lab.head("p")
    lab.forget()
    lab.run()
    assert lab.head("p") == head and set(states(lab, "p").values()) <= {"success", "skipped"}
    lab.data("a", {"1": "1", "2": "2", "3": "3"})
    assert "p: 3 + 0 / 3 success" in lab.ran()


def test_every_job_is_why_a_datum_runs_again(lab: Lab) -> None:
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    lab.pipeline("p", {"a": "/*"}, reprocess_spec="every_job")
    assert lab.ran() == ["p: 2 + 0 / 2 success"]
    lab.data("a", {"1": "1", "2": "2", "3": "3"})
    lab.run()
    why = lab.project.why.explain("p")
    groups = [(group.state, group.count, group.why) for group in why.groups]
    assert ("ran", 2, ("reprocess_spec is every_job: each job runs all its datums",)) in groups
    preview = lab.project.preview.datums([str(lab.root / "specs/p.json")], "", None)
    assert [datum.state for datum in preview.datums] == ["new"] * 3
    lab.pipeline("p", {"a": "/*"})
    assert lab.ran() == ["p: 1 + 2 / 3 success"], "and back: what was done under the old rule is known"


@pytest.mark.parametrize("value", ["always", "", 1, True, ["every_job"]])
def test_other_words_for_reprocess_spec_are_refused(lab: Lab, value: object) -> None:
    with pytest.raises(BadSpec, match=r"reprocess_spec: expected .*until_success"):
        lab.pipeline("p", {"a": "/*"}, reprocess_spec=value)


def test_until_success_is_the_rule_and_no_part_of_the_record(lab: Lab) -> None:
    lab.data("a", {"1": "1"})
    lab.pipeline("p", {"a": "/*"}, reprocess_spec="until_success")
    assert "reprocess_spec" not in lab.project.pipelines.inspect("p").spec
    assert lab.ran() == ["p: 1 + 0 / 1 success"]


# ---------------------------------------------------------------- commits: every | newest


def job_states(lab: Lab, pipeline: str) -> list[str]:
    """Oldest first."""
    return [job.state for job in sorted(lab.project.journal.jobs("pipeline = ?", [pipeline]), key=lambda j: j.set_id)]


def test_with_newest_the_sets_between_are_passed_over(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Their outputs do not exist; list-job, inspect-job and status say so, a line each."""
    shas = [lab.data("a", {"x": "0"})]
    lab.pipeline("new", {"a": "/"}, commits="newest")
    lab.pipeline("all", {"a": "/"})
    lab.pipeline("below", {"new": "/"})
    lab.run()
    shas += [lab.data("a", {"x": str(n)}) for n in (1, 2, 3)]
    ran = lab.run()
    assert sorted(job.pipeline for job in ran) == ["all"] * 3 + ["below", "new"] and {j.state for j in ran} == {
        "success"
    }
    assert [made.sources["a"] for made in lab.made("new")] == [shas[0], shas[3]]
    assert [made.sources["a"] for made in lab.made("below")] == [shas[0], shas[3]]
    assert [made.sources["a"] for made in lab.made("all")] == shas
    assert job_states(lab, "new") == ["success", "superseded", "superseded", "success"]
    assert job_states(lab, "below") == ["success", "superseded", "superseded", "success"]
    assert lab.project.jobs.failures() == [] and lab.project.status().pending == ()

    where = ["-C", str(lab.root)]
    assert cli.run([*where, "list-job", "-p", "new"]) == 0
    assert capsys.readouterr().out.count("superseded") == 2
    assert cli.run([*where, "inspect-job", "new"]) == 0
    assert "Note: before it 2 older commit sets were passed over (commits: newest)" in capsys.readouterr().out
    assert cli.run([*where, "status"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(line for line in said if line.startswith("Passed over: ")) == [
        "Passed over: below: before its newest job 2 older commit sets were passed over (commits: newest)",
        "Passed over: new: before its newest job 2 older commit sets were passed over (commits: newest)",
    ]
    (first, second) = lab.project.journal.jobs("pipeline = 'new' AND state = 'superseded'")
    assert first.reason == second.reason == f"passed over for a newer commit set (a@{shas[3]})"

    lab.data("a", {"x": "4"})
    lab.run()
    assert lab.project.status().passed == ()


def test_the_setting_is_for_pipelines_that_say_nothing(lab: Lab) -> None:
    lab.git("config", "gitpipe.commits", "newest")
    lab.data("a", {"x": "0"})
    lab.pipeline("every", {"a": "/"}, commits="every")
    lab.pipeline("silent", {"a": "/"})
    lab.run()
    for n in (1, 2):
        lab.data("a", {"x": str(n)})
    lab.run()
    assert (len(lab.made("every")), len(lab.made("silent"))) == (3, 2)
    lab.git("config", "gitpipe.commits", "latest")
    with pytest.raises(UsageError, match=r"gitpipe.commits is 'latest': use every or newest"):
        lab.project.status()


def test_diamonds_stay_consistent_where_one_side_passes_over(lab: Lab) -> None:
    """I3: what joins has only sets of which both sides are, also where something else moved in between."""
    lab.data("a", {"x": "0"})
    lab.data("b", {"y": "0"})
    lab.pipeline("left", {"a": "/"}, commits="newest")
    lab.pipeline("right", {"a": "/"})
    lab.pipeline("join", {"left": "/", "right": "/", "b": "/"}, "cat /pfs/left/x /pfs/right/x /pfs/b/y > /pfs/out/z")
    lab.pipeline("end", {"join": "/", "a": "/"}, "cat /pfs/join/z /pfs/a/x > /pfs/out/z")
    lab.run()
    for n in range(1, 6):
        lab.data("a", {"x": str(n)})
        lab.data("b", {"y": str(n)})
    assert {job.state for job in lab.run()} == {"success"}
    assert lab.files("end") == {"z": "5555"}
    assert (len(lab.made("left")), len(lab.made("right"))) == (2, 6)
    place = {sha: n for n, sha in enumerate(commit.sha for commit in lab.commits("a"))}
    for pipeline in ("join", "end"):
        for made in lab.made(pipeline):
            sides = [read_origin(c.message) for c in lab.commits("left") if c.sha == made.sources["left"]]
            sides += [read_origin(c.message) for c in lab.commits("right") if c.sha == made.sources["right"]]
            stood = {ref.sha for side in sides for ref in side.provenance if ref.branch == "a"} | {made.sources["a"]}
            assert len(stood) == 1
        stands = [place[made.sources["a"]] for made in lab.made(pipeline)]
        assert stands == sorted(stands)
    # a5 with b4, and a5 with b5: the second is a set of b's own, which `left` has no part in.
    assert len(lab.made("join")) == 3 and "unrunnable" not in job_states(lab, "join")


def test_below_a_slow_pipeline_each_result_is_used_though_newer_ones_are_queued(lab: Lab, tmp_path: Path) -> None:
    """What still waits for its upstream is no reason to pass over what can run."""
    lab.git("config", "gitpipe.sandbox", "none")
    seen = tmp_path / "seen"
    lab.data("a", {"x": "0"})
    slow = f"n=$(cat /pfs/a/x); if [ $n = 2 ]; then until [ -e {seen} ]; do sleep 0.05; done; fi; cp /pfs/a/x /pfs/out"
    lab.pipeline("slow", {"a": "/"}, slow, datum_timeout="180s")
    lab.pipeline("below", {"slow": "/"}, f"[ $(cat /pfs/slow/x) = 1 ] && touch {seen}; cp /pfs/slow/x /pfs/out",
                 commits="newest")  # fmt: skip
    lab.run()
    for n in (1, 2, 3):
        lab.data("a", {"x": str(n)})
    assert {job.state for job in lab.run()} == {"success"}
    assert lab.files("below") == {"x": "3"} and seen.exists()


def test_a_newest_set_that_fails_is_what_counts(lab: Lab) -> None:
    """I5: what was passed over is not gone back to."""
    lab.data("a", {"x": "0"})
    lab.pipeline("p", {"a": "/"}, "! grep -q bad /pfs/a/x && cp /pfs/a/x /pfs/out", commits="newest")
    lab.pipeline("q", {"p": "/"})
    lab.run()
    lab.data("a", {"x": "1"})
    lab.data("a", {"x": "bad"})
    lab.run()
    assert job_states(lab, "p") == ["success", "superseded", "failed"]
    assert job_states(lab, "q") == ["success", "superseded", "unrunnable"]
    assert [p.state for p in lab.project.pipelines.list()] == ["failing", "failing"]
    assert lab.project.pipelines.run("p") == ["p: runs again"]
    lab.data("a", {"x": "2"})
    lab.run()
    assert lab.files("q") == {"x": "2"} and len(lab.made("p")) == 2


def test_without_local_state_newest_finds_its_way(lab: Lab) -> None:
    """I1"""
    lab.data("a", {"x": "0"})
    lab.pipeline("p", {"a": "/"}, commits="newest")
    lab.pipeline("q", {"p": "/", "a": "/"}, "cat /pfs/p/x /pfs/a/x > /pfs/out/x")
    lab.run()
    for n in (1, 2, 3):
        lab.data("a", {"x": str(n)})
    lab.forget()
    lab.run()
    assert len(lab.made("p")) == len(lab.made("q")) == 2 and lab.files("q") == {"x": "33"}


# ---------------------------------------------------------------- restart-datum


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))])
def test_a_datum_that_hangs_is_begun_again(lab: Lab, tmp_path: Path, engine: str) -> None:
    """It is killed with its processes and counts no try, however often that is."""
    lab.git("config", "gitpipe.sandbox", "none")
    lab.git("config", "gitpipe.engine", engine)
    lab.data("a", {"1": "hangs"})
    begun = tmp_path / "begun"
    script = f"echo x >> {begun}; if [ $(wc -l < {begun}) -le 7 ]; then sleep 986; fi; cp /pfs/a/* /pfs/out"
    lab.pipeline("p", {"a": "/*"}, script)
    worker = threading.Thread(target=lambda: lab.project.run(), daemon=True)
    worker.start()

    def times() -> int:
        return len(begun.read_text().splitlines()) if begun.exists() else 0

    for n in range(1, 8):
        until(lambda n=n: times() == n and sleeping("986"))
        (datum,) = lab.project.datums.list("p")
        named = [[], [datum.id[:12]], [f"{datum.id[:8]},{datum.id}"]][n % 3]
        assert cli.run(["-C", str(lab.root), "restart", "datum", "p", *named]) == 0
    worker.join(PATIENCE)
    (datum,) = lab.project.datums.list("p")
    assert (datum.state, datum.tries, times()) == ("success", 1, 8)
    assert lab.files("p") == {"1": "hangs"} and not sleeping("986")
    assert lab.project.jobs.inspect("p").notes == (f"datum {datum.id[:12]} was begun again by restart-datum",)


def test_what_cannot_be_restarted_is_said(lab: Lab, tmp_path: Path) -> None:
    lab.git("config", "gitpipe.sandbox", "none")
    go = tmp_path / "go"
    lab.data("a", {"1": "quick", "2": "slow"})
    script = f"if grep -q slow /pfs/a/*; then until [ -e {go} ]; do sleep 0.05; done; fi; cp /pfs/a/* /pfs/out"
    lab.pipeline("p", {"a": "/*"}, script)
    lab.project.reconciler.plan()
    with pytest.raises(Refused, match=r"of p is queued, not running.*run-pipeline p"):
        lab.project.datums.restart("p", [])
    worker = threading.Thread(target=lambda: lab.project.run(), daemon=True)
    worker.start()
    until(lambda: "success" in states_or_none(lab, "p").values())
    done = next(datum for datum in lab.project.datums.list("p") if datum.state == "success")
    with pytest.raises(Refused, match=rf"datum {done.id[:12]} \(a:/1\) is success"):
        lab.project.datums.restart("p", [done.id])
    with pytest.raises(NotFound, match="no datum 'ffff0000'"):
        lab.project.datums.restart("p", ["ffff0000"])
    with pytest.raises(NotFound, match="no job or pipeline 'q'"):
        lab.project.datums.restart("q", [])
    go.touch()
    worker.join(PATIENCE)
    with pytest.raises(Refused, match=r"of p is success, not running"):
        lab.project.datums.restart("p", [done.id])
    assert lab.files("p") == {"1": "quick", "2": "slow"}


# ---------------------------------------------------------------- stop-pipeline, start-pipeline


@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("commits", ["every", "newest"])
def test_what_was_missed_while_stopped_is_caught_up(lab: Lab, commits: str, forget: bool) -> None:
    """As `commits` says, also by what lies below; I3 for what joins it with others; I1."""
    shas = [lab.data("a", {"x": "0"})]
    lab.data("b", {"y": "0"})
    lab.pipeline("p", {"a": "/"}, commits=commits)
    lab.pipeline("q", {"p": "/"})
    lab.pipeline("c", {"a": "/"})
    lab.pipeline("join", {"p": "/", "c": "/", "b": "/"}, "cat /pfs/p/x /pfs/c/x /pfs/b/y > /pfs/out/z")
    lab.run()
    lab.project.pipelines.stop("p")
    shas += [lab.data("a", {"x": "1"})]
    lab.run()
    b = lab.data("b", {"y": "1"})
    shas += [lab.data("a", {"x": str(n)}) for n in (2, 3)]
    lab.run()
    if forget:
        lab.forget()
        lab.run()
    assert len(lab.made("p")) == 1 and len(lab.made("c")) == 4
    lab.project.pipelines.start("p")
    lab.run()
    expected = shas if commits == "every" else [shas[0], shas[3]]
    assert [made.sources["a"] for made in lab.made("p")] == expected
    assert [made.sources["a"] for made in lab.made("q")] == expected
    assert lab.files("join") == {"z": "331"} and lab.made("join")[-1].sources["b"] == b
    assert lab.project.jobs.failures() == []
    assert lab.run() == [] and len(lab.made("p")) == len(expected)


def test_a_stop_and_start_with_jobs_in_the_queue_loses_none(lab: Lab, tmp_path: Path) -> None:
    """What came to its turn while the pipeline was stopped is not forgotten."""
    lab.git("config", "gitpipe.sandbox", "none")
    begun, go = tmp_path / "begun", tmp_path / "go"
    shas = [lab.data("a", {"x": "0"})]
    wait = f"if grep -q 1 /pfs/a/x; then touch {begun}; until [ -e {go} ]; do sleep 0.05; done; fi"
    lab.pipeline("p", {"a": "/"}, f"{wait}; cp /pfs/a/x /pfs/out")
    lab.run()
    shas += [lab.data("a", {"x": str(n)}) for n in (1, 2, 3)]
    worker = threading.Thread(target=lambda: lab.project.run(), daemon=True)
    worker.start()
    until(begun.exists)
    lab.project.pipelines.stop("p")
    go.touch()
    worker.join(PATIENCE)
    assert [made.sources["a"] for made in lab.made("p")] == shas[:2], "what ran comes to its end"
    lab.project.pipelines.start("p")
    lab.run()
    assert [made.sources["a"] for made in lab.made("p")] == shas
    assert lab.run() == []


# ---------------------------------------------------------------- with the background runner


def test_commits_while_the_runner_is_at_work(scratch: Path, sh: Shell) -> None:
    """`newest`: what comes while a job runs is one job more, `wait` ends, and a stopped pipeline catches up."""
    sh("gitpipe init && git config gitpipe.engine local && gitpipe create-repo a", cwd=scratch)
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["sh", "-c", "cp /pfs/a/x /pfs/out"]},
        "input": {"pfs": {"repo": "a", "glob": "/"}},
        "commits": "newest",
        "code": [],
    }
    (scratch / "p.json").write_text(json.dumps(spec))
    sh("gitpipe create-pipeline -f p.json", cwd=scratch)
    for n in range(3):
        sh(f"echo {n} | gitpipe put-file a x -f -", cwd=scratch)
    sh("gitpipe wait --timeout 180", cwd=scratch)
    assert sh("gitpipe get-file p x", cwd=scratch) == "2\n"
    ran = sh("gitpipe list-job -p p", cwd=scratch).splitlines()[1:]
    assert all(line.rstrip().endswith(("success", "superseded")) for line in ran)
    sh("gitpipe stop-pipeline p", cwd=scratch)
    for n in (3, 4):
        sh(f"echo {n} | gitpipe put-file a x -f -", cwd=scratch)
    sh("gitpipe wait --timeout 180", cwd=scratch)
    sh("gitpipe start-pipeline p && gitpipe wait --timeout 180", cwd=scratch)
    assert sh("gitpipe get-file p x", cwd=scratch) == "4\n"


def test_a_timeout_and_a_restart_under_the_background_runner(scratch: Path, sh: Shell) -> None:
    """The job's own shell is killed and another one begun; what takes too long fails and `wait` says why."""
    sh("gitpipe init && git config gitpipe.engine local && gitpipe create-repo a", cwd=scratch)
    sh("git config gitpipe.sandbox none && echo 1 | gitpipe put-file a x -f -", cwd=scratch)
    begun = scratch / ".git" / "begun"
    script = f"echo x >> {begun}; if [ $(wc -l < {begun}) = 1 ]; then sleep 985; fi; cp /pfs/a/x /pfs/out"
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["sh", "-c", script]},
        "input": {"pfs": {"repo": "a", "glob": "/"}},
        "code": [],
    }
    (scratch / "p.json").write_text(json.dumps(spec))
    sh("gitpipe create-pipeline -f p.json", cwd=scratch)
    until(lambda: begun.exists() and sleeping("985"))
    assert "is killed and begun again" in sh("gitpipe restart-datum p", cwd=scratch)
    sh("gitpipe wait --timeout 180", cwd=scratch)
    assert sh("gitpipe get-file p x", cwd=scratch) == "1\n" and not sleeping("985")
    slow = {**spec, "transform": {"cmd": ["sleep", "984"]}, "jobTimeout": "1s"}
    (scratch / "p.json").write_text(json.dumps(slow))
    sh("gitpipe update-pipeline -f p.json", cwd=scratch)
    assert "p: timed out after 1s" in sh("gitpipe wait --timeout 180", cwd=scratch, status=3, stderr=True)
    until(lambda: not sleeping("984"))
    assert sh("gitpipe get-file p x", cwd=scratch) == "1\n"


def test_sets_of_one_pipeline_in_different_states_are_told_once_each(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe a line for each change: one that never began has no id, and was taken for the next without one."""
    lab.data("a", {"x": "0"})
    lab.pipeline("p", {"a": "/"}, "grep -q bad /pfs/a/x && exit 3; sleep 1; cp /pfs/a/x /pfs/out")
    lab.pipeline("q", {"p": "/"})
    lab.run()
    lab.data("a", {"x": "bad"})
    lab.data("a", {"x": "good"})
    assert cli.run(["-C", str(lab.root), "run"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert max(map(lines.count, lines)) <= 2, lines  # there are two sets
    assert "q: 0 + 0 / 0 unrunnable" in lines and "q: 1 + 0 / 1 success" in lines


def test_what_never_began_is_as_old_as_its_end(lab: Lab) -> None:
    """`list-job`, the newest first: one that was passed over, or stopped while it waited, has no beginning."""
    lab.data("a", {"x": "0"})
    lab.pipeline("p", {"a": "/"}, commits="newest")
    lab.run()
    for n in (1, 2, 3):
        lab.data("a", {"x": str(n)})
    lab.run()
    lab.data("a", {"x": "4"})
    lab.run()
    states = [job.state for job in lab.project.jobs.list("p")]
    assert states[0] == states[-1] == "success" and sorted(states) == ["success"] * 3 + ["superseded"] * 2


def test_a_job_whose_runner_was_killed_waits(lab: Lab) -> None:
    lab.data("a", {"x": "0"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    (row,) = lab.project.journal.jobs()
    lab.project.journal.update_job(row.seq, state=JobState.RUNNING, finished=None)
    project = lab.project
    assert [job.state for job in project.jobs.list()] == [project.jobs.inspect("p").state] == ["queued"]
    status = project.status()
    assert status.pending == ("p: queued",) and not status.well
    assert "jobs wait, and no runner is at work: `gitpipe wait` or `gitpipe run`" in status.warnings


def test_a_timeout_does_not_hide_why_datums_failed(lab: Lab) -> None:
    lab.data("a", {"x": "0"})
    lab.pipeline("p", {"a": "/"}, "exit 7", job_timeout="3s", datum_tries=10000)
    (job,) = lab.run()
    assert re.fullmatch(r"timed out after 3s; before that datum [0-9a-f]{12} failed: exit status 7", job.reason)


def test_each_state_of_a_job_has_its_sentence_in_the_docs() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    section = page[page.index("### `list-job`") : page.index("### `inspect-job")]
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `") and "--" not in line] == [
        state.value for state in JobState
    ]
