"""Cut the commits that a pipeline reads into datums.

One small module a kind, one entry in `COMBINED`.  Knows neither git nor specs: it gets listings, and gives `Datum`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gitpipe.datum import Datum
from gitpipe.errors import BadSpec
from gitpipe.inputs.base import Input, Read, Row
from gitpipe.inputs.cron import Cron
from gitpipe.inputs.cross import Cross
from gitpipe.inputs.group import Group
from gitpipe.inputs.join import Join
from gitpipe.inputs.pfs import Pfs
from gitpipe.inputs.trigger import Backlog, Trigger
from gitpipe.inputs.union import Union

__all__ = [
    "COMBINED",
    "KINDS",
    "Backlog",
    "Cron",
    "Cross",
    "Group",
    "Input",
    "Join",
    "Pfs",
    "Read",
    "Row",
    "Trigger",
    "Union",
    "datums",
    "from_dict",
]

COMBINED: dict[str, Callable[[tuple[Input, ...]], Input]] = {
    Cross.kind: Cross,
    Union.kind: Union,
    Join.kind: Join,
    Group.kind: Group,
}
"""Kind -> the class of an input that is made of other inputs."""

KINDS = (Pfs.kind, Cron.kind, *COMBINED)


def from_dict(form: Mapping[str, Any]) -> Input:
    """The inverse of `Input.to_dict`: ``{"pfs": {…}}``, ``{"cross": [{…}, …]}`` ….

    Raises:
        BadSpec, BadName: an unknown kind, or parts that do not go together.
    """
    if len(form) != 1:
        raise BadSpec(f"an input is exactly one of {', '.join(KINDS)}")
    ((kind, body),) = form.items()
    if kind == Pfs.kind:
        return Pfs(**{**body, "trigger": Trigger(**body["trigger"]) if body.get("trigger") else None})
    if kind == Cron.kind:
        return Cron(**body)
    if kind not in COMBINED:
        raise BadSpec(f"unknown kind of input {kind!r}; it is one of {', '.join(KINDS)}")
    if not body:
        raise BadSpec(f"a {kind} of no inputs")
    return COMBINED[kind](tuple(from_dict(each) for each in body))


def datums(input: Input, read: Read) -> Iterator[Datum]:
    """Every datum of `input`, in an order that depends on nothing but the listings.

    Args:
        read: gives the commit and the files that a leaf reads; called once a leaf, when the first datum is asked for.
    """
    return (Datum(row) for row in input.cut(read))
