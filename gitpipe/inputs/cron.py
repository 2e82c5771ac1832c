"""An input that the clock writes: a repo that gets a file with each tick, cut like any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gitpipe.errors import BadSpec
from gitpipe.inputs.pfs import Pfs
from gitpipe.schedule import Schedule, moment


@dataclass(frozen=True, slots=True)
class Cron(Pfs):
    """A `Pfs` input whose repo gets a commit with each tick: a new file, named by the tick's time.

    Attributes:
        spec: the schedule, ``@every 10s``, ``@daily`` or five fields.
        start: no tick up to this moment (RFC 3339), from which ``@every`` counts; "" is since the pipeline is there.
        overwrite: each tick's file replaces those of earlier ticks, and no other.

    Raises:
        BadSpec, BadName: a name, schedule or start that cannot be.
    """

    glob: str = "/*"
    spec: str = ""
    start: str = ""
    overwrite: bool = False

    kind: ClassVar[str] = "cron"

    def __post_init__(self) -> None:
        Pfs.__post_init__(self)  # super() finds another class than this one: `slots` makes a new one
        try:
            Schedule(self.spec)
            if self.start:
                moment(self.start)
        except ValueError as error:
            raise BadSpec(str(error)) from None

    def describe(self) -> str:
        return f"{self.name}:{self.spec}"

    def to_dict(self) -> dict[str, Any]:
        values = {"name": self.name, "spec": self.spec, "repo": self.repo}
        return {
            self.kind: {
                **values,
                **({"start": self.start} if self.start else {}),
                **({"overwrite": True} if self.overwrite else {}),
            }
        }
