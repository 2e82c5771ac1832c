"""DVC's own lock, held for the moment in which blobs must not vanish.

DVC takes ``.dvc/tmp/lock`` of the working tree that it runs in by an exclusive ``flock`` (zc.lockfile); a ``dvc gc``
between the look at the blobs and the commit that needs them removed one.  Knows nothing of git.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from gitpipe.errors import GitpipeError

PATIENCE_SECONDS = 600.0


@contextlib.contextmanager
def dvc_locks(tops: Iterable[Path], patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the lock of every working tree in which DVC has been at work.

    Raises:
        GitpipeError: another process holds one for longer than `patience` seconds.
    """
    with contextlib.ExitStack() as stack:
        for top in sorted(tops):
            folder = top / ".dvc" / "tmp"
            if folder.is_dir():
                file = stack.enter_context((folder / "lock").open("a+"))
                _take(file.fileno(), folder / "lock", patience)
        yield


def _take(fd: int, path: Path, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if time.monotonic() > end:
                raise GitpipeError(f"{path} is held by a running dvc: run-pipeline again when it has ended") from error
            time.sleep(0.05)
