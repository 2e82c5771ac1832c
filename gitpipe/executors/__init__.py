"""Where workers live: in threads of the runner (`local`) or in Ray actors (`ray`).  An executor only spreads tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from gitpipe.errors import UsageError
from gitpipe.stage import Result, Stage, Task

SlotWatcher = Callable[[int, str, str], None]
"""Called as (slot number from 0, state ``starting``|``running``|``idle``, datum id or "")."""


class Executor(Protocol):
    """Runs tasks on worker slots and yields results as they come."""

    name: str

    @property
    def warning(self) -> str:
        """What a job is to say once of how it is run, or ""."""

    def run(
        self,
        stage: Stage,
        tasks: Iterable[Task],
        slots: int,
        *,
        watch: SlotWatcher | None = None,
        stopped: Callable[[], bool] = lambda: False,
        ended: Callable[[], Collection[str]] = tuple,
    ) -> Iterator[Result]:
        """Yield one `Result` a task, in any order.

        Pulls from `tasks` lazily (at most a few per slot ahead); starts at most `slots` workers and no more than there
        are tasks; reuses warm workers of the same stage.  When `stopped()` turns true it pulls no more, and yields
        what is running, which is killed if it takes long.  A worker that dies gives ``Result(lost=True)`` for its
        datum and is replaced; so is one that is killed because `ended()` has named the datum that it runs.
        Safe to call from several threads at once.
        """

    def close(self) -> None:
        """End all workers and their processes, and remove their slot directories."""


ENGINES = ("auto", "local", "ray")


def open_executor(engine: str, ray_address: str, scratch: Path) -> Executor:
    """The executor that git config ``gitpipe.engine`` names; Ray is imported only when it is started.

    Args:
        engine: ``local``, ``ray`` or ``auto`` (local workers until Ray is ready).
        ray_address: of a running cluster, or "" for a Ray of our own.
        scratch: a folder for small temporary files.

    Raises:
        UsageError: another engine.
    """
    if engine == "local":
        from gitpipe.executors.local import LocalExecutor

        return LocalExecutor()
    if engine == "ray":
        from gitpipe.executors.ray import RayExecutor

        return RayExecutor(ray_address or None, scratch)
    if engine == "auto":
        from gitpipe.executors.auto import AutoExecutor

        return AutoExecutor(ray_address or None, scratch)
    raise UsageError(f"unknown engine {engine!r}: use one of {', '.join(ENGINES)}")
