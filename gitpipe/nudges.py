"""How anybody tells the runner to look at the refs: a file in a folder, and the mark of a runner that lives.

Imports nothing heavy: the hooks' side of this is a few lines of shell with the same meaning (``hooks/``).  A nudge that
is missed costs time, never a result (I9).  The runner takes a nudge's file away when all that it knew of at that moment
is done, so that `gitpipe wait` only has to watch its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

STATE = "gitpipe"
START_SECONDS = 10.0


def state_dir(common: Path) -> Path:
    """The folder of disposable local state."""
    return common / STATE


def add_nudge(common: Path, name: str) -> Path:
    """Leave a nudge; its file, which vanishes when all that is known by then is done."""
    folder = state_dir(common) / "nudge"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{os.getpid()}-{secrets.token_hex(4)}"
    path.touch()
    return path


def pending(common: Path) -> set[str]:
    """Names of the nudges that lie there."""
    try:
        return {path.name for path in (state_dir(common) / "nudge").iterdir()}
    except FileNotFoundError:
        return set()


def take(common: Path, names: set[str]) -> None:
    """Remove nudges."""
    for name in names:
        (state_dir(common) / "nudge" / name).unlink(missing_ok=True)


class Lock:
    """The runner's lock: a flock on the common git dir itself, which nobody deletes as local state."""

    def __init__(self, common: Path) -> None:
        self.common = common
        self._fd: int | None = None

    def acquire(self, seconds: float = 0.0) -> bool:
        """Whether this process is now the runner; tries for some seconds."""
        fd = os.open(self.common, os.O_RDONLY)
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= end:
                    os.close(fd)
                    return False
                time.sleep(0.02)
                continue
            self._fd = fd
            return True

    def release(self) -> None:
        """Let another be the runner."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def mark(common: Path) -> None:
    """Write the mark of a live runner, whole or not at all."""
    path = state_dir(common) / "runner.pid"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"runner.pid.{os.getpid()}")
    try:
        scratch.write_text(f"{os.getpid()}\n")
        scratch.replace(path)
    except OSError as error:  # the disk is full
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def unmark(common: Path) -> None:
    """Drop the mark, if it is ours."""
    if marked(common) == os.getpid():
        (state_dir(common) / "runner.pid").unlink(missing_ok=True)


def marked(common: Path) -> int | None:
    """The pid in the mark, or None."""
    with contextlib.suppress(OSError, ValueError):
        return int((state_dir(common) / "runner.pid").read_text())
    return None


def runner_lives(common: Path) -> bool:
    """Whether some process holds the runner's lock."""
    fd = os.open(common, os.O_RDONLY)
    try:
        # Shared, so that two who ask at the same time do not take each other for a runner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def start_runner(common: Path, flags: str) -> None:
    """Start a runner in a session of its own, detached from this terminal; harmless where one lives.

    Args:
        flags: options of the interpreter, see `gitpipe.hooks.interpreter_flags`.
    """
    state_dir(common).mkdir(parents=True, exist_ok=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    # The runner's folder is the git dir: with `-m`, Python would import a json.py that lies in the current folder.
    subprocess.Popen(
        [sys.executable, *flags.split(), "-m", "gitpipe.runner", str(common)],
        cwd=common,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
