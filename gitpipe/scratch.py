"""Folders for a moment, of which Ctrl-C leaves nothing.  Knows nothing of what is put there."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder below `parent`, which is made as well; it goes at the end, with all that is in it.

    `tempfile` can be interrupted when the folder is there and nobody knows its name yet, and while it is removed.
    """
    folder = parent / f"{prefix}{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, mode=0o700)
        yield folder
    finally:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)  # it comes now
