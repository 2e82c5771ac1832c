"""Commands on repos: make, list, inspect, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from gitpipe.cli import show
from gitpipe.cli.app import REPOS, Raw, app, project

Repo = Annotated[str, typer.Argument(metavar="REPO", help="The repo's name.")]


@app.command("create-repo", rich_help_panel=REPOS)
def create_repo(
    name: Repo,
    description: Annotated[str, typer.Option("--description", "-d", help="What the repo is for.")] = "",
) -> None:
    """Create a data repo: a git branch with an empty data folder.

    Example: gitpipe create-repo training
    """
    project().data.create_repo(name, description)


@app.command("list-repo", rich_help_panel=REPOS)
def list_repo(raw: Raw = False) -> None:
    """List the repos with their age and size."""
    show.many(project().data.list_repo(), show.REPO, as_json=raw)


@app.command("inspect-repo", rich_help_panel=REPOS)
def inspect_repo(name: Repo, raw: Raw = False) -> None:
    """Show one repo in detail."""
    show.one(project().data.inspect_repo(name), show.repo_details, as_json=raw)


@app.command("delete-repo", rich_help_panel=REPOS)
def delete_repo(
    name: Repo,
    force: Annotated[bool, typer.Option("--force", "-f", help="Even if a pipeline reads it.")] = False,
) -> None:
    """Delete a repo: its git branch goes, results made from it keep their provenance."""
    project().data.delete_repo(name, force=force)
