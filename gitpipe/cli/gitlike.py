"""Commands that stand beside git's own: add, log, status, dag."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gitpipe.cli import complete, show
from gitpipe.cli.app import GITLIKE, MANY, Raw, command, is_terminal, project, say
from gitpipe.errors import GitpipeError, JobFailed, Refused, UsageError
from gitpipe.views import DagInfo, JobInfo

if TYPE_CHECKING:
    from gitpipe.project import Project

LAST_LINES = 5
FORMATS = ("text", "mermaid", "dot", "svg", "png")


@command("add", GITLIKE)
def add(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Data to add: 'data', or what lies in it.", autocompletion=complete.files
        ),
    ],
    force: Annotated[bool, typer.Option("--force", "-f", help="Even if data/ came from another branch.")] = False,
) -> None:
    """Track the files in data/ with DVC and stage that for the next git commit.

    Example: gitpipe add data && git commit -m 'More samples'
    """
    say(project().add(paths, force=force))


@command("log", GITLIKE)
def log(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REPO[@COMMIT]] [PATH]",
            help="From here; else from all outputs.",
            autocompletion=complete.places,
        ),
    ] = None,
    provenance: Annotated[bool, typer.Option("--provenance", help="Show what each commit was made from.")] = False,
    descendants: Annotated[bool, typer.Option("--descendants", help="Show what was made from it instead.")] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Draw the tree.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, max=MANY, help="At most so many commits.")
    ] = None,
    raw: Raw = False,
) -> None:
    """Show commits, or with a path single files, with what they were made from or what was made from them.

    Example: gitpipe log --provenance inference -- 1.csv
    """
    here = project()
    if words and names_a_path(here, words):
        files = islice(here.file_history.lineage(words, descendants=descendants), limit)
        if raw:
            show.raw(files)
        else:
            for place, file in enumerate(files):
                if place:
                    print()
                say(list(show.file_entry(file, graph=graph)))
        return
    entries = islice(here.history.lineage(words or [], descendants=descendants), limit)
    if raw:
        show.raw(entries)
        return
    tree = provenance or descendants or graph
    for place, entry in enumerate(entries):
        if place:
            print()
        say(list(show.log_entry(entry, tree=tree, graph=graph)))


def names_a_path(here: Project, words: list[str]) -> bool:
    """Whether `words` name a file or folder of a repo, not just the repo or a commit of it."""
    return (len(words) > 1 or ":" in words[0]) and bool(here.data.locate(words).path)


@command("status", GITLIKE)
def status(raw: Raw = False) -> None:
    """Show what is pending, what failed with its last lines, and how jobs are run here.

    The exit status is 3 while a job stands failed, or an output is out of date and nothing is at work on it.
    """
    here = project()
    state = here.status()

    def last_lines(job: JobInfo) -> list[str]:
        if not job.id:  # it never ran: what it needs failed
            return []
        return [show.log_message(line) for line in here.jobs.logs(job=job.id, tail=LAST_LINES)]

    show.one(state, lambda value: show.status_lines(value, last_lines), as_json=raw)
    if not state.well:
        raise typer.Exit(JobFailed.exit_code)


@command("dag", GITLIKE)
def dag(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PIPELINE|REPO]...",
            help="Only these, and what is up- and downstream of them.",
            autocompletion=complete.pipelines_and_repos,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="text, mermaid, dot, svg or png.",
            autocompletion=lambda: FORMATS,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Write there; its ending says in which format.",
            autocompletion=complete.files,
        ),
    ] = None,
    raw: Raw = False,
) -> None:
    """Draw which pipeline reads what.

    Example: gitpipe dag -o pipelines.svg
    """
    from gitpipe import drawing

    file = None if output in (None, "-") else output
    chosen = drawing.format_of(form, file)
    found = project().dag(names or [])
    if raw:
        show.raw([found])
        return
    if file is not None:
        write_whole(Path(file), drawing.FORMATS[chosen](found))
    elif chosen == drawing.TEXT:
        draw_text(found)
    elif chosen == "png" and is_terminal():
        raise UsageError("a PNG is nothing to show in a terminal: give a file with -o OUT.png")
    else:
        sys.stdout.buffer.write(drawing.FORMATS[chosen](found))


def draw_text(found: DagInfo) -> None:
    """Draw as the terminal is: its width, its characters, its colours; in a pipe as wide as need be."""
    from gitpipe.drawing import texts

    if not found.nodes:
        print("No repos and no pipelines yet: `gitpipe create-repo NAME` makes a repo.")
        return
    limit = shutil.get_terminal_size().columns if is_terminal() else None
    pen = texts.UNICODE if show.can_draw() else texts.ASCII
    print(texts.draw(found, limit, pen=pen, paint=show.paint_state), end="")


def write_whole(file: Path, data: bytes) -> None:
    """Write a file whole or not at all; what is no regular file (``/dev/stdout``) is written to as it is."""
    if file.is_dir():
        raise Refused(f"{file} is a folder: name the file to write")
    if file.exists() and not file.is_file():
        file.write_bytes(data)
        return
    scratch = file.with_name(f".{secrets.token_hex(8)}.part")
    try:
        scratch.write_bytes(data)
        scratch.replace(file)
    except OSError as error:
        raise GitpipeError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()
