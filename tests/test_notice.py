"""Somebody notices a job that failed: a command, a line at the next commit, an exit status; else nothing is said."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitpipe import notice
from gitpipe.errors import UsageError
from gitpipe.journal import JobRow, JobState, Journal
from gitpipe.notice import Notice
from tests.conftest import Shell, end_runner
from tests.lab import Lab

PATIENCE = 180


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def failed_file(lab: Lab) -> Path:
    return lab.root / ".git/gitpipe/failed"


# ---------------------------------------------------------------- the command


def test_a_command_is_told_of_a_job_that_failed(lab: Lab, tmp_path: Path) -> None:
    """Once, with the facts; not of what could not run because of it, nor of one that succeeds."""
    told = tmp_path / "told"
    lab.git("config", "gitpipe.onFailure", f"env | grep ^GITPIPE_ | sort >> {told}; echo told here; exit 7")
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"}, "echo no luck; exit 5")
    lab.pipeline("q", {"p": "/"})
    lab.pipeline("good", {"a": "/"})
    jobs = {job.pipeline: job for job in lab.run()}
    until(lambda: told.exists() and "GITPIPE_VERSION" in told.read_text())
    facts = dict(line.split("=", 1) for line in told.read_text().splitlines())
    assert told.read_text().count("GITPIPE_JOB=") == 1
    assert facts["GITPIPE_JOB"] == jobs["p"].id and facts["GITPIPE_PIPELINE"] == "p"
    assert facts["GITPIPE_STATE"] == "failed" and facts["GITPIPE_REASON"] == jobs["p"].reason
    assert facts["GITPIPE_DATUMS"] == "0 + 0 / 2" and facts["GITPIPE_FAILED"] == "2"
    assert facts["GITPIPE_INPUTS"] == f"a@{lab.head('a')}" and facts["GITPIPE_REPO"] == str(lab.root / ".git")
    log = lab.root / ".git/gitpipe/runner.log"
    until(lambda: "ended with status 7" in log.read_text())
    assert "told here" in log.read_text()


@pytest.mark.parametrize("command", ["sleep 600 & sleep 600", "no-such-program", "("])
def test_a_command_that_hangs_or_is_wrong_harms_nobody(lab: Lab, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "SECONDS", 0.3)
    lab.git("config", "gitpipe.onFailure", command)
    lab.data("a", {"1": "1"})
    lab.pipeline("p", {"a": "/*"}, "exit 5")
    assert [job.state for job in lab.run()] == ["failed"]
    log = lab.root / ".git/gitpipe/runner.log"
    until(lambda: "gitpipe.onFailure, for job" in log.read_text())
    lab.pipeline("p", {"a": "/*"})
    assert [job.state for job in lab.run()] == ["success"]


def test_a_command_of_a_runner_that_ends_is_ended(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "LAST_SECONDS", 0.1)
    told = Notice(tmp_path, Journal(tmp_path / "journal.sqlite"), lambda: f"echo $$ > {tmp_path}/pid; sleep 600")
    told.ended(JobRow(1, 1, "p", "v", JobState.FAILED, id="0" * 32))
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    told.close()
    until(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists())


# ---------------------------------------------------------------- the file, and the next commit


def test_the_file_says_how_things_stand(lab: Lab) -> None:
    """The cause, not what could not run; it goes when all is well, be it that the pipeline was deleted."""
    lab.data("a", {"1": "1"})
    lab.pipeline("p", {"a": "/*"}, "printf 'b\\033[1mad\\n'; exit 5")
    lab.pipeline("q", {"p": "/"})
    lab.run()
    line = failed_file(lab).read_text()
    assert line.startswith("gitpipe: p failed (and 1 more): datum ") and line.endswith("; see 'gitpipe status'\n")
    assert line.count("\n") == 1 and line[:-1].isprintable() and "exit status 5" in line
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    assert not failed_file(lab).exists()

    lab.pipeline("x", {"a": "/*"}, "exit " + "6" * 400)
    lab.run()
    assert len(failed_file(lab).read_text()) < 400
    lab.project.pipelines.delete("x")
    lab.run()
    assert not failed_file(lab).exists()


def test_a_job_that_was_stopped_is_no_news(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    with journal.transaction():
        journal.add_set("test", {}, [("p", "v")], False)
    seq = journal.unfinished()[0].seq
    journal.kill_job(seq, "stopped by stop-job")
    told = Notice(tmp_path, journal, lambda: f"touch {tmp_path}/told")
    job = journal.job(seq)
    assert job is not None
    told.ended(job)
    told.close()
    assert not (tmp_path / "failed").exists() and not (tmp_path / "told").exists()


@pytest.fixture
def failing(scratch: Path, sh: Shell) -> Iterator[Path]:
    """A repository with hooks where a job has failed."""
    sh("gitpipe init && git config gitpipe.engine local && gitpipe create-repo a", scratch)
    spec = {"pipeline": {"name": "p"}, "transform": {"cmd": ["sh", "-c", "exit 5"]}, "code": [], "datum_tries": 1}
    (scratch / "p.json").write_text(json.dumps({**spec, "input": {"pfs": {"repo": "a", "glob": "/"}}}))
    sh("gitpipe create-pipeline -f p.json && echo 1 | gitpipe put-file a x -f -", scratch)
    sh("gitpipe wait", scratch, status=3)
    yield scratch
    end_runner(scratch)


def test_the_next_commit_says_so_until_all_is_well(failing: Path, sh: Shell) -> None:
    """On whatever branch, in one line, and a commit it stays; `status` exits 3 as long."""
    commit = "git commit -q --allow-empty -m more"
    for folder in (failing, failing / "../a"):
        if not folder.exists():
            sh("git worktree add -q ../a a", failing)
        said = sh(commit, folder, stderr=True)
        assert said.startswith("gitpipe: p failed: datum ") and said.count("\n") == 1, folder
    assert sh(f"GITPIPE=0 {commit}", failing, stderr=True) == ""
    before = sh("git rev-list --count HEAD", failing)
    said = sh("git rebase -qf HEAD~2 2>&1", failing)
    assert said.count("p failed") <= 1 and sh("git rev-list --count HEAD", failing) == before
    assert json.loads(sh("gitpipe status --raw", failing, status=3))["failures"][0]["pipeline"] == "p"

    (failing / "p.json").write_text((failing / "p.json").read_text().replace("exit 5", "true"))
    sh("git add p.json && git commit -qm Mend", failing)
    sh("gitpipe update-pipeline -f p.json && gitpipe wait", failing)
    assert sh(f"{commit} && gitpipe status >&2", failing, stderr=True).count("failed") == 1, "and nothing failed"

    end_runner(failing)
    (failing / ".git/gitpipe/failed").mkdir()  # it cannot be read: a commit it stays
    assert sh(f"touch .git/gitpipe/stay; {commit}", failing, stderr=True) == ""


# ---------------------------------------------------------------- status


def test_status_tells_what_is_out_of_date_by_its_exit(lab: Lab) -> None:
    """3 while there is something to do and nobody is at it."""
    lab.data("a", {"1": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    assert lab.project.status().well
    lab.data("a", {"1": "2"})
    moved = ("a changed since the last run: `gitpipe wait` or `gitpipe run`",)
    assert lab.project.status().stale == moved and not lab.project.status().well
    lab.project.reconciler.plan()
    assert lab.project.status().stale == ("p: queued",)
    done = subprocess.run(["gitpipe", "status"], cwd=lab.root, capture_output=True, encoding="utf-8")
    assert done.returncode == 3 and "Pending: p: queued" in done.stdout and not done.stderr
    lab.run()
    assert lab.project.status().well


# ---------------------------------------------------------------- settings


def test_settings_of_logs(lab: Lab) -> None:
    for name, value in (("Jobs", "2"), ("Days", "0.5"), ("Size", "3M")):
        lab.git("config", f"gitpipe.logs{name}", value)
    limits = lab.project.settings.logs
    assert (limits.jobs, limits.days, limits.size) == (2, 0.5, 3 << 20)
    lab.data("a", {"1": "1"})
    for number in range(3):
        lab.pipeline("p", {"a": "/*"}, f"echo {number}")
        lab.run()
    assert lab.printed("p") == ["1", "2"]
    for name, value in (("Jobs", "many"), ("Days", "1M"), ("Size", "-1")):
        lab.git("config", f"gitpipe.logs{name}", value)
        with pytest.raises(UsageError, match=f"gitpipe.logs{name} is {value!r}"):
            lab.project  # noqa: B018 - reads the settings
        lab.git("config", "--unset", f"gitpipe.logs{name}")
    assert os.listdir(lab.root / ".git/gitpipe/logs")
