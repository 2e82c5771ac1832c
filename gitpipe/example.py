"""Copy a shipped example into a repository: its pipelines to ``pipelines/``, its data to ``samples/``.

Knows nothing of git; where the files go is the caller's to say.  Nothing is written to ``data/``: that folder holds
the files of the data repo that is checked out.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from gitpipe.errors import NotFound, Refused


def list_examples() -> list[str]:
    """The names of the shipped examples, sorted."""
    return sorted(
        folder.name for folder in _shipped("pipelines").iterdir() if folder.is_dir() and folder.name[0] != "_"
    )


def copy_example(name: str, target: Path) -> list[str]:
    """Copy example `name` below `target`; the paths written, relative to `target`, sorted.

    Files that are there already with the same bytes are left alone, and not named in the answer.  Without a name
    ("") nothing is copied, and the answer is what there is.

    Raises:
        NotFound: there is no such example.
        Refused: a file of another content is in the way; nothing is written then.
    """
    if not name:
        return list_examples()
    if name not in list_examples():
        raise NotFound(f"no example {name!r}; there is: {', '.join(list_examples())} (gitpipe example NAME)")
    # `iris-r` is `iris` in another language, on the same data.
    data = name if (_shipped("data") / name).is_dir() else name.partition("-")[0]
    plan = _plan(_shipped("pipelines") / name, f"pipelines/{name}") | _plan(_shipped("data") / data, f"samples/{data}")
    clash = [path for path, content in plan.items() if _differs(target / path, content)]
    if clash:
        raise Refused(f"{', '.join(clash)}: there already with another content; move it away first")
    written = [path for path in sorted(plan) if not (target / path).exists()]
    done = []
    try:
        for path in written:
            done.append(target / path)
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(plan[path])
    except BaseException:  # all or nothing: half a file would be in the way the next time
        for file in done:
            with contextlib.suppress(OSError):
                file.unlink()
        raise
    return written


def _plan(source: Path, prefix: str) -> dict[str, bytes]:
    files = (path for path in sorted(source.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {f"{prefix}/{path.relative_to(source).as_posix()}": path.read_bytes() for path in files}


def _differs(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() != content
    except FileNotFoundError:
        return path.is_symlink()
    except OSError:  # a folder, or a file where a folder is needed
        return True


def _shipped(kind: str) -> Path:
    """``pipelines`` or ``data``: in the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parent
    for folder in (package / f"_{kind}", package.parent / kind):
        if folder.is_dir():
            return folder
    raise NotFound("the examples are missing from this installation of gitpipe: install it again")
