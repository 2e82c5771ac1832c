"""Somebody notices that a job failed: a line for the next ``git commit``, and a command of the user's.

The line is the file ``.git/gitpipe/failed``, which the hook prints (``tell_failed`` in ``hooks/_common``); it is there
while the newest job of a pipeline stands failed.  The command is git config ``gitpipe.onFailure``.  Neither can fail a
job.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gitpipe.journal import JobRow, JobState, Journal

COMMAND = "gitpipe.onfailure"
MAX_LINE = 300
"""Characters of the line; `gitpipe status` has it all."""
SECONDS = 60.0
"""That the command may take."""
LAST_SECONDS = 10.0
"""That it may still take when the runner ends."""


class Notice:
    """What is told of the jobs of one repository."""

    def __init__(self, state: Path, journal: Journal, command: Callable[[], str]) -> None:
        """
        Args:
            state: the folder of the local state.
            command: the command of the user's, as it is set now; "" for none.
        """
        self._file, self._runner_log = state / "failed", state / "runner.log"
        self._journal, self._command = journal, command
        self._lock = threading.Lock()
        self._running: dict[threading.Thread, subprocess.Popen[bytes]] = {}

    def update(self) -> None:
        """Make the file say how things stand now."""
        with self._lock, contextlib.suppress(OSError):
            line = _line([job for job in self._journal.newest_ended() if _is_bad(job)])
            if not line:
                self._file.unlink(missing_ok=True)
            elif not self._file.exists() or self._file.read_text(encoding="utf-8") != line:
                scratch = self._file.with_name(f"failed.{os.getpid()}")
                scratch.write_text(line, encoding="utf-8")
                scratch.replace(self._file)

    def ended(self, job: JobRow) -> None:
        """A job is over: run the command, if it failed by itself."""
        self.update()
        if job.state is not JobState.FAILED:
            return
        try:
            command = self._command()
            if command:
                self._start(command, job)
        except Exception as error:  # whatever is wrong with it is no reason to stop
            self._say(f"gitpipe: gitpipe.onFailure cannot be run: {error}\n")

    def close(self) -> None:
        """Wait for commands that run, but not long."""
        end = time.monotonic() + LAST_SECONDS
        for thread, process in list(self._running.items()):
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                _kill(process)
                thread.join()

    def _start(self, command: str, job: JobRow) -> None:
        with self._runner_log.open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                cwd=self._file.parent.parent,
                env={**_environment(), **_facts(job, self._file.parent.parent)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        thread = threading.Thread(target=self._watch, args=(process, job), name="gitpipe-on-failure", daemon=True)
        self._running[thread] = process
        thread.start()

    def _watch(self, process: subprocess.Popen[bytes], job: JobRow) -> None:
        said = ""
        try:
            status = process.wait(SECONDS)
            said = f"ended with status {status}" if status else ""
        except subprocess.TimeoutExpired:
            said = f"was ended after {SECONDS:g} s"
        _kill(process)  # what it left behind in its session's first group, too
        process.wait()
        if said:
            self._say(f"gitpipe: gitpipe.onFailure, for job {job.id[:12]} of {job.pipeline}, {said}\n")
        self._running.pop(threading.current_thread(), None)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError), self._runner_log.open("a", encoding="utf-8") as log:
            log.write(line)


def _is_bad(job: JobRow) -> bool:
    """One that was stopped is no news to whoever stopped it."""
    return job.state in (JobState.FAILED, JobState.UNRUNNABLE)


def _line(bad: list[JobRow]) -> str:
    """What is to be said, in one line, or ""; one that could not run is a consequence of another."""
    if not bad:
        return ""
    first = min(bad, key=lambda job: (job.state is JobState.UNRUNNABLE, job.seq))
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    why = "".join(char if char.isprintable() else " " for char in first.reason or first.state.value)
    room = MAX_LINE - len(first.pipeline)
    return (
        f"gitpipe: {first.pipeline} failed{more}: {why[:room]}{'…' if len(why) > room else ''}; see 'gitpipe status'\n"
    )


def _environment() -> dict[str, str]:
    """Ours, without what git says to its hooks, and what was said of another job."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "GITPIPE_", "PACH_"))}


def _facts(job: JobRow, common: Path) -> dict[str, str]:
    return {
        "GITPIPE_REPO": str(common),
        "GITPIPE_JOB": job.id,
        "GITPIPE_PIPELINE": job.pipeline,
        "GITPIPE_STATE": job.state.value,
        "GITPIPE_REASON": job.reason,
        "GITPIPE_VERSION": job.version,
        "GITPIPE_INPUTS": " ".join(job.inputs),
        "GITPIPE_DATUMS": f"{job.processed} + {job.skipped} / {job.total}",
        "GITPIPE_FAILED": str(job.failed),
        "GITPIPE_SECONDS": f"{max(0.0, (job.finished or time.time()) - (job.started or time.time())):.0f}",
    }


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
