"""Every combination of several inputs; an empty side gives none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, ClassVar

from gitpipe.inputs.base import Input, Read, Row, distinct_names, joined
from gitpipe.inputs.pfs import Pfs


@dataclass(frozen=True, slots=True)
class Cross:
    """The cross product of `inputs`, the last one turning fastest."""

    inputs: tuple[Input, ...]

    kind: ClassVar[str] = "cross"

    def __post_init__(self) -> None:
        distinct_names(self.kind, self.inputs)

    def leaves(self) -> Iterator[Pfs]:
        return chain.from_iterable(each.leaves() for each in self.inputs)

    def names(self) -> frozenset[str]:
        return distinct_names(self.kind, self.inputs)

    def cut(self, read: Read) -> Iterator[Row]:
        first, *others = self.inputs
        rows = [list(each.cut(read)) for each in others]
        if not all(rows):
            return
        for head in first.cut(read):
            for tail in product(*rows):
                yield head + tuple(chain.from_iterable(tail))

    def describe(self) -> str:
        return joined(self.inputs, "⨯")

    def to_dict(self) -> dict[str, Any]:
        return {self.kind: [each.to_dict() for each in self.inputs]}
