"""Commands on pipelines: create, update, list, inspect, run, start, stop, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from gitpipe.cli import complete, show
from gitpipe.cli.app import PIPELINES, Raw, command, project, say, sources, standard_input

Specs = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A spec in JSON or YAML, or - (standard input); repeatable.",
        autocompletion=complete.files,
    ),
]
Pipeline = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="The pipeline's name.", autocompletion=complete.pipelines)
]


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; say what would be, and how many datums would run.")
]


@command("create-pipeline", PIPELINES)
def create_pipeline(file: Specs = None, dry_run: DryRun = False) -> None:
    """Create the pipelines of a spec file, and run them on the data that is there.

    Example: gitpipe create-pipeline -f pipelines/iris/train.json
    """
    given, here = sources(file, "spec"), project()
    say((here.preview if dry_run else here.pipelines).create(given, stdin=standard_input()))


@command("update-pipeline", PIPELINES)
def update_pipeline(
    file: Specs = None,
    reprocess: Annotated[bool, typer.Option("--reprocess", help="Skip no datum, run all again.")] = False,
    create: Annotated[bool, typer.Option("--create", help="Create a pipeline that does not exist.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Replace pipelines by what a spec file says, and run what that changes.

    Example: gitpipe update-pipeline -f pipelines/iris/train.json --reprocess
    """
    given, here = sources(file, "spec"), project()
    pipelines = here.preview if dry_run else here.pipelines
    say(pipelines.update(given, reprocess=reprocess, create=create, stdin=standard_input()))


@command("schema", PIPELINES)
def schema() -> None:
    """Print the JSON Schema of pipeline specs, with which editors complete and check them.

    Example: gitpipe schema > pipelines/spec.schema.json
    """
    import json

    from gitpipe.project import spec_schema

    print(json.dumps(spec_schema(), indent=1))


@command("list-pipeline", PIPELINES)
def list_pipeline(raw: Raw = False) -> None:
    """List the pipelines with their input and state."""
    show.many(project().pipelines.list(), show.PIPELINE, as_json=raw)


@command("inspect-pipeline", PIPELINES)
def inspect_pipeline(name: Pipeline, raw: Raw = False) -> None:
    """Show one pipeline in detail, with its whole spec."""
    show.one(project().pipelines.inspect(name), show.pipeline_details, as_json=raw)


@command("run-pipeline", PIPELINES)
def run_pipeline(
    name: Pipeline,
    commits: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REPO@COMMIT]...",
            help="Run on these commits of its inputs instead; the output branch stays as it is.",
            autocompletion=complete.each_commit,
        ),
    ] = None,
) -> None:
    """Run a pipeline on its current inputs, if it failed or did not run on them yet; or on chosen commits, aside.

    Example: gitpipe run-pipeline model training@master~1
    """
    here = project()
    say(here.run_on(name, commits) if commits else here.pipelines.run(name))


@command("run-cron", PIPELINES)
def run_cron(name: Pipeline) -> None:
    """Make a tick of a pipeline's cron inputs now, whatever their schedules say.

    Example: gitpipe run-cron report
    """
    say(project().pipelines.run_cron(name))


@command("start-pipeline", PIPELINES)
def start_pipeline(name: Pipeline) -> None:
    """Let a stopped pipeline run again."""
    project().pipelines.start(name)


@command("stop-pipeline", PIPELINES)
def stop_pipeline(name: Pipeline) -> None:
    """Keep a pipeline from running until start-pipeline."""
    project().pipelines.stop(name)


@command("delete-pipeline", PIPELINES)
def delete_pipeline(
    name: Pipeline,
    keep_repo: Annotated[bool, typer.Option("--keep-repo", help="Keep the output repo.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Even if another pipeline reads its output.")] = False,
) -> None:
    """Delete a pipeline and its output repo."""
    say(project().pipelines.delete(name, keep_repo=keep_repo, force=force))
