"""The background process, one a repository: ``python -m gitpipe.runner <common git dir>`` is what hooks start.

Takes the lock, detaches from whoever started it, and runs the scheduler's loop until nothing came for a while.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from gitpipe import nudges
from gitpipe.errors import GitpipeError, of_machine

MAX_LOG = 1 << 20
GARBAGE = (10_000, 10, 10)
SUCCEED_SECONDS = 60.0  # so long a new runner waits for one that is ending


class _Log(io.FileIO):
    """The runner's log.  It often lies on the disk that is full: not to be able to say so is no reason to end."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return len(data)


def main(common: Path) -> int:
    """Be the runner of a repository in the background; 0, also where another one is at work."""
    # What the caller of `git commit` had open (the lock of a `flock`, a pipe) is not ours to hold for minutes.
    os.closerange(3, 1024)
    lock = nudges.Lock(common)
    # One that is about to end has dropped its mark but may still hold the lock, while Ray comes down or a job thread
    # ends; one that was killed left its mark, and who asks whether a runner lives holds the lock for an instant, too.
    end = time.monotonic() + SUCCEED_SECONDS
    while not lock.acquire(0.3):
        if nudges.marked(common) or time.monotonic() > end:
            return 0
    log = nudges.state_dir(common) / "runner.log"
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
    mode = "a" if log.exists() and log.stat().st_size < MAX_LOG else "w"
    try:
        file = _Log(log, mode)
    except OSError:  # a read-only disk; what comes next fails there, too, and whoever waits is told
        file = _Log(os.devnull, "a")
    sys.stdout = sys.stderr = io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=True)
    os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A job of 100,000 datums makes a million objects that stay until it ends: to search them for cycles at each few
    # hundred more takes a quarter of its time.
    gc.set_threshold(*GARBAGE)
    try:
        nudges.mark(common)
        # Only now: whoever looks for a runner finds the mark before the imports have taken their time.
        from gitpipe.project import open_project

        project = open_project(common)
        project.take_path()
        scheduler = project.make_scheduler()
        signal.signal(signal.SIGTERM, lambda *_: scheduler.stop())
        scheduler.loop(project.settings.linger)
    except Exception as error:
        if said := str(error) if isinstance(error, GitpipeError) else of_machine(error):
            print(f"gitpipe: {said}")
        else:
            traceback.print_exc()
        return 1
    finally:
        nudges.unmark(common)
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
