"""What a git hook does in Python, on the few occasions when its shell script finds that there is something to do.

``python -m gitpipe hook post-checkout …``: bring ``data/`` to the branch.  ``post-receive``: the same for the working
trees whose branch was pushed.  Neither ever fails the command that it runs in (I9): what goes wrong is one line on
standard error.  ``pre-push`` is a guard, and stops the push where the files cannot go first (I7); so is ``pre-commit``,
which stops a commit in a working tree that its branch left behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from gitpipe.checkout import Checkouts
    from gitpipe.pipelines import PipelineStore
    from gitpipe.repo import Repo


def main(args: Sequence[str]) -> int:
    """Run one hook; its exit status.  The working tree is named by GITPIPE_WORKTREE, as we are in the git dir."""
    top = Path(os.environ.get("GITPIPE_WORKTREE") or Path.cwd())
    name = args[0] if args else "refresh"
    from gitpipe.errors import GitpipeError, NotARepo, of_machine

    try:
        for line in HOOKS.get(name, refresh)(top, args[1:]):
            print(f"gitpipe: {line}", file=sys.stderr)
    except (GitpipeError, OSError) as error:
        said = str(error) if isinstance(error, GitpipeError) else of_machine(error)
        if not said:
            raise
        stop = name in STOPPED and not isinstance(error, NotARepo)
        how = STOPPED[name] if stop else ""
        print(f"gitpipe: {name}: {said}{how}", file=sys.stderr)
        return int(stop)
    return 0


def refresh(top: Path, args: Sequence[str]) -> Iterator[str]:
    """``data/`` of the working tree `top` follows its HEAD."""
    yield from _checkouts(top).refresh(top)


def _checkouts(top: Path) -> Checkouts:
    """What `gitpipe.project` would make, whose imports take half as long again."""
    from gitpipe.checkout import Checkouts, blob_store
    from gitpipe.errors import NotARepo
    from gitpipe.repo import Repo

    repo = Repo(top)
    settings = repo.config("gitpipe.")
    if "gitpipe.python" not in settings:
        raise NotARepo(f"gitpipe is not set up in {top}: run `gitpipe init` there")
    cache, remote = (settings.get(f"gitpipe.{key}", [""])[-1] for key in ("cache", "remote"))
    return Checkouts(repo, blob_store(repo, cache, repo.top, remote), cast("PipelineStore", _Pipelines(repo)))


class _Pipelines:
    """The `PipelineStore` once somebody asks it something: after a plain switch nobody does, and it imports much."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo

    def __getattr__(self, name: str) -> Any:
        if "_store" not in self.__dict__:
            from gitpipe.pipelines import PipelineStore

            self._store = PipelineStore(self._repo)
        return getattr(self._store, name)


def pre_commit(top: Path, args: Sequence[str]) -> Iterator[str]:
    """Stop a commit that would take back what its branch gained meanwhile."""
    _checkouts(top).check_commit(top)
    yield from ()


def pre_push(top: Path, args: Sequence[str]) -> Iterator[str]:
    """The blobs of what is pushed go to the DVC remote; `args` is git's name of the other side, or its URL."""
    from gitpipe.project import open_project
    from gitpipe.uploads import PushedRef

    refs = [PushedRef(new, old, name) for name, new, _, old in (line.split(" ") for line in _said())]
    open_project(top).push_blobs(refs, args[0] if args else "")
    yield from ()


def post_receive(top: Path, args: Sequence[str]) -> Iterator[str]:
    """``data/`` of the working trees that a push has moved follows (``receive.denyCurrentBranch = updateInstead``)."""
    pushed = {name for _, _, name in (line.split(" ", 2) for line in _said())}
    checkouts = _checkouts(top)
    for tree in checkouts.repo.worktrees():
        if tree.ref in pushed:
            yield from checkouts.refresh(tree.top)


def _said() -> list[str]:
    """What git says to the hook on its standard input, a ref a line."""
    return [line for line in sys.stdin.read().splitlines() if line] if sys.stdin else []


# What a guard says besides when it stops the command.
STOPPED = {
    "pre-commit": "; nothing was committed (--no-verify overrides)",
    "pre-push": "; nothing was pushed (--no-verify pushes without, git config gitpipe.push false always)",
}
HOOKS: dict[str, Callable[[Path, Sequence[str]], Iterator[str]]] = {
    "pre-commit": pre_commit,
    "pre-push": pre_push,
    "post-receive": post_receive,
}
