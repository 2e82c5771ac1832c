"""Which folder gitpipe's hooks go to, and how git comes to look there.

Where ``core.hooksPath`` is not set, that is ``hooks`` of the git dir, which all working trees share.  Where it names a
folder of another tool (husky's ``.husky/_``, a team's ``.githooks``, a company's), nothing is written there: git may
track its files, others may share it, and a relative one git looks for in each working tree, so that those of data
branches have none.  gitpipe's hooks then lie in ``gitpipe-hooks`` of the git dir and call that tool's first.  An
include at the end of the local configuration has git look there, also after the tool has set ``core.hooksPath`` anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gitpipe import hooks
from gitpipe.errors import Refused
from gitpipe.repo import Repo

OWN = "gitpipe-hooks"  # the scripts know themselves by it, see hooks/_common
KEPT = "gitpipe.hooks"  # git config: each folder, relative to the git dir, that gitpipe's hooks were put into
_CONFIG = "config"  # in that folder: what is included
_INCLUDED = f"{OWN}/{_CONFIG}"
# Other hooks of git that the named folder may have.  Those in the second line cost time at each ref or index that is
# written, or change what git does by being there: they are handed on only if they are there at the installation.
_OTHERS = ("applypatch-msg", "pre-applypatch", "prepare-commit-msg", "pre-merge-commit", "pre-rebase", "pre-auto-gc")
_IF_THERE = (
    *("sendemail-validate", "post-index-change", "reference-transaction", "fsmonitor-watchman", "fsmonitor-watchmanv2"),
    *("pre-receive", "update", "post-update", "proc-receive", "push-to-checkout"),
    *("p4-changelist", "p4-prepare-changelist", "p4-post-changelist", "p4-pre-submit"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """The folder for gitpipe's hooks; `named` is the other tool's that they stand in front of, as configured, or ""."""

    folder: Path
    named: str = ""


def find(repo: Repo) -> Place:
    """Where the hooks belong.

    Raises:
        Refused: ``core.hooksPath`` is empty or ``/dev/null``, by which people switch all hooks off.
    """
    said = repo.git("config", "-z", "--type=path", "--get-all", "core.hooksPath", accept=(0, 1))
    paths = [path for path in said.split("\0")[:-1] if Path(path).name != OWN]
    named = paths[-1] if paths else str(repo.common / "hooks")
    if named in ("", "/dev/null"):
        raise Refused(
            f"core.hooksPath is {named or 'empty'}, which switches all git hooks off: gitpipe's were not installed; "
            "`git config --unset core.hooksPath` (or with --global), then `gitpipe hooks install`"
        )
    path = Path(named).resolve()  # .git/hooks may be a link to a folder that is shared or tracked
    if Path(named).is_absolute() and repo.common in path.parents:
        return Place(path)
    return Place(repo.common / OWN, named)


def install(repo: Repo, python: str, flags: str) -> list[str]:
    """Put the hooks where they belong, have git look there, and clean the folders that held them before.

    Args:
        python: absolute path of the interpreter that the hooks start.
        flags: its options, see `hooks.interpreter_flags`.

    Returns:
        What was done, one sentence a line; empty if all was in place.

    Raises:
        Refused: hooks are switched off, or a folder cannot be written.
    """
    place = find(repo)
    others = [
        *_OTHERS,
        *(name for name in _IF_THERE if any((at / name).exists() for at in _named_folders(repo, place))),
    ]
    lines = hooks.install(place.folder, python, flags, others if place.named else ())
    if str(place.folder.relative_to(repo.common)) not in repo.config(KEPT).get(KEPT, []):
        repo.add_config(KEPT, str(place.folder.relative_to(repo.common)))
    if place.named and _looked_in(repo) != place.folder:
        _redirect(repo)
        lines.append(f"the hooks in {place.named} stay as they are: gitpipe's, in {place.folder}, call them first")
    elif not place.named:
        lines += _drop_own(repo)
    for folder in _kept(repo):
        if folder != place.folder:
            lines += [f"{folder}: {line}" for line in hooks.uninstall(folder)]
    return lines


def uninstall(repo: Repo) -> list[str]:
    """Remove the hooks from each folder that they were ever put into, and the include.

    Raises:
        Refused: a folder cannot be written.
    """
    lines = _drop_own(repo)
    for folder in dict.fromkeys([*_kept(repo), repo.common / "hooks"]):
        lines += hooks.uninstall(folder)
    repo.git("config", "--local", "--unset-all", KEPT, accept=(0, 5))
    return lines


def status(repo: Repo) -> list[str]:
    """How each hook stands, and what else there is to know, a line each.

    Raises:
        Refused: hooks are switched off.
    """
    place = find(repo)
    lines = [str(state) for state in hooks.status(place.folder)]
    if place.named:
        lines.append(f"the hooks in {place.named} run first")
    # Since git 2.54 hooks may also stand in git's configuration; they run before those in the folder.
    for key, values in repo.config("hook.").items():
        name = key.removeprefix("hook.").removesuffix(".event")
        events = [value for value in values if value in hooks.NAMES] if key.endswith(".event") else []
        lines += [f"{event}: git 2.54 and newer also run hook.{name} of the configuration" for event in events]
    return lines + ([problem] if (problem := trouble(repo)) else [])


def trouble(repo: Repo) -> str:
    """Why hooks that were installed do not run, and what to do, in one line; "" where they do or nobody wants them."""
    try:
        place = find(repo)
    except Refused as error:
        return str(error)
    if not repo.config(KEPT):
        return ""
    looked = _looked_in(repo)
    if looked != place.folder:
        return f"git takes its hooks from {looked}, where gitpipe's are not: `gitpipe hooks install`"
    gone = [state.name for state in hooks.status(place.folder) if state.state != "installed"]
    return f"gitpipe's hooks are gone from {looked} ({', '.join(gone)}): `gitpipe hooks install`" if gone else ""


def installed(repo: Repo, name: str) -> bool:
    """Whether git runs gitpipe's hook of that name."""
    try:
        place = find(repo)
    except Refused:
        return False
    there = any(state.name == name and state.state == "installed" for state in hooks.status(place.folder))
    return there and _looked_in(repo) == place.folder


def _looked_in(repo: Repo) -> Path:
    """The folder that git takes hooks from now, as seen from this working tree."""
    path = Path(repo.git("rev-parse", "--git-path", "hooks").rstrip("\n"))
    return ((repo.top or repo.git_dir) / path).resolve()


def _kept(repo: Repo) -> list[Path]:
    return [repo.common / name for name in repo.config(KEPT).get(KEPT, [])]


def _named_folders(repo: Repo, place: Place) -> list[Path]:
    """The other tool's folder, as the working trees see it."""
    tops = [tree.top for tree in repo.worktrees()] or [repo.git_dir]
    return list(dict.fromkeys((top / place.named).resolve() for top in tops)) if place.named else []


# -- having git look in the folder of our own ------------------------------------------------------------------------


def _redirect(repo: Repo) -> None:
    """Of several values the last one counts, and git keeps what tools set in the `[core]` further up."""
    _end_redirect(repo)
    folder = repo.common / OWN
    repo.git("config", "-f", str(folder / _CONFIG), "core.hooksPath", str(folder))
    # Only in this place: in a copy of the repository, hooks of the old one would work for the old one.
    for where in (str(repo.common), f"{repo.common}/worktrees/"):
        pattern = re.sub(r"([\\*?\[])", r"\\\1", where)
        repo.add_config(f"includeIf.gitdir:{pattern}.path", _INCLUDED)


def _end_redirect(repo: Repo) -> None:
    for key in _includes(repo):
        repo.git("config", "--local", "--unset-all", "--fixed-value", key, _INCLUDED)


def _includes(repo: Repo) -> Iterator[str]:
    said = repo.git("config", "--local", "-z", "--get-regexp", r"^includeif\.gitdir:.*\.path$", accept=(0, 1))
    for item in said.split("\0"):
        key, _, value = item.partition("\n")
        if value == _INCLUDED:
            yield key


def _drop_own(repo: Repo) -> list[str]:
    """Have git look where it did before, and remove the folder of our own."""
    _end_redirect(repo)
    folder = repo.common / OWN
    if not folder.is_dir():
        return []
    lines = hooks.uninstall(folder)
    (folder / _CONFIG).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        lines.append(f"{folder} has hooks that another tool put there, and git does not look there any more: move them")
    return lines
