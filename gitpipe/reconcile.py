"""Refs in, commit sets out: what is to run is decided by comparing refs, never by what a hook said (I9).

A *commit set* is a vector: source branch -> commit, pipeline -> version.  Each first-parent commit of a source branch
that changed its data makes the next vector, all else staying as in the one before; so does a change of pipelines.
Knows the journal and the repository; not how a job runs.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from gitpipe.commit import CommitRef, repo_of
from gitpipe.datatree import DATA, POINTER, is_data
from gitpipe.errors import NotFound
from gitpipe.graph import downstream, order, reads, sources, upstream
from gitpipe.journal import Cursor, JobState, Journal
from gitpipe.pipelines import Overtaken, Pipeline, PipelineStore
from gitpipe.provenance import KEEP, KEPT_JOB, Inconsistent, Origin, closure, job_id, read_origin
from gitpipe.repo import HEADS, Repo
from gitpipe.spec import Spec

MAX_TRIES = 10
HELD = "held"  # in the journal: the pipelines that were found stopped, and may have missed something since
MENDED = "mended"  # in the journal: pipeline -> where its output branch was found astray, "" for gone


@dataclass(frozen=True, slots=True)
class Step:
    """One data commit on the first-parent chain of a source branch; ``when``: running maximum of committer dates."""

    when: int
    branch: str
    sha: str
    subject: str


@dataclass(frozen=True, slots=True)
class Unready:
    """Why a job of a set cannot be: its upstream failed, its inputs contradict, or it has no data yet.

    `passed`: what it reads was passed over in this set, so that it has to be, too (I3).
    """

    reason: str
    silent: bool = False
    passed: bool = False


class Reconciler:
    """Turns what the refs say now into commit sets and jobs in the journal."""

    def __init__(self, repo: Repo, journal: Journal, pipelines: PipelineStore) -> None:
        self.repo = repo
        self.journal = journal
        self.pipelines = pipelines
        self.renewed = False  # whether the last `plan` found a pipeline updated: new jobs stand for those queued
        self._data_heads: dict[str, str] = {}

    def plan(self) -> int:
        """Enqueue all that is new; the id of the newest set."""
        for _ in range(MAX_TRIES):
            with contextlib.suppress(Overtaken):  # by who types `update-pipeline`: what is there now is looked at anew
                return self._plan()
        return self._plan()

    def _plan(self) -> int:
        cursor = self.journal.cursor()
        heads = self.repo.refs("refs/heads")
        code = dict(cursor.code) if cursor else {}
        code.update(self.pipelines.follow(code, heads))
        self.pipelines.follow_config(heads)
        if cursor is None or code != cursor.code:
            self.journal.set_meta("broken", "\n".join(self.pipelines.broken.values()))
        # Sets and cursor together: a kill in between would have a backlog replayed once more, its end undone first.
        # So are the pipelines: of one that is deleted and made again meanwhile either look is to know (`hold`).
        with self.journal.transaction():
            trusted, stopped = self.pipelines.trusted_and_stopped()
            found = self._runnable(trusted, stopped)
            specs = {name: p.spec for name, p in found.items()}
            now = self._now(specs, heads)
            versions = {name: p.version for name, p in found.items()}
            held = self._held()
            if cursor is None:
                self._rebuild(found, now)
            else:
                self._advance(cursor, found, now, {name for name in held if name in found})
            if held != stopped:
                self.journal.set_meta(HELD, "\n".join(sorted(stopped)))
            self._mend(found, heads)
            after = Cursor(now, versions, code)
            if after != cursor:
                self.journal.set_cursor(after)
        self.renewed = cursor is not None and any(cursor.versions.get(n, v) != v for n, v in versions.items())
        return self.journal.newest_set()

    def knows(self, name: str) -> bool:
        """Whether the last `plan` has found a pipeline as it is now: in this version, or deleted."""
        cursor = self.journal.cursor()
        return cursor is not None and cursor.versions.get(name) == self.pipelines.versions(self.pipelines.head()).get(
            name
        )

    def moved(self) -> list[str]:
        """Source branches whose data changed since the last `plan`."""
        cursor = self.journal.cursor()
        if cursor is None:
            return []
        heads = self.repo.refs("refs/heads")
        head = self.pipelines.head()
        owned, pipelines = self.pipelines.owners(head), self.pipelines.versions(head)
        return [
            b
            for b, sha in cursor.sources.items()
            if b not in owned and HEADS + b in heads and self._position(b, heads[HEADS + b], pipelines) != sha
        ]

    def _now(self, specs: Mapping[str, Spec], heads: Mapping[str, str]) -> dict[str, str]:
        """Source branch -> the commit that its data is of.

        Not the head: a README on a data branch would else be another commit of it for those who come to read it now
        than for those who read it before, and whoever joins both would find a contradiction (I3).  The output of a
        pipeline that may not run here (stopped, untrusted) is a source like others, but each commit of it counts: one
        with equal data has another provenance.
        """
        owned = self.pipelines.versions(self.pipelines.head())
        return {b: self._position(b, heads[HEADS + b], owned) for b in sorted(sources(specs)) if HEADS + b in heads}

    def _position(self, branch: str, head: str, owned: Container[str]) -> str:
        return head if repo_of(branch)[0] in owned else self._at(head)

    def _at(self, head: str) -> str:
        """The newest first-parent commit up to `head` that changed data; `head` itself where none did."""
        found = self._data_heads.get(head)
        if found is None:
            newest = next(self.repo.log([head], "--first-parent", "-n", "1", paths=[POINTER, DATA]), None)
            found = self._data_heads[head] = newest.sha if newest else head
        return found

    def _held(self) -> set[str]:
        return set(self.journal.meta(HELD).split())

    def hold(self, name: str) -> None:
        """Note that a pipeline misses something, as it is stopped or was deleted; the first look at it catches up."""
        with self.journal.transaction():
            self.journal.set_meta(HELD, "\n".join(sorted(self._held() | {name})))

    def _runnable(self, trusted: Container[str], stopped: Container[str]) -> dict[str, Pipeline]:
        """The pipelines that may run here: trusted (I12) and not stopped."""
        everything = self.pipelines.all(self.pipelines.head())
        return {n: p for n, p in everything.items() if p.version in trusted and n not in stopped}

    # -- the usual way: something moved since the last look ----------------------------------------------------------

    def _advance(
        self, cursor: Cursor, found: Mapping[str, Pipeline], now: Mapping[str, str], started: set[str]
    ) -> None:
        specs = {name: p.spec for name, p in found.items()}
        vector = {b: cursor.sources.get(b, sha) for b, sha in now.items()}
        for step in self._merge({b: cursor.sources[b] for b in now if b in cursor.sources}, now):
            vector[step.branch] = step.sha
            touched = self._reached(specs, [step.branch])
            self._enqueue(f"{step.branch}@{step.sha}", vector, found, touched)
        vector = dict(now)
        gone = set(cursor.versions) - set(self.pipelines.versions(self.pipelines.head()))
        for name in gone:
            self.journal.forget_pipeline(name)
        changed = {n for n, p in found.items() if cursor.versions.get(n) != p.version} | started
        # A branch that was deleted and came back, or is read for the first time, counts with its head only.
        first = [b for b in now if b not in cursor.sources]
        if changed or first:
            self._supersede(changed, specs)
            for name in sorted(started):
                self._catch_up(name, found, now)
            touched = self._reached(specs, first) | changed | {d for n in changed for d in downstream(specs, n)}
            cause = ", ".join([*(f"{b}@{now[b]}" for b in first), *(f"pipeline {n}" for n in sorted(changed))])
            self._enqueue(cause, vector, found, touched)

    def _catch_up(self, name: str, found: Mapping[str, Pipeline], now: Mapping[str, str]) -> None:
        """Enqueue the commits between what a pipeline's output stands on and `now`, that itself excepted, after a stop.

        What is below it has a part in that where all it is made from does.  A pipeline that reads outputs goes on with
        `now`: which of these belonged to which commit is over.
        """
        specs = {n: p.spec for n, p in found.items()}
        origin = self._head_origin(found[name])
        if origin.version != found[name].version or upstream(specs, name):
            return
        part = {name}
        for each in order(specs):
            above = upstream(specs, each)
            if above and above <= part:
                part.add(each)
        stood = {ref.branch: ref.sha for ref in origin.provenance if ref.branch in reads(specs[name]) & now.keys()}
        vector = {**now, **stood}
        for step in self._merge(stood, now)[:-1]:
            vector[step.branch] = step.sha
            self._enqueue(f"{step.branch}@{step.sha}", vector, found, part)

    def _supersede(self, changed: set[str], specs: Mapping[str, Spec]) -> None:
        """Drop queued jobs of old versions, and what waits for them: the new version's own set covers them.

        What waits for a running one goes too, as that job is dropped when it comes to publishing.
        """
        unfinished = [job for job in self.journal.unfinished() if not job.aside]
        for name in changed & specs.keys():
            sets = {job.set_id for job in unfinished if job.pipeline == name}
            stale = {name, *downstream(specs, name)}
            for job in unfinished:
                if job.state is JobState.QUEUED and job.set_id in sets and job.pipeline in stale:
                    self.journal.drop_job(job.seq)

    def _merge(self, since: Mapping[str, str], now: Mapping[str, str]) -> list[Step]:
        """The data commits of all branches after `since`, in the order that every machine replays them in."""
        found: list[Step] = []
        head = self.pipelines.head()
        owned, triggered = self.pipelines.versions(head), self.pipelines.triggers(head)
        for branch, old in since.items():
            new = now[branch]
            if new == old:
                continue
            if branch in triggered:  # what it passed over is what it was not to run on
                commit = self.repo.commit(new)
                found.append(Step(commit.time, branch, new, commit.subject))
                continue
            chain = self.repo.first_parents(new, old, [] if repo_of(branch)[0] in owned else [POINTER, DATA])
            if chain is None:
                # Amended, rebased or reset: only the head counts, even with equal data, as its provenance is another.
                commit = self.repo.commit(new)
                found.append(Step(commit.time, branch, new, commit.subject))
                continue
            latest = 0
            for commit in chain:
                latest = max(latest, commit.time)
                found.append(Step(latest, branch, commit.sha, commit.subject))
        return sorted(found, key=lambda s: (s.when, s.branch))

    def _reached(self, specs: Mapping[str, Spec], branches: Sequence[str]) -> set[str]:
        direct = {name for name, spec in specs.items() if reads(spec) & set(branches)}
        return direct | {d for n in direct for d in downstream(specs, n)}

    def _enqueue(
        self,
        cause: str,
        vector: Mapping[str, str],
        found: Mapping[str, Pipeline],
        touched: set[str],
        replay: bool = False,
    ) -> None:
        specs = {name: p.spec for name, p in found.items()}
        jobs = [(n, found[n].version) for n in order(specs) if n in touched]
        if jobs:
            with self.journal.transaction():
                self.journal.add_set(cause, vector, jobs, replay)

    # -- heads that moved without us ---------------------------------------------------------------------------------

    def _mend(self, found: Mapping[str, Pipeline], heads: Mapping[str, str]) -> None:
        """Where an output branch is not where its last job left it (reset, deleted, fetched), look at it again."""
        newest = self.journal.newest_set()
        busy = set(self.journal.first_unfinished())
        known: dict[str, str] = json.loads(self.journal.meta(MENDED) or "{}")
        seen: dict[str, str] = {}
        moved = set()
        for name in found:
            branch = HEADS + found[name].spec.output
            last, head = self.journal.last_good(name, newest), heads.get(branch, "")
            if last is None or head == last:
                continue
            # `heads` may be older than the journal, in which a job has ended since: only what is so now has moved.
            head = self.repo.ref(branch) or ""
            if head == last:
                continue
            seen[name] = head
            if name in busy:
                seen[name] = known.get(name, "?")
            elif known.get(name) != head:
                moved.add(name)
        if seen != known:
            # Once for each place that it is found at: where the job fails, it is not to be tried again at each look.
            self.journal.set_meta(MENDED, json.dumps(seen))
        if moved:
            specs = {name: p.spec for name, p in found.items()}
            now = self._now(specs, heads)
            touched = moved | {d for n in moved for d in downstream(specs, n)}
            self._enqueue(f"output branch moved: {', '.join(sorted(moved))}", now, found, touched)

    def retry(self, names: Sequence[str] | None = None) -> bool:
        """Enqueue the newest vector once more for pipelines whose last job did not succeed, and what lies below.

        Args:
            names: only these; None for all.
        """
        found = self._runnable(*self.pipelines.trusted_and_stopped())
        with self.journal.transaction():  # a set that the runner adds in between would be older than this one's vector
            return self._retry(found, list(found) if names is None else names)

    def _retry(self, found: Mapping[str, Pipeline], names: Sequence[str]) -> bool:
        specs = {name: p.spec for name, p in found.items()}
        again = set()
        busy = set(self.journal.first_unfinished())
        for name in names:
            if name not in found or name in busy:
                continue
            last = self.journal.newest(name)
            if last and last.state in (JobState.FAILED, JobState.KILLED, JobState.UNRUNNABLE):
                again.add(name)
        if not again:
            return False
        cursor = self.journal.cursor()
        touched = again | {d for n in again for d in downstream(specs, n)}
        self._enqueue("retry", cursor.sources if cursor else {}, found, touched)
        return True

    # -- nothing is known but refs and trailers (I1) -----------------------------------------------------------------

    def _rebuild(self, found: Mapping[str, Pipeline], now: Mapping[str, str]) -> None:
        """Find the backlog from trailers alone, and enqueue it; jobs that history already holds turn out as done.

        Per source branch the base is the oldest commit that some output head still stands on; pipelines that are ahead
        of it find their results for the vectors in between in their own history.
        """
        specs = {name: p.spec for name, p in found.items()}
        if not found:
            return
        origins = {name: self._head_origin(p) for name, p in found.items()}
        base: dict[str, str] = {}
        for branch, head in now.items():
            stood = {r.sha for o in origins.values() for r in o.provenance if r.branch == branch}
            positions = {}
            for sha in stood:
                chain = self.repo.first_parents(head, sha, [POINTER, DATA])
                if chain is not None:
                    positions[sha] = len(chain)
            if positions:
                base[branch] = max(positions, key=lambda s: positions[s])
        vector = {b: base.get(b, sha) for b, sha in now.items()}
        vectors = [(", ".join(f"{b}@{s}" for b, s in vector.items()), dict(vector))]
        for step in self._merge(base, now):
            vector[step.branch] = step.sha
            vectors.append((f"{step.branch}@{step.sha}", dict(vector)))
        if vectors[-1][1] != dict(now):
            vectors.append(("heads", dict(now)))
        self._enqueue_replay(vectors, found, origins, order(specs))

    def _enqueue_replay(
        self,
        vectors: Sequence[tuple[str, Mapping[str, str]]],
        found: Mapping[str, Pipeline],
        origins: Mapping[str, Origin],
        names: Sequence[str],
    ) -> None:
        history = {n: self._history(found[n]) for n in names}
        done: list[dict[str, str]] = []
        at_head = dict.fromkeys(names, -1)
        for k, (_, vector) in enumerate(vectors):
            outputs: dict[str, str] = {}  # the same by branch, for those who read them
            here: dict[str, str] = {}
            for name in names:
                try:
                    above = closure(self._inputs(found[name], vector, outputs))
                except (KeyError, Inconsistent):
                    continue
                sha = history[name].get(above)
                if sha is not None:
                    outputs[found[name].spec.output] = here[name] = sha
                    if origins[name].provenance == above:
                        at_head[name] = k
            done.append(here)
        last = len(vectors) - 1
        for k, (cause, vector) in enumerate(vectors):
            # Passed over: what a pipeline's head has left behind without a result failed once, or was skipped.
            todo = {n for n in names if k > at_head[n] or (k == at_head[n] == last)}
            kept = {n: sha for n, sha in done[k].items() if n not in todo}
            with self.journal.transaction():
                jobs = [(n, found[n].version) for n in names if n in todo or n in kept]
                if not jobs:
                    continue
                set_id = self.journal.add_set(cause, vector, jobs, replay=True)
                for job in self.journal.jobs("set_id = ?", [set_id]):
                    if job.pipeline in kept:
                        self._adopt(job.seq, kept[job.pipeline])

    def _adopt(self, seq: int, sha: str) -> None:
        """Enter an output commit that is there already as the successful job that it once was."""
        commit = self.repo.commit(sha)
        origin = read_origin(commit.message)
        self.journal.update_job(
            seq,
            state=JobState.SUCCESS,
            output=sha,
            id=origin.job,
            version=origin.version,
            finished=float(commit.time),
            started=float(commit.time),
            inputs=[str(r) for r in origin.provenance],
        )

    def _head_origin(self, pipeline: Pipeline) -> Origin:
        sha = self.repo.ref(HEADS + pipeline.spec.output)
        return read_origin(self.repo.commit(sha).message) if sha else Origin()

    def _history(self, pipeline: Pipeline) -> dict[tuple[CommitRef, ...], str]:
        """Closure -> newest output commit, over the whole output branch, in one pass."""
        head = self.repo.ref(HEADS + pipeline.spec.output)
        found: dict[tuple[CommitRef, ...], str] = {}
        for commit in self.repo.log([head], "--first-parent") if head else ():
            origin = read_origin(commit.message)
            if origin.pipeline == pipeline.name:
                found.setdefault(origin.provenance, commit.sha)
        return found

    def _inputs(
        self, pipeline: Pipeline, vector: Mapping[str, str], outputs: Mapping[str, str]
    ) -> list[tuple[CommitRef, tuple[CommitRef, ...]]]:
        """Direct inputs with their closures, for a vector; KeyError where one has no commit there."""
        parts = []
        for branch in sorted(reads(pipeline.spec)):
            if branch in outputs:
                sha = outputs[branch]
                parts.append((CommitRef(branch, sha), read_origin(self.repo.commit(sha).message).provenance))
            else:
                parts.append((CommitRef(branch, vector[branch]), self._above(branch, vector[branch])))
        return parts

    def _above(self, branch: str, sha: str) -> tuple[CommitRef, ...]:
        """The closure of a source's commit: that of an output whose pipeline may not run here, else nothing.

        So is another branch of an output repo, which a trigger or a person moves to the outputs.  A commit that a
        person made has none, whatever its message says (a cherry-pick takes trailers along).
        """
        pipeline = repo_of(branch)[0]
        if pipeline not in self.pipelines.versions(self.pipelines.head()):
            return ()
        origin = read_origin(self.repo.commit(sha).message)
        return origin.provenance if origin.pipeline == pipeline else ()

    # -- on chosen commits -------------------------------------------------------------------------------------------

    def chosen_inputs(
        self, pipeline: Pipeline, chosen: Mapping[str, str]
    ) -> Unready | list[tuple[CommitRef, tuple[CommitRef, ...]]]:
        """The direct inputs, each with its closure, where a person chose the commits of all of them."""
        if reads(pipeline.spec) != chosen.keys():
            return Unready(f"{pipeline.name} was updated and reads other branches now: run-pipeline it once more")
        parts = self._parts(chosen)
        try:
            closure(parts)
        except Inconsistent as error:
            return Unready(str(error))
        return parts

    def choose(self, pipeline: Pipeline, picked: Mapping[str, str]) -> dict[str, str]:
        """All inputs of a pipeline, where a person picked some commits: of the others those that the picked ones were
        made from, so that they fit together (I3), else what stands at the head.

        Raises:
            NotFound: one has no data yet.
        """
        chosen = dict(picked)
        above = {ref.branch: ref.sha for branch, sha in picked.items() for ref in self._above(branch, sha)}
        heads = self.repo.refs("refs/heads")
        owned = self.pipelines.versions(self.pipelines.head())
        for branch in sorted(reads(pipeline.spec) - chosen.keys()):
            head = heads.get(HEADS + branch)
            sha = above.get(branch) or (self._position(branch, head, owned) if head else None)
            if sha is None or not is_data(self.repo, sha):
                raise NotFound(
                    f"{branch}, which {pipeline.name} reads, has no data yet: put some there, or choose a commit"
                )
            chosen[branch] = sha
        return chosen

    def made_before(self, pipeline: Pipeline, provenance: tuple[CommitRef, ...]) -> str | None:
        """The output commit of this version of a pipeline with such a provenance: on its branch, or made aside."""
        head = self.repo.ref(HEADS + pipeline.spec.output)
        for commit in self.repo.log([head], "--first-parent") if head else ():
            origin = read_origin(commit.message)
            if origin.pipeline == pipeline.name and origin.key == (pipeline.version, provenance):
                return commit.sha
        kept = self.repo.ref(KEEP + pipeline.name)
        wanted = KEPT_JOB.format(pipeline.name, job_id(pipeline.version, provenance, None))
        links = self.repo.log([kept], "--first-parent", "--fixed-strings", f"--grep={wanted}") if kept else ()
        for parent in (parent for link in links for parent in link.parents):
            if read_origin(self.repo.commit(parent).message).key == (pipeline.version, provenance):
                return parent
        return None

    # -- one job's inputs --------------------------------------------------------------------------------------------

    def inputs_of(self, pipeline: Pipeline, set_id: int) -> Unready | list[tuple[CommitRef, tuple[CommitRef, ...]]]:
        """The direct inputs, each with its closure, of a pipeline in a set; or why there is no job to run."""
        vector = self.journal.sources(set_id)
        owned = self.pipelines.owners(self.pipelines.head())
        parts: list[tuple[CommitRef, tuple[CommitRef, ...]]] = []
        for branch in sorted(reads(pipeline.spec)):
            if branch not in owned:
                sha = vector.get(branch)
                if sha is None or not is_data(self.repo, sha):
                    return Unready(f"{branch} has no data yet", silent=True)
                parts.append((CommitRef(branch, sha), self._above(branch, sha)))
                continue
            if branch in vector:  # it could not run here when the set was made
                parts.append((CommitRef(branch, vector[branch]), self._above(branch, vector[branch])))
                continue
            # Its newest job up to here: where that failed, an older output is not what this vector asks for.
            owner = owned[branch]
            here = self.journal.newest_over(owner, set_id)
            if here and here.state is JobState.SUPERSEDED:
                return Unready(f"passed over, as {owner} was", passed=True)
            if here and here.state in (JobState.FAILED, JobState.UNRUNNABLE, JobState.KILLED):
                root = here.reason if here.state is JobState.UNRUNNABLE else f"{owner} {here.state.value}"
                return Unready(root)
            sha = self.journal.last_good(owner, set_id)
            if sha is None:
                return Unready(f"{branch} has no output yet", silent=True)
            parts.append((CommitRef(branch, sha), read_origin(self.repo.commit(sha).message).provenance))
        try:
            closure(parts)
        except Inconsistent as error:
            # One side of a diamond may not run: the other has gone on, and waits to be joined with it (I3).
            return Unready(str(error), silent=bool(self.idle_above(pipeline.name)))
        return parts

    def apart(self) -> dict[str, list[str]]:
        """The pipelines whose inputs, as they stand, were made from two commits of one branch, as one above may not run
        here; with those that may not."""
        heads = self.repo.refs("refs/heads")
        runnable = self._runnable(*self.pipelines.trusted_and_stopped())
        if self.pipelines.versions(self.pipelines.head()).keys() == runnable.keys():
            return {}
        found = {}
        for name, pipeline in runnable.items():
            try:
                closure(self._parts({b: heads[HEADS + b] for b in reads(pipeline.spec) if HEADS + b in heads}))
            except Inconsistent:
                if idle := self.idle_above(name):
                    found[name] = idle
        return found

    def _parts(self, commits: Mapping[str, str]) -> list[tuple[CommitRef, tuple[CommitRef, ...]]]:
        """Commits by branch as direct inputs, each with its closure."""
        return [(CommitRef(branch, sha), self._above(branch, sha)) for branch, sha in sorted(commits.items())]

    def idle_above(self, name: str) -> list[str]:
        """The pipelines above one that may not run here: stopped, or not trusted (I12)."""
        everything = self.pipelines.all(self.pipelines.head())
        above = upstream({each: p.spec for each, p in everything.items()}, name)
        runnable = self._runnable(*self.pipelines.trusted_and_stopped())
        return sorted(above - runnable.keys())
