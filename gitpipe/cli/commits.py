"""Commands on commits of a repo: start, finish, list, inspect."""

from __future__ import annotations

from typing import Annotated

import typer

from gitpipe.cli import complete, show
from gitpipe.cli.app import COMMITS, Message, Raw, command, project

BranchWords = Annotated[
    list[str],
    typer.Argument(metavar="REPO [BRANCH]", help="Also REPO@BRANCH.", autocompletion=complete.branches),
]
CommitWords = Annotated[
    list[str],
    typer.Argument(
        metavar="REPO [COMMIT]",
        help="Also REPO@COMMIT; a branch means its newest commit.",
        autocompletion=complete.commits,
    ),
]
OpenWords = Annotated[
    list[str],
    typer.Argument(
        metavar="REPO [COMMIT]",
        help="Also REPO@COMMIT; the id may be left out if one is open.",
        autocompletion=complete.commits,
    ),
]


@command("start-commit", COMMITS)
def start_commit(words: BranchWords, message: Message = None) -> None:
    """Open a commit and print its id; the branch moves once at finish-commit.

    Example: gitpipe start-commit training master
    """
    print(project().data.start_commit(words, message))


@command("finish-commit", COMMITS)
def finish_commit(words: OpenWords, message: Message = None) -> None:
    """Close an open commit: the branch moves, and pipelines run.

    Example: gitpipe finish-commit training
    """
    project().data.finish_commit(words, message)


@command("list-commit", COMMITS)
def list_commit(words: BranchWords, raw: Raw = False) -> None:
    """List the commits of a repo, the newest first."""
    show.many(project().data.list_commit(words), show.COMMIT, as_json=raw)


@command("inspect-commit", COMMITS)
def inspect_commit(words: CommitWords, raw: Raw = False) -> None:
    """Show one commit with its provenance: all commits that it was made from.

    Example: gitpipe inspect-commit inference master
    """
    show.one(project().data.inspect_commit(words), show.commit_details, as_json=raw)
