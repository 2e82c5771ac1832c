"""Commands that set things up: init, example, trust, hooks, runner, version."""

from __future__ import annotations

import platform
import sys
from typing import Annotated

import typer

from gitpipe import __version__
from gitpipe.cli import complete, show
from gitpipe.cli.app import ADMIN, Raw, app, command, here, new_app, project, say
from gitpipe.errors import Refused

hooks = new_app(help="Install, remove or show the git hooks that notice commits.")
runner = new_app(help="Show or stop the background process that runs the jobs.")
app.add_typer(hooks, name="hooks", rich_help_panel=ADMIN)
app.add_typer(runner, name="runner", rich_help_panel=ADMIN)


@command("init", ADMIN)
def init(
    pre_commit: Annotated[
        bool, typer.Option("--pre-commit", help="Also write gitpipe's hooks into .pre-commit-config.yaml.")
    ] = False,
) -> None:
    """Make the git repository ready for gitpipe; twice is harmless."""
    from gitpipe.project import init as init_project

    say(init_project(here(), pre_commit=pre_commit))


@command("example", ADMIN)
def example(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="Which one; without it they are listed.", autocompletion=complete.examples
        ),
    ] = "",
) -> None:
    """Copy example pipelines with their sample data into the current repository.

    Example: gitpipe example iris
    """
    from gitpipe.example import copy_example

    say(copy_example(name, here()))


@command("trust", ADMIN)
def trust(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Allow pipelines that came by fetch, pull or clone to run on this machine."""
    say(project().trust(yes, ask))


def ask(question: str) -> bool:
    """Whether the user agrees; Refused where nobody can be asked."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise Refused("trust needs an answer: run it in a terminal, or give --yes")
    return typer.confirm(show.oneline(question))


@command("version", ADMIN)
def version(raw: Raw = False) -> None:
    """Print the versions of gitpipe and of what it stands on."""
    show.many(versions(), show.VERSION, as_json=raw)


def versions() -> list[dict[str, str]]:
    """Component and version, read from the packages' metadata, so that none is imported."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    found = [("gitpipe", __version__), ("python", platform.python_version())]
    for package in ("dvc", "ray", "GitPython"):
        try:
            found.append((package, installed(package)))
        except PackageNotFoundError:
            found.append((package, "not installed"))
    return [{"component": name, "version": text} for name, text in found]


@hooks.command("install")
def hooks_install() -> None:
    """Install the hooks; those that stood there keep working."""
    say(project().hooks_install())


@hooks.command("uninstall")
def hooks_uninstall() -> None:
    """Remove the hooks and restore what stood there."""
    say(project().hooks_uninstall())


@hooks.command("status")
def hooks_status() -> None:
    """Show which hooks are in place."""
    say(project().hooks_status())


@runner.command("status")
def runner_status() -> None:
    """Show whether the runner lives and what it is at."""
    print(project().runner_status())


@runner.command("stop")
def runner_stop() -> None:
    """End the runner; the next commit starts another one, which goes on."""
    print(project().runner_stop())
