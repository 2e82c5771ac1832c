"""Draw what reads what, in each of the forms that `FORMATS` names.  Knows the values of `gitpipe.views` only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

from gitpipe.drawing import markup, png, svg, texts
from gitpipe.errors import UsageError
from gitpipe.views import DagInfo

__all__ = ["ENDINGS", "FORMATS", "TEXT", "format_of", "texts"]

TEXT = "text"

FORMATS: dict[str, Callable[[DagInfo], bytes]] = {
    TEXT: lambda dag: texts.draw(dag, None).encode(),
    "mermaid": lambda dag: markup.mermaid(dag).encode(),
    "dot": lambda dag: markup.dot(dag).encode(),
    "svg": lambda dag: svg.draw(dag).encode(),
    "png": png.draw,
}
"""Name of a format -> the whole file in it."""

ENDINGS = {
    ".txt": TEXT,
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
    ".svg": "svg",
    ".png": "png",
}


def format_of(given: str | None, file: str | None) -> str:
    """The format that was asked for, by name or by the ending of the file to write; else text.

    Raises:
        UsageError: there is no such format, or the ending says nothing.
    """
    if given is not None:
        if given not in FORMATS:
            raise UsageError(f"--format {given!r}: use {', '.join(FORMATS)}")
        return given
    if file is None:
        return TEXT
    ending = PurePath(file).suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(f"{file}: say which form with --format, or by an ending: {', '.join(ENDINGS)}")
    return ENDINGS[ending]
