"""Expected failures, worded for the person who typed the command.

Knows nothing of git, DVC or Ray.  Every message is one line that says what failed, which thing it was, and what to
do next.  One handler (`gitpipe.cli`) prints it and turns `exit_code` into the process's exit status; anything that
is not a `GitpipeError` is a bug and shows a traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

SCARCE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})
"""The disk, file handles, processes or memory are used up: by a datum that ends soon, it may be."""
MACHINE = SCARCE | {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP, errno.EFBIG}
"""Failures of the machine, or of a name that it cannot take, not of gitpipe; any other OSError is a bug."""
NO_THREAD = "can't start new thread"
"""What Python's `threading` says where the limit of processes is reached, or memory."""
NO_TEMPORARY = "No usable temporary directory"
"""What Python's `tempfile` says where the disks of all of them are full."""


def of_machine(error: BaseException) -> str:
    """A failure of the machine, worded as one line; "" for any other exception."""
    if isinstance(error, FileNotFoundError) and NO_TEMPORARY in str(error):
        return f"{error.strerror}: make room in one of them, or have TMPDIR name another"
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, RuntimeError) and NO_THREAD in str(error):
        return "no thread can be started: the limit of processes is reached, or memory"
    if not isinstance(error, OSError) or error.errno not in MACHINE:
        return ""
    return f"{error.strerror}: {error.filename or 'while writing'}"


class GitpipeError(Exception):
    """An expected failure: one line for the user, exit status 1.

    Attributes:
        names: what it is about where that is more than fits into the line; shown below it, one a line.
    """

    exit_code = 1

    def __init__(self, message: str = "", names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)


class UsageError(GitpipeError):
    """The command was typed wrongly: exit status 2."""

    exit_code = 2


class JobFailed(GitpipeError):
    """A job failed while `wait` or `run` watched: exit status 3."""

    exit_code = 3


class NotARepo(GitpipeError):
    """There is no git repository here, or gitpipe was never initialised in it."""


class NotFound(GitpipeError):
    """A repo, branch, commit, file, pipeline or job that does not exist."""


class Ambiguous(NotFound):
    """The first digits of an id that several things have."""


class BadName(GitpipeError):
    """A name that gitpipe, git or DVC could not carry."""


class BadSpec(GitpipeError):
    """A pipeline specification that cannot be accepted; nothing was created."""


class BadData(GitpipeError):
    """A listing, pointer or blob that is malformed, hostile or missing."""


class Refused(GitpipeError):
    """Something that would lose, mix or overwrite data."""


class StageFailed(GitpipeError):
    """The machinery around a user's program failed (not the program itself)."""


class Scarce(StageFailed):
    """There is no room, file handle, process or memory for a worker now, see `SCARCE`."""
