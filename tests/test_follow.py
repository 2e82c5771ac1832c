"""What datums print is there while they run; progress and tables that stay fresh; logs that are kept, and not for ever.

A stage here goes on only when a file appears (`go`), so that no test depends on how fast anything is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitpipe.cli.progress import bar_text, rate_text
from gitpipe.joblog import JobLogs, Limits
from gitpipe.stage import Secret
from gitpipe.stage.live import MAX_LIVE, Live
from gitpipe.stage.secret import Redactor, Stream
from gitpipe.views import Progress
from tests.conftest import Shell, end_runner, read_terminal
from tests.lab import Lab
from tests.stagekit import Kit

PATIENCE = 180


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def go(sealed: Path) -> Path:
    """The file that stages wait for; below HOME, and so seen by those without a sandbox alone."""
    return sealed / "go"


def waiting(go: Path, before: str = "echo begin", after: str = "echo end") -> str:
    return f"{before}; while ! test -e {go}; do sleep 0.05; done; {after}; cp -R /pfs/a/. /pfs/out"


@pytest.fixture
def running(lab: Lab, go: Path) -> Iterator[Lab]:
    """A lab whose next runs wait for `go`, which comes at the end of the test at the latest."""
    lab.git("config", "gitpipe.sandbox", "none")
    lab.data("a", {"1": "1"})
    yield lab
    go.touch()
    for thread in threading.enumerate():
        if thread.name == "lab-run":
            thread.join(PATIENCE)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(tmp_path)
    yield kit
    kit.close()


def begin(lab: Lab) -> threading.Thread:
    thread = threading.Thread(target=lambda: lab.project.run(), name="lab-run", daemon=True)
    thread.start()
    return thread


def said(lab: Lab, **of: str) -> list[str]:
    return [line.message for line in lab.project.jobs.logs(**of)]


# ---------------------------------------------------------------- logs of what runs


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))])
def test_what_a_datum_prints_is_seen_before_it_ends_and_once(running: Lab, go: Path, engine: str) -> None:
    running.git("config", "gitpipe.engine", engine)
    running.pipeline("p", {"a": "/*"}, waiting(go, "echo begin; printf 'no line '", "echo yet; echo end"))
    begin(running)
    until(lambda: running.project.jobs.list("p") and said(running, pipeline="p") == ["begin", "no line "])
    lines = running.project.jobs.follow(job="p")
    first = next(lines)
    assert first.message == "begin" and first.pipeline == "p" and first.datum and first.job
    assert said(running, job="p", datum=first.datum[:8])[0] == "begin"
    go.touch()
    assert [line.message for line in lines] == ["no line yet", "end"]
    assert said(running, job="p") == ["begin", "no line yet", "end"]
    assert not list((running.root / ".git/gitpipe/logs").glob("*.live"))


def test_the_command_follows_and_ends_with_the_job(running: Lab, go: Path) -> None:
    running.pipeline("p", {"a": "/*"}, waiting(go, "seq 5"))
    begin(running)
    until(lambda: running.project.jobs.list("p") and said(running, job="p"))
    command = ["gitpipe", "logs", "-f", "--pipeline", "p", "--tail", "2", "--raw"]
    with subprocess.Popen(command, cwd=running.root, stdout=subprocess.PIPE, encoding="utf-8") as follower:
        assert follower.stdout
        first = json.loads(follower.stdout.readline())
        assert first["message"] == "4" and first["pipeline"] == "p"
        go.touch()
        assert [json.loads(line)["message"] for line in follower.stdout] == ["5", "end"]
    assert follower.returncode == 0


def test_ctrl_c_ends_following_and_the_job_goes_on(running: Lab, go: Path) -> None:
    running.pipeline("p", {"a": "/*"}, waiting(go))
    run = begin(running)
    until(lambda: running.project.jobs.list("p") and said(running, job="p"))
    with subprocess.Popen(
        ["gitpipe", "logs", "-f", "-j", "p"],
        cwd=running.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as follower:
        assert follower.stdout and follower.stdout.readline() == "begin\n"
        follower.send_signal(signal.SIGINT)
        rest, errors = follower.communicate(timeout=PATIENCE)
    assert (follower.returncode, rest, errors) == (130, "", "gitpipe: interrupted\n")
    go.touch()
    run.join(PATIENCE)
    assert running.files("p") == {"1": "1"}


def test_a_worker_that_is_lost_leaves_what_it_printed(running: Lab, go: Path) -> None:
    running.pipeline("p", {"a": "/*"}, waiting(go))
    run = begin(running)
    until(lambda: running.project.jobs.list("p") and said(running, job="p"))
    running.project.jobs.stop("p")
    run.join(PATIENCE)
    assert said(running, job="p") == ["begin"]
    assert [line.message for line in running.project.jobs.follow(job="p")] == ["begin"]
    assert not list((running.root / ".git/gitpipe/logs").glob("*.live"))


def test_tries_and_err_cmd_are_all_there_once(running: Lab, go: Path) -> None:
    """The first command takes long enough to be shown early; what follows it in a blink is shown, too."""
    running.pipeline(
        "p",
        {"a": "/*"},
        transform={
            "cmd": ["sh", "-c", waiting(go, after="false; exit 1")],
            "err_cmd": ["sh", "-c", "echo rescued"],
        },
        datum_tries=2,
    )
    begin(running)
    until(lambda: running.project.jobs.list("p") and said(running, job="p"))
    lines = running.project.jobs.follow(job="p")
    assert next(lines).message == "begin"
    go.touch()
    assert [line.message for line in lines] == said(running, job="p")[1:] == ["begin", "rescued"]


# ---------------------------------------------------------------- tables and bars that stay fresh


def test_list_job_watches_with_a_line_a_change(running: Lab, go: Path) -> None:
    running.pipeline("p", {"a": "/*"}, waiting(go))
    command = ["gitpipe", "list-job", "--watch", "--raw"]
    with subprocess.Popen(command, cwd=running.root, stdout=subprocess.PIPE, encoding="utf-8") as watcher:
        assert watcher.stdout
        begin(running)
        seen: list[tuple[str, str, int]] = []
        for line in watcher.stdout:
            job = json.loads(line)
            seen.append((job["pipeline"], job["state"], job["processed"]))
            if job["state"] == "running":
                go.touch()
            if job["state"] == "success":
                watcher.send_signal(signal.SIGINT)
    assert watcher.returncode == 130
    assert seen[-1] == ("p", "success", 1) and ("p", "running", 0) in seen and len(set(seen)) >= 2


def test_list_job_stays_fresh_in_a_terminal(running: Lab, go: Path) -> None:
    running.pipeline("p", {"a": "/*"}, waiting(go))
    master, terminal = os.openpty()
    shown = ""
    with subprocess.Popen(["gitpipe", "list-job", "-w"], cwd=running.root, stdout=terminal) as watcher:
        os.close(terminal)
        begin(running)
        while "success" not in shown:
            shown += os.read(master, 65536).decode()
            if "running" in shown:
                go.touch()
        watcher.send_signal(signal.SIGINT)
        shown += read_terminal(master)
    os.close(master)
    assert watcher.returncode == 130
    screens = shown.split("\x1b[H\x1b[2J")
    assert len(screens) > 2 and all(screen.count("OUTPUT COMMIT") == 1 for screen in screens[1:-1])
    assert shown.rpartition("\x1b[?1049l")[2].count("success") == 1, "the last table stays"


def test_ctrl_c_of_wait_leaves_the_runner_at_work(running: Lab, go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running.pipeline("p", {"a": "/*"}, waiting(go))
    monkeypatch.delenv("GITPIPE")
    with subprocess.Popen(
        ["gitpipe", "wait"], cwd=running.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as waiter:
        until(lambda: running.project.jobs.list("p") and said(running, job="p"))
        assert waiter.stdout
        assert any("running" in line for line in iter(waiter.stdout.readline, ""))
        waiter.send_signal(signal.SIGINT)
        _, errors = waiter.communicate(timeout=PATIENCE)
    assert waiter.returncode == 130 and "the runner goes on in the background" in errors
    go.touch()
    until(lambda: running.head("p"))
    end_runner(running.root)


def test_what_a_bar_says() -> None:
    """What was skipped is no work that was done, so neither the rate nor the time left is taken from it."""
    assert bar_text(Progress(1, "p", "running", 3, 2, 1, 9, 1)) == "3 + 2 + 1 / 9 running, 1 failed"
    assert bar_text(Progress(1, "p", "success", 3, 2, 0, 5)) == "3 + 2 / 5 success"
    assert [rate_text(speed, True) for speed in (None, 0.5, 12.345)] == ["", "30/min", "12.3/s"]
    assert rate_text(3.0, False) == ""


# ---------------------------------------------------------------- much, binary, secret


def test_much_and_binary_output_is_bounded(kit: Kit, tmp_path: Path) -> None:
    """The file that is read meanwhile stays small, and what is kept is the same as ever."""
    live = tmp_path / "live" / "1.d"
    big = "head -c 100000000 /dev/zero | tr '\\0' '\\377'; sleep 0.7; head -c 100000000 /dev/zero; sleep 0.7; echo end"
    task = dataclasses.replace(kit.task(), live=str(live))
    result = kit.worker(kit.stage("sh", "-c", big)).run(task)
    assert result.ok and len(result.log) <= 1 << 18 and result.log.endswith(b"\0end\n")
    shown = live.read_bytes()
    assert b"bytes left out" in shown and shown.endswith(b"\0end\n") and len(shown) < 1 << 17


def test_a_live_file_begins_anew_and_is_still_followed(tmp_path: Path) -> None:
    logs = JobLogs(tmp_path)
    path = logs.live_file(1, "d1")
    live = Live(path, Redactor(()))
    following = logs.follow(1, "job", "p")
    seen: list[str] = []
    for number in range(300):
        live.add(b"%0999d\n" % number * 16)
        seen += [line.message for line in following.more()]
        assert os.path.getsize(path) < MAX_LIVE + (1 << 15)
    numbers = [int(line) for line in seen if line.isdigit()]
    assert sorted(set(numbers)) == numbers[::16] == list(range(300))
    logs.append(1, "d1", b"all of it\n", path)
    assert not list(following.more()) and following.ended() is False
    logs.settle(1)
    assert following.ended() and [line.message for line in logs.read(1, "job", "p")] == ["all of it"]


def test_no_part_of_a_secret_is_shown_early() -> None:
    """However the output is cut: whole and in reports of any size, what is shown is the same."""
    redactor = Redactor([Secret(b"hunter22"), Secret(b"22-is-long"), Secret(b"hunt")])
    text = b"a hunter22 b hunter hunter22-is-long c 22-is-lo d hunt"
    whole = redactor.log(text)
    assert whole == b"a *** b ***er ***-is-long c 22-is-lo d ***"
    for size in range(1, len(text)):
        stream = Stream(redactor)
        parts = [stream.feed(text[start : start + size]) for start in range(0, len(text), size)]
        assert b"".join([*parts, stream.end()]) == whole, size


def test_a_secret_that_is_cut_by_a_gap_is_not_shown() -> None:
    stream = Stream(Redactor([Secret(b"0123456789")]))
    shown = stream.feed(b"x 01234") + stream.feed(b"56789 y", skipped=7) + stream.end()
    assert shown == b"x ***\n[... 7 bytes left out ...]\n*** y"


# ---------------------------------------------------------------- kept, but not for ever


def test_old_logs_go_and_those_of_open_jobs_stay(tmp_path: Path) -> None:
    logs = JobLogs(tmp_path)
    for seq in range(1, 9):
        logs.append(seq, "d", b"x" * 1000 + b"\n")
    Path(logs.live_file(7, "d")).parent.mkdir()
    logs.prune(Limits(jobs=5), spare={1})
    assert kept(tmp_path) == [1, 4, 5, 6, 7, 8] and not (tmp_path / "7.live").exists()
    size = (tmp_path / "8.jsonl").stat().st_size
    logs.prune(Limits(size=3 * size), spare={1})
    assert kept(tmp_path) == [1, 6, 7, 8]
    os.utime(tmp_path / "6.jsonl", (1, 1))
    logs.prune(Limits(days=1), spare=())
    assert kept(tmp_path) == [1, 7, 8]
    logs.prune(Limits(days=1), spare=())
    JobLogs(tmp_path / "none").prune(Limits(), spare=())


def kept(folder: Path) -> list[int]:
    return sorted(int(path.name.partition(".")[0]) for path in folder.glob("*.jsonl"))


def test_a_log_that_was_removed_is_said_to_be(lab: Lab, sh: Shell) -> None:
    """Not that the job printed nothing."""
    lab.git("config", "gitpipe.logsJobs", "1")
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"}, "echo line; cp /pfs/a/x /pfs/out")
    lab.run()
    lab.data("a", {"x": "2"})
    lab.run()
    lab.run()  # what is over when a run begins to be idle is counted
    new, old = lab.project.jobs.list("p")
    assert sh(f"gitpipe logs --job {new.id}", cwd=lab.root) == "line\n"
    said = sh(f"gitpipe logs --job {old.id}", cwd=lab.root, stderr=True)
    assert said.startswith(f"gitpipe: the log of job {old.id} was removed: gitpipe.logsJobs")
    said = sh("gitpipe logs -f --job p", cwd=lab.root, stderr=True)
    assert said == "line\n"
