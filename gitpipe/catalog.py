"""What people do with pipelines: create, update, delete, list, inspect, start, stop, run.

Works on `PipelineStore` and says what it did; the runner finds the rest out by itself.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from gitpipe.clock import Clock
from gitpipe.commit import DEFAULT_BRANCH, SPEC_BRANCH, check_name, repo_of
from gitpipe.dag import make_dag
from gitpipe.errors import BadSpec, GitpipeError, NotFound, Refused
from gitpipe.graph import cron_repos, reads
from gitpipe.journal import JobState, Journal
from gitpipe.pipelines import (
    LooseOrigin,
    Origin,
    Overtaken,
    Pipeline,
    PipelineStore,
    Source,
    WorkingOrigin,
    absent_scripts,
    new_salt,
)
from gitpipe.provenance import closure
from gitpipe.reconcile import Reconciler, Unready
from gitpipe.repo import HEADS, RefUpdate, Repo
from gitpipe.spec import Spec, load_specs
from gitpipe.views import DagInfo, PipelineInfo

MAX_SPEC = 10 << 20
SHORT = 12
MAX_TRIES = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What a spec file would make of the pipelines.

    Attributes:
        pipelines: as they would be recorded, in the file's order.
        sources: pipeline -> where it comes from.
        notes: lines to print: what is ignored, which scripts are not there.
        created, changed: the names that are new, and that are new or other than they were.
        head: the commit of ``__spec__`` that this was compared with.
    """

    pipelines: tuple[Pipeline, ...]
    sources: dict[str, Source]
    notes: list[str]
    created: frozenset[str]
    changed: frozenset[str]
    head: str | None

    def word(self, name: str) -> str:
        """``created``, ``updated`` or ``unchanged``."""
        return "created" if name in self.created else "updated" if name in self.changed else "unchanged"


class Catalog:
    """The pipelines of one repository, as commands see them."""

    def __init__(
        self,
        repo: Repo,
        store: PipelineStore,
        journal: Journal,
        reconciler: Reconciler,
        clock: Clock,
        nudge: Callable[[], None],
    ) -> None:
        self.repo, self.store, self.journal, self.reconciler, self.nudge = repo, store, journal, reconciler, nudge
        self.clock = clock

    # -- create, update ----------------------------------------------------------------------------------------------

    def create(self, files: Sequence[str], *, stdin: BinaryIO | None = None) -> list[str]:
        """Create the pipelines of spec files, all or none; lines to print.

        Raises:
            BadSpec: a file that is no spec, a cycle, an unknown repo.
            Refused: a name that is taken.
        """
        return self._put(self.plan_create(files, stdin=stdin), "create-pipeline")

    def plan_create(self, files: Sequence[str], *, stdin: BinaryIO | None = None) -> Plan:
        """What `create` would do; raises what it would."""
        given = self._read(files, stdin)
        there = self.store.versions(self.store.head())
        for spec, _ in given:
            if spec.name in there:
                raise Refused(f"pipeline {spec.name} exists already: `gitpipe update-pipeline -f FILE`")
        return self._plan(given, reprocess=False)

    def update(
        self, files: Sequence[str], *, reprocess: bool = False, create: bool = False, stdin: BinaryIO | None = None
    ) -> list[str]:
        """Replace pipelines by what spec files say, all or none; lines to print.

        Args:
            reprocess: run every datum again.
            create: create those that do not exist.
        """
        plan = self.plan_update(files, reprocess=reprocess, create=create, stdin=stdin)
        return self._put(plan, "update-pipeline")

    def plan_update(
        self, files: Sequence[str], *, reprocess: bool = False, create: bool = False, stdin: BinaryIO | None = None
    ) -> Plan:
        """What `update` would do; raises what it would."""
        given = self._read(files, stdin)
        there = self.store.versions(self.store.head())
        for spec, _ in given:
            if spec.name not in there and not create:
                raise NotFound(f"pipeline {spec.name} does not exist: `gitpipe create-pipeline -f FILE` makes it")
        return self._plan(given, reprocess=reprocess)

    def _read(self, files: Sequence[str], stdin: BinaryIO | None) -> list[tuple[Spec, Origin]]:
        found: list[tuple[Spec, Origin]] = []
        for name in files:
            if name == "-":
                data = stdin.read(MAX_SPEC + 1) if stdin else b""
                origin: Origin = LooseOrigin(self.repo, None, "<stdin>")
                found += [(spec, origin) for spec in load_specs(data, "<stdin>")]
                continue
            path = Path(name)
            if not name:
                raise BadSpec("-f '' names no file: -f FILE, or -f - for standard input")
            try:
                with path.open("rb") as file:
                    data = file.read(MAX_SPEC + 1)
            except IsADirectoryError as error:
                raise BadSpec(f"{name} is a folder: name the spec files in it") from error
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise NotFound(f"cannot read the spec {name}: {why}") from error
            origin = self._origin(path)
            found += [(spec, origin) for spec in load_specs(data, name)]
        names = [spec.name for spec, _ in found]
        for name in names:
            if names.count(name) > 1:
                raise BadSpec(f"pipeline {name} is given twice: keep one of the two specs")
        if not names:
            raise BadSpec("no pipeline specs were given: -f FILE")
        return found

    def _origin(self, path: Path) -> Origin:
        full = path.resolve()
        for tree in self.repo.worktrees():
            top = tree.top.resolve()
            if top in full.parents:
                return WorkingOrigin(self.repo, tree.top, full.relative_to(top).as_posix())
        return LooseOrigin(self.repo, full.parent, path.name)

    def _plan(self, given: Sequence[tuple[Spec, Origin]], *, reprocess: bool) -> Plan:
        """Checks everything; writes git objects, which nothing names yet."""
        head = self.store.head()
        before = self.store.all(head)
        found: list[Pipeline] = []
        sources: dict[str, Source] = {}
        notes: list[str] = []
        after = {name: p.spec for name, p in before.items()}
        for spec, origin in given:
            check_name("pipeline", spec.name)
            old = before.get(spec.name)
            salt = new_salt() if reprocess else old.spec.salt if old else ""
            fresh = replace(spec, salt=salt)
            after[spec.name] = fresh
            version = self.store.build(fresh, origin)
            sources[spec.name] = _source(origin)
            notes += [f"{spec.name}: {field} is not used here and is ignored" for field in spec.ignored]
            code = self.repo.entry(version, "code")
            notes += absent_scripts(fresh, {path for path, _ in self.repo.walk(code.sha)} if code else ())
            found.append(Pipeline(spec.name, version, fresh, code.sha if code else None))
            for repo in sorted(cron_repos(old.spec) - cron_repos(fresh)) if old else ():
                notes.append(f"{spec.name}: {repo} gets no more ticks of it and stays: `gitpipe delete-repo {repo}`")
        created = frozenset(p.name for p in found if p.name not in before)
        heads = self.repo.refs("refs/heads")
        self.store.check(after, sorted(created), heads, {spec.name: origin.path for spec, origin in given})
        self.clock.check_repos({p.name: p.spec for p in found}, heads)
        changed = created | {p.name for p in found if p.name in before and before[p.name].version != p.version}
        return Plan(tuple(found), sources, notes, created, changed, head)

    def _put(self, plan: Plan, verb: str) -> list[str]:
        who = self.repo.user() if plan.changed else None
        # Trust first: once they stand on `__spec__` the runner may look, and passes over one that may not run here.
        self.store.trust([p.version for p in plan.pipelines])
        if who is not None:
            self.store.put(
                {p.name: p.version for p in plan.pipelines if p.name in plan.changed},
                {name: plan.sources[name] for name in plan.changed},
                f"{verb} {', '.join(sorted(plan.changed))}",
                who,
                dvc_config=self._dvc_config(),
                expect=plan.head,
                also=self._branches(plan),
            )
        for name in plan.created:
            self.store.start(name)  # who stopped one of that name, stopped another one
        self.nudge()
        return [*plan.notes, *(f"{p.name}: {plan.word(p.name)}" for p in plan.pipelines)]

    def _branches(self, plan: Plan) -> list[RefUpdate]:
        """The branches that come with pipelines, and those of triggers that updated ones no longer have.

        The repo of a cron input that is no longer there stays: it is data.
        """
        heads, before = self.repo.refs("refs/heads"), self.store.all(plan.head)
        specs = {p.name: p.spec for p in plan.pipelines}
        read = {branch for spec in ({n: p.spec for n, p in before.items()} | specs).values() for branch in reads(spec)}
        old = [(name, before[name].spec) for name in plan.changed if name in before]
        own = {branch for name, spec in old for branch in self.clock.own_branches(name, spec)}
        refs = [HEADS + branch for branch in sorted(own - read) if repo_of(branch)[1] != DEFAULT_BRANCH]
        there = {tree.ref for tree in self.repo.worktrees()}
        gone = [RefUpdate(ref, None, heads[ref]) for ref in refs if ref in heads and ref not in there]
        return [*self.clock.fresh_branches(specs, heads), *gone]

    def _dvc_config(self) -> bytes | None:
        """The ``.dvc/config`` of the checked-out branch, where that differs from what ``__spec__`` holds."""
        head = self.repo.resolve("HEAD")
        entry = self.repo.entry(head, ".dvc/config") if head else None
        if entry is None:
            return None
        text = self.repo.blob(entry.sha)
        return text if text and text != self.store.dvc_config() else None

    # -- delete, start, stop, run ------------------------------------------------------------------------------------

    def delete(self, name: str, *, keep_repo: bool = False, force: bool = False) -> list[str]:
        """Delete a pipeline, its output repo and what was made with it; its commits' provenance stays resolvable.

        Raises:
            Refused: another pipeline reads it, or its branch is checked out.
        """
        for _ in range(MAX_TRIES):
            head = self.store.head()
            try:
                return self._delete(name, head, keep_repo, force)
            except Overtaken:
                if self.store.head() != head:
                    raise
                # Else a job that was just publishing, or a tick, has moved a branch that is to go.
        raise GitpipeError(f"the branches of {name} keep moving: `gitpipe stop-pipeline {name}` first")

    def _delete(self, name: str, head: str | None, keep_repo: bool, force: bool) -> builtins.list[str]:
        specs = {n: p.spec for n, p in self.store.all(head).items()}
        if name not in specs:
            self.store.get(name)
            raise Overtaken(f"{SPEC_BRANCH} was changed by somebody else just now: run the command again")
        branch = specs[name].output
        readers = sorted(n for n, s in specs.items() if branch in reads(s))
        if readers and not force:
            raise Refused(f"{name} is read by pipeline {', '.join(readers)}: delete that first, or use -f")
        branches = [*([] if keep_repo else [branch]), *self.clock.own_branches(name, specs[name])]
        for tree in self.repo.worktrees():
            on = (tree.ref or "").removeprefix(HEADS)
            if on in branches:
                raise Refused(f"{on} is checked out in {tree.top}: switch to another branch there first")
        tips = {HEADS + each: self.repo.ref(HEADS + each) for each in branches}
        gone = [RefUpdate(ref, None, tip) for ref, tip in tips.items() if tip]
        self.store.put({name: None}, {}, f"delete-pipeline {name}", self.repo.user(), expect=head, also=gone)
        self.store.start(name)
        self.journal.forget_pipeline(name)
        self.reconciler.hold(name)  # a new one of that name is to run, be it the same to the byte
        self.nudge()
        made = branches if keep_repo else branches[1:]
        others = f", and with it {', '.join(made)}" if made else ""
        return [f"{name}: deleted{others}" + (" (its repo is kept)" if keep_repo else "")]

    def stop(self, name: str) -> None:
        """No more jobs for this pipeline until `start`."""
        self.store.get(name)
        self.store.stop(name)

    def start(self, name: str) -> None:
        """Let a stopped pipeline run again; what it missed is caught up."""
        self.store.get(name)
        self.store.start(name)
        self.nudge()

    def run(self, name: str) -> list[str]:
        """Run a pipeline's failed job again; where its newest job succeeded there is nothing to do."""
        self.store.get(name)
        if name in self.store.stopped():
            raise Refused(f"{name} is stopped: `gitpipe start-pipeline {name}`")
        again = self.reconciler.retry([name])
        self.nudge()
        if again:
            return [f"{name}: runs again"]
        newest = self.journal.newest(name)
        if newest and not newest.state.over:
            return [f"{name}: a job is {newest.state.value} already"]
        return [f"{name}: nothing to do, its newest job succeeded (update-pipeline --reprocess runs it all again)"]

    def run_on(self, name: str, picked: Mapping[str, str]) -> builtins.list[str]:
        """Run a pipeline on chosen commits; the output commit goes on no branch, and is kept (I8).

        Args:
            picked: git branch -> commit, of one or more of its inputs; see `Reconciler.choose` for the others.

        Raises:
            Refused: the pipeline may not run here, does not read such a branch, or the commits do not fit together.
        """
        pipeline = self.store.get(name)
        trusted, stopped = self.store.trusted_and_stopped()
        if name in stopped:
            raise Refused(f"{name} is stopped: `gitpipe start-pipeline {name}`")
        if pipeline.version not in trusted:
            raise Refused(f"{name} came from elsewhere and does not run here: `gitpipe trust`")
        for branch in picked.keys() - reads(pipeline.spec):
            inputs = ", ".join(sorted(reads(pipeline.spec)))
            raise Refused(f"{name} does not read {branch}: choose commits of {inputs}")
        chosen = self.reconciler.choose(pipeline, picked)
        parts = self.reconciler.chosen_inputs(pipeline, chosen)
        if isinstance(parts, Unready):
            raise Refused(f"{name} cannot run on these: {parts.reason}; choose commits that were made from the same")
        there = self.reconciler.made_before(pipeline, closure(parts))
        if there:
            return [f"{name}: nothing to do, {name}@{there[:SHORT]} is the result of these commits"]
        on = ", ".join(f"{branch}@{sha[:SHORT]}" for branch, sha in sorted(chosen.items()))
        self.journal.add_aside(f"run-pipeline {name} on {on}", chosen, name, pipeline.version)
        self.nudge()
        return [
            f"{name}: runs on {on}; the branch {pipeline.spec.output} stays as it is: `gitpipe wait`, and "
            f"`gitpipe list-job -p {name}` names the output commit"
        ]

    def run_cron(self, name: str) -> builtins.list[str]:
        """Make a tick of a pipeline's cron inputs now; see `Clock.run_cron`."""
        lines = self.clock.run_cron(name, time.time())
        self.nudge()
        return lines

    # -- list, inspect -----------------------------------------------------------------------------------------------

    def list(self) -> list[PipelineInfo]:
        """All pipelines, by name."""
        return [self._info(p) for _, p in sorted(self.store.all(self.store.head()).items())]

    def inspect(self, name: str) -> PipelineInfo:
        """One pipeline."""
        return self._info(self.store.get(name))

    def _info(self, pipeline: Pipeline) -> PipelineInfo:
        head = self.store.head() or ""
        first = self.repo.git("log", "-n", "1", "--format=%ct", head, "--", pipeline.name).strip()
        source = self.store.source(head, pipeline.name)
        return PipelineInfo(
            name=pipeline.name,
            version=pipeline.version,
            created=float(first or 0),
            state=self.state(pipeline),
            input=pipeline.spec.input.describe(),
            output=pipeline.name,
            source=str(source) if source else "",
            parallelism=pipeline.spec.parallelism,
            spec=pipeline.spec.to_dict(),
        )

    def state(self, pipeline: Pipeline) -> str:
        """``running``, ``stopped``, ``untrusted``, ``failing``, or ``no input`` where a branch that it read is gone."""
        return self._state(pipeline, *self.store.trusted_and_stopped())

    def _state(self, pipeline: Pipeline, trusted: set[str], stopped: set[str]) -> str:
        if pipeline.name in stopped:
            return "stopped"
        if pipeline.version not in trusted:
            return "untrusted"
        last = self.journal.jobs(
            "pipeline = ? AND state NOT IN ('queued', 'running', 'superseded') AND set_id > 0",
            [pipeline.name],
            "ORDER BY set_id DESC LIMIT 1",
        )
        if (last or self.repo.ref(HEADS + pipeline.spec.output)) and not all(
            self.repo.ref(HEADS + branch) for branch in reads(pipeline.spec)
        ):
            return "no input"
        bad = (JobState.FAILED, JobState.UNRUNNABLE, JobState.KILLED)
        return "failing" if last and last[0].state in bad else "running"

    def dag(self, repos: Iterable[str], only: Sequence[str] = ()) -> DagInfo:
        """What reads what; see `make_dag`."""
        head = self.store.head()
        found = self.store.all(head)
        triggers = {branch: trigger for branch, (trigger, _) in self.store.triggers(head).items()}
        trusted, stopped = self.store.trusted_and_stopped()
        states = {name: self._state(p, trusted, stopped) for name, p in found.items()}
        return make_dag({name: p.spec for name, p in found.items()}, states, repos, only, triggers)

    def trust(self, yes: bool, ask: Callable[[str], bool]) -> builtins.list[str]:
        """Let pipelines run here whose version came from elsewhere (I12), after showing what they run.

        Raises:
            GitpipeError: the answer was no.
        """
        known = self.store.trusted()
        strange = [p for p in self.store.all(self.store.head()).values() if p.version not in known]
        if not strange:
            return ["every pipeline here is trusted already"]
        shown = [f"{p.name}@{p.version[:12]}: runs {_what(p.spec)}" for p in strange]
        if not yes and not ask("\n".join([*shown, "let these run here?"])):
            raise GitpipeError("nothing was trusted: look at `git show __spec__`, then `gitpipe trust`")
        self.store.trust([p.version for p in strange])
        self.nudge()
        return [f"{p.name}: trusted" for p in strange]


def _what(spec: Spec) -> str:
    """The command of a pipeline, and which secrets it gets."""
    uses = dict.fromkeys(f"{use.name}/{use.key}" if use.key else use.name for use in spec.transform.secrets)
    what = " ".join(spec.transform.cmd) or spec.transform.python or f"the ENTRYPOINT of {spec.transform.image}"
    return repr(what) + (f" with the secrets {', '.join(uses)}" if uses else "")


def _source(origin: Origin) -> Source:
    if isinstance(origin, WorkingOrigin):
        return origin.source()
    return Source("", "", origin.path, True)
