"""All matches of a key together in one datum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from gitpipe.errors import BadSpec
from gitpipe.inputs.base import Input, Read, Row, distinct_names
from gitpipe.inputs.join import Join
from gitpipe.inputs.pfs import Pfs


@dataclass(frozen=True, slots=True)
class Group:
    """Per key (`Pfs.group_by`, expanded) one datum with every match of every side, keys in order.

    A join may be a side; its rows have the key of the first of its inputs that says ``group_by``.
    """

    inputs: tuple[Input, ...]

    kind: ClassVar[str] = "group"

    def __post_init__(self) -> None:
        distinct_names(self.kind, self.inputs)
        for each in self.inputs:
            if not isinstance(each, (Pfs, Join)) or not any(leaf.group_by for leaf in each.leaves()):
                raise BadSpec(f'{each.describe()} in a group is not a "pfs" or "join" input with "group_by"')

    def leaves(self) -> Iterator[Pfs]:
        return chain.from_iterable(each.leaves() for each in self.inputs)

    def names(self) -> frozenset[str]:
        return distinct_names(self.kind, self.inputs)

    def cut(self, read: Read) -> Iterator[Row]:
        groups: dict[str, list[Row]] = {}
        for row in chain.from_iterable(each.cut(read) for each in self.inputs):
            key = next((part.group_by for part in row if part.group_by), "")
            groups.setdefault(key, []).append(row)
        for key in sorted(groups):
            yield tuple(chain.from_iterable(groups[key]))

    def describe(self) -> str:
        return "group(" + ", ".join(each.describe() for each in self.inputs) + ")"

    def to_dict(self) -> dict[str, Any]:
        return {self.kind: [each.to_dict() for each in self.inputs]}
