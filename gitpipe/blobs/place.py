"""Put the bytes of one file at another path: reflink, hard link, symbolic link or copy, in the order asked for.

Also the one call that makes written files durable.  Knows file systems; not what the files mean.
"""
# Hot path, thousands of files: pathlib costs as much as the system calls themselves.

from __future__ import annotations

import errno
import functools
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable

_FICLONE = 0x40049409
_UNSUPPORTED = {
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.EACCES,
    errno.EMLINK,
    errno.ETXTBSY,
}


def place(source: str, target: str, kinds: Iterable[str]) -> None:
    """Make `target`, which must not exist, from `source` by the first of `kinds` that works here; a copy at last.

    Copies and reflinks get the mode that the umask gives; links have the source's.

    Raises:
        OSError: where even a copy fails.
    """
    for kind in kinds:
        if kind == "copy":
            break
        try:
            _LINKERS[kind](source, target)
        except OSError as exc:
            if exc.errno not in _UNSUPPORTED:
                raise
        else:
            return
    copy(source, target)


def copy(source: str, target: str) -> None:
    """Copy bytes, not the mode."""
    shutil.copyfile(source, target)


def _hardlink(source: str, target: str) -> None:
    # ext4 allows 65,000 links to one file, and a data set may hold more empty files than that.  DVC does the same.
    if os.stat(source).st_size == 0:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    else:
        os.link(os.path.realpath(source), target)


def _symlink(source: str, target: str) -> None:
    os.symlink(source, target)


def _reflink(source: str, target: str) -> None:
    if not can_reflink(os.stat(source).st_dev):
        raise OSError(errno.EOPNOTSUPP, "no reflinks here", source)
    source_fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target_fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            clone(source_fd, target_fd)
        except OSError as exc:
            os.unlink(target)
            if exc.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS):
                _NO_REFLINK.add(os.fstat(source_fd).st_dev)
            raise
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


_LINKERS: dict[str, Callable[[str, str], None]] = {"reflink": _reflink, "hardlink": _hardlink, "symlink": _symlink}
_NO_REFLINK: set[int] = set()


def can_reflink(device: int) -> bool:
    """False where reflinks are known not to work on the file system `device` (``st_dev``)."""
    return sys.platform == "linux" and device not in _NO_REFLINK


def clone(source_fd: int, target_fd: int) -> None:
    """Make the open file `target_fd` share the blocks of `source_fd` (Btrfs, XFS); OSError where that cannot be."""
    import fcntl

    fcntl.ioctl(target_fd, _FICLONE, source_fd)


@functools.cache
def umask() -> int:
    """The process's umask, read without a moment in which it is another (``os.umask`` is shared by all threads)."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def flush(folder: str) -> None:
    """Write all that is cached for the file system of `folder` to its disk: one call for any number of files.

    Raises:
        OSError: the disk reported an error.
    """
    syncfs = _syncfs()
    if syncfs is None:
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def _syncfs() -> Callable[[int], None] | None:
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None

    def call(descriptor: int) -> None:
        if function(ctypes.c_int(descriptor)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return call


def is_plain(status: os.stat_result) -> bool:
    """Whether `status` is that of a regular file."""
    return stat.S_ISREG(status.st_mode)


def link_blobs(old: str, new: str) -> int:
    """Give the blob cache `new` all that the cache `old` has, as hard links; how many were missing there.

    Raises:
        OSError: the two are on different file systems, or `new` cannot be written.
    """
    made = 0
    for inside in ("files/md5", "."):  # DVC 3's place, DVC 2's
        for name in _names(f"{old}/{inside}"):
            if len(name) != 2 or not set(name) <= set("0123456789abcdef"):
                continue
            target = os.path.normpath(f"{new}/{inside}/{name}")
            os.makedirs(target, exist_ok=True)
            for blob in sorted(set(_names(f"{old}/{inside}/{name}")) - set(_names(target))):
                # Unpacked folders (.dir.unpacked) and half-made files are of no use to anybody.
                if os.path.isfile(f"{old}/{inside}/{name}/{blob}") and not blob.endswith((".unpacked", ".tmp")):
                    os.link(f"{old}/{inside}/{name}/{blob}", f"{target}/{blob}")
                    made += 1
    return made


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
