"""A worker's own folder on disk: where a datum's inputs are placed and its outputs appear.

::

    slots_dir/<name>/lock     held (flock) by the process that owns the slot, as long as it lives
                     pfs/     what the stage sees as /pfs: a folder for each input, and out/
                     tmp/, home/   TMPDIR and HOME where there is no sandbox
                     stderr   what the sandbox itself has to say
                     container  the engine that runs the worker's container, where it has one

Of processes it knows only that those of a slot without a sandbox carry its mark.  Plain system calls, since a datum
may be a matter of a millisecond.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from gitpipe.commit import check_path
from gitpipe.errors import BadData
from gitpipe.stage import Task
from gitpipe.stage.container import remove_left

MARK = "GITPIPE_SLOT"
"""The environment variable by which a process that runs without a sandbox names its slot directory."""

_NO_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS})
"""Another file system, too many links, a file of another user's (protected_hardlinks), a file system without links."""
_GRACE = 60.0
"""Seconds in which a slot without a lock is believed to be in the making."""


class Slot:
    """One slot directory, locked for as long as this process lives."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pfs = f"{path}/pfs"
        self.out = f"{path}/pfs/out"
        self.tmp = f"{path}/tmp"
        self.home = f"{path}/home"
        os.makedirs(path, exist_ok=True)
        try:
            self._lock = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            os.rmdir(path)  # all that can be done where no file handle is left
            raise
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            for folder in (self.out, self.tmp, self.home):
                os.makedirs(folder, exist_ok=True)
        except OSError:
            self.remove()
            raise

    def place(self, task: Task, cache: str, copies: bool) -> int:
        """Make the task's inputs appear; their bytes.

        Args:
            cache: the blob cache's ``files/md5`` folder.
            copies: private, writable copies instead of hard links to the blobs.

        Raises:
            BadData: a blob that the cache lacks, or a path that leads elsewhere.
        """
        total = 0
        for item in task.inputs:
            root = f"{self.pfs}/{item.name}"
            made = {root}
            os.makedirs(root, exist_ok=True)
            for path, md5 in item.files:
                target = f"{root}/{check_path(path)}"
                folder = target.rpartition("/")[0]
                if folder not in made:
                    os.makedirs(folder, exist_ok=True)
                    made.add(folder)
                if item.empty_files:
                    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
                    continue
                try:
                    total += _bring(f"{cache}/{md5[:2]}/{md5[2:]}", target, copies)
                except FileNotFoundError:
                    raise BadData(f"the blob {md5} of {item.name}/{path} is missing; `dvc fetch` brings it") from None
        return total

    def is_full(self) -> bool:
        """Whether nothing more can be written where the outputs go."""
        there = os.statvfs(self.out)
        return there.f_bavail == 0 or (there.f_files > 0 and there.f_ffree == 0)

    def clean(self) -> None:
        """Remove all that the last datum had and made; ``out`` itself stays, since sandboxes have it mounted.

        Raises:
            OSError: something cannot be removed; the slot is of no use any more.
        """
        for name in os.listdir(self.pfs):
            if name == "out":
                empty(self.out)
                os.chmod(self.out, 0o755)  # in the sandbox root has no right to what it has shut itself out of
            else:
                remove(f"{self.pfs}/{name}")
        empty(self.tmp)
        empty(self.home)

    def remove(self) -> None:
        """Remove the folder and let go of the lock."""
        if self._lock >= 0:
            remove_slot(self.path)
            os.close(self._lock)
            self._lock = -1


def _bring(blob: str, target: str, copy: bool) -> int:
    """Make `target` the blob, by a hard link where one is wanted and possible; its bytes."""
    if not copy:
        try:
            os.link(blob, target)
            return os.stat(target).st_size
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
    shutil.copyfile(blob, target)
    os.chmod(target, 0o644 if copy else 0o444)
    return os.stat(target).st_size


def empty(folder: str) -> None:
    """Remove what is in `folder`, whatever permissions the user's code left there."""
    for name in _names(folder):
        remove(f"{folder}/{name}")


def remove(path: str) -> None:
    """Remove one file or folder with all below it."""
    try:
        _remove(path)
    except (OSError, RecursionError):
        # Nested deeper than a path may be long or than Python recurses; `rm` walks by file descriptors.
        done = subprocess.run(["rm", "-rf", "--", path], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            raise


def _remove(path: str) -> None:
    try:
        os.unlink(path)
        return
    except (IsADirectoryError, PermissionError):  # macOS says the latter of a folder, too
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise
    for name in _names(path):
        _remove(f"{path}/{name}")
    os.rmdir(path)


def _names(folder: str) -> list[str]:
    """What is in `folder`, which is made such that it can be removed."""
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        os.chmod(folder, 0o700)
    return os.listdir(folder)


def remove_slot(path: str) -> None:
    """Remove a whole slot directory as well as can be; its lock file goes last, so that a sweeper can go on."""
    for name in ("pfs", "tmp", "home"):
        with contextlib.suppress(OSError, RecursionError):
            remove(f"{path}/{name}")
    shutil.rmtree(path, ignore_errors=True)


def sweep(slots_dir: Path) -> list[str]:
    """Remove the slots whose owners are dead (killed, machine restarted); the names of those removed."""
    try:
        names = sorted(os.listdir(slots_dir))
    except FileNotFoundError:
        return []
    gone = [name for name in names if os.path.isdir(f"{slots_dir}/{name}") and _abandoned(f"{slots_dir}/{name}")]
    kill_marked([f"{slots_dir}/{name}" for name in gone])
    for name in gone:
        remove_left(f"{slots_dir}/{name}")
        remove_slot(f"{slots_dir}/{name}")
    return gone


def kill_marked(slots: Sequence[str]) -> None:
    """Kill what killed agents left behind without a sandbox: found by the mark in the environment."""
    if not slots or not os.path.isdir("/proc/self"):
        return
    wanted = {f"{MARK}={slot}".encode("utf-8", "surrogateescape") for slot in slots}
    try:
        names = os.listdir("/proc")
    except OSError:  # no file handle is left: what to kill is not to be found
        return
    for name in names:
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/environ", "rb") as file:
                marked = not wanted.isdisjoint(file.read().split(b"\0"))
            if marked:
                os.kill(int(name), signal.SIGKILL)


def _abandoned(path: str) -> bool:
    try:
        lock = os.open(f"{path}/lock", os.O_RDWR)
    except OSError:
        try:
            return abs(time.time() - os.stat(path).st_mtime) > _GRACE  # the clock may have been put back
        except OSError:
            return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(lock)
