"""The machine lacks something: room, permission, handles, processes, memory.  ``docs/faults.md`` is the table of it.

The faults are real: small and read-only file systems, limits, control groups.  Each ends in results or in one line that
says why, leaves nothing half-done, and the next `gitpipe run` succeeds once the cause is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gitpipe import faults
from gitpipe.project import open_project
from gitpipe.stage.sandbox import detect
from tests.conftest import ROOT, end_runner
from tests.scenarios.test_errors import mounted, run
from tests.scenarios.test_killed import GITPIPE, NAMES, PATIENCE, PIPELINES, Chain, chain, until

__all__ = ["chain"]  # the fixture

FULL = re.compile(r"[Nn]o space left|database or disk is full|couldn't write|write error")
"""The last but one is all that git has to say of a ref that it cannot write."""
ENDED = ("success", "failed", "unrunnable")


@contextlib.contextmanager
def small(place: Path) -> Iterator[Path]:
    """Have the folder `place` on a file system of its own, of 8 MB; a folder there to `fill`, beside it."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, mounted("-t", "tmpfs", "-o", "size=8m", "none", folder):
        copy = Path(folder) / "copy"
        shutil.copytree(place, copy, symlinks=True)
        with mounted("--bind", str(copy), str(place)):
            yield Path(folder)
        shutil.rmtree(place)
        shutil.copytree(copy, place, symlinks=True)


def fill(disk: Path, room: int = 0) -> None:
    """Leave `room` blocks of 4 KiB."""
    there = os.statvfs(disk)
    with (disk / "filler").open("wb", buffering=0) as file:
        for _ in range(there.f_bavail - room):
            file.write(b"x" * there.f_bsize)


def empty(disk: Path) -> None:
    (disk / "filler").unlink()


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    with mounted("--bind", str(place), str(place)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        yield


LEFT = ("gitpipe/runner.pid*", "gitpipe/code/*.*", "gitpipe/scratch/*", "gitpipe/logs/*.live", "gitpipe/nudge/run*")
LEFT += ("dvc/cache/gitpipe-tmp/*", "dvc/cache/.gitpipe-slots/*", "refs/**/*.lock", "*.lock")


def nothing_is_left(story: Chain) -> None:
    """No lock, mark, slot, or part of a file; no broken object; what `dvc` thinks of the working tree."""
    until(lambda: story.runner() is None)
    until(lambda: not [str(path) for pattern in LEFT for path in story.common.glob(pattern)])
    done = subprocess.run(["git", "fsck", "--strict", "--full"], cwd=story.repo, capture_output=True, text=True)
    assert done.returncode == 0 and "error" not in done.stderr, done.stderr


def goes_on(story: Chain) -> str:
    """The cause is gone: one run, and all is as if nothing had been; what it printed."""
    status, out, err = run("run")
    assert (status, err) == (0, ""), (out, err)
    story.outputs_are_right(ENDED)
    story.nothing_is_left()
    nothing_is_left(story)
    return out


@pytest.fixture
def story(chain: Chain) -> Iterator[Chain]:
    """The chain with its first results; its stages print something."""
    (chain.repo / "pipes" / "chain.json").write_text(PIPELINES.replace("@GATE@", "echo some words; "))
    os.chdir(chain.repo)
    os.environ["GITPIPE"] = "0"
    assert run("update-pipeline", "-f", "pipes/chain.json")[0] == 0
    del os.environ["GITPIPE"]
    assert run("run")[0] == 0
    yield chain
    end_runner(chain.repo)
    os.chdir(ROOT)


# --- no room ----------------------------------------------------------------------------------------------------------

DISKS = {
    "git objects": ("objects", (0, 12)),
    "refs": ("refs", (0,)),
    "reflogs": ("logs", (0,)),
    "blobs": ("dvc/cache", (0, 2, 6)),
    "logs of jobs": ("gitpipe/logs", (0,)),
    "local state": ("gitpipe", (0, 9)),
}
"""Where: (folder, blocks that are free): the more there are the later it fails."""


def test_no_room(story: Chain) -> None:
    """I5, I7: `gitpipe run` fails in one line, or does without; finished datums are not run again."""
    for where, (folder, rooms) in DISKS.items():
        with small(story.common / folder) as disk:
            for room in rooms:
                story.commit(nudge=False)
                before = story.git("for-each-ref")
                fill(disk, room)
                status, out, err = run("run")
                if where in ("reflogs", "logs of jobs"):  # no result depends on them
                    assert (status, err) == (0, ""), (where, out, err)
                elif status:
                    assert FULL.search(err) and err.count("\n") == 1 and err.startswith("gitpipe: "), (where, err)
                    assert status == 3 or story.git("for-each-ref") == before
                else:
                    assert room > 1, f"{where}: there was room for it"
                nothing_is_left(story)
                empty(disk)
                out = goes_on(story)
                if where in ("git objects", "refs") and room == 0:
                    assert "upper: 0 + 3 / 3 success\n" in out, out


def test_no_room_for_the_runner_of_a_hook(story: Chain) -> None:
    """I9: the commit stands, `wait` says what is lacking, and the next one gets the results."""
    for where in ("blobs", "local state"):
        with small(story.common / DISKS[where][0]) as disk:
            fill_at_commit(story, disk)
            status, out, err = run("wait")
            assert status == (1 if where == "local state" else 3), (where, out, err)
            assert FULL.search(err) and err.count("\n") == 1, (where, err)
            until(lambda: story.runner() is None)
            assert "Traceback" not in (story.common / "gitpipe" / "runner.log").read_text()
            empty(disk)
            goes_on(story)


def fill_at_commit(story: Chain, disk: Path) -> None:
    """Commit data with the hooks at work, when there was room to add it and is none any more."""
    hook = story.common / "hooks" / "pre-commit.before-gitpipe"
    hook.write_text(f"#!/bin/sh\nhead -c 100m /dev/zero > '{disk}/filler' 2>/dev/null\nexit 0\n")
    hook.chmod(0o755)
    story.commit()
    hook.unlink()
    assert os.statvfs(disk).f_bavail == 0


def test_no_room_for_the_commit_itself(story: Chain) -> None:
    """What git cannot commit is not committed; `gitpipe add` and git say so, and both succeed later."""
    with small(story.common / "objects") as disk:
        head = story.git("rev-parse", "src")
        (story.src / "data" / "b").unlink()
        (story.src / "data" / "b").write_text("new\n")
        os.chdir(story.src)
        fill(disk)
        status, _, err = run("add", "data")
        assert status == 1 and FULL.search(err) and err.count("\n") == 1, err
        assert story.git("rev-parse", "src") == head
        empty(disk)
        assert run("add", "data")[0] == 0
        fill(disk)
        done = subprocess.run(["git", "commit", "-qm", "New"], capture_output=True, text=True)
        assert done.returncode and "No space left" in done.stderr
        assert story.git("rev-parse", "src") == head
        empty(disk)
        subprocess.run(["git", "commit", "-qm", "New"], check=True)
        story.commits, story.content["b"] = story.commits + 1, "new\n"
        os.chdir(story.repo)
        goes_on(story)
        story.sh("dvc status | grep -q 'up to date'", cwd=story.src)
        subprocess.run(["git", "gc", "-q", "--prune=now"], check=True)  # takes what git itself had begun
        assert not list((story.common / "objects").rglob("tmp_obj*"))


# --- read-only --------------------------------------------------------------------------------------------------------

READ_ONLY = {
    "git objects": ("objects", 3, "cannot write a git object"),
    "refs": ("refs", 3, "git update-ref failed"),
    "blobs": ("dvc/cache", 3, "cannot make a worker's folder"),
    "local state": ("gitpipe", 1, "gitpipe/runner.pid"),
    "all of the git dir": (".", 1, "gitpipe/runner.pid"),
}


def test_read_only(story: Chain) -> None:
    """One line, and nothing has to be mended when it can be written again."""
    for where, (folder, expected, what) in READ_ONLY.items():
        story.commit(nudge=False)
        before = story.git("for-each-ref")
        with read_only(story.common / folder):
            status, _, err = run("run")
            assert status == expected and what in err and "Read-only file system" in err, (where, err)
            assert err.count("\n") == 1, err
            status, _, err = run("wait")
            assert status == expected and "Read-only file system" in err and err.count("\n") == 1, (where, err)
            if where != "local state":  # it is needed by what runs, not by what stores files
                status, _, err = run("put-file", "src", "x", "-f", "README")
                assert status == 1 and "Read-only file system" in err and err.count("\n") == 1, (where, err)
            assert story.git("for-each-ref") == before
        goes_on(story)


def test_a_read_only_working_tree_of_an_output(story: Chain) -> None:
    """I6: the branch moves alone, `status` says so; the tree follows when it can."""
    story.git("worktree", "add", "-q", "../out", "upper")
    out = story.repo.parent / "out"
    story.commit(nudge=False)
    with read_only(out):
        assert run("run")[0] == 0
        assert "../out" in run("status")[1] or str(out) in run("status")[1]
    goes_on(story)
    assert {name: (out / "data" / name).read_text() for name in NAMES} == story.results


# --- handles, processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def wide(chain: Chain) -> Chain:
    """The chain, with ten slots and fifteen datums that wait to be run."""
    pipelines = PIPELINES.replace("@GATE@", "").replace('"constant": 2', '"constant": 10')
    (chain.repo / "pipes" / "chain.json").write_text(pipelines)
    os.chdir(chain.repo)
    os.environ["GITPIPE"] = "0"
    try:
        assert run("update-pipeline", "-f", "pipes/chain.json")[0] == 0
    finally:
        del os.environ["GITPIPE"]
    for number in range(12):
        (chain.src / "data" / f"more{number}").write_text(f"{number}\n")
    chain.commit(nudge=False)
    return chain


def limited(story: Chain, limit: str, *args: str) -> tuple[int, str, str]:
    """Run gitpipe in a shell that has set itself a limit: status, standard output and error."""
    argv = ["bash", "-c", f'{limit}; exec "$@"', "bash", *GITPIPE, *args]
    done = subprocess.run(argv, cwd=story.repo, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


def short_of(story: Chain, limits: Sequence[str], said: str) -> list[int]:
    """Run with each limit, and without in the end; the statuses.  Stages never lose their sandbox for it (I11)."""
    statuses = []
    for limit in limits:
        status, out, err = limited(story, limit, "run")
        statuses.append(status)
        assert status in (0, 1, 3) and "Traceback" not in err and "internal error" not in err, (limit, out, err)
        assert not status or (re.search(said, err) and err.count("\n") == 1), (limit, err)
        until(lambda: story.runner() is None)
        assert not list((story.common / "dvc/cache/.gitpipe-slots").glob("*/pfs/*/*"))
        story.commit(nudge=False)
    status, _, err = run("run")
    # A run that ended between a failed job and the one below it left that to this one, to be told.
    assert status == 0 or (status == 3 and "total: upper failed" in err), err
    assert run("run")[0] == 0
    journal = open_project(story.repo).journal
    places = [place for job in journal.jobs("pipeline = 'upper'") for place in journal.places(job)]
    assert {place["sandbox"] for place in places} == {detect("auto")}
    story.nothing_is_left()
    nothing_is_left(story)
    assert len(story.files(open_project(story.repo), "upper")) == 15
    return statuses


def test_no_file_handles(wide: Chain) -> None:
    """Ten slots within 64 and 20 handles: a line that says so, or fewer at once."""
    said = "Too many open files|unable to open|upper failed"
    assert short_of(wide, [f"ulimit -n {most}" for most in (64, 20)], said)[-1]


@pytest.fixture
def few_processes() -> Iterator[Path]:
    """A control group whose processes can be counted, and limited by its ``pids.max``."""
    for root in ("pids", ""):
        group = Path("/sys/fs/cgroup") / root / f"gitpipe-pids-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / "pids.max").exists():
                break
            group.rmdir()
    else:
        pytest.skip("no control group can be made here")
    yield group
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_no_processes(wide: Chain, few_processes: Path) -> None:
    """The limit counts threads as well."""
    limits = [f"echo {most} > {few_processes}/pids.max; echo $$ > {few_processes}/cgroup.procs" for most in (28, 6)]
    said = "no thread can be started|Resource temporarily unavailable|could not be started|upper failed"
    assert short_of(wide, limits, said)[-1]


# --- the clock --------------------------------------------------------------------------------------------------------


def test_the_clock_is_put_back_and_forward(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an hour: dates of commits go back and forth, files are of the future, a job ends before it began."""
    began, go = (chain.repo.parent / name for name in ("began", "go"))
    wait = f"touch {began}; while ! test -e {go}; do sleep 0.05; done; "
    chain.config(sandbox="none", linger=0)
    chain.command("run")
    (chain.repo / "pipes" / "chain.json").write_text(PIPELINES.replace("@GATE@", wait))
    chain.command("update-pipeline", "-f", "pipes/chain.json", GITPIPE="0")
    (chain.common / "dvc/cache/gitpipe-tmp").mkdir(exist_ok=True)
    slots = chain.common / "dvc/cache/.gitpipe-slots"
    for hours in (1, -1, 2):
        go.unlink(missing_ok=True)
        began.unlink(missing_ok=True)
        later = time.time() + 3600 * hours
        for name in ("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"):
            monkeypatch.setenv(name, f"{int(later)} +0000")
        chain.commit(nudge=False)
        ended = subprocess.Popen(["true"])
        ended.wait()
        (chain.common / f"dvc/cache/gitpipe-tmp/{os.uname().nodename}.{ended.pid}.0.0").write_text("half a blob")
        (slots / "in the making").mkdir(parents=True)
        for top in ("gitpipe", "dvc/cache/gitpipe-tmp", "dvc/cache/.gitpipe-slots"):
            for path in [chain.common / top, *(chain.common / top).rglob("*")]:
                os.utime(path, (time.time() + 9000, time.time() + 9000))
        running = chain.start("run")
        until(began.exists)
        journal = open_project(chain.repo).journal
        job = journal.jobs("state = 'running'")[0]
        journal.update_job(job.seq, started=later)
        go.touch()
        said, _ = running.communicate(timeout=PATIENCE)
        assert running.returncode == 0, said
        nothing_is_left(chain)
    chain.outputs_are_right()
    for made in chain.outputs("upper")[:3]:
        lines = chain.git("notes", "--ref=gitpipe", "show", made["commit"]).splitlines()
        assert {json.loads(line).get("seconds", 0.0) >= 0 for line in lines} == {True}


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_names_tests_that_are_there() -> None:
    """``docs/faults.md``: each test that it names exists, all of here are in it, and so is every kill point."""
    table = (ROOT / "docs" / "faults.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", table))
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    assert named <= there, named - there
    here = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(), re.MULTILINE))
    assert here - {"test_the_table_names_tests_that_are_there"} <= named
    points = set(faults.POINTS)
    assert points <= set(re.findall(r"`([a-z-]+)`", table)), points
