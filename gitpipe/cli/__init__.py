"""The command line: parse, make one call, print.  The only package that imports typer and rich.

`main` is what ``gitpipe``, ``git pipe`` and ``python -m gitpipe`` come to; here sits the one handler that turns every
expected failure into one line on standard error and an exit status.  Knows nothing of how a command does its work,
and loads that (`gitpipe.project`) only once a command runs, so that ``--help`` stays quick.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from gitpipe.cli import (  # each registers its commands
    admin,
    commits,
    compare,
    complete,
    files,
    gitlike,
    jobs,
    pipelines,
    repos,
)
from gitpipe.cli.app import app
from gitpipe.cli.argv import normalise
from gitpipe.cli.show import oneline
from gitpipe.errors import GitpipeError, UsageError, of_machine

__all__ = ["admin", "commits", "compare", "complete", "files", "gitlike", "jobs", "main", "pipelines", "repos", "run"]

BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended, as git does under `| head`
INTERRUPTED = 130
COMPLETION = frozenset({"--install-completion", "--show-completion"})

# What click calls ClickException.  Newer typers carry click inside, older ones import it: this finds both.
PARSE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line of this process and end it with the command's exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the locale cannot show must not end in a traceback
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:], program_name(sys.argv[0])))


def program_name(path: str) -> str:
    """How the user called us, for usage lines: ``gitpipe``, ``git pipe`` or ``python -m gitpipe``."""
    name = Path(path).stem
    return {"git-pipe": "git pipe", "__main__": "python -m gitpipe"}.get(name, name or "gitpipe")


def run(args: list[str], program: str = "gitpipe") -> int:
    """Run one command line and return its exit status; every expected failure is printed here, as one line."""
    try:
        status = dispatch(args, program)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except GitpipeError as error:
        status = fail(str(error), error.exit_code)
        for name in error.names:
            print(f"  {oneline(name)}", file=sys.stderr)
        return status
    except typer.Abort:
        return fail("aborted", 1)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        silence_stdout()
        return BROKEN_PIPE
    except Exception as error:
        if said := of_machine(error):
            return fail(said, 1)
        if not is_of_sqlite(error):
            raise
        return fail(f"cannot use the local state in .git/gitpipe: {error} (it may be deleted, only logs are lost)", 1)


def is_of_sqlite(error: Exception) -> bool:
    """Whether SQLite cannot read or write; asked without importing it."""
    sqlite = sys.modules.get("sqlite3")
    return sqlite is not None and isinstance(error, sqlite.OperationalError | sqlite.DatabaseError)


def dispatch(args: list[str], program: str) -> int:
    """Parse `args`, call the command, and return the exit status that it asked for (mostly 0)."""
    command = typer.main.get_command(app)
    if complete.VARIABLE in os.environ:
        status = complete.answer(command, os.environ)
        if status is not None:
            return status
        command.main(prog_name="gitpipe")  # prints the shell's side of it and ends the process
    if not COMPLETION.isdisjoint(args):
        program = "gitpipe"  # the shell function is named after the program, and `git pipe` is no name for one
    words = normalise(args, frozenset(getattr(command, "commands", {})))
    try:
        with command.make_context(program, words or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except PARSE_ERROR as error:
        raise UsageError(usage_line(error, program)) from None
    return 0


def usage_line(error: Exception, program: str) -> str:
    """What click has to say about a mistyped command, and where to read how it is typed."""
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", "") if type(error).__name__ == "NoSuchOption" else ""
    takes_words = any(param.param_type_name == "argument" for param in context.command.params) if context else False
    if option and not option.startswith("--") and takes_words:
        text = f"{text.rstrip('.')}; a name that begins with '-' stands behind '--'"
    return f"{text.rstrip('.')} (see '{context.command_path if context else program} --help')"


def fail(message: str, status: int) -> int:
    """Print the one line of an expected failure and return `status`."""
    if sys.stdout is not None:
        silent_flush()
    print(f"gitpipe: {oneline(message, limit=2000)}", file=sys.stderr)
    return status


def silent_flush() -> None:
    """Bring what was printed before the failure out first; a reader that has gone is no second failure."""
    try:
        sys.stdout.flush()
    except OSError:  # nor is a disk that was full before
        silence_stdout()


def silence_stdout() -> None:
    """Point standard output nowhere, so that the interpreter's last flush does not complain once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
