"""Commands that stand beside git's own: add, log, status."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from gitpipe.cli import show
from gitpipe.cli.app import GITLIKE, Raw, command, project, say
from gitpipe.views import JobInfo

LAST_LINES = 5


@command("add", GITLIKE)
def add(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Data to add: 'data', or what lies in it.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Even if data/ came from another branch.")] = False,
) -> None:
    """Track the files in data/ with DVC and stage that for the next git commit.

    Example: gitpipe add data && git commit -m 'More samples'
    """
    say(project().add(paths, force=force))


@command("log", GITLIKE)
def log(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[REPO[@COMMIT]] [PATH]", help="From here; else from all outputs.")
    ] = None,
    provenance: Annotated[bool, typer.Option("--provenance", help="Show what each commit was made from.")] = False,
    descendants: Annotated[bool, typer.Option("--descendants", help="Show what was made from it instead.")] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Draw the tree.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many commits.")] = None,
    raw: Raw = False,
) -> None:
    """Show commits with what they were made from, or with what was made from them.

    Example: gitpipe log --provenance inference
    """
    entries = islice(project().history.lineage(words or [], descendants=descendants), limit)
    if raw:
        show.raw(entries)
        return
    tree = provenance or descendants or graph
    for place, entry in enumerate(entries):
        if place:
            print()
        say(list(show.log_entry(entry, tree=tree, graph=graph)))


@command("status", GITLIKE)
def status(raw: Raw = False) -> None:
    """Show what is pending, what failed with its last lines, and how jobs are run here."""
    here = project()
    state = here.status()

    def last_lines(job: JobInfo) -> list[str]:
        if not job.id:  # it never ran: what it needs failed
            return []
        return [show.log_message(line) for line in here.jobs.logs(job=job.id, tail=LAST_LINES)]

    show.one(state, lambda value: show.status_lines(value, last_lines), as_json=raw)
