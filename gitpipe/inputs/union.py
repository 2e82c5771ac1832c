"""Several inputs, one side at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from gitpipe.inputs.base import Input, Read, Row, joined
from gitpipe.inputs.pfs import Pfs


@dataclass(frozen=True, slots=True)
class Union:
    """The rows of `inputs`, one after the other; sides never meet in a datum, so they may share a name."""

    inputs: tuple[Input, ...]

    kind: ClassVar[str] = "union"

    def leaves(self) -> Iterator[Pfs]:
        return chain.from_iterable(each.leaves() for each in self.inputs)

    def names(self) -> frozenset[str]:
        return frozenset[str]().union(*(each.names() for each in self.inputs))

    def cut(self, read: Read) -> Iterator[Row]:
        """Rows that would be the same datum come once, else two datums would write the same output."""
        seen: set[tuple[object, ...]] = set()
        for row in chain.from_iterable(each.cut(read) for each in self.inputs):
            key = tuple((i.name, i.match, i.files, i.empty_files, i.join_on, i.group_by) for i in row)
            if key not in seen:
                seen.add(key)
                yield row

    def describe(self) -> str:
        return joined(self.inputs, "∪")

    def to_dict(self) -> dict[str, Any]:
        return {self.kind: [each.to_dict() for each in self.inputs]}
