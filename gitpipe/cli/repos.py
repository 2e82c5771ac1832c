"""Commands on repos: make, list, inspect, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from gitpipe.cli import complete, show
from gitpipe.cli.app import REPOS, Raw, command, project

Repo = Annotated[str, typer.Argument(metavar="REPO", help="The repo's name.", autocompletion=complete.repos)]
NewRepo = Annotated[str, typer.Argument(metavar="REPO", help="The repo's name.")]


@command("create-repo", REPOS)
def create_repo(
    name: NewRepo,
    description: Annotated[str, typer.Option("--description", "-d", help="What the repo is for.")] = "",
) -> None:
    """Create a data repo: a git branch with an empty data folder.

    Example: gitpipe create-repo training
    """
    project().data.create_repo(name, description)


@command("list-repo", REPOS)
def list_repo(raw: Raw = False) -> None:
    """List the repos with their age and size."""
    show.many(project().data.list_repo(), show.REPO, as_json=raw)


@command("inspect-repo", REPOS)
def inspect_repo(name: Repo, raw: Raw = False) -> None:
    """Show one repo in detail."""
    show.one(project().data.inspect_repo(name), show.repo_details, as_json=raw)


@command("delete-repo", REPOS)
def delete_repo(
    name: Repo,
    force: Annotated[bool, typer.Option("--force", "-f", help="Even if a pipeline reads it.")] = False,
) -> None:
    """Delete a repo: its git branch goes, results made from it keep their provenance."""
    project().data.delete_repo(name, force=force)
