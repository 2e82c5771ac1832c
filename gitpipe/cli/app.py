"""The typer application: the options before the command, the groups of the help page, and how a command gets at the
project.  The modules beside this one add the commands.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from gitpipe import __version__
from gitpipe.errors import NotARepo, NotFound, UsageError

if TYPE_CHECKING:
    from gitpipe.project import Project

REPOS = "Repos"
FILES = "Files"
COMMITS = "Commits"
PIPELINES = "Pipelines"
JOBS = "Jobs"
GITLIKE = "Beside git"
ADMIN = "Set-up"
PANELS = (REPOS, FILES, COMMITS, PIPELINES, JOBS, GITLIKE, ADMIN)
"""The groups in the order of the help page."""

Command = TypeVar("Command", bound=Callable[..., Any])
MANY = 10**9
"""The most that a number on the command line may be, where it says how many."""
Raw = Annotated[bool, typer.Option("--raw", help="Print JSON, one document a line.")]
Message = Annotated[str | None, typer.Option("--message", "-m", help="The commit's message.")]


class GroupedHelp(TyperGroup):
    """A help page whose commands stand in their groups, also where rich does not draw it.

    Rich takes 0.14 s to import, so it draws the page only in a terminal; in a pipe this plain one comes three times
    as fast.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands, group by group, in a group as they were registered."""
        return sorted(super().list_commands(ctx), key=lambda name: panel_place(self.commands[name]))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section a group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                line = (name, command.get_short_help_str(limit=200))
                groups.setdefault(panel_of(command) or "Commands", []).append(line)
        for panel, lines in groups.items():
            with formatter.section(panel):
                formatter.write_dl(lines)


class PlainUsage(TyperCommand):
    """A command whose usage line shows its words as we name them, without typer's own brackets around them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``[OPTIONS]`` and the names of the positional words."""
        words = [param.metavar for param in self.get_params(ctx) if param.param_type_name == "argument"]
        return [self.options_metavar or "", *(word for word in words if word)]


def panel_of(command: object) -> str:
    """The group that `command` was registered in, or ""."""
    panel = getattr(command, "rich_help_panel", None)
    return panel if isinstance(panel, str) else ""  # typer has a placeholder of its own where none was given


def panel_place(command: object) -> int:
    """Where the command's group stands on the help page."""
    panel = panel_of(command)
    return PANELS.index(panel) if panel in PANELS else len(PANELS)


def is_terminal() -> bool:
    """Whether standard output is a terminal, so that colours, bars and fitted tables make sense."""
    return sys.stdout is not None and sys.stdout.isatty()


def new_app(**options: Any) -> typer.Typer:
    """A typer application with gitpipe's ways: ``-h`` as well as ``--help``, bugs show plain tracebacks.

    ``git pipe --help`` is git's own and looks for a manual page; ``git pipe -h`` reaches us.
    """
    return typer.Typer(
        cls=GroupedHelp,
        rich_markup_mode="rich" if is_terminal() else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


app = new_app(
    help="Pipelines that run when data or code is committed, with the provenance of every result, in plain git.",
    epilog="Every two-word command also reads as two words: 'list repo' is 'list-repo'. "
    "Exit status: 0 done, 1 failed, 2 typed wrongly, 3 a job failed, 130 interrupted.",
)


def command(name: str, panel: str) -> Callable[[Command], Command]:
    """Register a function as the command `name`, in the group `panel` of the help page."""
    return app.command(name, cls=PlainUsage, rich_help_panel=panel)


def print_version(wanted: bool) -> None:
    """Print the version and end, where that was asked for."""
    if wanted:
        print(f"gitpipe {__version__}")
        raise typer.Exit


@app.callback()
def before(
    folder: Annotated[
        list[str] | None, typer.Option("-C", metavar="PATH", help="Run as if started in PATH, as with git.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Take what stands before the command."""
    for path in folder or ():
        enter(path)


def enter(path: str) -> None:
    """Change to the folder that ``-C`` names."""
    try:
        os.chdir(path)
    except FileNotFoundError:
        raise NotFound(f"-C {path!r}: there is no such folder") from None
    except NotADirectoryError:
        raise NotFound(f"-C {path!r}: not a folder") from None
    except OSError as error:
        raise NotFound(f"-C {path!r}: {error.strerror}") from None


def here() -> Path:
    """The current folder; NotARepo where it was removed under us."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise NotARepo("the current folder no longer exists: change to another one first") from None


def project() -> Project:
    """The project of the current folder; loads the core, which is why commands call it and modules do not.

    Raises:
        NotARepo: no git repository here, or gitpipe was never initialised in it.
    """
    from gitpipe.project import open_project

    return open_project(here())


def standard_input() -> BinaryIO:
    """Standard input as bytes; empty where it is closed."""
    return io.BytesIO() if sys.stdin is None else sys.stdin.buffer


def sources(given: list[str] | None, what: str) -> list[str]:
    """The ``-f`` values, else standard input; UsageError where that would mean to wait at a terminal."""
    if given:
        return given
    if sys.stdin is not None and sys.stdin.isatty():
        raise UsageError(f"nothing to read: name the {what} with -f FILE (-f - is standard input)")
    return ["-"]


def say(lines: list[str]) -> None:
    """Print what a command answered, a line each."""
    for line in lines:
        print(line)
