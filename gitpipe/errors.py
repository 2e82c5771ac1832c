"""Expected failures, worded for the person who typed the command.

Knows nothing of git, DVC or Ray.  Every message is one line that says what failed, which thing it was, and what to
do next.  One handler (`gitpipe.cli`) prints it and turns `exit_code` into the process's exit status; anything that
is not a `GitpipeError` is a bug and shows a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


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


class DiskFull(StageFailed):
    """There is no room for a worker now; what takes it may be a datum that ends soon."""
