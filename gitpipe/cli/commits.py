"""Commands on commits and branches of a repo: start, finish, list, inspect, subscribe; create, list, delete."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from gitpipe.cli import complete, show
from gitpipe.cli.app import COMMITS, MANY, Message, Raw, command, project
from gitpipe.errors import UsageError

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
OneBranch = Annotated[
    list[str], typer.Argument(metavar="REPO BRANCH", help="Also REPO@BRANCH.", autocompletion=complete.branches)
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
def finish_commit(
    words: OpenWords,
    message: Message = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Where a file was changed on the branch too, take this commit's.")
    ] = False,
) -> None:
    """Close an open commit: the branch moves, and pipelines run.

    Example: gitpipe finish-commit training
    """
    project().data.finish_commit(words, message, force=force)


@command("delete-commit", COMMITS)
def delete_commit(words: OpenWords) -> None:
    """Drop an open commit with what was put into it.

    Example: gitpipe delete-commit training
    """
    project().data.delete_commit(words)


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


@command("subscribe-commit", COMMITS)
def subscribe_commit(
    words: BranchWords,
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="COMMIT",
            help="Only commits after this one.",
            autocompletion=complete.commits_of_repo,
        ),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Only commits from now on.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, max=MANY, help="End after so many commits.")
    ] = None,
    raw: Raw = False,
) -> None:
    """Print the commits of a branch, the oldest first, then each as it comes, until Ctrl-C.

    Example: gitpipe subscribe-commit inference master --new
    """
    found = islice(project().branches.subscribe(words, since=since, new=new), limit)
    show.stream(found, show.COMMIT, as_json=raw)


@command("create-branch", COMMITS)
def create_branch(
    words: OneBranch,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            metavar="COMMIT",
            help="A commit or branch of the repo to begin or move to.",
            autocompletion=complete.commits_of_repo,
        ),
    ] = None,
    watched: Annotated[
        str | None,
        typer.Option(
            "--trigger",
            "-t",
            metavar="BRANCH",
            help="Follow this branch of the repo when a condition holds; '' no longer.",
        ),
    ] = None,
    size: Annotated[
        str, typer.Option("--trigger-size", metavar="SIZE", help="Condition: so much more data, e.g. 1MB.")
    ] = "",
    commits: Annotated[
        int, typer.Option("--trigger-commits", min=0, max=MANY, metavar="N", help="Condition: so many commits.")
    ] = 0,
    cron: Annotated[
        str,
        typer.Option("--trigger-cron", metavar="SCHEDULE", help="Condition: the clock strikes, e.g. @daily."),
    ] = "",
    every: Annotated[bool, typer.Option("--trigger-all", help="Only when all conditions hold, not any.")] = False,
) -> None:
    """Create a branch of a repo, empty or at --head; a branch that exists moves to --head.

    Example: gitpipe create-branch training@master --trigger staging --trigger-commits 3
    """
    if not watched and (size or commits or cron or every):
        raise UsageError("create-branch: --trigger BRANCH says which branch the conditions are about")
    branches = project().branches
    trigger = branches.trigger(watched, size, commits, cron, every) if watched else None
    branches.create(words, head, trigger, forget=watched == "")


@command("list-branch", COMMITS)
def list_branch(
    name: Annotated[str, typer.Argument(metavar="REPO", help="The repo's name.", autocompletion=complete.repos)],
    raw: Raw = False,
) -> None:
    """List the branches of a repo."""
    show.many(project().branches.list(name), show.BRANCH, as_json=raw)


@command("delete-branch", COMMITS)
def delete_branch(
    words: OneBranch,
    force: Annotated[bool, typer.Option("--force", "-f", help="Even if a pipeline reads it.")] = False,
) -> None:
    """Delete a branch of a repo; results made from it keep their provenance.

    Example: gitpipe delete-branch training staging
    """
    project().branches.delete(words, force=force)
