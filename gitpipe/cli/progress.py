"""Progress on the screen: bars in a terminal, a line a change elsewhere.  Knows `Progress`, not who makes it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from gitpipe.cli import show
from gitpipe.cli.app import is_terminal
from gitpipe.views import JobInfo, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

OPEN = ("queued", "running")
FEW_FILES = 100
"""Below so many files a bar would only flicker."""


class JobProgress:
    """Shows the jobs that are being waited for; a context manager.

    In a pipe each job gets a line when its state changes (``model: 1 + 0 / 1 success``), in a terminal a bar.
    """

    def __init__(self) -> None:
        self._shown: dict[int, str] = {}
        self._bars: Bars | None = None
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> JobProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, jobs: Sequence[Progress]) -> None:
        """Show the state that `jobs` are in now."""
        for job in jobs:
            if is_terminal():
                self._bar(job)
            elif self._shown.get(job.seq) != job.state:
                print(show.progress_line(job), flush=True)
            self._shown[job.seq] = job.state

    def finish(
        self,
        ran: Sequence[JobInfo],
        warnings: Callable[[], Sequence[str]] = tuple,
        behind: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Show how the jobs ended where `update` was not told, and which working trees did not follow (`behind`).

        If there were no jobs say so, with all `warnings`.
        """
        late = [job for job in ran if self._shown.get(job.seq) != job.state]
        self.update([ended(job) for job in sorted(late, key=lambda job: job.finished or math.inf)])
        nothing = not ran and not self._shown
        known = warnings() if nothing else behind()
        if nothing:
            print("Nothing to do here and now." if known else "Nothing to do: every output is up to date.")
        for line in known:
            print(f"Warning: {line}")

    def _bar(self, job: Progress) -> None:
        if self._bars is None:
            self._bars = job_bars()
            self._bars.start()
        if job.seq not in self._tasks:
            self._tasks[job.seq] = self._bars.add_task(job.pipeline, total=None, state="")
        over = job.state not in OPEN
        if over and self._shown.get(job.seq) == job.state:
            return
        # What was skipped took no time, and would be taken for a rate.
        todo, done = job.total - job.skipped, job.done + job.failed + job.recovered
        self._bars.update(
            self._tasks[job.seq],
            total=max(todo, 1) if job.total else None,
            completed=done if todo or not job.total else 1,
            state=bar_text(job),
        )
        if over:
            self._bars.stop_task(self._tasks[job.seq])


def bar_text(job: Progress) -> str:
    """``3 + 2 / 9 running, 1 failed``."""
    failed = f", {job.failed} failed" if job.failed else ""
    return f"{show.progress(job.done, job.skipped, job.recovered, job.total)} {job.state}{failed}"


def rate_text(speed: float | None, running: bool) -> str:
    """Datums a second, or a minute where they are slow; "" where that is not known."""
    if not speed or not running:
        return ""
    return f"{speed:.3g}/s" if speed >= 1 else f"{speed * 60:.3g}/min"


def ended(job: JobInfo) -> Progress:
    """The progress of a job that has ended."""
    return Progress(job.seq, job.pipeline, job.state, job.processed, job.skipped, job.failed, job.total, job.recovered)


def job_bars() -> Bars:
    """Rich's bars with pipeline, datums, state, rate and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(rate_text(task.speed, task.stop_time is None and not task.finished))

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        Rate(),
        TimeRemainingColumn(),
        console=Console(),
    )


@contextmanager
def file_progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A callback (files done, files in all) that draws a bar on standard error; None where that is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    bars: Bars | None = None
    task: TaskID | None = None

    def report(done: int, total: int) -> None:
        nonlocal bars, task
        if total < FEW_FILES:
            return
        if bars is None or task is None:
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            bars = RichProgress(console=Console(stderr=True), transient=True)
            bars.start()
            task = bars.add_task(label, total=total)
        bars.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if bars is not None:
            bars.stop()
