"""Builds the parts from a repository and its settings, and offers what the command line calls.

The one place that knows every part; it decides nothing itself.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gitpipe import hookconfig, hookplace, hooks, nudges
from gitpipe.blobs.config import read_config
from gitpipe.blobs.dvc import DvcStore
from gitpipe.blobs.lock import dvc_locks
from gitpipe.blobs.place import link_blobs
from gitpipe.branches import Branches
from gitpipe.catalog import Catalog
from gitpipe.checkout import Checkouts, blob_store, remote_url
from gitpipe.clock import Clock
from gitpipe.commit import SPEC_BRANCH
from gitpipe.commitdiff import CommitDiffs
from gitpipe.datarepos import DataRepos
from gitpipe.datatree import is_data
from gitpipe.datumviews import JobDatums
from gitpipe.errors import GitpipeError, NotARepo, NotFound, Refused, UsageError
from gitpipe.executors import Executor, open_executor
from gitpipe.explain import Explain
from gitpipe.filediff import FileDiff
from gitpipe.filehistory import FileHistory
from gitpipe.graph import reads
from gitpipe.history import History
from gitpipe.job import JobRunner
from gitpipe.job import Settings as JobSettings
from gitpipe.joblog import JobLogs, Limits
from gitpipe.jobviews import Jobs, job_info, progress
from gitpipe.journal import JobRow, JobState, Journal
from gitpipe.notice import COMMAND, Notice
from gitpipe.pipelines import COMMITS, INIT_BRANCH, NEWEST, SPEC_REF, PipelineStore
from gitpipe.preview import Preview
from gitpipe.reconcile import Reconciler
from gitpipe.record import MERGE, Records
from gitpipe.repo import HEADS, Repo
from gitpipe.schedule import rfc3339
from gitpipe.scheduler import Scheduler
from gitpipe.spec import spec_schema as spec_schema
from gitpipe.stage.container import MODES, Containers
from gitpipe.stage.sandbox import describe
from gitpipe.stage.slot import sweep
from gitpipe.uploads import PushedRef, push_blobs
from gitpipe.vault import Vault, default_folder, take_environment
from gitpipe.views import DagInfo, JobInfo, Progress, StatusInfo

EXCLUDE = ("/data", "/.dvc/cache", "/.dvc/tmp", "/.dvc/config.local")
PYTHON = "gitpipe.python"
CACHE = "gitpipe.cache"
REMOTE = "gitpipe.remote"
PATH = "gitpipe.path"
SHOWN = "shown"  # in the journal: the newest job whose end `wait` or `run` has shown
MAX_STARTS = 15
MAX_PATH = 480  # of the common git dir: SQLite takes 512 bytes, with the names of its files
OnProgress = Callable[[Sequence[Progress]], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """Local git config ``gitpipe.*``, with its defaults; `python` is "" where `gitpipe init` was never run."""

    python: str
    engine: str
    ray_address: str
    sandbox: str
    linger: float
    cache: str = ""
    remote: str = ""
    path: str = ""
    container: str = "auto"
    container_args: tuple[str, ...] = ()
    preload: bool = True
    secrets: str = ""
    logs: Limits = field(default_factory=Limits)

    @classmethod
    def read(cls, repo: Repo) -> Settings:
        """Raises UsageError for a value that makes no sense."""
        found = {key: values[-1] for key, values in repo.config("gitpipe.").items()}
        engine = found.get("gitpipe.engine", "auto")
        if engine not in ("auto", "local", "ray"):
            raise UsageError(f"git config gitpipe.engine is {engine!r}: use auto, local or ray")
        sandbox = found.get("gitpipe.sandbox", "auto")
        if sandbox not in ("auto", "none", "strict"):
            raise UsageError(f"git config gitpipe.sandbox is {sandbox!r}: use auto, none or strict")
        container = found.get("gitpipe.container", "auto")
        if container not in MODES:
            raise UsageError(f"git config gitpipe.container is {container!r}: use auto, never or require")
        words = found.get("gitpipe.containerargs", "")
        try:
            container_args = tuple(shlex.split(words))
        except ValueError as error:
            raise UsageError(f"git config gitpipe.containerArgs is {words!r}: {error}") from error
        preload = found.get("gitpipe.preload", "auto")
        if preload not in ("auto", "never"):
            raise UsageError(f"git config gitpipe.preload is {preload!r}: use auto or never")
        commits = found.get(COMMITS, "every")
        if commits not in ("every", NEWEST):
            raise UsageError(f"git config gitpipe.commits is {commits!r}: use every or newest")
        try:
            linger = float(found.get("gitpipe.linger", 300))
        except ValueError as error:
            raise UsageError(f"git config gitpipe.linger is {found['gitpipe.linger']!r}: use seconds") from error
        if not linger >= 0:
            raise UsageError(f"git config gitpipe.linger is {linger:g}: use 0 or more seconds")
        address = found.get("gitpipe.rayaddress", "")
        secrets = os.path.expanduser(found.get("gitpipe.secrets", "") or str(default_folder()))
        if not os.path.isabs(secrets):
            raise UsageError(f"git config gitpipe.secrets is {secrets!r}: use the absolute path of a folder")
        return cls(
            found.get(PYTHON, ""),
            engine,
            address,
            sandbox,
            linger,
            found.get(CACHE, ""),
            found.get(REMOTE, ""),
            found.get(PATH, ""),
            container,
            container_args,
            preload == "auto",
            secrets,
            log_limits(found),
        )


def _made_good(job: JobRow, others: Collection[JobRow]) -> bool:
    """Whether a job could not run for what failed earlier, in another run, and has succeeded in a newer set since."""
    return (
        job.state is JobState.UNRUNNABLE
        and any(o.pipeline == job.pipeline and o.seq > job.seq and o.state is JobState.SUCCESS for o in others)
        and not any(o.set_id == job.set_id and o.state in (JobState.FAILED, JobState.KILLED) for o in others)
    )


def log_limits(found: Mapping[str, str]) -> Limits:
    """Git config ``gitpipe.logsJobs``, ``logsDays``, ``logsSize``: of how many jobs logs are kept, how long, how much.

    Raises:
        UsageError: a value that is no number, or below 0.
    """
    usual = Limits()
    values = []
    for name, default in (("logsJobs", usual.jobs), ("logsDays", usual.days), ("logsSize", usual.size)):
        text = found.get(f"gitpipe.{name.lower()}", "")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text) if text else None
        if text and (match is None or (match[2] and name != "logsSize")):
            wanted = "bytes, as in 500M" if name == "logsSize" else "a number"
            raise UsageError(f"git config gitpipe.{name} is {text!r}: use {wanted}")
        values.append(float(match[1]) * 1024 ** " kmg".index(match[2].lower() or " ") if match else float(default))
    return Limits(int(values[0]), values[1], int(values[2]))


class Project:
    """One repository with gitpipe in it."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.settings = Settings.read(repo)
        self.state = nudges.state_dir(repo.common)

    # -- parts, each made when it is first needed --------------------------------------------------------------------

    @functools.cached_property
    def blobs(self) -> DvcStore:
        return self._store_at(self.repo.top)

    def _store_at(self, top: Path | None) -> DvcStore:
        return blob_store(self.repo, self.settings.cache, top, self.settings.remote)

    @functools.cached_property
    def journal(self) -> Journal:
        return Journal(self.state / "journal.sqlite")

    @functools.cached_property
    def store(self) -> PipelineStore:
        return PipelineStore(self.repo)

    @functools.cached_property
    def reconciler(self) -> Reconciler:
        return Reconciler(self.repo, self.journal, self.store)

    @functools.cached_property
    def checkouts(self) -> Checkouts:
        return Checkouts(self.repo, self.blobs, self.store)

    @functools.cached_property
    def data(self) -> DataRepos:
        return DataRepos(self.repo, self.blobs, self.journal, self.store, self.checkouts, self.nudge)

    @functools.cached_property
    def pipelines(self) -> Catalog:
        return Catalog(self.repo, self.store, self.journal, self.reconciler, self.clock, self.nudge)

    @functools.cached_property
    def clock(self) -> Clock:
        return Clock(self.repo, self.blobs, self.store, self.checkouts)

    @functools.cached_property
    def preview(self) -> Preview:
        return Preview(self.repo, self.blobs, self.journal, self.pipelines, self.containers)

    @functools.cached_property
    def containers(self) -> Containers:
        return Containers(self.settings.container, self.settings.container_args, self.journal)

    @functools.cached_property
    def logs(self) -> JobLogs:
        return JobLogs(self.state / "logs")

    @functools.cached_property
    def jobs(self) -> Jobs:
        def slots() -> dict[str, int]:
            return {n: p.spec.parallelism for n, p in self.store.all(self.store.head()).items()}

        records = Records(self.repo)
        return Jobs(
            self.journal,
            self.logs,
            lambda: nudges.runner_lives(self.repo.common),
            slots,
            records,
            lambda: bool(nudges.pending(self.repo.common)),
        )

    @functools.cached_property
    def datums(self) -> JobDatums:
        return JobDatums(self.repo, self.blobs, self.journal, self.store, self.jobs)

    @functools.cached_property
    def branches(self) -> Branches:
        return Branches(self.repo, self.data)

    @functools.cached_property
    def diffs(self) -> FileDiff:
        return FileDiff(self.repo, self.blobs, self.data, self.state / "scratch")

    @functools.cached_property
    def commit_diffs(self) -> CommitDiffs:
        return CommitDiffs(self.repo, self.blobs, self.journal, self.data)

    @functools.cached_property
    def why(self) -> Explain:
        return Explain(self.repo, self.blobs, self.journal, self.store, self.jobs)

    @functools.cached_property
    def history(self) -> History:
        return History(self.repo, self.data, self.store)

    @functools.cached_property
    def file_history(self) -> FileHistory:
        return FileHistory(self.repo, self.blobs, self.data, self.history, self.journal)

    # -- the runner --------------------------------------------------------------------------------------------------

    def nudge(self) -> None:
        """Have the runner look at the refs; it is started if none lives.  GITPIPE=0 means nobody is nudged."""
        if os.environ.get("GITPIPE") == "0":
            return
        # What was asked for is done and stands: a nudge that cannot be left costs time, no result (I9).
        with contextlib.suppress(OSError):
            nudges.add_nudge(self.repo.common, "command")
            self._ensure_runner()

    def take_path(self) -> None:
        """Have stages find the same programs, whoever started this runner: those that `init` found come first."""
        entries = [*self.settings.path.split(os.pathsep), *os.environ.get("PATH", "").split(os.pathsep)]
        os.environ["PATH"] = os.pathsep.join(dict.fromkeys(filter(None, entries)))

    def _ensure_runner(self) -> bool:
        """Start a runner if none lives; whether one did."""
        if nudges.runner_lives(self.repo.common):
            return True
        nudges.start_runner(self.repo.common, flags=hooks.interpreter_flags())
        return False

    def make_scheduler(self) -> Scheduler:
        """The scheduler with all that it needs; its executor is made for the first job, and anew for new settings."""
        take_environment()
        made: list[tuple[Settings, Executor, JobRunner]] = []
        slots = self.blobs.cache / ".gitpipe-slots"

        def job_runner(alone: bool) -> JobRunner:
            if made and (not alone or Settings.read(self.repo) == made[0][0]):
                return made[0][2]
            abort()
            sweep(slots)
            self._sweep_code()
            now = Settings.read(self.repo)
            self.blobs.remote = remote_url(self.repo, now.remote)
            executor = open_executor(now.engine, now.ray_address, self.state / "ray")
            containers = Containers(now.container, now.container_args, self.journal)
            vault = Vault(Path(now.secrets))
            code = self.state / "code"
            settings = JobSettings(now.python, now.sandbox, code, slots, vault, containers, now.preload)
            jobs = JobRunner(
                self.repo,
                self.blobs,
                self.journal,
                self.store,
                self.reconciler,
                executor,
                self.logs,
                settings,
                self._dvc_locks,
            )
            made.append((now, executor, jobs))
            return jobs

        def after(job: JobRow) -> None:
            self.checkouts.catch_up(HEADS + self.store.load(job.pipeline, job.version).spec.output)

        def abort() -> None:
            while made:
                made.pop()[1].close()

        # A kill between a ref and the working trees on it: these are brought after now.
        self.checkouts.catch_up_all()
        return Scheduler(
            self.repo.common,
            self.journal,
            self.reconciler,
            self.store,
            self.clock,
            job_runner,
            after,
            abort,
            self.repo.close,
            Notice(self.state, self.journal, lambda: self.repo.config(COMMAND).get(COMMAND, [""])[-1]),
            self._tidy,
        )

    def _tidy(self) -> None:
        """Remove the logs of old jobs, and what was killed left; what the disk says to that is nothing."""
        with contextlib.suppress(GitpipeError, OSError):
            self.blobs.sweep_tmp()
            self.logs.prune(Settings.read(self.repo).logs, {job.seq for job in self.journal.unfinished()})

    def _sweep_code(self) -> None:
        """Remove exported code that no pipeline has any more; called while no job runs."""
        with contextlib.suppress(GitpipeError, FileNotFoundError):
            used = {p.code or "empty" for p in self.store.all(self.store.head()).values()}
            for folder in (self.state / "code").iterdir():
                if folder.name not in used:
                    shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _dvc_locks(self) -> Iterator[None]:
        with dvc_locks(tree.top for tree in self.repo.worktrees()):
            yield

    # -- wait, run ---------------------------------------------------------------------------------------------------

    def check_commits(self, words: Sequence[str]) -> None:
        """Make sure that each word is a commit, repo, pipeline or job: what is awaited is to be something.

        Args:
            words: ``REPO@COMMIT``, ``REPO/COMMIT`` and ``REPO COMMIT`` as Pachyderm's versions spell it, or a job.

        Raises:
            NotFound: a word is none of these.
        """
        for index, word in enumerate(words):
            if not self.data.is_output(word) and not self._is_known(word, words[index - 1] if index else ""):
                raise NotFound(
                    f"no commit, pipeline or job {word!r}: see `gitpipe list-commit REPO` or `gitpipe list-job`"
                )

    def _is_known(self, word: str, before: str) -> bool:
        with contextlib.suppress(GitpipeError):
            return bool(self.data.locate([word.replace("/", "@", 1)], path=False))
        with contextlib.suppress(GitpipeError):
            return bool(self.jobs.find(word))
        with contextlib.suppress(GitpipeError):
            return bool(self.data.locate([before, word], path=False))
        return False

    def wait(self, on_progress: OnProgress = lambda _: None, timeout: float | None = None) -> list[JobInfo]:
        """Block until all that is known now is done; the jobs that ran, and those that stand failed.

        Raises:
            GitpipeError: `timeout` seconds were over first, or no runner stays alive.
        """
        since = self._oldest_open()
        token = nudges.add_nudge(self.repo.common, "wait")
        on_progress([progress(row) for row in self._unseen()])
        end = None if timeout is None else time.monotonic() + timeout
        looked, starts = 0.0, 0
        while token.exists():
            now = time.monotonic()
            if now - looked > 1.0:
                looked = now
                if not self._ensure_runner():
                    starts += 1
                    self._check_start(starts, token)
            if end is not None and now > end:
                token.unlink(missing_ok=True)
                left = len(self.journal.unfinished())
                what = f"{left} job{'' if left == 1 else 's'} not done" if left else "the runner has not looked yet"
                raise GitpipeError(f"{what} after {timeout:g} s: it goes on, `gitpipe wait` again")
            on_progress(self._progress(since))
            time.sleep(0.02)
        on_progress(self._progress(since))
        return self._outcome(since)

    def _check_start(self, starts: int, token: Path) -> None:
        """Whether there is any use in starting one more runner."""
        why = self.journal.hindrance()
        if why or starts > MAX_STARTS:
            token.unlink(missing_ok=True)
        if why:
            raise GitpipeError(f"cannot write the local state in {self.state} ({why}): see to it, then `gitpipe wait`")
        if starts > MAX_STARTS:
            raise GitpipeError(f"the runner ends as soon as it is started: see {self.state / 'runner.log'}")

    def run(self, on_progress: OnProgress = lambda _: None) -> list[JobInfo]:
        """Do in the foreground what the runner would do; jobs that failed are tried again."""
        lock = nudges.Lock(self.repo.common)
        since = self._oldest_open()
        if not lock.acquire(1.0):
            self.reconciler.retry()
            return self.wait(on_progress)
        try:
            nudges.mark(self.repo.common)
            if self.journal.cursor() is not None:
                self.reconciler.plan()
                self.reconciler.retry()
            runner = self.make_scheduler()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, lambda *_: runner.stop())
            runner.loop(None, lambda: on_progress(self._progress(since)))
        finally:
            nudges.unmark(self.repo.common)
            lock.release()
        on_progress(self._progress(since))
        left = len(self.journal.unfinished())
        if left:
            raise GitpipeError(f"told to end with {left} jobs not done: `gitpipe run` goes on with them")
        return self._outcome(since)

    def watch(self, on_job: Callable[[JobInfo], None], say: Callable[[str], None]) -> int:
        """Be the runner in the foreground until SIGINT or SIGTERM; how many jobs are left to the next one.

        Where another one is at work this waits for its turn.  A second Ctrl-C interrupts at once.

        Args:
            on_job: called with each job that is over, from another thread.
            say: called with what is to be told at the beginning.
        """
        asked: list[int] = []
        runners: list[Scheduler] = []

        def end(number: int, _: object) -> None:
            asked.append(number)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for runner in runners:
                runner.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        common = self.repo.common
        lock = nudges.Lock(common)
        if not lock.acquire(1.0):
            say(f"the runner is {self.runner_status()}: waiting for its turn to end, or `gitpipe runner stop`")
            while not lock.acquire(0.3):
                if asked:
                    return 0
        try:
            nudges.mark(common)
            runners.append(self.make_scheduler())
            if not asked:
                say("watching; Ctrl-C ends")
                runners[0].loop(float("inf"), on_end=lambda row: on_job(job_info(row)))
        finally:
            nudges.unmark(common)
            lock.release()
        return len(self.journal.unfinished())

    def _oldest_open(self) -> int:
        """The job before the oldest that is not over; what comes after it is what a waiting person waits for."""
        unfinished = [job.seq for job in self.journal.unfinished()]
        return min(unfinished, default=self._newest_job() + 1) - 1

    def _newest_job(self) -> int:
        return int(self.journal.db.execute("SELECT COALESCE(MAX(seq), 0) FROM jobs").fetchone()[0])

    def _progress(self, since: int) -> list[Progress]:
        return [progress(row) for row in self.jobs.since(since)]

    def _unseen(self) -> list[JobRow]:
        """A quick job is done before anybody has typed `gitpipe wait`: those of the newest set are shown once."""
        shown = int(self.journal.meta(SHOWN) or 0)
        found = self.journal.jobs(
            "(set_id = ? OR set_id < 0) AND seq > ? AND replay = 0", [self.journal.newest_set(), shown]
        )
        return [row for row in found if row.state.over]

    def _outcome(self, since: int) -> list[JobInfo]:
        trouble = self.journal.meta("trouble")
        if trouble:
            raise GitpipeError(trouble)
        unseen = self._unseen()
        self.journal.set_meta(SHOWN, str(self._newest_job()))
        rows = {row.seq: row for row in [*unseen, *self.jobs.since(since), *self.jobs.failures()]}
        return [job_info(rows[seq]) for seq in sorted(rows) if not _made_good(rows[seq], rows.values())]

    def runner_status(self) -> str:
        """One line about the runner."""
        if not nudges.runner_lives(self.repo.common):
            return "not running"
        return f"running (pid {nudges.marked(self.repo.common) or 'unknown'})"

    def runner_stop(self) -> str:
        """End the runner; what runs goes back to the queue.

        Raises:
            GitpipeError: it did not end.
        """
        common = self.repo.common
        if not nudges.runner_lives(common):
            return "no runner was running"
        for _ in range(500):
            pid = nudges.marked(common)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            for _ in range(4):
                if not nudges.runner_lives(common):
                    return "the runner has ended"
                time.sleep(0.01)
        raise GitpipeError("the runner did not end within 20 s: see .git/gitpipe/runner.log")

    # -- the rest ----------------------------------------------------------------------------------------------------

    def add(self, paths: Sequence[str], force: bool = False) -> list[str]:
        """``gitpipe add``; lines to print.  What it stages goes to the index that the caller uses."""
        if self.repo.index:
            os.environ["GIT_INDEX_FILE"] = self.repo.index
        try:
            lines = self.checkouts.add(paths, Path.cwd(), force=force)
        finally:
            os.environ.pop("GIT_INDEX_FILE", None)
        # Said here, as the commit that comes next would wake nobody.
        lost = hookplace.trouble(self.repo) if self.repo.config(hookplace.KEPT) else ""
        return [*lines, *filter(None, [lost])]

    def push_blobs(self, refs: Sequence[PushedRef], remote: str = "") -> int:
        """Bring what the pushed commits track to the DVC remote, see `gitpipe.uploads.push_blobs`.

        The remote is that of the current working tree, or of the first one that names one: a data branch may be
        older than the remote.
        """
        stores = (self._store_at(top) for top in dict.fromkeys([self.repo.top, *self._tops()]))
        blobs = next((store for store in stores if store.push_remote()), None)
        return push_blobs(self.repo, blobs, refs, remote) if blobs else 0

    def _tops(self) -> Iterator[Path]:
        yield from (tree.top for tree in self.repo.worktrees())

    def run_on(self, name: str, words: Sequence[str]) -> list[str]:
        """Run a pipeline on chosen commits, ``REPO@COMMIT`` each; see `Catalog.run_on`.

        Raises:
            NotFound: no such commit, or it is still open.
            UsageError: two commits of one branch.
        """
        picked: dict[str, str] = {}
        for word in words:
            place = self.data.locate([word], path=False)
            if place.commit is None or place.open:
                raise NotFound(f"{word} is no finished commit: see `gitpipe list-commit {place.repo}`")
            if picked.setdefault(place.branch, place.commit) != place.commit:
                raise UsageError(f"run-pipeline: two commits of {place.branch} are named: one run sees one of them")
        return self.pipelines.run_on(name, picked)

    def trust(self, yes: bool, ask: Callable[[str], bool]) -> list[str]:
        return self.pipelines.trust(yes, ask)

    def dag(self, only: Sequence[str] = ()) -> DagInfo:
        """What reads what; with `only`, what is up- or downstream of one of these repos and pipelines.

        Raises:
            NotFound: one of `only` is neither.
        """
        return self.pipelines.dag(self.data.names(), only)

    def status(self) -> StatusInfo:
        """What is in force, what is to be done, what went wrong."""
        pending = [f"{j.pipeline}: {self.jobs.state(j)}" for j in self.journal.unfinished()]
        return StatusInfo(
            git_dir=str(self.repo.common),
            runner=self.runner_status(),
            engine=self.settings.engine + (f" ({self.settings.ray_address})" if self.settings.ray_address else ""),
            sandbox=describe(self.settings.sandbox),
            containers=self._containers(),
            cache=str(self.blobs.cache),
            pending=tuple(pending),
            failures=tuple(job_info(j) for j in self.jobs.failures()),
            clocks=tuple(self._clocks()),
            waiting=tuple(self._waiting()),
            passed=tuple(self.jobs.passed_over()),
            warnings=tuple(self._warnings()),
            stale=(*self._said("trouble"), *self._left()),
        )

    def _said(self, *keys: str) -> list[str]:
        """What the runner has left word of: ``trouble`` keeps pipelines from running at all."""
        return [text for key in keys for text in self.journal.meta(key).splitlines() if text]

    def _left(self) -> list[str]:
        """What is to be done, while no runner is there to do it."""
        if nudges.runner_lives(self.repo.common):
            return []
        return [*(f"{job.pipeline}: {self.jobs.state(job)}" for job in self.journal.unfinished()), *self._moved()]

    def _moved(self) -> list[str]:
        moved = self.reconciler.moved()
        if not moved or nudges.runner_lives(self.repo.common):
            return []
        return [f"{', '.join(moved)} changed since the last run: `gitpipe wait` or `gitpipe run`"]

    def _containers(self) -> str:
        """Which engine there is; asked where a pipeline has an image only, as it takes a moment."""
        pipelines = self.store.all(self.store.head()).values()
        return self.containers.describe() if any(p.spec.transform.container_image for p in pipelines) else ""

    def _waiting(self) -> Iterator[str]:
        """No pipeline runs before each of its inputs has data, be it one side of a union only."""
        heads, owned = self.repo.refs("refs/heads"), self.store.owners(self.store.head())
        for name, pipeline in self.store.all(self.store.head()).items():
            for branch in sorted(reads(pipeline.spec)):
                sha = heads.get(HEADS + branch)
                if branch not in owned and not (sha and is_data(self.repo, sha)):
                    yield f"{name} for {branch}, which has no data yet"
        yield from self._apart()

    def _apart(self) -> Iterator[str]:
        """What joins sides of which one may not run: it waits until they stand on the same commits again (I3)."""
        for name, idle in self.reconciler.apart().items():
            yield f"{name} for {', '.join(idle)}, stopped or untrusted: its inputs differ"

    def _clocks(self) -> Iterator[str]:
        alive = nudges.runner_lives(self.repo.common)
        for hand in self.clock.hands():
            said = hand.reason
            if hand.when is not None:
                said = f"next tick at {rfc3339(hand.when)}" if hand.when > time.time() else "a tick is due"
                said += "" if alive else ", needs a runner: `gitpipe run --watch`"
            yield f"{hand.pipeline}, {hand.name}: {said}"

    def _warnings(self) -> Iterator[str]:
        yield from self._said("trouble", "broken", "clock")
        if self.journal.unfinished() and not nudges.runner_lives(self.repo.common):
            yield "jobs wait, and no runner is at work: `gitpipe wait` or `gitpipe run`"
        if missing := hookplace.trouble(self.repo):
            yield missing
        known, stopped = self.store.trusted_and_stopped()
        heads = self.repo.refs("refs/heads")
        head = self.store.head()
        for name, pipeline in self.store.all(head).items():
            if pipeline.version not in known:
                yield f"{name} came from elsewhere and does not run here: `gitpipe trust`"
            if name in stopped:
                yield f"{name} is stopped: `gitpipe start-pipeline {name}`"
            source = self.store.source(head or "", name)
            if source and source.branch and HEADS + source.branch not in heads:
                yield f"{name} came from branch {source.branch}, which is gone: it is not updated any more"
        yield from self.behind()
        yield from self.checkouts.kept_aside()
        yield from self._moved()

    def behind(self) -> list[str]:
        """The working trees that did not follow their branch, and what to do, a line each."""
        return self.checkouts.behind()

    def hooks_install(self) -> list[str]:
        return hookplace.install(self.repo, sys.executable, hooks.interpreter_flags())

    def hooks_uninstall(self) -> list[str]:
        return hookplace.uninstall(self.repo)

    def hooks_status(self) -> list[str]:
        return hookplace.status(self.repo)


def open_project(where: Path) -> Project:
    """The project of the repository that `where` lies in.

    Raises:
        NotARepo: no git repository, or `gitpipe init` was never run in it.
    """
    repo = Repo(where)
    project = Project(repo)
    if not project.settings.python:
        raise NotARepo(f"gitpipe is not set up in {repo.top or repo.common}: run `gitpipe init` there")
    return project


def init(where: Path, pre_commit: bool = False) -> list[str]:
    """Make a repository ready; lines that say what was done and what to type next.  Twice is harmless.

    Args:
        pre_commit: write gitpipe's hooks into ``.pre-commit-config.yaml``, first: if that fails, nothing is done.

    Raises:
        Refused: its path is one that git's worktrees or SQLite cannot live with.
        BadData: a ``.pre-commit-config.yaml`` that is malformed.
    """
    repo = Repo(where)
    _check_path(repo.common)
    if pre_commit and repo.top is None:
        raise Refused(f"{repo.common} is a bare repository, where no commits are made: leave out --pre-commit")
    written = hookconfig.add_hooks(repo.top / hookconfig.FILE) if pre_commit and repo.top else []
    lines: list[str] = []
    if repo.config(PYTHON):
        lines.append(f"gitpipe is set up in {repo.top or repo.common} already; looked everything over again")
    else:
        repo.set_config(PYTHON, sys.executable)
        lines.append(f"gitpipe is set up in {repo.top or repo.common}")
    _note_dvc(repo)
    _note_path(repo)
    if not repo.config(MERGE[0]):
        repo.set_config(*MERGE)
    project = Project(repo)
    project.journal  # noqa: B018 - makes the local state
    tracked = _tracks_data(repo)
    _exclude(repo, [pattern for pattern in EXCLUDE if pattern != "/data" or not tracked])
    try:
        lines += project.hooks_install()
    except Refused as error:
        lines.append(f"{error}; without hooks `gitpipe run` does the work")
    for tree in repo.worktrees():
        project.checkouts.write_local_config(tree)
    if tracked:
        lines.append("git tracks files below data/ here: use a worktree of its own for each data repo")
    lines.append(f"sandbox: {describe(project.settings.sandbox)}")
    return lines + (written or [_next_step(repo)])


def _next_step(repo: Repo) -> str:
    """What to type after `init`: in a clone the pipelines are elsewhere, and git brought one branch only."""
    heads, remotes = repo.refs("refs/heads"), repo.refs("refs/remotes")
    for ref in sorted(remotes):
        remote = ref.removeprefix("refs/remotes/").rpartition("/")[0]
        if ref.endswith(f"/{SPEC_BRANCH}") and SPEC_REF not in heads:
            return (
                f"next: {remote} has pipelines: git branch {SPEC_BRANCH} {remote}/{SPEC_BRANCH}, the same for each repo"
            )
    return "next: gitpipe create-repo training, then gitpipe put-file training -f FILE, or: gitpipe example iris"


def _check_path(common: Path) -> None:
    """Before anything is written there."""
    if "\n" in str(common):
        raise Refused(f"the path {str(common)!r} has a line break in it: move the repository elsewhere")
    length = len(os.fsencode(common))
    if length > MAX_PATH:
        raise Refused(f"the path of this git dir has {length} bytes, at most {MAX_PATH} work: move the repository up")


def _note_path(repo: Repo) -> None:
    """Note where programs are found here: an editor or a desktop, whose commit may start the runner, knows less."""
    path = os.pathsep.join(entry for entry in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(entry))
    if path and repo.config(PATH).get(PATH) != [path]:
        repo.set_config(PATH, path)


def _note_dvc(repo: Repo) -> None:
    """Note where this branch's DVC keeps its cache, and which branch that is: data branches are to do the same."""
    known = repo.config("gitpipe.")
    branch = repo.head_ref()
    if branch and INIT_BRANCH not in known:
        repo.set_config(INIT_BRANCH, branch)
    if repo.top is None:
        return
    default = repo.common / "dvc" / "cache"
    cache = read_config(repo.top / ".dvc").cache_dir
    # What we wrote ourselves before the repository was moved elsewhere.
    stale = cache is not None and cache.parts[-2:] == ("dvc", "cache") and not cache.exists()
    if cache is None or stale or cache == default:
        cache = _take_over(repo.top / ".dvc" / "cache", default)
    if cache is not None and known.get(CACHE, [""])[-1] != str(cache):
        repo.set_config(CACHE, str(cache))


def _take_over(old: Path, new: Path) -> Path | None:
    """Let the one cache have what DVC has stored in its own place so far; `old` where that goes on to be the one."""
    if not old.is_dir():
        return None
    try:
        if old.is_symlink():
            return old.resolve()
        link_blobs(str(old), str(new))
    except OSError:
        return old
    return None


def _tracks_data(repo: Repo) -> bool:
    if repo.top is None:
        return False
    return bool(repo.git("ls-files", "-z", "--", "data/"))


def _exclude(repo: Repo, patterns: Sequence[str]) -> None:
    path = repo.common / "info" / "exclude"
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    missing = [p for p in patterns if p not in text.splitlines()]
    if missing:
        path.parent.mkdir(exist_ok=True)
        start = "" if not text or text.endswith("\n") else "\n"
        path.write_text(text + start + "\n".join(missing) + "\n", encoding="utf-8", errors="surrogateescape")
