"""What commands show of the datums of a job: its inputs are cut once more, the journal says what became of each."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gitpipe import datumindex
from gitpipe.blobs.dvc import DvcStore
from gitpipe.commit import CommitRef
from gitpipe.datum import Datum
from gitpipe.datums import cut, describe
from gitpipe.errors import GitpipeError, NotFound, Refused
from gitpipe.jobviews import Jobs
from gitpipe.journal import JobRow, JobState, Journal, RunRow
from gitpipe.pipelines import PipelineStore
from gitpipe.repo import HEADS, Repo
from gitpipe.trail import Trail
from gitpipe.views import DatumDetails, DatumFile, DatumInfo, few

MIN_ID = 4


@dataclass(frozen=True, slots=True)
class _Known:
    """What is to be known of a job's datums before one of them can be shown."""

    runs: dict[str, RunRow]
    running: frozenset[str]
    lines: dict[str, tuple[str, bool]]  # index lines: made by this job, by an earlier or a later one
    before: frozenset[str]  # of these, what was known when the job ended
    earlier: frozenset[str]  # of a successful job without record of its runs: those that it cannot have run
    absent: frozenset[str] = frozenset()  # of such a job: those that its commit has not, as err_cmd recovered them


class JobDatums:
    """Answers ``list-datum`` and ``inspect-datum``."""

    def __init__(self, repo: Repo, blobs: DvcStore, journal: Journal, pipelines: PipelineStore, jobs: Jobs) -> None:
        self.repo, self.blobs, self.journal, self.pipelines, self.jobs = repo, blobs, journal, pipelines, jobs

    def list(self, job: str) -> list[DatumInfo]:
        """All datums of a job, in the input's order.

        Raises:
            NotFound: no such job, or one that never had inputs.
        """
        row = self.jobs.find(job)
        datums = self._cut(row)
        known = self._known(row, datums)
        return [_info(row, known, i, datum) for i, datum in datums.items()]

    def inspect(self, job: str, datum: str) -> DatumDetails:
        """One datum, by its (abbreviated) id, with its input and output files.

        Raises:
            NotFound: no such job or datum.
        """
        row = self.jobs.find(job)
        datums = self._cut(row)
        one = _full(datums, datum, row)
        known = self._known(row, {one: datums[one]})
        info = _info(row, known, one, datums[one])
        inputs = [
            DatumFile(part.commit, path, self.blobs.size(md5), md5)
            for part in datums[one].inputs
            for path, md5 in part.files
        ]
        line = known.lines[one][0] if one in known.lines else ""
        made = datumindex.outputs_of(line) if line and info.state in ("success", "skipped") else []
        outputs = [DatumFile(None, path, size, md5) for path, md5, size in made]
        branch = self.pipelines.load(row.pipeline, row.version).spec.output
        head = row.output or self.repo.ref(HEADS + branch)
        trail = Trail(self.repo, self.blobs, CommitRef(branch, head) if head else None)
        making = trail.making(one, self.journal)
        return DatumDetails(info, row.pipeline, tuple(inputs), tuple(outputs), row.version, making)

    def restart(self, job: str, datums: Sequence[str]) -> builtins.list[str]:
        """Have datums of a running job killed and begun again, which counts as no try; a line that says so.

        Args:
            job: its id, or its pipeline.
            datums: (abbreviated) ids; none for all that run.

        Raises:
            NotFound: no such job or datum.
            Refused: the job does not run, or a datum is done.
        """
        running = self.journal.jobs("pipeline = ? AND state = 'running'", [job])
        row = running[0] if running else self.jobs.find(job)
        if row.state is not JobState.RUNNING:
            raise Refused(
                f"job {row.id[:12] or 'without id'} of {row.pipeline} is {row.state.value}, not running: there is no"
                f" datum to restart, 'gitpipe run-pipeline {row.pipeline}' tries a job again that failed"
            )
        known = self.list(row.id)
        tries = self.pipelines.load(row.pipeline, row.version).spec.datum_tries
        open_ones = [d for d in known if d.state in ("running", "queued") or (d.state == "failed" and d.tries < tries)]
        by_id = {one.id: one for one in known}
        chosen = list(dict.fromkeys(_full(by_id, datum, row) for datum in datums))
        for one in (by_id[datum] for datum in chosen):
            if one not in open_ones:
                raise Refused(
                    f"datum {one.id[:12]} ({few(one.files)}) is {one.state}: only one that runs can be restarted"
                )
        self.journal.ask_restarts(row.seq, chosen or [one.id for one in open_ones])
        what = ", ".join(f"datum {datum[:12]}" for datum in chosen) or "what runs now"
        return [f"{row.pipeline}: {what} is killed and begun again, in job {row.id[:12]}"]

    def _cut(self, row: JobRow) -> dict[str, Datum]:
        if not row.inputs:
            why = row.reason or row.state.value
            raise NotFound(f"{row.pipeline}: this job has no datums ({why}): see `gitpipe list-job`")
        pipeline = self.pipelines.load(row.pipeline, row.version).ran_in(row.image_id, row.id)
        return cut(self.repo, self.blobs, pipeline, map(CommitRef.parse, row.inputs))

    def _known(self, row: JobRow, datums: dict[str, Datum]) -> _Known:
        runs = self.journal.runs(row.seq)
        running = frozenset(d for p, _, _, _, d in self.journal.workers() if p == row.pipeline and d)
        lines = self.journal.known_datums(row.pipeline, datums)
        earlier = absent = frozenset[str]()
        if row.output and not runs:
            earlier = frozenset(self._standing_before(row.output))
            if row.recovered:
                absent = frozenset(datums) - datumindex.standing(self.repo, self.blobs, row.output)[1].keys()
        before = frozenset(self.journal.known_before(row, lines) if row.state.over and not row.output else lines)
        return _Known(runs, running if row.state is JobState.RUNNING else frozenset(), lines, before, earlier, absent)

    def _standing_before(self, output: str) -> set[str]:
        parents = self.repo.commit(output).parents
        try:
            return set(datumindex.standing(self.repo, self.blobs, parents[0])[1]) if parents else set()
        except GitpipeError:
            return set()


def _full(ids: Iterable[str], datum: str, row: JobRow) -> str:
    """The one of `ids` that begins with `datum`.

    Raises:
        NotFound: there is none, or several.
    """
    found = [i for i in ids if i.startswith(datum)] if len(datum) >= MIN_ID else []
    if len(found) != 1:
        what = f"{datum} is short for {len(found)} datums" if found else f"no datum {datum!r}"
        raise NotFound(f"{what} in job {row.id[:12]}: see `gitpipe list-datum {row.id[:12]}`")
    return found[0]


def _info(row: JobRow, known: _Known, datum: str, what: Datum) -> DatumInfo:
    run = known.runs.get(datum)
    if run is None:
        return DatumInfo(datum, row.id, _state_without_run(row, known, datum), describe(what))
    return DatumInfo(
        datum,
        row.id,
        "success" if run.ok else "recovered" if run.recovered else "failed",
        describe(what),
        run.tries,
        run.seconds,
        run.bytes_in,
        run.bytes_out,
        run.error,
    )


def _state_without_run(row: JobRow, known: _Known, datum: str) -> str:
    """The state of a datum that the job has not run, as far as the journal knows (it may have been deleted since)."""
    if datum in known.running:
        return "running"
    if datum in known.absent:
        return "recovered"
    if row.state is JobState.SUCCESS:
        without_record = row.processed > 0 and not known.runs
        return "success" if without_record and datum not in known.earlier else "skipped"
    if datum in known.before:
        return "skipped"
    return "not run" if row.state.over else "queued"
