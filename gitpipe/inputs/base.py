"""What every kind of input can do.  Knows no kind; the kinds are the other modules of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from gitpipe.commit import CommitRef, Listing
from gitpipe.datum import InputFiles
from gitpipe.errors import BadSpec

if TYPE_CHECKING:
    from gitpipe.inputs.pfs import Pfs

Read: TypeAlias = "Callable[[Pfs], tuple[CommitRef, Listing]]"
"""Gives the commit that a leaf reads and the commit's files."""

Row: TypeAlias = tuple[InputFiles, ...]
"""What one input contributes to one datum."""


class Input(Protocol):
    """A way to cut commits into datums.  Implementations are frozen, and equal when they cut alike."""

    kind: ClassVar[str]

    def leaves(self) -> Iterator[Pfs]:
        """The repos that this input reads, from left to right."""

    def names(self) -> frozenset[str]:
        """The folders that may appear in ``/pfs``."""

    def cut(self, read: Read) -> Iterator[Row]:
        """One row a datum, in an order that depends on nothing but the listings."""

    def describe(self) -> str:
        """As ``list-pipeline`` prints it: ``(attributes:/* ⨯ model:/)``."""

    def to_dict(self) -> dict[str, Any]:
        """As in a normalised spec: ``{kind: …}``, without what is left at its default."""


def distinct_names(kind: str, inputs: Iterable[Input]) -> frozenset[str]:
    """All names of `inputs`, which meet in one datum and thus must differ.

    Raises:
        BadSpec: naming one that stands twice.
    """
    seen: frozenset[str] = frozenset()
    for each in inputs:
        twice = seen & each.names()
        if twice:
            raise BadSpec(f'two inputs of a {kind} are named {min(twice)!r}; give one of them another "name"')
        seen |= each.names()
    return seen


def joined(inputs: Iterable[Input], sign: str) -> str:
    """``(a ⨯ b)``."""
    return "(" + f" {sign} ".join(each.describe() for each in inputs) + ")"
