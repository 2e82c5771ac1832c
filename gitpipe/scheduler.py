"""In which order jobs run: look at the refs when nudged, run what may run, linger, end.

The runner (`gitpipe.runner`) and ``gitpipe run`` are this loop, in the background and in the foreground.  Knows neither
what a job is (`gitpipe.job`) nor why there is one (`gitpipe.reconcile`).
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from gitpipe import nudges
from gitpipe.clock import Clock
from gitpipe.errors import SCARCE, GitpipeError, of_machine
from gitpipe.faults import point
from gitpipe.graph import upstream
from gitpipe.job import JobRunner
from gitpipe.journal import JobRow, JobState, Journal, Unwritable
from gitpipe.notice import Notice
from gitpipe.pipelines import Pipeline, PipelineStore
from gitpipe.reconcile import Reconciler, Unready

POLL_SECONDS = 0.05
LOOK_SECONDS = 5.0
MAX_JOBS = 32
MOST_HINDERED = 5  # times in a row that the journal cannot be written, while nothing runs that may be the cause
HINDERED_SECONDS = 0.5
GRACE_SECONDS = 0.5  # for datums that run when the loop is to end; what takes longer is begun again next time


class Scheduler:
    """Schedules jobs until there is nothing left, then lingers."""

    def __init__(
        self,
        common: Path,
        journal: Journal,
        reconciler: Reconciler,
        pipelines: PipelineStore,
        clock: Clock,
        jobs: Callable[[bool], JobRunner],
        after: Callable[[JobRow], None],
        abort: Callable[[], None],
        close: Callable[[], None],
        notice: Notice,
        tidy: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            jobs: gives the `JobRunner`, made when the first job is to run; told whether no other job runs, in which
                case it may be made anew.
            after: called when a job has succeeded, before it counts as done for `wait`: working trees.
            abort: ends executors with all that they run.
            close: ends whatever else was started.
            notice: is told of each job that is over.
            tidy: called when all is done, once until there was something to do again.
        """
        self.common, self.journal, self.reconciler, self.pipelines = common, journal, reconciler, pipelines
        self.clock = clock
        self._job_runner, self._after = jobs, after
        self._abort, self._close = abort, close
        self._notice, self._tidy = notice, tidy
        self._untidy = True
        self._making = threading.Lock()
        self._active: dict[int, JobRow] = {}
        self._threads: list[threading.Thread] = []
        self._changed = threading.Event()
        self._asked = False
        self._stop = threading.Event()
        self._waiting: dict[str, int] = {}
        self._busy = True
        self._due: float | None = None  # POSIX seconds: the next tick, or move of a branch by the clock
        self._moved = False  # a branch that a trigger watches
        self._specs: str | None = None  # the head of `__spec__` at the last look
        self._ticks = True
        self._blocked: str | None = None  # as it is known to be in the journal
        self._hindered, self._hindrance = 0, ""  # how often in a row the journal could not be written, and why
        self._on_end: Callable[[JobRow], None] = lambda _: None

    def stop(self) -> None:
        """Ask the loop to end: running jobs go back to the queue.

        Takes no lock, for a signal handler calls it: it would wait for ever for one that its own thread holds, as an
        `Event` does within `wait`.
        """
        self._asked = True

    def loop(
        self,
        linger: float | None,
        on_tick: Callable[[], None] = lambda: None,
        on_end: Callable[[JobRow], None] = lambda _: None,
    ) -> None:
        """Work until nothing is left and, with `linger`, nothing came for so many seconds.

        Args:
            linger: None: return at once when all is done (foreground); cron inputs then tick at most once, else it
                might never end.
            on_end: called with each job that is over, from the job's own thread.

        Raises:
            GitpipeError: the journal cannot be written, and nothing runs whose end may change that.
        """
        point("runner-started")
        looked, idle_since = 0.0, time.monotonic()
        self._on_end = on_end
        self.journal.clear_workers()
        try:
            while not self._asked:
                now = time.monotonic()
                self._check_hindered()
                try:
                    names = nudges.pending(self.common) - set(self._waiting)
                    due = now - looked > LOOK_SECONDS or self._struck() or self._state_vanished()
                    if names or self._moved or due or self.pipelines.head() != self._specs:
                        looked = now
                        self._look(names)
                        self._notice.update()  # a pipeline that failed may have been deleted
                        self._ticks = linger is not None
                    self._start_ready()
                    self._release()
                except (Unwritable, OSError) as error:
                    if isinstance(error, OSError) and error.errno not in SCARCE:
                        raise
                    self._hinder(error)
                    self._stop.wait(HINDERED_SECONDS)
                if self._active or self._waiting or self._busy or self._moved:
                    idle_since = time.monotonic()
                    self._untidy = True
                elif self._untidy:
                    self._untidy = False
                    self._hindered = 0
                    self._tidy()
                elif (linger is None or time.monotonic() - idle_since > linger) and self._may_end():
                    break
                on_tick()
                self._changed.wait(POLL_SECONDS)
                self._changed.clear()
        finally:
            self._stop.set()
            self._join(GRACE_SECONDS)
            self._abort()
            self._join(None)
            self._notice.close()
            with contextlib.suppress(Unwritable):
                self.journal.clear_workers()
            self._close()

    def _hinder(self, error: Exception) -> None:
        """The journal cannot be written, or no file be opened; what could not be noted is found at the next look."""
        self._hindered += 1
        self._hindrance = str(error)

    def _check_hindered(self) -> None:
        """A datum that runs may have filled the disk; else it is tried some times more, and then told to who waits."""
        if self._hindered > MOST_HINDERED and not self._active:
            where = self.journal.path.parent
            said = f"cannot use the local state in {where} ({self._hindrance}): see to it, then `gitpipe run`"
            raise GitpipeError(said)

    def _join(self, seconds: float | None) -> None:
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))

    def _may_end(self) -> bool:
        """Drop the mark, then look once more: a hook that saw the mark has left its nudge before."""
        nudges.unmark(self.common)
        if nudges.pending(self.common):
            nudges.mark(self.common)
            return False
        return True

    def _state_vanished(self) -> bool:
        """Whether somebody deleted the local state under us; it is made again, and all is looked at anew (I1)."""
        if not self.journal.vanished():
            return False
        self.journal.reopen()
        nudges.mark(self.common)
        self._waiting.clear()
        return True

    def _struck(self) -> bool:
        return self._due is not None and time.time() >= self._due

    def _look(self, names: set[str]) -> None:
        trouble = ""
        self._moved, self._due, self._specs = False, None, self.pipelines.head()
        renewed = False
        try:
            self._due = self.clock.advance(time.time(), ticks=self._ticks)
            blocked = "\n".join(self.clock.blocked.values())
            if blocked != self._blocked:
                self._blocked = blocked
                self.journal.set_meta("clock", blocked)
            self.reconciler.plan()
            renewed = self.reconciler.renewed
        except GitpipeError as error:
            # A broken spec or a lost object must not end the runner; `wait` and `status` say it.
            trouble = str(error)
        except Unwritable:
            raise
        except Exception as error:
            if not (trouble := of_machine(error)):
                trouble = self._bug(error)
        newest = self.journal.newest_set()
        self.journal.set_meta("trouble", trouble)
        point("set-recorded")
        # Who waits for jobs of a version that is no more, waits for those of the new one.
        self._waiting.update(dict.fromkeys([*names, *(self._waiting if renewed else ())], newest))

    def _bug(self, error: Exception) -> str:
        traceback.print_exc()
        return f"internal error: {error!r}, see {self.common}/gitpipe/runner.log"

    def _release(self) -> None:
        """Take away the nudges whose sets are all done."""
        if not self._waiting:
            return
        unfinished = [job.set_id for job in self.journal.first_unfinished().values()]
        unfinished += [job.set_id for job in self.journal.unfinished_aside()]
        first = min([*unfinished, *(job.set_id for job in list(self._active.values()))], default=None)
        stuck = not self._busy and not self._active
        done = {n for n, newest in self._waiting.items() if stuck or first is None or first > newest}
        nudges.take(self.common, done)
        for name in done:
            del self._waiting[name]

    # -- which job may run -------------------------------------------------------------------------------------------

    def _start_ready(self) -> None:
        first = self.journal.first_unfinished()
        aside = self.journal.unfinished_aside()
        self._busy = bool(first or aside)
        # By pipeline, not by job: one that began before the local state was deleted is unknown to the new journal.
        running = {job.pipeline for job in list(self._active.values())}
        waiting = [job for job in [*aside, *first.values()] if job.pipeline not in running]
        if not waiting or self._stop.is_set():
            return
        head = self.pipelines.head()
        if head != self._specs:
            return  # changed since the last look, which is to say first what becomes of jobs of an old version
        try:
            found = self.pipelines.all(head)
        except GitpipeError as error:
            # A broken spec must not end the runner: what is queued waits until it is mended, who waits is told.
            self.journal.set_meta("trouble", str(error))
            self._busy = False
            return
        specs = {name: pipeline.spec for name, pipeline in found.items()}
        for job in waiting:
            if len(self._active) >= MAX_JOBS:
                return
            if job.pipeline in running:
                continue
            if job.aside:  # its inputs are there, and nobody waits for its result
                running.add(job.pipeline)
                self._start(job)
                continue
            above = upstream(specs, job.pipeline) if job.pipeline in specs else set()
            before = min((first[name].set_id for name in above if name in first), default=None)
            if before is None or before > job.set_id:
                self._start(self._newest(job, found[job.pipeline], before) if job.pipeline in found else job)

    def _newest(self, job: JobRow, pipeline: Pipeline, before: int | None) -> JobRow:
        """`job`, the oldest of its pipeline; or, with `commits` ``newest``, the newest that may run, those before it
        passed over.

        Of those that may run: one that still waits for its upstream is no reason to pass over another, else a pipeline
        below a slow one would never have its turn while commits keep coming.

        Args:
            before: the first set that upstream pipelines are not done with; None: they are done with all.
        """
        ready = [each for each in self.journal.queue(job.pipeline) if before is None or each.set_id < before]
        if len(ready) < 2 or not self.pipelines.newest_only(pipeline.spec):
            return job
        for chosen in reversed(ready[1:]):
            try:
                inputs = self.reconciler.inputs_of(pipeline, chosen.set_id)
            except GitpipeError:
                return job  # something is lost: the job that asks for it is to say so
            if not isinstance(inputs, Unready) or not (inputs.passed or inputs.silent):
                cause = self.journal.set_cause(chosen.set_id)
                self.journal.pass_over(ready[: ready.index(chosen)], f"passed over for a newer commit set ({cause})")
                return chosen
        return job

    def _start(self, job: JobRow) -> None:
        thread = threading.Thread(target=self._run, args=(job,), name=f"job-{job.pipeline}", daemon=True)
        self._active[job.seq] = job
        self._threads = [t for t in self._threads if t.is_alive()]
        try:
            thread.start()
        except RuntimeError as error:
            del self._active[job.seq]
            raise OSError(errno.EAGAIN, of_machine(error)) from error
        self._threads.append(thread)

    def _run(self, job: JobRow) -> None:
        hindered: Exception | None = None  # the journal cannot be written, say: the job is tried again
        try:
            with self._making:  # the first jobs may begin together, and one executor serves them all
                jobs = self._job_runner(len(self._active) == 1)
            state = jobs.run(job.seq, self._stop.is_set)
            self._changed.set()  # what depends on it may start
            done = self.journal.job(job.seq) if state is JobState.SUCCESS else None
            if done is not None:
                self._after(done)
                self._moved = self._moved or self.clock.watches(job.pipeline)
        except Unwritable as error:
            hindered = error
        except Exception as error:
            # A bug must fail this job, not leave it running for ever nor end the runner.
            reason = str(error) if isinstance(error, GitpipeError) else of_machine(error) or self._bug(error)
            try:
                current = self.journal.job(job.seq)
                if current is not None and not current.state.over:
                    self.journal.update_job(job.seq, state=JobState.FAILED, finished=time.time(), reason=reason)
            except Exception as again:
                hindered = again
        finally:
            if hindered:
                self._hinder(hindered)
                self._stop.wait(HINDERED_SECONDS)  # not twenty times a second
            else:
                self._hindered = 0
            ended = None
            try:
                with contextlib.suppress(Unwritable, OSError, MemoryError):
                    ended = self.journal.job(job.seq)
                    if ended is not None and ended.state.over:
                        self._notice.ended(ended)  # first: who waits for the job is to find that, too
            finally:  # else the loop would wait for it for ever
                self._active.pop(job.seq, None)
                self._changed.set()
            if ended is not None and ended.state.over:
                self._on_end(ended)
