"""Why a job or a datum ran or was skipped, from the record that decided it.

That is: datum ids and what they are the digest of, the datum indexes of the output commits, and what each output commit
records of spec, code and inputs.  The journal is asked only for what no commit can tell: jobs that published nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gitpipe.blobs.dvc import DvcStore
from gitpipe.commit import CommitRef, repo_of
from gitpipe.datatree import read_listing
from gitpipe.datum import Datum, InputFiles
from gitpipe.datums import cut, describe
from gitpipe.differences import Made, closure_of, files, moves, read_made, reasons, verb, version
from gitpipe.errors import Ambiguous, GitpipeError, NotFound
from gitpipe.graph import reads
from gitpipe.jobviews import Jobs
from gitpipe.journal import JobRow, JobState, Journal, RunRow
from gitpipe.pipelines import Pipeline, PipelineStore
from gitpipe.provenance import closure, job_id, read_origin
from gitpipe.repo import HEADS, Commit, Repo
from gitpipe.trail import Trail, attempt, finished_by
from gitpipe.views import DatumGroup, DatumWhy, InputChange, JobWhy, Move, VersionChange

HEX = frozenset("0123456789abcdef")
SHORTEST = 4
FEW = 3  # files that a reason names one by one

Touched = tuple[tuple[str, str, str], ...]
"""(branch, path, "added" | "removed" | "changed")"""


@dataclass
class _Case:
    """A job beside what its pipeline had made before."""

    pipeline: Pipeline
    inputs: tuple[CommitRef, ...]
    provenance: dict[str, str]
    row: JobRow | None = None  # None: this machine knows nothing of it
    made: Made | None = None  # None: it published nothing
    before: Made | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def job(self) -> str:
        return self.row.id if self.row else self.made.origin.job if self.made else ""

    @property
    def state(self) -> str:
        return self.row.state.value if self.row else JobState.SUCCESS.value

    @property
    def output(self) -> CommitRef | None:
        return self.made.ref if self.made else None

    @property
    def same_transform(self) -> bool:
        return self.before is None or self.before.digest == self.pipeline.digest


class Explain:
    """Answers ``explain``."""

    def __init__(self, repo: Repo, blobs: DvcStore, journal: Journal, pipelines: PipelineStore, jobs: Jobs) -> None:
        self.repo, self.blobs, self.journal, self.pipelines, self.jobs = repo, blobs, journal, pipelines, jobs

    def explain(self, name: str, job: str | None = None) -> JobWhy | DatumWhy:
        """Why there was a job and what it did, or why a datum ran, was skipped or vanished.

        Args:
            name: a job's id or output commit, a pipeline (its newest job), or a datum's id.
            job: of which job the datum is meant; by default the newest that had it.

        Raises:
            NotFound: there is none of that name, or several.
            BadData: what a commit says of itself cannot be read.
        """
        if job is not None:
            return self._datum(self._find(job), name)
        try:
            case = self._find(name)
        except NotFound as error:
            if name in self.pipelines.versions(self.pipelines.head()):
                return self._no_job(self.pipelines.get(name))
            if isinstance(error, Ambiguous) or len(name) < SHORTEST or not set(name) <= HEX:
                raise
            return self._newest_with(name)
        return self._job(case)

    # -- which job ---------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> _Case:
        try:
            row = self.jobs.find(name)
        except Ambiguous:
            raise
        except NotFound:
            found = self._published(name)
            if not found:
                raise
            if len(found) > 1:
                raise Ambiguous(f"{name} is short for {len(found)} jobs: give more digits") from None
            return self._case_of(*found[0])
        if row.output:
            return self._case_of(row.pipeline, self.repo.commit(row.output), row)
        return self._case_without_output(row)

    def _published(self, name: str) -> list[tuple[str, Commit]]:
        """(pipeline, output commit) of the jobs of that name that the branches hold, whatever this machine knows."""
        pipeline, _, digits = name.rpartition("@")
        owned = self.pipelines.owners(self.pipelines.head())
        found: dict[str, tuple[str, Commit]] = {}
        for ref, head in self.repo.refs("refs/heads").items():
            branch = ref.removeprefix(HEADS)
            each = repo_of(branch)[0]  # also of a branch that its pipeline wrote before `output_branch` was changed
            if each not in owned.values() or pipeline not in ("", each):
                continue
            if name == each:
                made = self._made_up_to(each, head) if branch in owned else None
                if made:
                    return [(each, made.commit)]
                continue
            if len(digits) < SHORTEST or not set(digits) <= HEX:
                continue
            for commit in self.repo.log([head], "--first-parent"):
                origin = read_origin(commit.message)
                if origin.pipeline == each and (origin.job.startswith(digits) or commit.sha.startswith(digits)):
                    found[commit.sha] = each, commit
        return list(found.values())

    def _case_of(self, name: str, commit: Commit, row: JobRow | None = None) -> _Case:
        made = read_made(self.repo, commit, name)
        if made is None:
            raise NotFound(
                f"{name}@{commit.sha[:12]} was made by a person, not by a job: see `git show {commit.sha[:12]}`"
            )
        case = _Case(made.pipeline, made.inputs, closure_of(made), row, made)
        if not commit.parents:  # the first on its branch; the pipeline may have written another one before
            older = Trail(self.repo, self.blobs, made.ref, below=True)
            if older.commits:
                case.before = read_made(self.repo, older.commits[0], name)
        else:
            case.before = self._made_up_to(name, commit.parents[0])
            if case.before is None or case.before.commit.sha != commit.parents[0]:
                case.notes.append(f"the commit before it, {commit.parents[0][:12]}, was made by a person")
        return case

    def _made_up_to(self, name: str, sha: str) -> Made | None:
        """The newest output commit of a pipeline up to a commit; what a person committed in between is passed over."""
        found: Made | None = None
        at: str | None = sha
        while at is not None and found is None:
            commit = self.repo.commit(at)
            found = read_made(self.repo, commit, name)
            at = commit.parents[0] if commit.parents else None
        return found

    def _case_without_output(self, row: JobRow) -> _Case:
        pipeline = self.pipelines.load(row.pipeline, row.version).ran_in(row.image_id, row.id)
        inputs = tuple(CommitRef.parse(text) for text in row.inputs)
        owned = self.pipelines.owners(self.pipelines.head())
        parts = []
        for ref in inputs:
            origin = read_origin(self.repo.commit(ref.sha).message)
            parts.append((ref, origin.provenance if origin.pipeline == owned.get(ref.branch, "-") else ()))
        above = closure(parts)
        case = _Case(pipeline, inputs, {ref.branch: ref.sha for ref in above}, row)
        head = self.repo.ref(HEADS + pipeline.spec.output)
        base = head
        if inputs:
            # A job's id is made of the commit that it was to stand on, too.  Where that is none, the pipeline may have
            # written another branch before.
            chain = [commit.sha for commit in self.repo.log([head], "--first-parent")] if head else []
            fitting = [sha for sha in chain if job_id(row.version, above, sha) == row.id]
            base = fitting[0] if fitting else self.journal.last_good(row.pipeline, row.set_id)
            if base is None and job_id(row.version, above, None) != row.id:
                base = head
        with contextlib.suppress(NotFound):  # that other branch may have been deleted since
            case.before = self._made_up_to(row.pipeline, base) if base else None
        if row.state is JobState.QUEUED:
            case.notes += self._waits_for(row, pipeline)
        return case

    def _waits_for(self, row: JobRow, pipeline: Pipeline) -> Iterable[str]:
        cause = self.journal.set_cause(row.set_id)
        yield f"queued because of {cause}"
        owned = self.pipelines.owners(self.pipelines.head())
        wanted = {owned.get(branch) for branch in reads(pipeline.spec)}
        for job in self.journal.unfinished():
            if job.set_id == row.set_id and job.pipeline in wanted:
                yield f"it waits for {job.pipeline}, which is {job.state.value}"
            elif job.pipeline == row.pipeline and job.set_id < row.set_id:
                yield f"it waits for the job of {row.pipeline} before it, which is {job.state.value}"
        if row.pipeline in self.pipelines.stopped():
            yield f"the pipeline is stopped: `gitpipe start-pipeline {row.pipeline}`"
        elif not self.jobs.runner_lives():
            yield "no runner lives: `gitpipe run`, `gitpipe wait` or the next commit goes on"

    def _no_job(self, pipeline: Pipeline) -> JobWhy:
        """Of a pipeline that never ran: what is missing."""
        trusted, stopped = self.pipelines.trusted_and_stopped()
        notes = ["it has made nothing, and no job of it is known here"]
        if pipeline.name in stopped:
            notes.append(f"it is stopped: `gitpipe start-pipeline {pipeline.name}`")
        if pipeline.version not in trusted:
            notes.append("it came from elsewhere and is not trusted: `gitpipe trust`")
        for branch in sorted(reads(pipeline.spec)):
            head = self.repo.ref(HEADS + branch)
            if head is None or not read_listing(self.repo, self.blobs, head):
                notes.append(f"its input {branch} has no data yet")
        return JobWhy("", pipeline.name, pipeline.version, "no job", None, None, notes=tuple(notes))

    # -- a job -------------------------------------------------------------------------------------------------------

    def _job(self, case: _Case) -> JobWhy:
        before = case.before
        change = version(self.repo, before.pipeline, case.pipeline) if before else None
        notes = list(case.notes)
        if case.row and (earlier := self.jobs.earlier_attempts(case.row)):
            notes.append(earlier)
        inputs: list[InputChange] = []
        above: list[Move] = []
        groups: list[DatumGroup] = []
        if case.inputs:
            if before:
                direct = {ref.branch for ref in (*case.inputs, *before.inputs)}
                for move in moves(self.repo, closure_of(before), case.provenance):
                    if move.branch in direct:
                        inputs.append(self._input(move))
                    else:
                        above.append(move)
            try:
                weighed = _Weighed(self, case, {i.move.branch: i for i in inputs}, change)
                groups = weighed.groups()
                inputs = [weighed.with_unseen(each) for each in inputs]
            except GitpipeError as error:
                notes.append(f"its datums cannot be told: {error}")
            else:
                if not groups:
                    notes.append("its inputs have no datums")
                notes += self._other_counts(case, groups)
                notes += self._before_reprocess(case, groups)
        notes += self._though_nothing_ran(case, bool(change and (change.code or change.fields)), inputs, above, groups)
        return JobWhy(
            job=case.job,
            pipeline=case.pipeline.name,
            version=case.pipeline.version,
            state=case.state,
            output=case.output,
            before=before.ref if before else None,
            before_job=before.origin.job if before else "",
            reason=case.row.reason if case.row else "",
            notes=tuple(notes),
            change=change,
            inputs=tuple(inputs),
            above=tuple(above),
            groups=tuple(groups),
        )

    def _input(self, move: Move) -> InputChange:
        try:
            old, new = (read_listing(self.repo, self.blobs, sha) if sha else {} for sha in (move.old, move.new))
        except GitpipeError as error:
            return InputChange(move, unknown=str(error))
        return InputChange(move, tuple(files(self.blobs, old, new)))

    def _other_counts(self, case: _Case, groups: list[DatumGroup]) -> Iterable[str]:
        """Why a commit's subject counts otherwise than what is told here."""
        ran = sum(group.count for group in groups if group.state == "ran")
        if case.made and case.made.processed != ran:
            yield (
                f"its commit counts {case.made.processed} as processed: all that no commit before it on its branch"
                " holds, as every machine can tell, whoever ran them"
            )

    def _before_reprocess(self, case: _Case, groups: list[DatumGroup]) -> Iterable[str]:
        """That an older version did the same, where what it made was ruled out by a ``--reprocess`` since then."""
        before, head = case.before, case.made or case.before
        if before is None or head is None or case.same_transform or all(group.state != "ran" for group in groups):
            return
        mine = _but_salt(case.pipeline)
        seen = {case.pipeline.version, before.pipeline.version}
        trail = Trail(self.repo, self.blobs, head.ref, below=True)
        for commit in trail.commits:
            version_then = read_origin(commit.message).version
            if version_then in seen:
                continue
            seen.add(version_then)
            with contextlib.suppress(GitpipeError):  # what it was is lost
                then = read_made(self.repo, commit, case.pipeline.name)
                if then and then.pipeline.spec.salt != case.pipeline.spec.salt and _but_salt(then.pipeline) == mine:
                    yield (
                        f"{_short(trail.ref(commit))} was made by the same code and command, but before the last"
                        " --reprocess: what was made before that is made again"
                    )
                    return

    def _though_nothing_ran(
        self, case: _Case, changed: bool, inputs: list[InputChange], above: list[Move], groups: list[DatumGroup]
    ) -> Iterable[str]:
        """Why there is a commit of a job that ran nothing."""
        if case.made is None or case.before is None or any(g.state != "skipped" for g in groups):
            return
        if changed:
            yield "no datum is another one because of that; the new commit says by which version it stands"
        elif not any(each.files for each in inputs):
            yield "no file of its inputs changed, only their provenance: that is what the new commit says"
        elif all(len(each.unseen) == len(each.files) for each in inputs):
            yield "no datum sees what changed in its inputs; the new commit says what it was made from"
        elif inputs or above:
            yield "all of it had been made before; the new commit says what it was made from"

    # -- a datum -----------------------------------------------------------------------------------------------------

    def _datum(self, case: _Case, digits: str) -> DatumWhy:
        weighed = _Weighed(self, case, {}, None)
        found = [d for d in {**weighed.old, **weighed.new} if d.startswith(digits)] if len(digits) >= SHORTEST else []
        if len(found) != 1:
            what = f"{digits} is short for {len(found)} datums" if found else f"no datum {digits!r}"
            raise NotFound(f"{what} in job {case.job[:12]}: see `gitpipe list-datum {case.job[:12]}`")
        return self._why(case, weighed, found[0])

    def _newest_with(self, digits: str) -> DatumWhy:
        """The datum in the newest job that had it; where a later one no longer has it, in that one."""
        found: dict[str, _Case] = {}  # datum id -> the case
        for branch, name in self.pipelines.owners(self.pipelines.head()).items():
            for datum, case in self._in_newest(name, branch, digits):
                found.setdefault(datum, case)
        if len(found) > 1:
            raise Ambiguous(f"{digits} is short for {len(found)} datums: give more digits")
        for datum, case in found.items():
            return self._datum(case, datum)
        raise NotFound(f"no job, pipeline or datum {digits!r} is known here: see `gitpipe list-job`")

    def _in_newest(self, name: str, branch: str, digits: str) -> Iterator[tuple[str, _Case]]:
        """The datums of a pipeline whose ids begin so, each with the newest job that tells of it."""
        unpublished = self.journal.jobs(
            "pipeline = ? AND output IS NULL AND inputs != '[]'", [name], "ORDER BY seq DESC"
        )
        newest = self.journal.jobs("pipeline = ?", [name], "ORDER BY seq DESC LIMIT 1")
        for row in unpublished:
            if row in newest:
                case = self._case_without_output(row)
                yield from (
                    (d, case) for d in cut(self.repo, self.blobs, case.pipeline, case.inputs) if d.startswith(digits)
                )
        after: Commit | None = None
        head = self.repo.ref(HEADS + branch)
        trail = Trail(self.repo, self.blobs, CommitRef(branch, head) if head else None)
        for commit, standing in trail.holders(digits):
            if read_origin(commit.message).pipeline != name:
                continue
            if standing:
                at = after or commit
                rows = self.journal.jobs("output = ?", [at.sha])
                case = self._case_of(name, at, rows[0] if rows else None)
                yield from ((datum, case) for datum in standing)
                break
            after = commit
        for row in unpublished:  # one that was never published, in a job of long ago
            for datum in self.journal.runs(row.seq):
                if datum.startswith(digits):
                    yield datum, self._case_without_output(row)
        for row in self.journal.jobs(
            "pipeline = ? AND recovered > 0 AND output IS NOT NULL", [name], "ORDER BY seq DESC"
        ):
            for datum, run in self.journal.runs(row.seq).items():
                if run.recovered and datum.startswith(digits):
                    yield datum, self._case_of(name, self.repo.commit(row.output or ""), row)

    def _why(self, case: _Case, weighed: _Weighed, datum: str) -> DatumWhy:
        before = case.before
        what = weighed.new.get(datum)
        reason = ""
        made: Commit | None = None
        made_ref: CommitRef | None = None
        if what is None:
            state, what = "vanished", weighed.old[datum]
            earlier = weighed.new_keys.get(_key(what), "")
            other = weighed.new.get(earlier)
            touched = _between(what, other) if other else weighed.of_one_side(what, weighed.new_matches)
        else:
            earlier = weighed.old_keys.get(_key(what), "")
            other = weighed.old.get(earlier)
            touched = _between(other, what) if other else ()
            if before and not other:
                touched = weighed.of_one_side(what, weighed.old_matches)
            head = case.made.ref if case.made else before.ref if before else None
            trail = Trail(self.repo, self.blobs, head)
            made = trail.maker(datum)
            made_ref = trail.ref(made) if made else None
            state, reason = self._state(case, datum, made)
        replaced = bool(earlier) and earlier != datum
        change = None
        if before and replaced and not case.same_transform:
            change = version(self.repo, before.pipeline, case.pipeline)
        rows = self.journal.jobs("output = ? AND finished IS NOT NULL", [made.sha]) if made else []
        return DatumWhy(
            datum=datum,
            files=describe(what),
            job=case.job,
            pipeline=case.pipeline.name,
            state="replaced" if state == "vanished" and replaced else state,
            output=case.output,
            earlier=earlier if replaced else "",
            before=before.ref if before else None,
            why=tuple(f"{branch}/{path} {how}" for branch, path, how in touched),
            change=change,
            made=made_ref,
            made_at=(rows[0].finished if rows else float(made.time)) if made else None,
            made_job=read_origin(made.message).job if made else "",
            reason=reason,
        )

    def _state(self, case: _Case, datum: str, made: Commit | None) -> tuple[str, str]:
        """(state, why it failed) of a datum that the job had."""
        if case.made is not None:
            recovered = self.recovered(case, [datum])
            if datum in recovered:
                return "recovered", recovered[datum]
            if made is not None and made.sha != case.made.commit.sha:
                return "skipped", ""
            return self.left_to(case, [datum]).get(datum, ("ran", ""))
        run, state, why = self.lot(case, {datum: made is not None})[datum]
        return state, run.error if run else why

    def recovered(self, case: _Case, datums: Iterable[str]) -> dict[str, str]:
        """Datum -> why it failed, as far as this machine knows, of those of a published job that ``err_cmd`` recovered:
        its commit has not got them."""
        assert case.made is not None
        if not case.made.recovered:
            return {}
        sha = case.made.commit.sha
        there = Trail(self.repo, self.blobs, None).ids(sha)
        runs: dict[str, RunRow] = {}
        for row in self.journal.jobs("output = ?", [sha], "ORDER BY seq DESC"):
            runs = {**self.journal.runs(row.seq), **runs}
        return {d: runs[d].error if d in runs else "err_cmd made good for it" for d in datums if d not in there}

    def left_to(self, case: _Case, datums: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Datum -> (state, who finished it), of those that the job published first and did not run itself."""
        assert case.made is not None
        by = finished_by(self.journal, case.made.commit.sha, datums)
        mine = {row.seq for row in self.journal.jobs("output = ?", [case.made.commit.sha])}
        return {d: ("skipped", attempt(row, case.job)) for d, row in by.items() if row.seq not in mine}

    def lot(self, case: _Case, datums: Mapping[str, bool]) -> dict[str, tuple[RunRow | None, str, str]]:
        """What became of the datums of a job that published nothing, as far as this machine knows: (its run, state,
        of one that no commit before it holds and an earlier job had finished: which).

        Args:
            datums: id -> whether an output commit before it holds the datum.
        """
        row = case.row
        assert row is not None
        runs = self.journal.runs(row.seq)
        known = self.journal.known_before(row, [d for d, held in datums.items() if not held and d not in runs])
        running = {d for p, _, _, _, d in self.journal.workers() if p == row.pipeline}
        found: dict[str, tuple[RunRow | None, str, str]] = {}
        for datum, held in datums.items():
            run = runs.get(datum)
            if run is not None:
                found[datum] = run, "ran" if run.ok else "recovered" if run.recovered else "failed", ""
            elif row.state is JobState.RUNNING and datum in running:
                found[datum] = None, "running", ""
            elif held:
                found[datum] = None, "skipped", ""
            elif datum in known:
                by = self.journal.job(known[datum] or 0)
                found[datum] = (
                    None,
                    "skipped",
                    attempt(by, row.id) if by else "finished before, no record is left by whom",
                )
            else:
                found[datum] = None, "not run" if row.state.over else "queued", ""
        return found


class _Weighed:
    """The datums of a job beside those of the output before it, paired by what they match."""

    def __init__(
        self, explain: Explain, case: _Case, inputs: Mapping[str, InputChange], change: VersionChange | None
    ) -> None:
        self.explain, self.case, self.change = explain, case, change
        repo, blobs = explain.repo, explain.blobs
        before = case.before
        self.new = cut(repo, blobs, case.pipeline, case.inputs) if case.inputs else {}
        self.old = cut(repo, blobs, before.pipeline, before.inputs) if before else {}
        self.new_keys = {_key(datum): i for i, datum in self.new.items()}
        self.old_keys = {_key(datum): i for i, datum in self.old.items()}
        self.changes = {b: {f.path: verb(f) for f in each.files} for b, each in inputs.items()}
        self.old_matches, self.new_matches = _matches(self.old.values()), _matches(self.new.values())
        self._pairs: dict[tuple[int, int], Touched] = {}

    def groups(self) -> list[DatumGroup]:
        """Every datum, with others of the same lot and reason."""
        sorted_in: dict[tuple[object, ...], list[str]] = {}
        touched: dict[tuple[object, ...], dict[tuple[str, str, str], None]] = {}
        plain: dict[tuple[object, ...], str] = {}
        for datum, (state, why) in self._lots().items():
            if why:
                key: tuple[object, ...] = (state, why)
                plain[key] = why
            else:
                new = self.new[datum]
                partner = self.old.get(self.old_keys.get(_key(new), ""))
                key = self._note(state, touched, self._touched(partner, new, self.old_matches), partner is None)
            sorted_in.setdefault(key, []).append(datum)
        for datum, old in self.old.items():
            if datum not in self.new and _key(old) not in self.new_keys:
                key = self._note("vanished", touched, self._touched(None, old, self.new_matches), True)
                sorted_in.setdefault(key, []).append(datum)
        everything = {**self.old, **self.new}
        return [
            DatumGroup(
                str(key[0]),
                (plain[key],) if key in plain else tuple(self._reasons(key, touched[key])),
                len(datums),
                tuple((d, describe(everything[d])) for d in datums),
            )
            for key, datums in sorted_in.items()
        ]

    def with_unseen(self, change: InputChange) -> InputChange:
        """An input's change, with those of its files that no datum sees, neither before nor now."""
        branch = change.move.branch
        unseen = dict(self.changes.get(branch, {}))
        looked_at: set[int] = set()
        for datums in (self.old, self.new):
            for datum in datums.values():
                for part in datum.inputs:
                    if part.commit.branch == branch and id(part) not in looked_at:
                        looked_at.add(id(part))
                        for path, _ in part.files:
                            unseen.pop(path, None)
        return InputChange(change.move, change.files, tuple(unseen), change.unknown)

    def _lots(self) -> dict[str, tuple[str, str]]:
        """Datum id -> (state, why, where that is not what differs from the datum of the same matches)."""
        case, repo, blobs = self.case, self.explain.repo, self.explain.blobs
        before = case.before
        if case.made:
            trail = Trail(repo, blobs, case.made.ref, below=True)
        else:
            trail = Trail(repo, blobs, before.ref if before else None)
        stood = (trail.ids(before.commit.sha) or self.old.keys()) if before else set()
        rest = {d for d in self.new if d not in stood}
        found: dict[str, tuple[str, str]] = {}
        same = f"nothing of theirs changed since {_short(before.ref)}" if before else ""
        # The commit's own count says how many there are to be found, on its own branch.
        counted = case.made.processed + case.made.recovered if case.made and not trail.branched else 0
        earlier = trail.stood(rest, len(rest) - counted)
        held = {datum: f"made before: {_short(trail.ref(commit))} has them" for datum, commit in earlier.items()}
        if case.made is not None:
            left = self.explain.left_to(case, rest - earlier.keys())
            recovered = self.explain.recovered(case, self.new)
            for datum in self.new:
                if datum in recovered:
                    found[datum] = "recovered", recovered[datum]
                elif datum not in rest:
                    found[datum] = "skipped", same
                elif datum in earlier:
                    found[datum] = "skipped", held[datum]
                else:
                    found[datum] = left.get(datum, ("ran", "" if before else "the first run"))
            return found
        lots = self.explain.lot(case, {d: d not in rest or d in held for d in self.new})
        for datum, (run, state, by) in lots.items():
            why = "" if before else "the first run"
            if state == "skipped":
                why = same if datum not in rest else by or held[datum]
            elif run is not None and not run.ok:
                why = run.error
            found[datum] = state, why
        return found

    def _note(
        self,
        state: str,
        known: dict[tuple[object, ...], dict[tuple[str, str, str], None]],
        touched: Touched,
        alone: bool,
    ) -> tuple[object, ...]:
        """The group of a datum, whose files are added to what is known of that."""
        key = (state, alone, tuple(dict.fromkeys((branch, how) for branch, _, how in touched)))
        known.setdefault(key, {}).update(dict.fromkeys(touched))
        return key

    def _touched(self, old: Datum | None, new: Datum, others: frozenset[tuple[str, str]]) -> Touched:
        """The files that make a datum another one than its partner, or, without one, that are new or gone."""
        if old is None:
            return self.of_one_side(new, others)
        if len(old.inputs) != len(new.inputs):
            return _between(old, new)
        found: Touched = ()
        for one, two in zip(old.inputs, new.inputs, strict=True):
            # The parts of a cross are shared by many datums, and may have thousands of files.
            pair = id(one), id(two)
            if pair not in self._pairs:
                self._pairs[pair] = _between(Datum((one,)), Datum((two,)))
            found += self._pairs[pair]
        return found

    def of_one_side(self, datum: Datum, others: frozenset[tuple[str, str]]) -> Touched:
        """The files of a datum that were added, removed or changed, in what the other side has no match for."""
        found: dict[tuple[str, str, str], None] = {}
        for part in datum.inputs:
            if (part.name, part.match) not in others:
                changes = self._changes(part)
                found.update({(part.commit.branch, p, changes[p]): None for p, _ in part.files if p in changes})
        return tuple(found)

    def _changes(self, part: InputFiles) -> dict[str, str]:
        branch = part.commit.branch
        if branch not in self.changes:
            explain, case = self.explain, self.case
            sides = [
                next((ref.sha for ref in refs if ref.branch == branch), None)
                for refs in (case.before.inputs if case.before else (), case.inputs)
            ]
            old, new = (read_listing(explain.repo, explain.blobs, sha) if sha else {} for sha in sides)
            self.changes[branch] = {f.path: verb(f) for f in files(explain.blobs, old, new)}
        return self.changes[branch]

    def _reasons(self, key: tuple[object, ...], touched: Mapping[tuple[str, str, str], None]) -> Iterable[str]:
        state, alone, _ = key
        if not self.case.same_transform and state != "vanished":
            yield from reasons(self.change) if self.change else ()
            if self.case.pipeline.spec.every_job:
                yield "reprocess_spec is every_job: each job runs all its datums"
        counts: dict[tuple[str, str], list[str]] = {}
        for branch, path, how in touched:
            counts.setdefault((branch, how), []).append(path)
        for (branch, how), paths in counts.items():
            if len(paths) <= FEW:
                yield from (f"{branch}/{path} {how}" for path in paths)
            else:
                yield f"{len(paths)} files of {branch} {how}"
        if not touched and alone:
            yield "no input matches so any more" if state == "vanished" else "no datum had these matches before"
        elif not touched and self.case.same_transform:
            yield "how its input is read changed"


def _but_salt(pipeline: Pipeline) -> dict[str, object]:
    """What makes a result, without the mark of the last ``--reprocess``."""
    return {name: part for name, part in pipeline.parts.items() if name not in ("salt", "job")}


def _key(datum: Datum) -> tuple[tuple[str, str, str, str], ...]:
    """What a datum is of, whatever the files hold: input names and matches; of a group its key."""
    parts = [(p.name, "" if p.group_by else p.match, p.join_on, p.group_by) for p in datum.inputs]
    return tuple(parts) if len(parts) == 1 else tuple(sorted(set(parts)))


def _matches(datums: Iterable[Datum]) -> frozenset[tuple[str, str]]:
    return frozenset((part.name, part.match) for datum in datums for part in datum.inputs)


def _between(old: Datum, new: Datum) -> Touched:
    """The files in which two datums of the same matches differ."""
    sides = []
    for datum in (old, new):
        sides.append({(p.commit.branch, path): md5 for p in datum.inputs for path, md5 in p.files})
    before, after = sides
    changed = sorted({place for place, _ in before.items() ^ after.items()})
    return tuple(
        (b, p, "added" if (b, p) not in before else "removed" if (b, p) not in after else "changed") for b, p in changed
    )


def _short(ref: CommitRef) -> str:
    return f"{ref.branch}@{ref.sha[:12]}"
