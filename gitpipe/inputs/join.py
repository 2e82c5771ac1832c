"""Matches of several repos whose keys are the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, ClassVar

from gitpipe.errors import BadSpec
from gitpipe.inputs.base import Input, Read, Row, distinct_names, joined
from gitpipe.inputs.pfs import Pfs


@dataclass(frozen=True, slots=True)
class Join:
    """Per key (`Pfs.join_on`, expanded) the cross product of the matches, keys in order.

    A key that some side lacks gives the cross product of those sides that say ``outer_join``, if any has it.
    """

    inputs: tuple[Input, ...]

    kind: ClassVar[str] = "join"

    def __post_init__(self) -> None:
        distinct_names(self.kind, self.inputs)
        for each in self.inputs:
            if not isinstance(each, Pfs) or not each.join_on:
                raise BadSpec(f'{each.describe()} in a join is not a "pfs" input with "join_on"')

    def leaves(self) -> Iterator[Pfs]:
        return chain.from_iterable(each.leaves() for each in self.inputs)

    def names(self) -> frozenset[str]:
        return distinct_names(self.kind, self.inputs)

    def cut(self, read: Read) -> Iterator[Row]:
        sides = [(leaf, _by_key(leaf, read)) for leaf in self.leaves()]
        for key in sorted(set[str]().union(*(rows for _, rows in sides))):
            matched = all(key in rows for _, rows in sides)
            chosen = [rows[key] for leaf, rows in sides if key in rows and (matched or leaf.outer_join)]
            if chosen:
                for rows in product(*chosen):
                    yield tuple(chain.from_iterable(rows))

    def describe(self) -> str:
        return joined(self.inputs, "⋈")

    def to_dict(self) -> dict[str, Any]:
        return {self.kind: [each.to_dict() for each in self.inputs]}


def _by_key(leaf: Pfs, read: Read) -> dict[str, list[Row]]:
    out: dict[str, list[Row]] = {}
    for row in leaf.cut(read):
        out.setdefault(row[0].join_on, []).append(row)
    return out
