"""The interface of Python callables (``transform.python``), for type checkers; stages need not import it.

See docs/python.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

Inputs = dict[str, Path]
"""Name of an input -> the file or folder that its glob matched, below ``/pfs``."""


class Callable(Protocol):
    """A function, or an object whose class takes no arguments, that makes the outputs of one datum."""

    def __call__(self, inputs: Inputs, out: Path) -> None:
        """Read `inputs`, write files below `out`; raise, or end with a status that is not 0, to fail."""
