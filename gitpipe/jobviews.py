"""What commands show of jobs, their logs and workers; reads the journal, and git notes where that knows no more."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from gitpipe.commit import CommitRef
from gitpipe.errors import Ambiguous, GitpipeError, NotFound, Refused
from gitpipe.joblog import JobLogs
from gitpipe.journal import JobRow, JobState, Journal
from gitpipe.record import Records, versions
from gitpipe.views import JobInfo, LogLine, Progress, WorkerInfo

LOOK_SECONDS = 0.2
PATIENCE = 15.0
"""Seconds to wait for a runner to come, before what was to be followed is given up."""

NEWEST = "COALESCE(started, finished, 1e18)"
"""In SQL: by when a job began; one that never did counts by its end, and one that waits comes before all."""


class Jobs:
    """The jobs of one repository."""

    def __init__(
        self,
        journal: Journal,
        logs: JobLogs,
        runner_lives: Callable[[], bool],
        slots: Callable[[], Mapping[str, int]],
        records: Records,
        nudged: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Args:
            slots: pipeline -> worker slots, as the specs say.
            nudged: whether the runner was told of something that is not done yet.
        """
        self.nudged = nudged
        self.journal, self.files, self.runner_lives, self.slots = journal, logs, runner_lives, slots
        self.records = records

    def list(self, pipeline: str | None = None, limit: int | None = None) -> list[JobInfo]:
        """Jobs, newest first."""
        tail = f"ORDER BY {NEWEST} DESC, seq DESC" + (f" LIMIT {int(limit)}" if limit else "")
        if pipeline is None:
            return [self._info(row) for row in self.journal.jobs(tail=tail)]
        return [self._info(row) for row in self._of(pipeline, tail)]

    def watch(
        self, pipeline: str | None = None, limit: int | None = None
    ) -> Iterator[tuple[builtins.list[JobInfo], builtins.list[JobInfo]]]:
        """(what `list` gives, those of it that are new or changed, oldest first), now and at each change, for ever.

        Also each second without one, since ages change.  A job counts as changed when its state does, or what became
        of its datums.
        """
        tail = f"ORDER BY {NEWEST} DESC, seq DESC" + (f" LIMIT {int(limit)}" if limit else "")
        known: dict[int, JobRow] = {}
        given = 0.0
        while True:
            if pipeline is None:
                rows = self.journal.jobs(tail=tail)
            elif not known:
                rows = self._of(pipeline, tail)
            else:  # it may be deleted meanwhile
                rows = self.journal.jobs("pipeline = ?", [pipeline], tail)
            changed = [row for row in rows if known.get(row.seq) != row]
            if changed or time.monotonic() - given > 1:
                given = time.monotonic()
                yield [self._info(row) for row in rows], [self._info(row) for row in reversed(changed)]
            known = {row.seq: row for row in rows}
            time.sleep(LOOK_SECONDS)
            if self.journal.vanished():
                self.journal.reopen()

    def state(self, row: JobRow) -> str:
        """How a job stands; one whose runner was killed waits for the next."""
        if row.state is JobState.RUNNING and not self.runner_lives():
            return JobState.QUEUED.value
        return row.state.value

    def _info(self, row: JobRow) -> JobInfo:
        return replace(job_info(row), state=self.state(row))

    def inspect(self, name: str) -> JobInfo:
        """A job by (abbreviated) id, or a pipeline's newest, with what it ran in."""
        row = self.find(name)
        info = replace(self._info(row), ran_in=tuple(self._ran_in(row)))
        count = self.journal.passed_over(row)
        return replace(info, notes=(*info.notes, f"before it {passed(count)}")) if count else info

    def _ran_in(self, row: JobRow) -> Iterator[dict[str, Any]]:
        places = self.journal.places(row)
        for place in places:
            yield {**place, "packages": versions(place.get("packages", ""))}
        if not places and row.output:  # the local state was deleted since, or another machine ran it
            yield from next((run["ran_in"] for run in reversed(self.records.read(row.output)) if run["ran_in"]), ())

    def stop(self, name: str) -> JobInfo:
        """End a job that is queued or running, named by its id or its pipeline; what its datums made is kept.

        Raises:
            NotFound: no such job.
            Refused: it is over already.
        """
        rows = self.journal.jobs(
            "pipeline = ? AND state IN ('queued', 'running')", [name], "ORDER BY set_id, seq LIMIT 1"
        )
        row = rows[0] if rows else self.find(name)
        if not self.journal.kill_job(row.seq, "stopped by stop-job"):
            raise Refused(f"job {row.id[:12]} of {row.pipeline} is over ({row.state.value}): there is nothing to stop")
        return job_info(self.journal.job(row.seq) or row)

    def _of(self, pipeline: str, tail: str) -> builtins.list[JobRow]:
        rows = self.journal.jobs("pipeline = ?", [pipeline], tail)
        if not rows and pipeline not in self.slots():  # one without jobs may not have run yet
            raise NotFound(
                f"pipeline {pipeline} does not exist, and no job of it is known: see `gitpipe list-pipeline`"
            )
        return rows

    def find(self, name: str) -> JobRow:
        """A job by its (abbreviated) id, by ``pipeline@job`` or ``pipeline@<output commit>``; or a pipeline's newest.

        Raises:
            NotFound: there is none, or several.
        """
        rows = self.journal.jobs("pipeline = ?", [name], "ORDER BY seq DESC LIMIT 1")
        if rows:
            return rows[0]
        pipeline, _, digits = name.rpartition("@")
        if len(digits) >= 4 and set(digits) <= set("0123456789abcdef"):
            end = digits + "g"
            rows = self.journal.jobs("id >= ? AND id < ?", [digits, end], "ORDER BY seq DESC")
            if not rows:
                rows = self.journal.jobs("output >= ? AND output < ?", [digits, end], "ORDER BY seq DESC")
            rows = [row for row in rows if pipeline in ("", row.pipeline)]
        ids = {row.id for row in rows}
        if len(ids) > 1:
            raise Ambiguous(f"{name} is short for {len(ids)} jobs: give more digits")
        if not rows:
            raise NotFound(f"no job or pipeline {name!r} is known here: see `gitpipe list-job`")
        return rows[0]

    def earlier_attempts(self, row: JobRow) -> str:
        """Of a job that was tried before on the same commits, and has one id since then: that it was; else ""."""
        rows = self.journal.jobs("id = ? AND id != '' AND seq < ?", [row.id, row.seq])
        if not rows:
            return ""
        tries = f"{len(rows)} earlier attempt{'s' if len(rows) > 1 else ''} of this job"
        ended = ", ".join(dict.fromkeys(each.state.value for each in rows))
        return f"{tries} ended as {ended}; this tells of the newest, `gitpipe list-job` shows all"

    def logs(
        self, job: str | None = None, pipeline: str | None = None, datum: str | None = None, tail: int | None = None
    ) -> Iterator[LogLine]:
        """What stages printed: of a job, of all jobs of a pipeline (oldest first), or of all.

        Raises:
            NotFound: no such job or pipeline, or none of these jobs has run a datum of that id.
        """
        rows = self._logged(job, pipeline)
        if datum is not None and not any(self._has_run(row, datum) for row in rows):
            raise _no_datum(datum)
        starts, surplus = self._starts(rows, datum, tail)
        found = (line for row, start in starts for line in self.files.read(row.seq, row.id, row.pipeline, datum, start))
        return islice(found, surplus, None)

    def follow(
        self, job: str | None = None, pipeline: str | None = None, datum: str | None = None, tail: int | None = None
    ) -> Iterator[LogLine]:
        """The same, and then what is printed meanwhile, until the job is over, or without one until nothing is pending.

        Raises:
            NotFound: as `logs`; whether there is such a datum is known at the end.
            GitpipeError: nobody goes on with the job, or the local state was deleted.
        """
        rows = self._logged(job, pipeline)
        seen = datum is None or any(self._has_run(row, datum) for row in rows)
        starts, surplus = self._starts(rows, datum, tail)
        last = rows[-1].seq if rows else 0
        followed = {row.seq: self.files.follow(row.seq, row.id, row.pipeline, datum, start) for row, start in starts}
        began = alone = time.monotonic()
        while True:
            nudged = job is None and self.nudged()
            goes_on = False
            for seq, log in list(followed.items()):
                row = self.journal.job(seq)
                over = row is None or row.state.over
                goes_on = goes_on or not over
                log.job = row.id if row else log.job
                for line in log.more(over):
                    seen, surplus = True, surplus - 1
                    if surplus < 0:
                        yield line
                if over and log.ended():
                    followed.pop(seq).close()
            if job is None:
                for row in self._of_pipeline(pipeline, last):
                    followed[row.seq] = self.files.follow(row.seq, row.id, row.pipeline, datum)
                    last = row.seq
            now = time.monotonic()
            if self.runner_lives():
                alone = now
            if not followed and not (nudged and (alone == now or now - began < PATIENCE)):
                break
            if self.journal.vanished():
                raise GitpipeError("the local state was deleted meanwhile, and the logs with it")
            if goes_on and now - alone > PATIENCE:
                raise GitpipeError("no runner is at work, so nothing more is printed: `gitpipe wait` goes on")
            time.sleep(LOOK_SECONDS)
        if not seen:
            raise _no_datum(str(datum))

    def log_removed(self, name: str) -> bool:
        """Whether what a job printed may have been removed since, as only so much is kept."""
        row = self.find(name)
        return row.state.over and self.files.removed(row.seq)

    def _logged(self, job: str | None, pipeline: str | None) -> builtins.list[JobRow]:
        """The jobs whose logs are asked for, oldest first."""
        if job is not None:
            found = self.find(job)
            # One that was stopped or failed, and ran again on the same commits, has the same id.
            return self.journal.jobs("id = ? AND id != ''", [found.id]) or [found]
        if pipeline is not None:
            return self._of(pipeline, "ORDER BY seq")
        return self.journal.jobs(tail="ORDER BY seq")

    def _of_pipeline(self, pipeline: str | None, after: int) -> builtins.list[JobRow]:
        if pipeline is None:
            return self.journal.jobs("seq > ?", [after])
        return self.journal.jobs("seq > ? AND pipeline = ?", [after, pipeline])

    def _starts(
        self, rows: Sequence[JobRow], datum: str | None, tail: int | None
    ) -> tuple[builtins.list[tuple[JobRow, int]], int]:
        """Where to begin to read each job's file for the last `tail` lines, and how many lines to pass over."""
        if tail is None:
            return [(row, 0) for row in rows], 0
        starts: builtins.list[tuple[JobRow, int]] = []
        surplus = 0
        for row in reversed(rows):
            if tail <= 0 and row.state.over:
                continue
            start, lines = self.files.tail(row.seq, tail, datum)
            starts.insert(0, (row, start))
            surplus, tail = surplus + max(0, lines - tail), max(0, tail - lines)
        return starts, surplus

    def _has_run(self, row: JobRow, datum: str) -> bool:
        """Whether the job has run a datum whose id begins so."""
        ran = bool(datum) and any(each.startswith(datum) for each in self.journal.runs(row.seq))
        return ran or (bool(datum) and self.files.runs(row.seq, datum))

    def workers(self) -> builtins.list[WorkerInfo]:
        """Every worker slot of every pipeline; one that no job has used yet is idle, all are off without a runner."""
        alive = self.runner_lives()
        used = {(pipeline, slot): rest for pipeline, slot, *rest in self.journal.workers()}
        found = []
        for pipeline, slots in sorted(self.slots().items()):
            for slot in range(slots):
                engine, state, datum = used.get((pipeline, slot), ["-", "idle", ""])
                found.append(WorkerInfo(pipeline, slot, engine, state if alive else "off", datum if alive else ""))
        return found

    def newest(self) -> builtins.list[JobRow]:
        """The newest finished job of each pipeline."""
        return self.journal.newest_ended()

    def passed_over(self) -> Iterator[str]:
        """Which pipelines passed over commit sets before their newest job, a line each."""
        for row in self.newest():
            if count := self.journal.passed_over(row):
                yield f"{row.pipeline}: before its newest job {passed(count)}"

    def failures(self) -> builtins.list[JobRow]:
        """Newest jobs that did not succeed, the causes before what they made unrunnable."""
        bad = [j for j in self.newest() if j.state is not JobState.SUCCESS]
        return sorted(bad, key=lambda j: (j.state is JobState.UNRUNNABLE, j.seq))

    def since(self, seq: int) -> builtins.list[JobRow]:
        """Jobs after job `seq`, but for those that were passed over: there may be thousands."""
        return self.journal.jobs("seq > ? AND state != 'superseded'", [seq])


def passed(count: int) -> str:
    """How many commit sets have no output."""
    sets = "1 older commit set was" if count == 1 else f"{count} older commit sets were"
    return f"{sets} passed over (commits: newest)"


def _no_datum(datum: str) -> NotFound:
    return NotFound(f"no job that was asked for has run a datum {datum!r}: see `gitpipe list-datum JOB`")


def progress(row: JobRow) -> Progress:
    """One job as a progress bar shows it."""
    return Progress(
        row.seq, row.pipeline, row.state.value, row.processed, row.skipped, row.failed, row.total, row.recovered
    )


def job_info(row: JobRow) -> JobInfo:
    """One job as commands show it."""
    return JobInfo(
        seq=row.seq,
        id=row.id,
        pipeline=row.pipeline,
        version=row.version,
        state=row.state.value,
        output=row.output,
        started=row.started,
        finished=row.finished,
        restarts=row.restarts,
        processed=row.processed,
        skipped=row.skipped,
        failed=row.failed,
        total=row.total,
        bytes_in=row.bytes_in,
        bytes_out=row.bytes_out,
        reason=row.reason,
        notes=row.notes,
        inputs=tuple(CommitRef.parse(text) for text in row.inputs),
        engine=row.engine,
        image=row.image,
        image_id=row.image_id,
        recovered=row.recovered,
    )
