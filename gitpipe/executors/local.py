"""Workers in threads of this process, kept warm between jobs."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from gitpipe.errors import SCARCE, Scarce, StageFailed
from gitpipe.executors import SlotWatcher
from gitpipe.executors.spread import Spread
from gitpipe.stage import Result, Stage, Task
from gitpipe.stage.slot import sweep
from gitpipe.stage.worker import Worker

_MOST_IDLE = 16
_MOST_IDLE_HEAVY = max(4, os.cpu_count() or 1)
"""Of those that keep an interpreter with its imports, which may be some hundred megabytes each."""
_PATIENCE = 10.0
"""Seconds that `close` waits for running datums to be gone after their processes were killed."""
_counter = itertools.count()


class WorkerPool:
    """Warm workers by stage.  Whoever takes one has it alone until giving it back."""

    def __init__(self, environ: dict[str, str] | None = None, engine: str = "local") -> None:
        self._environ = environ
        self._engine = engine
        self._lock = threading.Lock()
        self._idle: list[Worker] = []  # least recently used first
        self._busy: set[Worker] = set()
        self._swept: set[Path] = set()
        self._closed = False

    def take(self, stage: Stage) -> Worker:
        """A worker for `stage`: the one used last (its caches are warm), or a new one.

        Raises:
            StageFailed: the pool is closed, or no slot can be made; `Scarce` where another time it may be.
        """
        while worker := self._idle_one(stage):
            if worker.is_current():
                return worker
            self._drop(worker)
        name = f"{socket.gethostname()}-{os.getpid()}-{next(_counter)}"
        try:
            worker = Worker(stage, stage.slots_dir / name, self._environ, self._engine)
        except OSError as error:
            failed = Scarce if error.errno in SCARCE else StageFailed
            raise failed(f"cannot make a worker's folder in {stage.slots_dir}: {error.strerror}") from None
        with self._lock:
            self._busy.add(worker)
            if self._closed:
                worker.abort()
        return worker

    def _idle_one(self, stage: Stage) -> Worker | None:
        """The warm worker of `stage` that was used last, busy from now on."""
        with self._lock:
            if self._closed:
                raise StageFailed("the workers were shut down")
            self._sweep_once(stage.slots_dir)
            for worker in reversed(self._idle):
                if worker.stage == stage:
                    self._idle.remove(worker)
                    self._busy.add(worker)
                    return worker
        return None

    def _drop(self, worker: Worker) -> None:
        worker.close()
        with self._lock:
            self._busy.discard(worker)

    def give(self, worker: Worker) -> None:
        """Give a worker back; a dead one is forgotten, surplus idle ones are ended, and one that was to be aborted: it
        may take a moment to die, and what the next job gave it would be lost."""
        ended = []
        with self._lock:
            self._busy.discard(worker)
            if self._closed or (worker.alive and worker.aborted):
                ended = [worker]
            elif worker.alive:
                self._idle.append(worker)
                heavy = [each for each in self._idle if each.heavy]
                ended = [*self._idle[:-_MOST_IDLE], *heavy[:-_MOST_IDLE_HEAVY]]
                self._idle = [each for each in self._idle if each not in ended]
        for old in ended:
            old.close()

    def shed(self) -> None:
        """End the idle workers: something is used up, and each holds handles, a process, memory, and files."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    def abort(self, pipeline: str, datums: Collection[str] | None = None) -> None:
        """Kill what runs of `pipeline`, which has one job at a time; its threads get lost results.

        Args:
            datums: only these; None for all.
        """
        with self._lock:
            busy = [worker for worker in self._busy if worker.stage.pipeline == pipeline]
            busy = [worker for worker in busy if datums is None or worker.datum in datums]
        for worker in busy:
            worker.abort()

    def close(self) -> None:
        """End all workers, busy ones too; their threads get lost results."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for worker in busy:
            worker.abort()
        for worker in idle:
            worker.close()
        deadline = time.monotonic() + _PATIENCE
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.01)

    def _sweep_once(self, slots_dir: Path) -> None:
        if slots_dir not in self._swept:
            self._swept.add(slots_dir)
            with contextlib.suppress(OSError):
                sweep(slots_dir)


class LocalSeat:
    """A worker of a pool, replaced when it dies."""

    appetite = 1
    stale = False

    def __init__(self, pool: WorkerPool, stage: Stage) -> None:
        self._pool = pool
        self._stage = stage
        self._worker: Worker | None = None

    def settle(self, over: Callable[[], bool]) -> bool:
        """There is always a place here."""
        return True

    def run(self, tasks: list[Task]) -> list[Result]:
        return [self._run(task) for task in tasks]

    def _run(self, task: Task) -> Result:
        if self._worker is None:
            try:
                self._worker = self._pool.take(self._stage)
            except Scarce as error:
                self._pool.shed()
                return Result(task.datum, error=str(error), no_space=True)
        try:
            result = self._worker.run(task)
            if result.no_space:
                self._pool.shed()
            return result
        finally:
            if not self._worker.alive:
                self.close()

    def abort(self, datums: Collection[str] | None = None) -> None:
        """See `gitpipe.executors.spread.Seat`."""
        self._pool.abort(self._stage.pipeline, datums)

    def close(self) -> None:
        if self._worker is not None:
            self._pool.give(self._worker)
            self._worker = None


class LocalExecutor:
    """Runs tasks on workers of this process."""

    name = "local"
    warning = ""

    def __init__(self) -> None:
        self._pool = WorkerPool()

    def open_seat(self, stage: Stage) -> LocalSeat:
        return LocalSeat(self._pool, stage)

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
        return Spread(tasks, slots, lambda number: self.open_seat(stage), watch, stopped, ended).results()

    def close(self) -> None:
        """End all workers and their processes, and remove their slot directories."""
        self._pool.close()
