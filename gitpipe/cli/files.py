"""Commands on the files of a repo: put, get, list, inspect, copy, compare, delete, glob.

The words that say where (``training master iris.csv`` or ``training@master:iris.csv``) go to the core as typed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gitpipe.cli import complete, show
from gitpipe.cli.app import FILES, Message, Raw, command, project, sources, standard_input
from gitpipe.cli.argv import one_or_two_places, two_places
from gitpipe.cli.progress import file_progress
from gitpipe.errors import UsageError

FileWords = Annotated[
    list[str],
    typer.Argument(metavar="REPO [BRANCH] PATH", help="Where: also REPO@BRANCH:PATH.", autocompletion=complete.places),
]
PlaceWords = Annotated[
    list[str],
    typer.Argument(
        metavar="REPO [BRANCH] [PATH]", help="Where: also REPO@BRANCH:PATH.", autocompletion=complete.places
    ),
]
GlobWords = Annotated[
    list[str],
    typer.Argument(metavar="REPO [BRANCH] PATTERN", help="Also REPO@BRANCH:PATTERN.", autocompletion=complete.places),
]

TwoPlaces = Annotated[
    list[str],
    typer.Argument(
        metavar="REPO [BRANCH] PATH REPO [BRANCH] PATH",
        help="From, to; also REPO@BRANCH:PATH.",
        autocompletion=complete.two_places,
    ),
]
OnePlaceOrTwo = Annotated[
    list[str],
    typer.Argument(
        metavar="REPO [BRANCH] [PATH] [REPO [BRANCH] PATH]",
        help="New and old; also REPO@BRANCH:PATH.",
        autocompletion=complete.two_places,
    ),
]


@command("put-file", FILES)
def put_file(
    words: PlaceWords,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="A file, folder, URL or - (standard input); repeatable.",
            autocompletion=complete.files,
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Put all files below a folder.")] = False,
    append: Annotated[bool, typer.Option("--append", "-a", help="Append to files that exist.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", "-o", help="Accepted; overwriting is the rule.")] = False,
    commit: Annotated[bool, typer.Option("--commit", "-c", help="Accepted; each put-file is a commit.")] = False,
    from_list: Annotated[
        str | None,
        typer.Option(
            "--input-file",
            "-i",
            metavar="LIST",
            help="A file that names a source a line.",
            autocompletion=complete.files,
        ),
    ] = None,
    message: Message = None,
) -> None:
    """Put files into a repo as one commit, overwriting what has the same path.

    Example: gitpipe put-file training master -f iris.csv
    """
    if append and overwrite:
        raise UsageError("put-file: --append and --overwrite exclude each other")
    given = file or [] if from_list is not None else sources(file, "file")
    with file_progress("putting") as progress:
        project().data.put_file(
            words,
            given,
            recursive=recursive,
            append=append,
            from_list=from_list,
            message=message,
            stdin=standard_input(),
            progress=progress,
        )


@command("get-file", FILES)
def get_file(
    words: FileWords,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Write there, not to standard output.",
            autocompletion=complete.files,
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Get a folder (/ is all); needs -o.")] = False,
) -> None:
    """Print a file of a repo, or write it (with -r a folder) to OUT.

    Example: gitpipe get-file inference master 1.csv
    """
    if output == "":
        raise UsageError("-o '' names no file: -o OUT, or -o - for standard output")
    out = Path(output) if output and output != "-" else None
    if recursive and out is None:
        raise UsageError("get-file -r writes a folder: say where to with -o OUT")
    project().data.get_file(words, recursive, out, sys.stdout.buffer)


@command("list-file", FILES)
def list_file(words: PlaceWords, raw: Raw = False) -> None:
    """List the files and folders at a path (the top without one).

    Example: gitpipe list-file training master
    """
    show.many(project().data.list_file(words), show.FILE, as_json=raw)


@command("glob-file", FILES)
def glob_file(words: GlobWords, raw: Raw = False) -> None:
    """List the files and folders that a glob pattern matches, as a pipeline's input would.

    Example: gitpipe glob-file attributes '/*.csv'
    """
    show.many(project().data.glob_file(words), show.FILE, as_json=raw)


@command("inspect-file", FILES)
def inspect_file(words: FileWords, raw: Raw = False) -> None:
    """Show one file or folder of a repo in detail, and of a result what made it, from what.

    Example: gitpipe inspect-file training master iris.csv
    """
    show.one(project().file_history.inspect(words), show.file_details, as_json=raw)


@command("copy-file", FILES)
def copy_file(
    words: TwoPlaces,
    append: Annotated[bool, typer.Option("--append", "-a", help="Append to files that exist.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", "-o", help="Accepted; overwriting is the rule.")] = False,
    message: Message = None,
) -> None:
    """Copy a file, or a folder with all its files, from one repo or commit to another, as one commit.

    Example: gitpipe copy-file training@master:iris.csv archive@master:2026/iris.csv
    """
    if append and overwrite:
        raise UsageError("copy-file: --append and --overwrite exclude each other")
    source, target = two_places(words, "copy-file training@master:iris.csv archive@master:iris.csv")
    project().data.copy_file(source, target, append=append, message=message)


@command("diff-file", FILES)
def diff_file(
    words: OnePlaceOrTwo,
    names: Annotated[bool, typer.Option("--name-only", help="Only the paths of the files that differ.")] = False,
    stat: Annotated[bool, typer.Option("--stat", help="How many lines differ in each file.")] = False,
    no_pager: Annotated[bool, typer.Option("--no-pager", help="Accepted; there is no pager.")] = False,
    raw: Raw = False,
) -> None:
    """Show what differs between two places, the newer first; without a second one, since the commit before.

    Example: gitpipe diff-file training master iris.csv
    """
    new, old = one_or_two_places(words, "diff-file training@master:iris.csv training@staging:iris.csv")
    diffs = project().diffs
    changes = diffs.changes(new, old)
    if raw:
        show.raw(changes)
    elif names:
        for change in changes:
            print(show.oneline(change.path))
    elif stat:
        show.counts(diffs.counts(changes))
    else:
        sys.stdout.write(diffs.text(changes, colour=show.colours()))


@command("delete-file", FILES)
def delete_file(words: FileWords) -> None:
    """Delete a file or folder from a repo, as one commit.

    Example: gitpipe delete-file training master iris.csv
    """
    project().data.delete_file(words)
