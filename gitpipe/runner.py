"""The background process, one a repository: ``python -m gitpipe.runner <common git dir>`` is what hooks start.

Takes the lock, detaches from whoever started it, and runs the scheduler's loop until nothing came for a while.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from gitpipe import nudges

MAX_LOG = 1 << 20
GARBAGE = (10_000, 10, 10)
SUCCEED_SECONDS = 60.0  # so long a new runner waits for one that is ending


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
    log.parent.mkdir(parents=True, exist_ok=True)
    mode = "a" if log.exists() and log.stat().st_size < MAX_LOG else "w"
    sys.stdout = sys.stderr = log.open(mode, buffering=1, encoding="utf-8", errors="backslashreplace")
    os.dup2(sys.stderr.fileno(), 2)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nudges.mark(common)
    # A job of 100,000 datums makes a million objects that stay until it ends: to search them for cycles at each few
    # hundred more takes a quarter of its time.
    gc.set_threshold(*GARBAGE)
    try:
        # Only now: whoever looks for a runner finds the mark before the imports have taken their time.
        from gitpipe.project import open_project

        project = open_project(common)
        project.take_path()
        scheduler = project.make_scheduler()
        signal.signal(signal.SIGTERM, lambda *_: scheduler.stop())
        scheduler.loop(project.settings.linger)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        nudges.unmark(common)
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
