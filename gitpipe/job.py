"""One run of one pipeline on one set of input commits: from listings to an output commit.

Reads top to bottom like a table of contents (`JobRunner.run`).  Knows where its inputs come from (the reconciler), not
when it is run (the runner) nor where its workers live (the executor).  Everything is built first and published last, by
one transaction that names what it replaces (I2, I7); a job that fails publishes nothing (I5).
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gitpipe import datumindex
from gitpipe.blobs.dvc import DvcStore
from gitpipe.commit import SPEC_BRANCH, CommitRef, Listing, check_path, folder_clash
from gitpipe.datatree import write_tree
from gitpipe.datum import Datum
from gitpipe.datums import cut, describe
from gitpipe.errors import GitpipeError
from gitpipe.executors import Executor
from gitpipe.faults import point
from gitpipe.joblog import JobLogs
from gitpipe.journal import JobRow, JobState, Journal, RunRow, Unwritable
from gitpipe.pipelines import SPEC_REF, Pipeline, PipelineStore
from gitpipe.provenance import IDENTITY, KEEP, KEPT_JOB, Origin, closure, job_id, output_message, read_origin
from gitpipe.reconcile import Reconciler, Unready
from gitpipe.record import Records
from gitpipe.repo import BLOB, EXE, HEADS, LINK, Entry, RefUpdate, Repo, Signature, syncfs
from gitpipe.schedule import spelled
from gitpipe.spec import HOST
from gitpipe.stage import Image, Result, Stage, Task, TaskInput
from gitpipe.stage.container import Containers
from gitpipe.standing import Standing, read_standing
from gitpipe.vault import Vault
from gitpipe.views import few

MAX_LOST = 5
FLUSH_SECONDS = 0.25
KILL_SECONDS = 0.2
LAST_LINES = 5


class Stopped(Exception):
    """The runner is asked to end, and the job goes back to the queue; or ``stop-job`` or its timeout has ended it."""


class Failed(GitpipeError):
    """The job fails: the message says which datum and why."""


@dataclass
class Work:
    """What one job knows while it runs."""

    job: JobRow
    pipeline: Pipeline
    parts: list[tuple[CommitRef, tuple[CommitRef, ...]]]
    origin: Origin
    parent: str | None
    spec_head: str | None
    all: dict[str, Datum] = field(default_factory=dict)  # datum id -> datum, in the input's order
    before: Standing = field(default_factory=Standing)  # what the parent output commit holds
    stood: set[str] = field(default_factory=set)  # datums that are taken over from there as they are
    lines: dict[str, str] = field(default_factory=dict)  # datum id -> index line, of the others, as they are known
    outputs: dict[str, datumindex.Outputs] = field(default_factory=dict)  # the same, taken apart
    recovered: set[str] = field(default_factory=set)  # datums that failed, and err_cmd made good for it: no output
    size: int = 0  # of all outputs, bytes
    committed: int = 0  # datums that an earlier output commit holds
    counts: dict[str, int] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    places: list[dict[str, str]] = field(default_factory=list)  # what its datums ran in, each once
    image: Image | None = None  # that it runs in
    said: str = ""  # how a datum failed that was to be tried again


@dataclass(frozen=True, slots=True)
class Settings:
    """What a job takes from the repository's settings."""

    python: str
    sandbox: str
    code_dir: Path
    slots_dir: Path
    vault: Vault
    containers: Containers
    preload: bool = True


class JobRunner:
    """Runs jobs, one call each; safe to call from several threads for different pipelines."""

    def __init__(
        self,
        repo: Repo,
        blobs: DvcStore,
        journal: Journal,
        pipelines: PipelineStore,
        reconciler: Reconciler,
        executor: Executor,
        logs: JobLogs,
        settings: Settings,
        locked: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """
        Args:
            locked: holds DVC's own lock, so that no ``dvc gc`` removes a blob between the look and the commit.
        """
        self.locked = locked
        self.repo, self.blobs, self.journal, self.pipelines = repo, blobs, journal, pipelines
        self.reconciler, self.executor, self.logs, self.settings = reconciler, executor, logs, settings
        self.records = Records(repo)

    def run(self, seq: int, stopped: Callable[[], bool]) -> JobState | None:
        """Run a queued job; its end state, or None where there was nothing to do (the job is forgotten)."""
        work = self._begin(seq)
        if work is None:
            return None
        if isinstance(work, JobState):
            return work
        halted = _Halt(self.journal, seq, stopped, work.pipeline.spec.job_timeout, lambda: self._outdated(work))
        try:
            self._choose_image(work, halted)
            work.all = cut(self.repo, self.blobs, work.pipeline, (ref for ref, _ in work.parts))
            self._skip_known(work)
            self._run_datums(work, halted)
            listing = self._merge(work)
            output = self._publish(work, listing)
        except Stopped:
            return self._halted(work, halted)
        except GitpipeError as error:
            if halted():  # its workers were ended under it
                return self._halted(work, halted)
            return self._failed(work, str(error))
        finally:
            self.logs.settle(seq)
        if not work.job.aside:
            # Only what is new: the journal's cost is to follow the change, too (I10).
            self.journal.remember_datums(work.pipeline.name, work.lines.items(), committed=True)
            self.journal.set_indexed_head(work.pipeline.name, output)
        point("job-finished")
        return JobState.SUCCESS

    def _outdated(self, work: Work) -> bool:
        """Whether the pipeline was updated or deleted since the job began: nobody waits for its result any more."""
        head = self.pipelines.head()
        if head != work.spec_head:
            if self.pipelines.versions(head).get(work.pipeline.name) != work.origin.version:
                return True
            work.spec_head = head
        return False

    def _failed(self, work: Work, reason: str) -> JobState:
        self.journal.update_job(
            work.job.seq, state=JobState.FAILED, finished=time.time(), reason=reason, notes=work.notes, **work.counts
        )
        return JobState.FAILED

    def _halted(self, work: Work, halt: _Halt) -> JobState | None:
        """A job that was ended: by a person or its timeout it is over, else it waits for the next runner.

        One whose pipeline is another one now is forgotten, or waits until the reconciler has found that out.
        """
        job = self.journal.job(work.job.seq)
        if job is not None and job.state is JobState.KILLED:
            return JobState.KILLED
        if halt.timed_out:
            self.blobs.sync()
            after = f"timed out after {spelled(work.pipeline.spec.job_timeout or 0)}"
            return self._failed(work, f"{after}; before that {work.said}" if work.said else after)
        with self.journal.transaction():
            if self._outdated(work) and self.reconciler.knows(work.pipeline.name):
                self.journal.drop_job(work.job.seq)  # those that stand for it are queued
            else:
                self.journal.update_job(work.job.seq, state=JobState.QUEUED)
        return None

    def _choose_image(self, work: Work, stopped: Callable[[], bool]) -> None:
        """Find out what a pipeline with an image runs in, as that is part of its datums' identity.

        Raises:
            StageFailed: the image cannot be used, and is required.
        """
        name, seq = work.pipeline.spec.transform.container_image, work.job.seq
        if not name:
            return

        def say(note: str) -> None:
            self.journal.update_job(seq, notes=[*work.notes, note])

        choice = self.settings.containers.choose(name, say, stopped)
        if stopped():
            raise Stopped
        if choice.note:
            work.notes.setdefault(choice.note)
            self.journal.update_job(seq, notes=work.notes)
        work.image = choice.image
        work.pipeline = replace(work.pipeline, image=choice.image.id if choice.image else HOST)
        self.journal.set_image(seq, name, work.pipeline.image)

    # -- what is to be done ------------------------------------------------------------------------------------------

    def _begin(self, seq: int) -> Work | JobState | None:
        job = self.journal.job(seq)
        if job is None or job.state.over:
            return None
        spec_head = self.pipelines.head()
        version = self.pipelines.versions(spec_head).get(job.pipeline)
        stopped = job.pipeline in self.pipelines.stopped()
        if version is None or stopped:
            if stopped:
                self.reconciler.hold(job.pipeline)
            self.journal.drop_job(seq)
            return None
        pipeline = self.pipelines.load(job.pipeline, version)
        if version != job.version and version not in self.pipelines.trusted():
            self.journal.drop_job(seq)
            return None
        if job.aside:
            parts = self.reconciler.chosen_inputs(pipeline, self.journal.sources(job.set_id))
        else:
            parts = self.reconciler.inputs_of(pipeline, job.set_id)
        if isinstance(parts, Unready):
            return self._not_ready(seq, parts)
        above = closure(parts)
        # On chosen commits it has no parent: what the branch holds meanwhile is not to change its commit (I4).
        parent = None if job.aside else self.repo.ref(HEADS + pipeline.spec.output)
        head = read_origin(self.repo.commit(parent).message) if parent else Origin()
        if parent and head.key == (version, above):
            self._already_done(job, parent, head)
            return None
        origin = Origin(job.pipeline, version, job_id(version, above, parent), above)
        with self.journal.transaction():
            now = self.journal.job(seq)
            if now is None or now.state.over:
                return None  # `stop-job` was faster
            self.journal.update_job(
                seq,
                state=JobState.RUNNING,
                id=origin.job,
                version=version,
                started=time.time(),
                inputs=[str(ref) for ref, _ in parts],
                restarts=job.restarts + (1 if job.state is JobState.RUNNING else 0),
                reason="",
                engine=self.executor.name,
            )
        if job.started is None:
            self.logs.forget(seq)  # else it goes on where it was stopped or killed, and so do its logs
        self.journal.take_restarts(seq)  # of an earlier attempt: what ran then was begun again by now
        self.logs.settle(seq)
        point("job-recorded")
        return Work(job, replace(pipeline, job=origin.job), parts, origin, parent, spec_head)

    def _not_ready(self, seq: int, why: Unready) -> JobState | None:
        if why.silent:
            self.journal.drop_job(seq)
            return None
        now = time.time()
        state = JobState.SUPERSEDED if why.passed else JobState.UNRUNNABLE
        self.journal.update_job(seq, state=state, started=now, finished=now, reason=why.reason)
        return state

    def _already_done(self, job: JobRow, head: str, origin: Origin) -> None:
        """The output head has this version and provenance (I2): enter what is there, or forget the job."""
        before = self.journal.newest_over(job.pipeline, job.set_id)
        if before and before.output == head:
            self.journal.drop_job(job.seq)
            return
        # Else a job failed meanwhile, on commits that were taken back since: it is not how things stand.
        record = self._record(head)
        when = float(self.repo.commit(head).time)
        counts = record.get("datums", {})
        self.journal.update_job(
            job.seq,
            state=JobState.SUCCESS,
            id=origin.job,
            version=origin.version,
            output=head,
            started=job.started or when,
            finished=time.time() if job.started else when,
            processed=counts.get("processed", 0),
            skipped=counts.get("skipped", 0),
            recovered=counts.get("recovered", 0),
            total=counts.get("total", 0),
            inputs=[str(CommitRef(i["branch"], i["commit"])) for i in record.get("inputs", [])],
        )
        if "image" in record:
            self.journal.set_image(job.seq, record["spec"]["transform"]["image"], str(record["image"]))

    def _record(self, commit: str) -> dict[str, Any]:
        entry = self.repo.entry(commit, ".gitpipe/job.json")
        found: dict[str, Any] = json.loads(self.repo.blob(entry.sha)) if entry else {}
        return found

    def _skip_known(self, work: Work) -> None:
        """Take what an earlier output commit, or a job that failed later, has made of the same datums."""
        name = work.pipeline.name
        self._index_history(name, self.repo.ref(HEADS + work.pipeline.spec.output) if work.job.aside else work.parent)
        work.before = read_standing(self.repo, self.blobs, work.parent, name)
        labels = _Labels()
        if work.before.whole:
            for datum, line in work.before.lines.items():
                what = work.all.get(datum)
                if what is None:
                    continue
                work.committed += 1
                if labels.fit(line, what):
                    work.stood.add(datum)
                else:
                    self._relabel(work, datum, datumindex.outputs_of(line))
        asked = [d for d in work.all if d not in work.before.lines] if work.before.whole else work.all
        known = self.journal.known_datums(name, asked)
        outputs: dict[str, datumindex.Outputs] = {d: datumindex.outputs_of(line) for d, (line, _) in known.items()}
        gone = set(self.blobs.missing(md5 for files in outputs.values() for _, md5, _ in files))
        if gone:
            with contextlib.suppress(GitpipeError):  # a remote out of reach: what is lost is made again
                gone = set(self.blobs.fetch(sorted(gone)))
        work.committed += sum(committed for _, committed in known.values())
        for datum, (line, committed) in known.items():
            files = outputs[datum]
            if any(md5 in gone for _, md5, _ in files):
                continue
            if not committed:
                # What no commit holds yet may have been cut short by a power failure: DVC would trust it unread.
                if not all(self.blobs.verify(md5) for _, md5, _ in files):
                    continue
                # Nor did the killed run come to make it durable: this one has to, before its commit names it (I7).
                self.blobs.adopt(md5 for _, md5, _ in files)
            if labels.fit(line, work.all[datum]):
                work.lines[datum], work.outputs[datum] = line, files
            else:
                self._relabel(work, datum, files)
        skipped = len(work.stood) + len(work.lines)
        work.counts = {"total": len(work.all), "skipped": skipped, "processed": 0, "failed": 0, "recovered": 0}
        self.journal.update_job(work.job.seq, **work.counts)

    def _relabel(self, work: Work, datum: str, files: datumindex.Outputs) -> None:
        """The same input files, but from another branch than then: the index is to name this one."""
        work.lines[datum], work.outputs[datum] = datumindex.line_of(datum, work.all[datum], files), files

    def _index_history(self, name: str, head: str | None) -> None:
        """Read the datum indexes of all output commits that the journal does not know yet."""
        since = self.journal.indexed_head(name)
        if since == head:
            return
        chain = self.repo.first_parents(head, since) if since and head else None
        if since and chain is None:
            # The counts in the commit must be the same where the abandoned commits never were (I4).  So it is after
            # a change of `output_branch`: who has the parent alone, or no parent, is to make the same commit.
            # `explain` and `inspect-file` do look at the earlier branch (`gitpipe.trail`).
            self.journal.uncommit(name)
        if head is None:
            return
        commits = list(self.repo.log([head], "--first-parent"))[::-1] if chain is None else chain
        seen: set[str] = set()
        for commit in commits:
            try:
                listing = datumindex.segments(self.repo, self.blobs, commit.sha)
            except GitpipeError:
                continue  # lost: what this commit alone knew is not known, and runs again
            for md5 in listing.values():
                if md5 in seen or not self._had(md5):
                    continue
                seen.add(md5)
                found = [(d, line) for d, line in datumindex.lines(self.blobs, md5) if '"outputs"' in line]
                self.journal.remember_datums(name, found, committed=True)
        self.journal.set_indexed_head(name, head)

    def _had(self, md5: str) -> bool:
        """Whether a blob is here, or could be brought."""
        with contextlib.suppress(GitpipeError):
            return self.blobs.has(md5) or not self.blobs.fetch([md5])
        return False

    # -- doing it ----------------------------------------------------------------------------------------------------

    def _run_datums(self, work: Work, halt: _Halt) -> None:
        todo = [d for d in work.all if d not in work.stood and d not in work.lines]
        spec = work.pipeline.spec
        engine = self.executor.name
        self.journal.set_workers(work.pipeline.name, spec.parallelism, engine)
        if not todo:
            return
        self._need_inputs(work, todo)
        stage = self._stage(work.pipeline, work.image)
        tries: dict[str, int] = dict.fromkeys(todo, 0)
        lost: dict[str, int] = {}
        crowded: set[str] = set()
        errors: dict[str, Result] = {}
        while todo:
            again: list[str] = []
            # Another may have filled the disk that was full: such datums run once more, one at a time.
            slots = spec.parallelism if crowded.isdisjoint(todo) else 1
            for result in self._results(work, stage, slots, tries, todo, halt):
                if result.ok:
                    errors.pop(result.datum, None)
                    continue
                if result.lost and result.datum in halt.restarted:
                    halt.restarted.discard(result.datum)
                    work.notes.setdefault(f"datum {result.datum[:12]} was begun again by restart-datum")
                    again.append(result.datum)
                    continue
                if result.lost:
                    lost[result.datum] = lost.get(result.datum, 0) + 1
                    if lost[result.datum] < MAX_LOST:
                        again.append(result.datum)
                        continue
                elif result.no_space and result.datum not in crowded:
                    crowded.add(result.datum)
                    again.append(result.datum)
                    continue
                else:
                    tries[result.datum] += 1
                    work.said = f"datum {result.datum[:12]} failed: {result.error}"
                    if result.recovered:
                        work.recovered.add(result.datum)
                        work.counts["recovered"] = len(work.recovered)
                        continue
                    if tries[result.datum] < spec.datum_tries:
                        again.append(result.datum)
                        continue
                errors[result.datum] = result
                work.counts["failed"] = len(errors)
            if halt():
                raise Stopped
            todo = again
        if errors:
            self._fail(work, errors)

    def _results(
        self,
        work: Work,
        stage: Stage,
        slots: int,
        tries: Mapping[str, int],
        todo: Sequence[str],
        halt: _Halt,
    ) -> Iterator[Result]:
        """Run some datums once; keep what is done soon, so that a retry need not run it again (I5)."""
        name, seq = work.pipeline.name, work.job.seq
        done = _Done(self.journal, work)

        def watch(slot: int, state: str, datum: str) -> None:
            with contextlib.suppress(Unwritable):
                self.journal.set_worker(name, slot, self.executor.name, state, datum)

        def ending() -> bool:
            # Asked for many times a second, also while a datum takes hours: a kill is not to cost those before it.
            done.flush_when_due()
            return halt()

        point("datum-before")
        live: dict[str, str] = {}

        def task(datum: str) -> Task:
            live[datum] = self.logs.live_file(seq, datum)
            return self._task(work, datum, tries[datum] + 1 >= work.pipeline.spec.datum_tries, live[datum])

        tasks = map(task, todo)
        for result in self.executor.run(stage, tasks, slots, watch=watch, stopped=ending, ended=halt.restarts):
            try:
                self.logs.append(seq, result.datum, result.log, live.pop(result.datum, ""))
            except OSError as error:  # a datum may have filled the disk; that is to fail it alone
                work.notes.setdefault(f"the log of a datum is not complete: {error.strerror}")
            if result.note:
                work.notes.setdefault(result.note)
            if stage.gpus and result.environment.get("engine") == "local":
                work.notes.setdefault(
                    "GPUs were not reserved: only workers on Ray do that (git config gitpipe.engine ray)"
                )
            if result.environment and result.environment not in work.places:
                work.places.append(result.environment)
            if not result.lost:
                done.runs.append(_run_row(result, tries[result.datum] + 1))
            if result.ok:
                line = datumindex.line_of(result.datum, work.all[result.datum], result.outputs)
                self.blobs.adopt(md5 for _, md5, _ in result.outputs)
                work.lines[result.datum], work.outputs[result.datum] = line, result.outputs
                done.lines.append((result.datum, line))
                counts = work.counts
                counts["processed"] += 1
                counts["bytes_in"] = counts.get("bytes_in", 0) + result.bytes_in
                counts["bytes_out"] = counts.get("bytes_out", 0) + result.bytes_out
            done.flush_when_due()
            point("datum-after")
            yield result
        if self.executor.warning:
            work.notes.setdefault(self.executor.warning)
        done.flush()

    def _need_inputs(self, work: Work, todo: Iterable[str]) -> None:
        """Bring input blobs that are not here.

        Raises:
            Failed: some cannot be had.
        """
        owners: dict[str, tuple[CommitRef, str]] = {}
        for datum in todo:
            for part in work.all[datum].inputs:
                for path, md5 in part.files:
                    owners.setdefault(md5, (part.commit, path))
        missing = self.blobs.missing(owners)
        if missing and (missing := self.blobs.fetch(missing)):
            ref, path = owners[missing[0]]
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            advice = self.blobs.advice(ref.branch)
            raise Failed(f"input {ref.branch}:{path}{more} of {ref.sha[:12]} is not in the cache: {advice}")

    def _stage(self, pipeline: Pipeline, image: Image | None) -> Stage:
        transform = pipeline.spec.transform
        cmd = transform.cmd or (image.entrypoint if image else ())
        if not cmd and not transform.python:
            what = "has no ENTRYPOINT" if image else "is not used"
            raise Failed(f"there is no transform.cmd, and image {transform.image} {what}: give the command in the spec")
        return Stage(
            pipeline=pipeline.name,
            cmd=cmd,
            stdin=transform.stdin,
            env=transform.env,
            code_dir=self._export_code(pipeline.code),
            python=self.settings.python,
            cache_dir=self.blobs.files,
            slots_dir=self.settings.slots_dir,
            sandbox=self.settings.sandbox,
            working_dir=transform.working_dir,
            accept_return_code=transform.accept_return_code,
            writable_inputs=pipeline.spec.writable_inputs,
            timeout=pipeline.spec.datum_timeout,
            err_cmd=transform.err_cmd,
            err_stdin=transform.err_stdin,
            secrets=self.settings.vault.take(transform.secrets),
            hidden=self.settings.vault.hidden(),
            cpus=pipeline.spec.requests.cpu,
            gpus=pipeline.spec.gpus,
            memory=pipeline.spec.requests.memory,
            image=image,
            callable=transform.python,
            preload=self.settings.preload,
        )

    def _export_code(self, tree: str | None) -> Path:
        """The folder with a code tree's files, read-only, made once and moved into place whole."""
        target = self.settings.code_dir / (tree or "empty")
        if target.is_dir():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"{target.name}.{time.time_ns()}")
        scratch.mkdir()
        for path, entry in self.repo.walk(tree) if tree else ():
            place = scratch / check_path(path)  # a crafted tree may hold an entry named ..
            place.parent.mkdir(parents=True, exist_ok=True)
            if entry.mode == LINK:
                place.symlink_to(self.repo.blob(entry.sha).decode("utf-8", "surrogateescape"))
            elif entry.mode in (BLOB, EXE):
                place.write_bytes(self.repo.blob(entry.sha))
                place.chmod(0o555 if entry.mode == EXE else 0o444)
        if not any(scratch.iterdir()):
            # A folder takes the place of one that is empty, in which another job's sandbox may be at work.
            scratch.rmdir()
            target.mkdir(exist_ok=True)
            return target
        # Once it has its name nobody looks into it: after a power failure an empty script would pass for this one.
        syncfs(scratch)
        try:
            scratch.rename(target)
        except OSError:
            import shutil

            shutil.rmtree(scratch, ignore_errors=True)
            if not target.is_dir():
                raise
        return target

    def _task(self, work: Work, datum_id: str, last: bool, live: str) -> Task:
        datum = work.all[datum_id]
        env: dict[str, str] = {}
        for part in datum.inputs:
            env[part.name] = f"/pfs/{part.name}{'' if part.match == '/' else part.match}"
            env[f"{part.name}_COMMIT"] = part.commit.sha
            for key, value in (("JOIN_ON", part.join_on), ("GROUP_BY", part.group_by)):
                if value:
                    env[f"PACH_DATUM_{part.name}_{key}"] = env[f"GITPIPE_DATUM_{part.name}_{key}"] = value
        for prefix in ("PACH", "GITPIPE"):
            env[f"{prefix}_JOB_ID"] = env[f"{prefix}_OUTPUT_COMMIT_ID"] = work.origin.job
            env[f"{prefix}_DATUM_ID"] = datum_id
            env[f"{prefix}_PIPELINE_NAME"] = work.pipeline.name
        env["PPS_PIPELINE_NAME"], env["PPS_SPEC_COMMIT"] = work.pipeline.name, work.origin.version
        inputs = tuple(TaskInput(p.name, p.match, p.commit.sha, p.files, p.empty_files) for p in datum.inputs)
        return Task(datum_id, inputs, tuple(env.items()), last, live)

    def _fail(self, work: Work, errors: Mapping[str, Result]) -> None:
        self.blobs.sync()
        datum, result = next(iter(errors.items()))
        tail = [line.strip() for line in result.log.decode("utf-8", "replace").splitlines() if line.strip()]
        said = " | ".join(tail[-LAST_LINES:])
        what = result.error or "its worker was lost again and again"
        more = f" ({len(errors)} datums failed)" if len(errors) > 1 else ""
        raise Failed(
            f"datum {datum[:12]} ({few(describe(work.all[datum]))}): {what}{': ' + said if said else ''}{more}"
        )

    # -- making it seen ----------------------------------------------------------------------------------------------

    def _merge(self, work: Work) -> Listing:
        """All datums' outputs as one listing: what stood before with what has changed, as its cost is to follow that.

        Raises:
            Failed: two datums wrote one path, or one a file where the other a folder.
        """
        merged, work.size = work.before.without(work.stood) if work.stood else ({}, 0)
        for files in work.outputs.values():
            for path, md5, size in files:
                if path in merged:
                    raise self._clash(work)
                merged[path] = md5
                work.size += size
        if folder_clash(merged):
            raise self._clash(work)
        return {path: merged[path] for path in sorted(merged)}

    def _clash(self, work: Work) -> Failed:
        """Which two datums cannot both have what they wrote: all are looked at, in the input's order."""
        owner: dict[str, str] = {}
        for datum in work.all:
            if datum in work.recovered:
                continue
            files = work.outputs.get(datum)
            for path, _, _ in datumindex.outputs_of(work.before.lines[datum]) if files is None else files:
                if path in owner:
                    one, two = few(describe(work.all[owner[path]])), few(describe(work.all[datum]))
                    return Failed(f"datums {one} and {two} both write {path}: give them different names in /pfs/out")
                owner[path] = datum
        clash = folder_clash(owner) or ""
        inside = next(p for p in owner if p.startswith(clash + "/"))
        one, two = few(describe(work.all[owner[clash]])), few(describe(work.all[owner[inside]]))
        return Failed(f"datum {one} writes the file {clash} where datum {two} writes a folder")

    def _publish(self, work: Work, listing: Listing) -> str:
        """Write blobs, then objects, then move the ref (I7); the output commit.

        Raises:
            Stopped: it was ended by `stop-job`, or its pipeline was updated or deleted.
        """
        index = self._index(work)
        point("blobs-written")
        if work.job.aside:
            work.notes.setdefault(
                f"it ran on chosen commits, and its output commit is not on {work.pipeline.spec.output}"
            )
        record = json.dumps(self._job_record(work), indent=1, sort_keys=True) + "\n"
        extra = {
            ".gitpipe/job.json": Entry(BLOB, self.repo.write_blob(record.encode())),
            **datumindex.entries(self.repo, self.blobs, index),
        }
        config = self.pipelines.dvc_config()
        tree = write_tree(self.repo, self.blobs, listing, config=config, extra=extra, size=work.size)
        when = max(
            self.repo.commit(sha).time
            for sha in [*([work.parent] if work.parent else []), *(r.sha for r in work.origin.provenance)]
        )
        who = Signature(IDENTITY, when)
        message = output_message(work.origin, **self._counts(work))
        point("before-commit")
        commit = self.repo.write_commit(tree, [work.parent] if work.parent else [], message, who)
        keep_ref = KEEP + work.pipeline.name
        keep_old = self.repo.ref(keep_ref)
        keep = self._keep(work, keep_old, commit, who)
        note = self._note(work, commit)
        with self.locked():
            lost = self.blobs.missing([*listing.values(), *index.values()])
            if lost:
                raise Failed(f"blob {lost[0]} of the result vanished from the cache meanwhile: run-pipeline again")
            self.blobs.sync()
            self.repo.sync()
            point("before-ref")
            with self.journal.transaction():  # `stop-job` comes before all of it, or finds that the job is over
                now = self.journal.job(work.job.seq)
                if now is not None and now.state is JobState.KILLED:
                    raise Stopped
                noted = self._move(work, commit, keep_ref, keep, keep_old, note)
                point("after-ref")
                self.journal.update_job(
                    work.job.seq,
                    state=JobState.SUCCESS,
                    finished=time.time(),
                    output=commit,
                    notes=work.notes,
                    **work.counts,
                )
        self.repo.settle()
        if not noted:
            with contextlib.suppress(GitpipeError):
                self.records.add(commit, *self._run_record(work))
        return commit

    def _note(self, work: Work, commit: str) -> RefUpdate | None:
        """The move of the notes that says how this run went; None where it cannot be had: no result depends on it."""
        with contextlib.suppress(GitpipeError):
            return self.records.prepare(commit, *self._run_record(work))
        return None

    def _run_record(self, work: Work) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """What varies from run to run, and so is no part of the commit (I4)."""
        job = self.journal.job(work.job.seq) or work.job
        places = self.journal.places(job)
        places += [place for place in work.places if place not in places]
        now = time.time()
        started = job.started or now
        run = {
            "job": work.origin.job,
            "engine": self.executor.name,
            "host": platform.node(),
            "started": round(started, 3),
            "finished": round(now, 3),
            "seconds": round(max(0.0, now - started), 3),  # the clock may have been put back
            "restarts": job.restarts,
            "processed": work.counts["processed"],
            "bytes_in": work.counts.get("bytes_in", 0),
            "bytes_out": work.counts.get("bytes_out", 0),
        }
        return run, places

    def _move(
        self, work: Work, commit: str, keep_ref: str, keep: str, keep_old: str | None, note: RefUpdate | None
    ) -> bool:
        """Move the output branch, if its pipeline still is; whether the note went along, in the same transaction.

        Where it is the note that stops that, it is given another chance later.  So is what a gc takes away: this is
        called with the journal locked.

        Raises:
            Stopped: the pipeline was deleted or updated meanwhile.
            Failed: somebody else moved the output branch.
        """
        name, branch = work.pipeline.name, work.pipeline.spec.output
        for _ in range(10):
            spec_head = self.pipelines.head()
            if self.pipelines.versions(spec_head).get(name) != work.origin.version:
                raise Stopped  # deleted or updated meanwhile; what its datums made is kept
            moves = [
                *([] if work.job.aside else [RefUpdate(HEADS + branch, commit, work.parent)]),
                RefUpdate(keep_ref, keep, keep_old),
                RefUpdate(SPEC_REF, spec_head, spec_head),
            ]
            reason = f"gitpipe: job {work.origin.job}"
            with contextlib.suppress(GitpipeError):
                if note and self.repo.update_refs([*moves, note], reason, settle=False):
                    return True
            if self.repo.update_refs(moves, reason, settle=False):
                return False
            astray = not work.job.aside and self.repo.ref(HEADS + branch) != work.parent
            if astray or self.repo.ref(keep_ref) != keep_old:
                raise Failed(f"branch {branch} was moved by somebody else while the job ran: run-pipeline {name}")
        raise Failed(f"{SPEC_BRANCH} keeps changing: run-pipeline {name} when it has come to rest")

    def _keep(self, work: Work, before: str | None, output: str, who: Signature) -> str:
        """One more link of the chain that keeps every commit of the provenance, and the spec's tree, alive (I8).

        And an output commit that is on no branch.
        """
        kept = dict.fromkeys([*([output] if work.job.aside else []), *(r.sha for r in work.origin.provenance)])
        parents = [*([before] if before else []), *kept]
        tree = self.repo.write_tree({work.pipeline.name: Entry("040000", work.origin.version)})
        return self.repo.write_commit(tree, parents, KEPT_JOB.format(work.pipeline.name, work.origin.job) + "\n", who)

    def _index(self, work: Work) -> Listing:
        stood = work.before.lines
        added = {d: line for d, line in work.lines.items() if stood.get(d) != line}
        gone = sorted(d for d in stood if d not in work.stood and d not in work.lines)
        return datumindex.extend(self.blobs, work.before.segments, added, gone)

    def _job_record(self, work: Work) -> dict[str, object]:
        image = {"image": work.pipeline.image} if work.pipeline.spec.transform.container_image else {}
        return {
            **image,
            "job": work.origin.job,
            "pipeline": work.pipeline.name,
            "version": work.origin.version,
            "code": work.pipeline.code,
            "spec": json.loads(work.pipeline.spec.to_json()),
            "inputs": [{"branch": ref.branch, "commit": ref.sha} for ref, _ in work.parts],
            "provenance": [str(ref) for ref in work.origin.provenance],
            "datums": {"total": len(work.all), **self._counts(work)},
        }

    def _counts(self, work: Work) -> dict[str, int]:
        """The datums against the pipeline's earlier commits, which every machine can tell (I4), as the commit has them.

        A recovered datum is one that the commit has not: of a deterministic stage it is the same everywhere.
        """
        skipped = 0
        if not work.job.aside:  # that has no earlier one
            # One that an earlier commit holds ran again only because what it had made then was lost.
            again = self.journal.known_datums(work.pipeline.name, work.recovered)
            skipped = work.committed - sum(committed for _, committed in again.values())
        recovered = {"recovered": len(work.recovered)} if work.recovered else {}
        return {"processed": len(work.all) - skipped - len(work.recovered), "skipped": skipped, **recovered}


class _Labels:
    """Whether index lines name the branches that datums are read from now."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def fit(self, line: str, datum: Datum) -> bool:
        for part in datum.inputs:
            key = part.name, part.commit.branch
            label = self._known.get(key)
            if label is None:
                label = self._known[key] = f'["{part.name}","{part.commit.branch}",'
            if part.files and label not in line:
                return False
        return True


class _Done:
    """What has been done since the journal was last told: index lines, and how each datum went."""

    def __init__(self, journal: Journal, work: Work) -> None:
        self._journal, self._work = journal, work
        self.lines: list[tuple[str, str]] = []
        self.runs: list[RunRow] = []
        self._flushed = time.monotonic()
        self._placed = 0

    def flush_when_due(self) -> None:
        if self.runs and time.monotonic() - self._flushed > FLUSH_SECONDS:
            try:
                self.flush()
            except Unwritable:
                self._flushed = time.monotonic()  # later, when the datum that filled the disk has ended

    def flush(self) -> None:
        work = self._work
        with self._journal.transaction():
            self._journal.remember_datums(work.pipeline.name, self.lines, committed=False)
            self._journal.add_runs(work.job.seq, self.runs)
            if len(work.places) > self._placed:
                self._journal.add_places(work.job.seq, work.places)
                self._placed = len(work.places)
            self._journal.update_job(work.job.seq, notes=work.notes, **work.counts)
        self.lines.clear()
        self.runs.clear()
        self._flushed = time.monotonic()


class _Halt:
    """Whether a job is to end, or datums of it: the runner ends, its time is over, its pipeline is another one by now,
    or a person says so (``stop-job``, ``restart-datum``), which is asked for now and then only.

    Attributes:
        timed_out: it is its timeout that ends it, counted from when this runner began it.
        restarted: datums that ``restart-datum`` has named: if they are lost from now on, that is why.
    """

    def __init__(
        self,
        journal: Journal,
        seq: int,
        stopped: Callable[[], bool],
        timeout: float | None,
        outdated: Callable[[], bool],
    ) -> None:
        self._journal, self._seq, self._stopped, self._outdated = journal, seq, stopped, outdated
        self._killed = self.timed_out = False
        self.restarted: set[str] = set()
        self._to_restart: set[str] = set()
        self._asked = time.monotonic()
        self._end = None if timeout is None else self._asked + timeout

    def __call__(self) -> bool:
        now = time.monotonic()
        if self.timed_out:
            return True
        if self._end is not None and now > self._end and not self._killed and not self._stopped():
            self.timed_out = True
            return True
        if not self._killed and now - self._asked > KILL_SECONDS:
            self._asked = now
            job = self._journal.job(self._seq)
            self._killed = (job is not None and job.state is JobState.KILLED) or self._outdated()
            self._to_restart |= self._journal.take_restarts(self._seq)
        return self._killed or self._stopped()

    def restarts(self) -> set[str]:
        """The datums to be begun again, each once."""
        found, self._to_restart = self._to_restart, set()
        self.restarted |= found
        return found


def _run_row(result: Result, tries: int) -> RunRow:
    error = "" if result.ok else result.error
    return RunRow(
        result.datum, result.ok, tries, result.seconds, result.bytes_in, result.bytes_out, error, result.recovered
    )
