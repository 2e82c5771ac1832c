"""From the command as the spec has it to the one that is run: interpreter, paths of the code tree, paths without
mount namespaces.  Works on text alone but for looking whether a path exists."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    """What to start.

    Attributes:
        argv: empty for a Python callable.
        stdin: the text for its standard input; None: nothing to read.
        cwd: where it starts.
        note: what to say of it.
        keep: argv of an interpreter that is kept for all datums, without the script: ``python -W error``; or empty.
        setup: what such an interpreter has to know before the first datum (``gitpipe/stage/warm.py``).
        way: why a process is started for each datum, if that is so.
    """

    argv: tuple[str, ...]
    stdin: str | None
    cwd: str
    note: str = ""
    keep: tuple[str, ...] = ()
    setup: dict[str, Any] = field(default_factory=dict)
    way: str = ""


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

    cwd = paths.rewrite(stage.working_dir or "/code")
    if stage.callable:
        setup = {"callable": stage.callable, "path": paths.rewrite("/code")}
        return Command((), None, cwd, keep=(stage.python,), setup=setup)
    program = stage.python if stage.cmd[0] in ("python", "python3") else stage.cmd[0]
    argv = tuple(paths.rewrite(from_code(text)) for text in (program, *stage.cmd[1:]))
    stdin = None
    if stage.stdin:
        stdin = "".join(paths.rewrite(from_code(line)) + "\n" for line in stage.stdin)
    note = "; ".join(f"{path}: taken from the pipeline's code" for path in taken)
    keep, setup, way = _kept(argv, stage, [paths.rewrite("/code"), paths.rewrite("/pfs")])
    return Command(argv, stdin, cwd, note, keep, setup, way)


_PLAIN_OPTIONS = re.compile(r"-[bBdEIOPqRsSu]+\Z")
_OPTIONS_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def _kept(argv: tuple[str, ...], stage: Stage, own: list[str]) -> tuple[tuple[str, ...], dict[str, Any], str]:
    """How the command can be run by forks of a Python that is kept: its argv and set-up, or why it cannot."""
    if argv[0] != stage.python:
        return (), {}, f"{stage.cmd[0]} is not the `python` that gitpipe.python names"
    if not stage.preload:
        return (), {}, "gitpipe.preload is never"
    words = list(argv[1:])
    options = []
    while words and words[0].startswith("-") and words[0] not in ("-m", "-"):
        option = words.pop(0)
        options.append(option)
        if option in _OPTIONS_WITH_VALUE and words:
            options.append(words.pop(0))
        elif not _PLAIN_OPTIONS.match(option) and not option.startswith(("-W", "-X")):
            return (), {}, f"Python is called with {option}"
    setup: dict[str, Any] = {"original": list(argv), "roots": own}
    if words[:1] == ["-m"] and len(words) > 1:
        setup.update(module=words[1], argv=["-m", *words[2:]])
    elif words and words[0] not in ("-", "-m"):
        setup.update(script=words[0], argv=words)
    else:
        return (), {}, "Python is called without a script"
    return (argv[0], *options), setup, ""


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
