"""Named points at which a test may kill this process for real, to show that nothing is lost there.

``GITPIPE_KILL_AT=before-ref`` in the environment makes the process end itself with SIGKILL when it comes to that point;
``before-ref:2`` at the second time.  Nothing else ever reads that variable.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "runner-started",
    "set-recorded",
    "job-recorded",
    "datum-before",
    "blob-written",
    "datum-after",
    "blobs-written",
    "before-commit",
    "blob-protected",
    "before-ref",
    "after-ref",
    "before-tick",
    "job-finished",
)

_left: int | None = None


def point(name: str) -> None:
    """End this process here by SIGKILL if it was told to; else do nothing."""
    wanted = os.environ.get("GITPIPE_KILL_AT")
    if not wanted:
        return
    where, _, count = wanted.partition(":")
    if where != name:
        return
    global _left
    _left = (int(count or 1) if _left is None else _left) - 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
