"""From the command as the spec has it to the one that is run: interpreter, paths of the code tree, paths without
mount namespaces.  Works on text alone but for looking whether a path exists."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gitpipe.stage import Stage
from gitpipe.stage.sandbox import is_masked, masked

# A path that begins here: what stands before must not be part of a path itself (`a/pfs`, `$X/pfs` are others).
_START = r"(?<![\w./\-~})*?\]])"
_ABSOLUTE = re.compile(_START + r"/[\w.+@-][\w./+@-]*")
_HARD_CODED = re.compile(rb"(?m)^(?!\s*(?:#|//|--|%)).*?(?<![\w./\-~}])/pfs(?![\w.+@-])")
_MAX_SCRIPT = 1 << 20
_OURS = re.compile(_START + r"/(pfs|code)(?=/|$|[^\w.+@-])")


@dataclass(frozen=True, slots=True)
class Command:
    """What to start: argv, the text for its standard input (None: nothing to read), where; and what to say of it."""

    argv: tuple[str, ...]
    stdin: str | None
    cwd: str
    note: str = ""


class PathMap:
    """Where ``/pfs`` and ``/code`` really are; with no arguments they are there."""

    def __init__(self, pfs: str = "/pfs", code: str = "/code") -> None:
        self._real = {"pfs": pfs, "code": code}
        self.identity = pfs == "/pfs" and code == "/code"

    def rewrite(self, text: str) -> str:
        """`text` with every path that begins with ``/pfs`` or ``/code`` made a real one (``/pfsx`` is another)."""
        return text if self.identity else _OURS.sub(lambda match: self._real[match[1]], text)


def prepare(stage: Stage, paths: PathMap, sandboxed: bool) -> Command:
    """The command of a stage, ready to be started."""
    code = str(stage.code_dir)
    taken: dict[str, None] = {}
    masks = masked(stage) if sandboxed else ()

    def from_code(text: str) -> str:
        return _from_code(text, code, masks, taken)

    program = stage.python if stage.cmd[0] in ("python", "python3") else stage.cmd[0]
    argv = tuple(paths.rewrite(from_code(text)) for text in (program, *stage.cmd[1:]))
    stdin = None
    if stage.stdin:
        stdin = "".join(paths.rewrite(from_code(line)) + "\n" for line in stage.stdin)
    note = "; ".join(f"{path}: taken from the pipeline's code" for path in taken)
    return Command(argv, stdin, paths.rewrite(stage.working_dir or "/code"), note)


def hard_coding(stage: Stage) -> str:
    """The first script of the command, in the code tree, that names ``/pfs`` outside of comment lines; "" if none."""
    for word in stage.cmd:
        name = word.removeprefix("/code/")
        folders = (stage.working_dir.removeprefix("/code").strip("/"), "")
        for path in (os.path.join(stage.code_dir, folder, name) for folder in folders if not name.startswith("/")):
            try:
                with open(path, "rb") as file:
                    text = file.read(_MAX_SCRIPT)
            except (OSError, ValueError):
                continue
            if _HARD_CODED.search(text):
                return name
    return ""


def _from_code(text: str, code: str, masks: Sequence[str], taken: dict[str, None]) -> str:
    """`text` with absolute paths that the host lacks and the code tree has led there (specs written for images)."""
    if text.startswith("/code/") and "\0" not in text and os.path.exists(code + text[len("/code") :]):
        if not os.path.lexists(text):
            taken[text] = None  # it is where an image would have had it
        return text
    if text.startswith("/") and _only_in_code(text, code, masks, os.path.exists):
        taken[text] = None
        return "/code" + text

    def replace(match: re.Match[str]) -> str:
        path = match[0]
        # Within a longer text only files are believed to be meant: `awk '/train/'` is no path.
        if not _only_in_code(path, code, masks, os.path.isfile):
            return path
        taken[path] = None
        return "/code" + path

    return _ABSOLUTE.sub(replace, text)


def _only_in_code(path: str, code: str, masks: Sequence[str], exists: Callable[[str], bool]) -> bool:
    if path in ("/", "/pfs", "/code") or path.startswith(("/pfs/", "/code/")) or "\0" in path:
        return False
    absent = not os.path.lexists(path) or is_masked(path, masks)
    return absent and exists(code + path)
