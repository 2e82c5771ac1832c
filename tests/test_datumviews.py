"""The datums of a job: what became of each, and of a job that a person stops."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from gitpipe import cli
from gitpipe.errors import NotFound, Refused
from gitpipe.views import few
from tests.lab import Lab


def states(lab: Lab, job: str) -> dict[str, str]:
    return {datum.files: datum.state for datum in lab.project.datums.list(job)}


def test_run_skipped_and_failed(lab: Lab) -> None:
    """I5: what a failed job finished is kept, and the next one skips it."""
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"}, "! grep -q bad /pfs/a/* && cp /pfs/a/* /pfs/out")
    lab.run()
    assert states(lab, "p") == {"a:/1": "success", "a:/2": "success"}
    lab.data("a", {"1": "1", "2": "bad", "3": "3"})
    lab.run()
    assert states(lab, "p") == {"a:/1": "skipped", "a:/2": "failed", "a:/3": "success"}
    failed = next(d for d in lab.project.datums.list("p") if d.state == "failed")
    details = lab.project.datums.inspect("p", failed.id[:6])
    assert "exit status 1" in details.datum.reason and details.datum.tries == 1 and details.outputs == ()
    assert [(str(f.commit), f.path, f.size) for f in details.inputs] == [(f"a@{lab.head('a')}", "2", 3)]
    lab.data("a", {"1": "1", "3": "3"})
    lab.run()
    assert states(lab, "p") == {"a:/1": "skipped", "a:/3": "skipped"}
    jobs = [job.id for job in lab.project.jobs.list("p")]
    assert len(jobs) == 3 and states(lab, jobs[-1]) == {"a:/1": "success", "a:/2": "success"}
    assert states(lab, f"p@{lab.head('p')[:10]}") == {"a:/1": "skipped", "a:/3": "skipped"}


def test_files_of_a_datum(lab: Lab) -> None:
    lab.data("a", {"x": "12", "y": "3"})
    lab.data("m", {"m": "model"})
    lab.pipeline("p", {"a": "/*", "m": "/"}, "cat /pfs/a/* /pfs/m/m > /pfs/out/$(ls /pfs/a)")
    lab.run()
    first = lab.project.datums.list("p")[0]
    details = lab.project.datums.inspect("p", first.id)
    assert first.files == "a:/x, m:/" and (first.bytes_in, first.bytes_out, first.tries) == (7, 7, 1)
    assert {(f.commit.branch if f.commit else "", f.path) for f in details.inputs} == {("a", "x"), ("m", "m")}
    assert [(f.commit, f.path, f.size) for f in details.outputs] == [(None, "x", 7)]


def test_without_local_state_the_commits_tell(lab: Lab) -> None:
    """I1"""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    lab.data("a", {"x": "1", "y": "2"})
    lab.run()
    lab.forget()
    lab.run()
    assert states(lab, "p") == {"a:/x": "skipped", "a:/y": "success"}


def test_unknown_jobs_and_datums(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"}, "false")
    lab.pipeline("q", {"p": "/*"})
    lab.run()
    datums = lab.project.datums
    for job, text in [("nope", "no job or pipeline"), ("q", "no datums"), ("p@" + "0" * 8, "no job or pipeline")]:
        with pytest.raises(NotFound, match=text):
            datums.list(job)
    for datum in ("", "0000", "zz", "x" * 200, "é"):
        with pytest.raises(NotFound, match="no datum"):
            datums.inspect("p", datum)


def test_a_group_of_many_files_is_named_by_a_few(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In tables, explanations and errors; --raw has all."""
    monkeypatch.chdir(lab.root)
    lab.data("a", {f"{n:03}, {'x' if n else 'bad'}": "1" for n in range(200)})
    grouped = {"group": [{"pfs": {"repo": "a", "glob": "/*, (?)*", "group_by": "all"}}]}
    lab.pipeline("g", {"a": "/*"}, "! ls /pfs/a | grep -q bad", input=grouped)
    (job,) = lab.run()
    assert "(a:/000, bad, a:/001, x, a:/002, x and 197 more)" in job.reason and len(job.reason) < 200
    (datum,) = lab.project.datums.list("g")
    said = "a:/000, bad, a:/001, x, a:/002, x and 197 more"
    for words in (["list-datum", "g"], ["list-datum", "-f", "specs/g.json"], ["explain", "g"], ["explain", datum.id]):
        assert cli.run(words) == 0
        out = capsys.readouterr().out
        assert said in out and "a:/003" not in out, words
    assert cli.run(["list-datum", "g", "--raw"]) == 0
    assert json.loads(capsys.readouterr().out)["files"].count("a:/") == 200
    assert few("a:/1, b:/, c:/, d:/") == "a:/1, b:/, c:/, d:/", "to say that there is one more is no shorter"


# ---------------------------------------------------------------- stop-job


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))])
def test_a_job_is_stopped_and_goes_on_later(lab: Lab, tmp_path: Path, engine: str) -> None:
    """Its processes end, downstream does not run, finished datums are kept; other pipelines are not touched."""
    lab.git("config", "gitpipe.engine", engine)
    lab.data("a", {"1": "quick", "2": "slow"})
    lab.pipeline("p", {"a": "/*"}, "if grep -q slow /pfs/a/*; then sleep 600; fi; cp /pfs/a/* /pfs/out")
    lab.pipeline("q", {"p": "/*"})
    lab.pipeline("other", {"a": "/*"}, "sleep 1; cp /pfs/a/* /pfs/out")
    stopper = threading.Thread(target=stop_when_it_sleeps, args=(lab, "p"), daemon=True)
    stopper.start()
    assert sorted(lab.ran()) == [
        "other: 2 + 0 / 2 success",
        "p: killed stopped by stop-job",
        "q: unrunnable p killed",
    ]
    assert not sleeping("600") and not lab.head("p")
    assert sorted(states(lab, "p").values()) == ["not run", "success"]
    with pytest.raises(Refused, match=r"over \(killed\)"):
        lab.project.jobs.stop("p")

    lab.data("a", {"1": "quick", "2": "not that"})
    assert sorted(lab.ran()) == [
        "other: 1 + 1 / 2 success",
        "p: 1 + 1 / 2 success",
        "q: 2 + 0 / 2 success",
    ]


def test_the_log_of_a_job_is_that_of_all_its_attempts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It failed, was run again on the same commits, and has one id; what printed nothing says why it failed."""
    lab.data("a", {"1": "1"})
    lab.pipeline("p", {"a": "/*"}, "echo try; false")
    lab.run()
    lab.run()
    ids = {job.id for job in lab.project.jobs.list("p")}
    assert len(ids) == 1 and len(lab.project.jobs.list("p")) == 2
    assert [line.message for line in lab.project.jobs.logs(job=ids.pop())] == ["try", "try"]


def test_logs_of_a_program_that_cannot_start_say_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gitpipe import cli

    lab.data("a", {"1": "1"})
    path = lab.write_spec("p", {"a": "/*"}, transform={"cmd": ["nosuchprogram"]})
    lab.project.pipelines.update([str(path)], create=True)
    lab.run()
    monkeypatch.chdir(lab.root)
    assert cli.run(["logs", "--job", "p"]) == 0
    said = capsys.readouterr()
    assert said.out == "" and "printed nothing, and ended as failed" in said.err and "nosuchprogram" in said.err


def test_a_queued_job_is_stopped(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.project.reconciler.plan()
    assert [job.state for job in lab.project.jobs.list()] == ["queued"]
    assert lab.project.jobs.stop("p").state == "killed"
    with pytest.raises(NotFound, match="no datums"):
        lab.project.datums.list("p")
    lab.project.pipelines.run("p")
    assert lab.ran()[-1] == "p: 1 + 0 / 1 success"
    with pytest.raises(Refused, match="nothing to stop"):
        lab.project.jobs.stop("p")
    with pytest.raises(NotFound, match="no job or pipeline"):
        lab.project.jobs.stop("nope")


def stop_when_it_sleeps(lab: Lab, job: str) -> None:
    while set(states_or_none(lab, job).values()) != {"success", "running"} or not sleeping("600"):
        time.sleep(0.05)
    lab.project.jobs.stop(job)


def states_or_none(lab: Lab, job: str) -> dict[str, str]:
    try:
        return states(lab, job)
    except NotFound:
        return {}


def sleeping(seconds: str) -> bool:
    """Whether some process sleeps so long."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", seconds.encode()] and int(folder.name) != os.getpid():
                return True
    return False
