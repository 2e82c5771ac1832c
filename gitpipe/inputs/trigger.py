"""When a branch moves up to another one: a `pfs` input's ``trigger``, and what ``create-branch --trigger`` sets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from gitpipe.commit import DEFAULT_BRANCH
from gitpipe.errors import BadSpec
from gitpipe.schedule import Schedule, size


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the watched branch has and the branch that is to be moved has not: how many data commits, how many bytes
    more its files are, and the POSIX second of the first of those commits."""

    commits: int
    growth: int
    since: int


@dataclass(frozen=True, slots=True)
class Trigger:
    """Move to the head of `branch` when one of the conditions holds, or with `all` each that is given.

    Attributes:
        branch: of the same repo.
        size: so many bytes more in all its files, as written: ``1MB``.
        commits: so many data commits; 0 is no condition.
        cron_spec: a schedule that has struck since the first of these commits.

    Raises:
        BadSpec: no condition, or one that makes no sense.
    """

    branch: str = DEFAULT_BRANCH
    size: str = ""
    commits: int = 0
    cron_spec: str = ""
    all: bool = False

    def __post_init__(self) -> None:
        try:
            if self.size:
                size(self.size)
            if self.cron_spec:
                Schedule(self.cron_spec)
        except ValueError as error:
            raise BadSpec(f"trigger: {error}") from None
        if not (self.size or self.commits or self.cron_spec):
            raise BadSpec("a trigger needs a condition: size, commits or cron_spec")

    def due(self, backlog: Backlog) -> int | None:
        """When `cron_spec` strikes for a backlog, in POSIX seconds; None without one."""
        return Schedule(self.cron_spec).after(backlog.since) if self.cron_spec else None

    def holds(self, backlog: Backlog, now: float) -> bool:
        """Whether the branch is to move at the moment `now`; an empty backlog moves nothing."""
        met = []
        if self.size:
            met.append(backlog.growth >= size(self.size))
        if self.commits:
            met.append(backlog.commits >= self.commits)
        if self.cron_spec:
            due = self.due(backlog)
            met.append(due is not None and due <= now)
        return backlog.commits > 0 and (all(met) if self.all else any(met))

    def describe(self) -> str:
        """As ``list-branch`` prints it: ``staging on Size(1MB) or Commits(3)``."""
        return f"{self.branch} on {self.conditions()}"

    def conditions(self) -> str:
        """``Size(1MB) or Commits(3)``"""
        named = (("Cron", self.cron_spec), ("Size", self.size), ("Commits", self.commits))
        sign = " and " if self.all else " or "
        return sign.join(f"{name}({value})" for name, value in named if value)

    def to_dict(self) -> dict[str, Any]:
        """As in a normalised spec, without what is left at its default."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in values.items() if v}
