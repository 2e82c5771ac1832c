"""``transform.err_cmd``: a datum that fails, and that the job can do without."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitpipe import cli
from gitpipe.journal import Journal
from gitpipe.stage import MAX_LOG, Secret

from .lab import Lab, new_lab
from .stagekit import Kit, both


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(tmp_path)
    yield kit
    kit.close()


# -- in a worker -------------------------------------------------------------------------------------------------------


def handled(kit: Kit, sandbox: str, cmd: str, err_cmd: str, last: bool = True, **more: Any) -> Any:
    stage = kit.stage("sh", "-c", cmd, sandbox=sandbox, err_cmd=("sh", "-c", err_cmd), **more)
    task = kit.task({"x": b"1"}, WHICH="the datum's own")
    return kit.worker(stage).run(type(task)(task.datum, task.inputs, task.env, last))


@both
def test_it_runs_with_all_as_the_command_left_it(kit: Kit, sandbox: str) -> None:
    """The same inputs, environment and folder; what both printed is in the log, and nothing is stored."""
    result = handled(
        kit,
        sandbox,
        "echo one; echo made > /pfs/out/y; pwd > /pfs/out/where; exit 5",
        'echo two; [ "$(pwd)" = "$(cat /pfs/out/where)" ] && cat /pfs/in/x /pfs/out/y && echo "$WHICH $MINE"',
        env=(("MINE", "the stage's"),),
        working_dir="/pfs/in",
    )
    assert (result.recovered, result.ok, result.error, result.exit_code) == (True, False, "exit status 5", 5)
    assert result.log == b"one\ntwo\n1made\nthe datum's own the stage's\n"
    assert result.outputs == () and result.bytes_out == 0
    assert not list(kit.cache.glob("*/*[!0-9a-f]*")) and len(list(kit.cache.glob("*/*"))) == 1


@both
@pytest.mark.parametrize(
    ("cmd", "more", "error"),
    [
        ("kill -9 $$", {}, "killed by SIGKILL"),
        ("sleep 60", {"timeout": 0.2}, "timed out after 0.2 s"),
        ("exit 4", {"accept_return_code": (3,)}, "exit status 4"),
    ],
)
def test_after_what_it_runs(kit: Kit, sandbox: str, cmd: str, more: dict[str, Any], error: str) -> None:
    assert handled(kit, sandbox, cmd, "true", **more).recovered
    both_failed = handled(kit, sandbox, cmd, "exit 8", **more)
    assert not both_failed.recovered and not both_failed.ok
    assert both_failed.error.startswith(error) and both_failed.error.endswith("; err_cmd: exit status 8")
    assert handled(kit, sandbox, cmd, "exit 3", **{**more, "accept_return_code": (3,)}).recovered
    assert not handled(kit, sandbox, cmd, "true", last=False, **more).recovered, "it is tried again first"


def test_after_what_it_does_not_run(kit: Kit) -> None:
    """What the command did well needs no handling; an output that cannot be stored is no failure of the command."""
    assert handled(kit, "auto", "echo well", "echo handled").log == b"well\n"
    accepted = handled(kit, "auto", "exit 3", "echo handled", accept_return_code=(3,))
    assert accepted.ok and accepted.log == b""
    unfit = handled(kit, "auto", "mkfifo /pfs/out/pipe", "echo handled")
    assert not unfit.ok and not unfit.recovered and unfit.log == b""


def test_a_program_that_is_not_there(kit: Kit) -> None:
    """Of the command it is a failure like another one; of err_cmd, too, and it is named."""
    missing = kit.stage("no-such-program", err_cmd=("true",))
    assert kit.worker(missing).run(kit.task()).recovered
    result = kit.worker(kit.stage("false", err_cmd=("no-such-program",))).run(kit.task())
    assert result.error.startswith("exit status 1; err_cmd: cannot start no-such-program")


def test_both_logs_fit_into_one(kit: Kit) -> None:
    result = handled(kit, "auto", f"yes first | head -c {MAX_LOG}; exit 1", f"yes second | head -c {MAX_LOG}; echo end")
    assert len(result.log) <= MAX_LOG
    assert result.log.startswith(b"first\n") and result.log.endswith(b"second\nsend\n")


def test_err_stdin_alone_does_nothing(kit: Kit) -> None:
    result = kit.worker(kit.stage("false", err_stdin=("exit 0",))).run(kit.task())
    assert not result.recovered and result.error == "exit status 1"


@both
@pytest.mark.parametrize("callable_", [False, True])
def test_after_a_python_that_is_kept(kit: Kit, sandbox: str, callable_: bool) -> None:
    """It is kept for the next datum, and finds its secrets where a process of its own would: at import, too."""
    kit.script("work.py", "import os\nfound = os.environ['PW'] == 'hunter2'\nprint(found, os.environ['PW'])\n1 / 0\n")
    kit.script(
        "call.py", "import os\ndef work(inputs, out):\n    print(os.environ['PW'] == 'hunter2', 'hunter2')\n    1 / 0\n"
    )
    stage = kit.stage(
        *(() if callable_ else ("python", "work.py")),
        sandbox=sandbox,
        callable="call:work" if callable_ else "",
        err_cmd=("python", "-c", "import os; print('handled', os.environ['PW'])"),
        secrets=(Secret(b"hunter2", "PW"),),
    )
    worker = kit.worker(stage)
    for _ in range(2):
        result = worker.run(kit.task({"x": b"1"}))
        assert result.recovered, result
        assert b"True ***\n" in result.log and b"ZeroDivisionError" in result.log
        assert result.log.endswith(b"handled ***\n") and b"hunter2" not in result.log
        assert "a process for each datum" not in result.environment["runtime"], result.environment


# -- in a job ----------------------------------------------------------------------------------------------------------


def copying(lab: Lab, name: str = "p", **more: Any) -> None:
    """Copies files; one that holds ``bad`` fails and is recovered, one that holds ``worse`` fails for good."""
    transform = {
        "cmd": ["sh", "-c", "echo try; f=/pfs/in/*; grep -q -e bad -e worse $f && exit 7; cp $f /pfs/out"],
        "err_cmd": ["sh"],
        "err_stdin": ["echo handling", "grep -q bad /pfs/in/*"],
    }
    more = {"transform": transform, "input": {"pfs": {"repo": "in", "glob": "/*"}}, **more}
    lab.pipeline(name, {}, **more)


def states(lab: Lab, job: str = "p") -> dict[str, str]:
    return {each.files.partition(":")[2]: each.state for each in lab.project.datums.list(job)}


def test_the_job_succeeds_without_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All commands say so; the pipeline behind it gets the rest; nothing is left to do (I2)."""
    lab.data("in", {"a": "1", "b": "bad", "c": "2"})
    copying(lab, datum_tries=2)
    lab.pipeline("after", {"p": "/"})
    assert [(j.pipeline, j.state, j.processed, j.skipped, j.recovered, j.failed, j.total) for j in lab.run()] == [
        ("p", "success", 2, 0, 1, 0, 3),
        ("after", "success", 1, 0, 0, 0, 1),
    ]
    assert lab.files("p") == lab.files("after") == {"a": "1", "c": "2"}
    (made,) = lab.made("p")
    assert made.subject == "p: 2 processed, 0 skipped, 1 recovered of 3 datums"
    assert states(lab) == {"/a": "success", "/b": "recovered", "/c": "success"}
    bad = next(each for each in lab.project.datums.list("p") if each.state == "recovered")
    assert (bad.tries, bad.reason) == (2, "exit status 7")
    log = [line.message for line in lab.project.jobs.logs(pipeline="p", datum=bad.id)]
    assert log == ["try", "try", "handling"], "err_cmd ran once, after the last try"

    def gitpipe(command: str) -> str:
        assert cli.run(command.split()) == 0
        return capfd.readouterr().out

    monkeypatch.chdir(lab.root)
    capfd.readouterr()
    listed = gitpipe("list-job")
    assert "2 + 0 + 1 / 3" in listed and "1 + 0 / 1" in listed
    shown = gitpipe("inspect-job p")
    assert "2 + 0 + 1 / 3" in shown and "Recovered datums:" in shown and "Failed datums" not in shown
    assert json.loads(gitpipe("inspect-job p --raw"))["recovered"] == 1
    assert "recovered" in gitpipe("list-datum p")
    assert "recovered" in gitpipe(f"inspect-datum p {bad.id}")
    assert "1 recovered: exit status 7" in gitpipe("explain p")
    assert "recovered" in gitpipe(f"explain {bad.id[:12]}")
    assert "nothing to do" in gitpipe("run-pipeline p")
    assert lab.ran() == [] and len(lab.commits("p")) == 1


def test_it_is_tried_again_by_the_next_job_and_no_sooner(lab: Lab) -> None:
    """As in Pachyderm: not skipped where a new commit, or --reprocess, makes a job; what succeeded is."""
    lab.data("in", {"a": "1", "b": "bad"})
    copying(lab, datum_tries=1)
    assert lab.ran() == ["p: 1 + 0 / 2 success"] and lab.ran() == []
    lab.data("in", {"a": "1", "b": "bad", "c": "3"})
    (job,) = lab.run()
    assert (job.processed, job.skipped, job.recovered, job.total) == (1, 1, 1, 3)
    assert lab.made("p")[-1].subject == "p: 1 processed, 1 skipped, 1 recovered of 3 datums"
    assert lab.printed("p").count("handling") == 2
    lab.project.pipelines.update([str(lab.root / "specs/p.json")], reprocess=True)
    (job,) = lab.run()
    assert (job.processed, job.skipped, job.recovered, job.total) == (2, 0, 1, 3)
    assert lab.printed("p").count("handling") == 3
    lab.data("in", {"a": "1", "b": "well", "c": "3"})
    assert lab.ran() == ["p: 1 + 2 / 3 success"]
    assert lab.files("p") == {"a": "1", "b": "well", "c": "3"}


def test_what_stood_before_goes(lab: Lab) -> None:
    """A file that turned bad takes its old output along, and gets it back with its old content."""
    lab.data("in", {"a": "1", "b": "2"})
    copying(lab, datum_tries=1)
    assert lab.ran() == ["p: 2 + 0 / 2 success"]
    lab.data("in", {"a": "1", "b": "bad"})
    assert lab.ran() == ["p: 0 + 1 / 2 success"]
    assert lab.files("p") == {"a": "1"}
    lab.data("in", {"a": "1", "b": "2"})
    assert lab.ran() == ["p: 0 + 2 / 2 success"], "what it had made is known"
    assert lab.files("p") == {"a": "1", "b": "2"}


def test_of_one_that_was_made_before_and_lost(lab: Lab) -> None:
    """It runs again as its blob is gone, and has become unable: the index no longer has it, the counts add up."""
    lab.data("in", {"a": "1", "b": "2"})
    flag = lab.root / "flag"
    script = f"for f in /pfs/in/*; do (cat $f; echo x) > /pfs/out/$(basename $f).out; done; [ ! -e {flag} ]"
    transform = {"cmd": ["sh", "-c", script], "err_cmd": ["true"]}
    lab.git("config", "gitpipe.sandbox", "none")
    lab.pipeline("p", {}, transform=transform, input={"pfs": {"repo": "in", "glob": "/*"}}, datum_tries=1)
    assert lab.ran() == ["p: 2 + 0 / 2 success"]
    from gitpipe.datatree import read_listing

    project = lab.project
    for path, md5 in read_listing(project.repo, project.blobs, lab.head("p")).items():
        if path == "b.out":
            (project.blobs.files / md5[:2] / md5[2:]).unlink()
    project.repo.close()
    flag.write_text("")
    lab.data("in", {"a": "1", "b": "2"}, extra={"note": "x"})
    lab.data("in", {"a": "1", "b": "2", "c": "3"})
    jobs = [job for job in lab.run() if job.pipeline == "p"]
    assert all(job.state == "success" for job in jobs) and jobs[-1].recovered == 2
    assert lab.files("p") == {"a.out": "1x\n"}
    assert lab.made("p")[-1].subject == "p: 0 processed, 1 skipped, 2 recovered of 3 datums"
    assert states(lab) == {"/a": "skipped", "/b": "recovered", "/c": "recovered"}
    lab.forget()
    assert lab.ran() == ["p: 0 + 1 / 3 success"]
    assert states(lab) == {"/a": "skipped", "/b": "recovered", "/c": "recovered"}, "as the index has it"


def test_one_that_cannot_be_recovered_fails_the_job(lab: Lab) -> None:
    """Nothing is published (I5); what was finished is not run again, what was recovered is."""
    lab.data("in", {"a": "1", "b": "bad", "c": "worse"})
    copying(lab, datum_tries=2)
    (job,) = lab.run()
    assert job.state == "failed" and "exit status 7; err_cmd: exit status 1" in job.reason, job.reason
    assert "(in:/c)" in job.reason and lab.head("p") == ""
    assert (job.processed, job.recovered, job.failed) == (1, 1, 1)
    assert states(lab) == {"/a": "success", "/b": "recovered", "/c": "failed"}
    (job,) = lab.run()
    assert (job.processed, job.skipped, job.recovered, job.failed) == (0, 1, 1, 1)


def test_the_commit_is_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: Path) -> None:
    """I4: whoever ran what, and however often; the local state is not needed to tell which were recovered (I1)."""
    monkeypatch.setenv("GITPIPE", "0")
    labs = [new_lab(tmp_path / name) for name in ("one", "two")]
    first, second = ({"a": "1", "b": "bad"}, {"a": "1", "b": "bad", "c": "3"})
    for lab in labs:
        lab.data("in", first)
        copying(lab, datum_tries=1)
        lab.run()
        lab.data("in", second)
    labs[0].run()
    labs[1].forget()
    labs[1].run()
    assert labs[0].head("p") == labs[1].head("p") != ""
    assert states(labs[0]) == states(labs[1]) == {"/a": "skipped", "/b": "recovered", "/c": "success"}
    labs[0].forget()
    assert labs[0].ran() == ["p: 1 + 1 / 3 success"], "found in git"
    assert labs[0].project.jobs.inspect("p").recovered == 1
    assert states(labs[0]) == {"/a": "skipped", "/b": "recovered", "/c": "success"}


def test_all_of_them(lab: Lab) -> None:
    """A commit without a file, which the next job builds upon."""
    lab.data("in", {"a": "bad", "b": "bad!"})
    copying(lab, datum_tries=1)
    assert lab.ran() == ["p: 0 + 0 / 2 success"]
    assert lab.files("p") == {} and lab.made("p")[0].subject.endswith("0 skipped, 2 recovered of 2 datums")
    lab.data("in", {"a": "bad", "b": "2"})
    assert lab.ran() == ["p: 1 + 0 / 2 success"]
    assert lab.files("p") == {"b": "2"}


def test_a_journal_of_an_earlier_release(tmp_path: Path) -> None:
    """It gets the columns that it lacks, and keeps its jobs."""
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    with journal.transaction():
        journal.add_set("x", {}, [("p", "v")], replay=False)
    journal.db.close()
    with sqlite3.connect(path) as db:
        for table in ("jobs", "runs"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN recovered")
    db.close()
    (job,) = Journal(path).jobs()
    assert (job.pipeline, job.recovered) == ("p", 0)
    assert not path.with_name("journal.sqlite.damaged").exists()
