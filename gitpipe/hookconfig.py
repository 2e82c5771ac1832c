"""Write gitpipe's hooks into a ``.pre-commit-config.yaml``, leaving every other byte of it as it is.

The lines are put in as text, since no YAML writer keeps a person's layout; the result is read back and compared before
it is written.  Knows the file only: not git, nor what the hooks do.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

from gitpipe.blobs.place import umask
from gitpipe.errors import BadData, Refused

FILE = ".pre-commit-config.yaml"
TYPES = ("pre-commit", "pre-merge-commit", "commit-msg")
"""The hook types that gitpipe's entries need beside its own git hooks."""

_HOOKS = """\
- repo: local
  hooks:
    - id: gitpipe-track
      name: gitpipe track
      language: system
      entry: gitpipe pre-commit track
      always_run: true
      pass_filenames: false
      require_serial: true
      stages: [pre-commit]
    - id: gitpipe-check
      name: gitpipe check
      language: system
      entry: gitpipe pre-commit check
      files: \\.(json|ya?ml)$
      require_serial: true
      stages: [pre-commit, pre-merge-commit]
    - id: gitpipe-guard
      name: gitpipe guard
      language: system
      entry: gitpipe pre-commit guard --max-size=10MB
      always_run: true
      require_serial: true
      stages: [pre-commit, pre-merge-commit, commit-msg]
    # These two do nothing where gitpipe's own git hooks are in place.
    - id: gitpipe-run
      name: gitpipe run
      language: system
      entry: gitpipe pre-commit run
      always_run: true
      pass_filenames: false
      require_serial: true
      stages: [post-commit, post-merge, post-rewrite, post-checkout]
    - id: gitpipe-push
      name: gitpipe push
      language: system
      entry: gitpipe pre-commit push
      always_run: true
      pass_filenames: false
      require_serial: true
      stages: [pre-push]
"""
NAMES = tuple(re.findall(r"id: (\S+)", _HOOKS))
_NEW = f"""\
minimum_pre_commit_version: "3.2.0"
default_install_hook_types: [{", ".join(TYPES)}]
default_stages: [pre-commit]
repos:
"""


def add_hooks(path: Path) -> list[str]:
    """Put gitpipe's hooks at the end of the file's ``repos``, or into a new file; twice is harmless.

    Returns:
        What was done and what to type next, a line each.

    Raises:
        BadData: the file is malformed; it stays as it is.
        Refused: it cannot be written, or is of a shape that lines cannot be put into.
    """
    old = _read(path)
    text = with_hooks(old, path.name)
    if text == old:
        absent = [name for name in NAMES if f"id: {name}" not in text]
        if not absent:
            return [f"{path.name} has gitpipe's hooks already"]
        return [f"{path.name} has some of gitpipe's hooks already and stays as it is; not there: {', '.join(absent)}"]
    _write(path, text)
    # Without the option pre-commit stops every commit on a branch that has no such file, as data repos have none.
    install = "pre-commit install --allow-missing-config"
    if _says_nothing(old):
        return [f"{path.name} is written, with gitpipe's hooks; next: {install}"]
    types = " ".join(f"-t {name}" for name in TYPES)
    return [f"gitpipe's hooks are added to {path.name}; next: {install} {types}"]


def with_hooks(text: str, name: str = FILE) -> str:
    """The text of a configuration with gitpipe's hooks in it; as it is where it has some.

    Raises:
        BadData: no configuration of pre-commit.
        Refused: its ``repos`` are written in a way (``[{…}]``) that lines cannot be put into.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    if _says_nothing(text):
        start = "" if not text or text.endswith("\n") else newline
        return text + start + _indented(_NEW, 0, newline) + _indented(_HOOKS, 2, newline)
    old = _parse(text, name)
    if any(str(hook.get("id", "")).startswith("gitpipe-") for repo in old["repos"] for hook in _hooks(repo)):
        return text
    new = _inserted(text, newline)
    expected = {**old, "repos": [*old["repos"], *yaml.safe_load(_HOOKS)]}
    try:
        whole = new is not None and yaml.safe_load(new) == expected
    except yaml.YAMLError:
        whole = False
    if new is None or not whole:
        raise Refused(f"{name}: write `repos` as a list with a line for each `- repo:`, and try again")
    return new


def _says_nothing(text: str) -> bool:
    """Whether there are at most comments in it."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise BadData(
            f"{name}{where}: not valid YAML: {' '.join(str(what).split())[:120]}; nothing was changed"
        ) from None
    repos = found.get("repos") if isinstance(found, dict) else None
    if not isinstance(repos, list) or not all(isinstance(repo, dict) for repo in repos):
        raise BadData(f"{name}: expected a list `repos`, as pre-commit wants it; nothing was changed")
    return dict(found)


def _hooks(repo: dict[str, Any]) -> list[dict[str, Any]]:
    hooks = repo.get("hooks")
    return [hook for hook in hooks if isinstance(hook, dict)] if isinstance(hooks, list) else []


def _inserted(text: str, newline: str) -> str | None:
    """The text with the hooks behind the last entry of a list in block style, at its indentation; None elsewise."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    keys = [key for key, _ in root.value]
    place = next(n for n, key in enumerate(keys) if key.value == "repos")
    repos = root.value[place][1]
    if repos.flow_style:
        if repos.value:
            return None
        head, tail = text[: repos.start_mark.index].rstrip(" "), text[repos.end_mark.index :]
        rest, line_end, below = tail.partition("\n")
        return str(head) + rest + (line_end or newline) + _indented(_HOOKS, 2, newline) + below
    column = repos.start_mark.column
    lines = text.splitlines(keepends=True)
    end = keys[place + 1].start_mark.line if place + 1 < len(keys) else len(lines)
    end = next((n for n in range(repos.start_mark.line, end) if lines[n].rstrip() in ("...", "---")), end)
    # What stands below the last entry no deeper than its dash belongs to what comes next.
    while not lines[end - 1].strip() or _is_comment(lines[end - 1], column):
        end -= 1
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += newline
    lines.insert(end, _indented(_HOOKS, column, newline))
    return "".join(lines)


def _is_comment(line: str, column: int) -> bool:
    bare = line.lstrip(" ")
    return bare.startswith("#") and len(line) - len(bare) <= column


def _indented(text: str, columns: int, newline: str) -> str:
    return "".join(" " * columns + line + newline for line in text.splitlines())


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise BadData(f"{path.name}: not UTF-8 text; nothing was changed") from None
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    """Whole or not at all; a symbolic link stays one."""
    goal = path.resolve()
    temporary = None
    try:
        mode = goal.stat().st_mode & 0o777 if goal.exists() else None
        handle, temporary = tempfile.mkstemp(dir=goal.parent, prefix=f"{FILE}.")
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        os.chmod(temporary, mode if mode is not None else 0o666 & ~umask())
        os.replace(temporary, goal)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise Refused(f"cannot write {path}: {error.strerror}") from error
