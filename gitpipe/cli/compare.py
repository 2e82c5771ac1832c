"""Commands that say why and what differs: explain, diff."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gitpipe.cli import complete, reasons, show
from gitpipe.cli.app import GITLIKE, PlainUsage, Raw, app, command, project, say
from gitpipe.views import JobWhy

PATHS = "gitpipe.paths"


class PathsBehindDashes(PlainUsage):
    """A command to which what stands behind ``--`` are paths, as to git; the parser itself forgets where that was."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the paths aside."""
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[PATHS] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)


@command("explain", GITLIKE)
def explain(
    name: Annotated[
        str,
        typer.Argument(
            metavar="JOB|PIPELINE|DATUM",
            help="A job's id, a pipeline (its newest job), or a datum's id.",
            autocompletion=complete.jobs_pipelines_and_datums,
        ),
    ],
    job: Annotated[
        str | None,
        typer.Option(
            "--job",
            "-j",
            metavar="JOB",
            help="The datum in this job; else in the newest that had it.",
            autocompletion=complete.jobs_and_pipelines,
        ),
    ] = None,
    raw: Raw = False,
) -> None:
    """Say why a job or a datum ran or was skipped: what differs from what had been made before.

    Example: gitpipe explain model
    """
    found = project().why.explain(name, job)
    if raw:
        show.raw([found])
    else:
        say(list(reasons.lines(reasons.job(found) if isinstance(found, JobWhy) else reasons.datum(found))))


@app.command("diff", cls=PathsBehindDashes, rich_help_panel=GITLIKE)
def diff(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMIT [COMMIT] [-- PATH...]",
            help="Old and new: REPO@COMMIT, REPO [COMMIT], a SHA; one alone: what it changed.",
            autocompletion=complete.each_commit,
        ),
    ],
    provenance: Annotated[bool, typer.Option("--provenance", help="Also which inputs and pipelines differ.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if there are differences.")] = False,
    raw: Raw = False,
) -> None:
    """Show which files differ between two commits, and what they were made from.

    Example: gitpipe diff --provenance inference@master~1 inference@master
    """
    found = project().commit_diffs.diff(words, ctx.meta.get(PATHS, ()), provenance=provenance)
    if raw:
        show.raw([found])
    else:
        say(list(reasons.lines(reasons.commits(found))))
    if exit_code and found.differs:
        raise typer.Exit(1)
