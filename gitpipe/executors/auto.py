"""Begin at once on workers of this process, go on with Ray when it has started: nobody waits for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from gitpipe.errors import StageFailed
from gitpipe.executors import SlotWatcher
from gitpipe.executors.local import LocalExecutor, LocalSeat
from gitpipe.executors.ray import RayExecutor
from gitpipe.executors.spread import Seat, Spread
from gitpipe.stage import Result, Stage, Task


class AutoExecutor:
    """Local workers until Ray is ready, then Ray; local again, with a `warning`, if Ray fails.

    What a stage asks for in CPUs, GPUs and memory holds on Ray only, and is no reason to fail where Ray has not got it.
    """

    name = "auto"

    def __init__(self, address: str | None, scratch: Path, *, shared: bool | None = None) -> None:
        self._local = LocalExecutor()
        self.ray = RayExecutor(address, scratch, shared=shared)

    @property
    def warning(self) -> str:
        """Why Ray is not used, where it should be; else ""."""
        failed = self.ray.failed
        return f"Ray cannot be used ({failed}); going on with workers of this machine" if failed else ""

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
        """See `gitpipe.executors.Executor`."""
        return Spread(
            self._wake_ray(tasks), slots, lambda number: self._open_seat(stage, number), watch, stopped, ended
        ).results()

    def _wake_ray(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """The tasks; Ray is started at the second, since for one it would come too late and only take CPU."""
        for number, task in enumerate(tasks):
            if number == 1:
                self.ray.start()
            yield task

    def _open_seat(self, stage: Stage, number: int) -> Seat:
        lacking = False
        if self.ray.ready.is_set():
            with contextlib.suppress(StageFailed):  # it broke down just now
                lacking = bool(self.ray.lacking(stage))
                if not lacking:
                    return self.ray.open_seat(stage, number)
        return _UntilReady(self._local.open_seat(stage), self.ray, lacking)

    def close(self) -> None:
        """End all workers, and Ray."""
        self._local.close()
        self.ray.close()


class _UntilReady:
    """A local seat that is to be left as soon as Ray is ready, if that is not `lacking` what the stage asks for."""

    appetite = 1

    def __init__(self, seat: LocalSeat, ray: RayExecutor, lacking: bool) -> None:
        self._seat = seat
        self._ray = ray
        self._lacking = lacking

    @property
    def stale(self) -> bool:
        return self._ray.ready.is_set() and not self._lacking

    def settle(self, over: Callable[[], bool]) -> bool:
        return self._seat.settle(over)

    def run(self, tasks: list[Task]) -> list[Result]:
        return self._seat.run(tasks)

    def abort(self, datums: Collection[str] | None = None) -> None:
        self._seat.abort(datums)

    def close(self) -> None:
        self._seat.close()
