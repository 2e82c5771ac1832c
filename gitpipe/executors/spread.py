"""Spread tasks over slots: what all executors have in common.

A slot is a thread with a *seat*, the place where its tasks run.  Knows nothing of what a seat is.  Tasks are pulled
in the caller's thread, since what makes them (a database cursor, say) may belong to it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from gitpipe.errors import Scarce, of_machine
from gitpipe.executors import SlotWatcher
from gitpipe.stage import Result, Task

_TICK = 0.1
"""Seconds between two looks at `stopped`."""
_GRACE = 0.5
"""Seconds that running tasks have after a stop; what takes longer is killed, and is begun again another time."""


class Seat(Protocol):
    """A place where tasks run, one batch after another, used by one thread."""

    @property
    def appetite(self) -> int:
        """How many tasks it wants at once."""

    @property
    def stale(self) -> bool:
        """Whether a new seat should be opened before the next batch."""

    def settle(self, over: Callable[[], bool]) -> bool:
        """Wait until tasks can run here; False where nothing is left to be run before, as `over` says.

        Who waits holds no task: those that have a place run them all, and it may be theirs that is waited for.
        """

    def run(self, tasks: list[Task]) -> list[Result]:
        """Run the tasks; a result for each."""

    def abort(self, datums: Collection[str] | None = None) -> None:
        """Kill what runs of its stage, or only these datums, from another thread; the tasks come back as lost."""

    def close(self) -> None:
        """Leave it: what can be used again goes back to where it came from."""


class Spread:
    """One call of `Executor.run`."""

    def __init__(
        self,
        tasks: Iterable[Task],
        slots: int,
        open_seat: Callable[[int], Seat],
        watch: SlotWatcher | None,
        stopped: Callable[[], bool],
        ended: Callable[[], Collection[str]],
    ) -> None:
        self._tasks = iter(tasks)
        self._slots = max(1, slots)
        self._open_seat = open_seat
        self._watch: SlotWatcher = watch or (lambda slot, state, datum: None)
        self._stopped = stopped
        self._ended = ended
        self._todo: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._appetite = 1
        self._pending = 0
        self._exhausted = False
        self._seats: set[Seat] = set()
        self._seats_lock = threading.Lock()
        self._abort_at: float | None = None
        self._over = threading.Event()

    def results(self) -> Iterator[Result]:
        """Yield a result for each task; re-raises what went wrong in a slot (StageFailed)."""
        try:
            while True:
                self._pull()
                if not self._pending:
                    break
                try:
                    outcome = self._done.get(timeout=_TICK)
                except queue.Empty:
                    continue
                if isinstance(outcome, BaseException):
                    raise outcome
                self._pending -= 1
                yield outcome
        finally:
            self._over.set()
            self._drop_queued()
            for _ in self._threads:
                self._todo.put(None)
        for thread in self._threads:  # all are idle: when this is over their workers can be had by the next
            thread.join()

    def _pull(self) -> None:
        """Keep every slot supplied, and not more: the rest stays where it is."""
        while not self._exhausted and self._pending < 2 * self._slots * self._appetite:
            if self._stopped():
                self._exhausted = True
                break
            task = next(self._tasks, None)
            if task is None:
                self._exhausted = True
                break
            self._pending += 1
            self._todo.put(task)
            if len(self._threads) < self._slots:
                self._add_slot()
        if self._stopped():
            self._exhausted = True
            self._drop_queued()
            self._abort_late()
        elif datums := self._ended():
            self._abort(datums)

    def _abort_late(self) -> None:
        now = time.monotonic()
        if self._abort_at is None:
            self._abort_at = now + _GRACE
        elif now > self._abort_at:
            self._abort_at = now + 10 * _GRACE  # a seat may have been opened meanwhile
            self._abort(None)

    def _abort(self, datums: Collection[str] | None) -> None:
        with self._seats_lock:
            seats = list(self._seats)
        for seat in seats:
            seat.abort(datums)

    def _drop_queued(self) -> None:
        while True:
            try:
                if self._todo.get_nowait() is not None:
                    self._pending -= 1
            except queue.Empty:
                return

    def _add_slot(self) -> None:
        number = len(self._threads)
        thread = threading.Thread(target=self._work, args=(number,), name=f"gitpipe-slot-{number}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise Scarce(of_machine(error) or str(error)) from None
            self._slots = number  # do with those that there are
            return
        self._threads.append(thread)

    def _work(self, number: int) -> None:
        seat: Seat | None = None
        try:
            while True:
                if seat is not None and seat.stale:
                    self._leave(seat)
                    seat = None
                if seat is None:
                    self._watch(number, "starting", "")
                    seat = self._open_seat(number)
                    with self._seats_lock:
                        self._seats.add(seat)
                    if not seat.settle(self._over.is_set):
                        return
                batch = self._next_batch(seat.appetite)
                if not batch:
                    return
                if seat.stale:  # since it began to wait for tasks
                    for task in batch:
                        self._todo.put(task)
                    continue
                self._watch(number, "running", batch[0].datum)
                for result in seat.run(batch):
                    self._done.put(result)
                self._appetite = max(self._appetite, seat.appetite)
                self._watch(number, "idle", "")
        except BaseException as error:
            self._done.put(error)
        finally:
            if seat is not None:
                self._leave(seat)

    def _leave(self, seat: Seat) -> None:
        with self._seats_lock:
            self._seats.discard(seat)
        seat.close()

    def _next_batch(self, most: int) -> list[Task]:
        """The next tasks, at most this slot's share of those that wait; none when it is over."""
        first = self._todo.get()
        if first is None:
            return []
        batch = [first]
        share = min(most, 1 + self._todo.qsize() // self._slots)
        while len(batch) < share:
            try:
                task = self._todo.get_nowait()
            except queue.Empty:
                break
            if task is None:
                self._todo.put(None)  # it is over, but these still run
                break
            batch.append(task)
        return batch
