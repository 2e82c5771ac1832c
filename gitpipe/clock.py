"""What time does to branches: cron inputs get a commit with each tick, triggers move branches up to others.

What is due is read from refs, commits and the time, which comes as an argument; nothing is kept beside them, so that a
kill, a second process or a deleted local state cost no tick and make none twice.  Moves branches, runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

from gitpipe.blobs import BlobStore
from gitpipe.checkout import Checkouts
from gitpipe.commit import git_branch, repo_of
from gitpipe.datatree import DATA, POINTER, data_key, data_size, is_data, read_listing, write_tree
from gitpipe.errors import GitpipeError, Refused
from gitpipe.faults import point
from gitpipe.inputs import Backlog, Cron, Trigger
from gitpipe.pipelines import SPEC_REF, PipelineStore
from gitpipe.provenance import IDENTITY, trailers
from gitpipe.repo import HEADS, RefUpdate, Repo, Signature
from gitpipe.schedule import Schedule, moment, rfc3339
from gitpipe.spec import TRIGGERED, Spec

TICK = "Tick"  # trailer of a tick's commit: its time
MAKES = "create-repo "  # and which: subject of the commit with the next trailer
MADE_FOR = "Cron"  # trailer of the empty first commit of a repo that was made with the pipeline that it names
EMPTY = "d41d8cd98f00b204e9800998ecf8427e"  # the md5 of no bytes
TRIES = 20
MOST_COMMITS = 100_000  # a backlog is not counted beyond this


@dataclass(frozen=True, slots=True)
class Hand:
    """One cron input and when it strikes next (POSIX seconds); None with the reason why it does not."""

    pipeline: str
    name: str
    when: int | None
    reason: str = ""


class Clock:
    """The cron inputs and triggers of one repository."""

    def __init__(self, repo: Repo, blobs: BlobStore, pipelines: PipelineStore, checkouts: Checkouts) -> None:
        self.repo, self.blobs, self.pipelines, self.checkouts = repo, blobs, pipelines, checkouts
        self.blocked: dict[str, str] = {}  # git branch -> why it cannot be moved though it is due
        self._anchors: dict[tuple[str, str], int] = {}
        self._backlogs: dict[str, tuple[str | None, str, Backlog]] = {}

    def advance(self, now: float, *, ticks: bool = True) -> float | None:
        """Make the ticks and moves that are due at `now`; when the next is due, or None where nothing will be.

        Of the ticks that a schedule has missed only the last one is made.

        Args:
            ticks: whether cron inputs tick; triggers move in any case.
        """
        head = self.pipelines.head()
        crons, triggers = self._crons(head), self.pipelines.triggers(head)
        self.blocked = {}
        if not crons and not triggers:
            return None
        # I12: neither tick nor branch for a pipeline that came from elsewhere.
        versions, owned = self.pipelines.versions(head), self.pipelines.owners(head)
        trusted, stopped = self.pipelines.trusted_and_stopped()
        due: list[int | None] = []
        for pipeline, cron in crons if ticks else ():
            if versions[pipeline] in trusted and pipeline not in stopped:
                due.append(self._kept(git_branch(cron.repo), partial(self._tick, pipeline, cron, now)))
        mine = {
            b: t for b, (t, owner) in triggers.items() if b not in owned and (not owner or versions[owner] in trusted)
        }
        due += self._move_all(mine, {b for b, (_, owner) in triggers.items() if owner}, now)
        return min((each for each in due if each is not None), default=None)

    def watches(self, repo: str) -> bool:
        """Whether some trigger may move a branch when `repo` has changed; where a spec is broken, none does."""
        try:
            triggers = self.pipelines.triggers(self.pipelines.head())
        except GitpipeError:
            return False
        return any(repo_of(branch)[0] == repo for branch in triggers)

    def hands(self) -> list[Hand]:
        """All cron inputs, by pipeline; what one has missed is due at a moment that is over."""
        head = self.pipelines.head()
        versions = self.pipelines.versions(head)
        trusted, stopped = self.pipelines.trusted_and_stopped()
        found = []
        for pipeline, cron in self._crons(head):
            why = "its pipeline is stopped" if pipeline in stopped else ""
            why = why if versions[pipeline] in trusted else "its pipeline is not trusted here"
            when = None if why else Schedule(cron.spec).after(self._anchor(pipeline, cron))
            found.append(Hand(pipeline, cron.name, when, why or ("" if when else "its schedule is over")))
        return found

    def _kept(self, branch: str, work: Callable[[], int | None]) -> int | None:
        """What `work` gives; where it fails, that one branch stays, and `blocked` says why."""
        try:
            return work()
        except GitpipeError as error:
            self.blocked[branch] = str(error)
            return None

    # -- cron inputs -------------------------------------------------------------------------------------------------

    def _crons(self, head: str | None) -> list[tuple[str, Cron]]:
        return [
            (name, leaf)
            for name, pipeline in sorted(self.pipelines.all(head).items())
            for leaf in pipeline.spec.input.leaves()
            if isinstance(leaf, Cron)
        ]

    def _tick(self, pipeline: str, cron: Cron, now: float) -> int | None:
        """Make the tick that is due, if one is; when the next one will be."""
        schedule = Schedule(cron.spec)
        anchor = self._anchor(pipeline, cron)
        when = schedule.latest(anchor, now)
        if when is not None:
            self._strike(cron, when)
            anchor = when
        return schedule.after(anchor)

    def _anchor(self, pipeline: str, cron: Cron) -> int:
        """The moment after which the next tick is due: the newest tick, else when the pipeline and its repo were made.

        Read from commits that travel, so that all clones count from the same moment.
        """
        start = moment(cron.start) if cron.start else None
        head = self.repo.ref(HEADS + cron.repo) or ""
        key = (pipeline, head)
        if key not in self._anchors:
            newest, root = self._newest(head) if head else (None, 0)
            if newest is None and start is not None:
                return start
            if len(self._anchors) > 1000:
                self._anchors.clear()
            self._anchors[key] = newest if newest is not None else max(root, int(self.pipelines.created(pipeline)))
        return max(self._anchors[key], start or 0)

    def _newest(self, head: str) -> tuple[int | None, int]:
        """(the time of the newest tick up to `head`, or None; the date of the first commit where there is no tick)."""
        sha = head
        while True:
            commit = self.repo.commit(sha)
            when = _tick_of(commit.message)
            if when is not None or not commit.parents:
                return when, commit.time
            sha = commit.parents[0]

    def _strike(self, cron: Cron, when: int) -> str | None:
        """Commit the tick of the moment `when`, unless it or a later one is there; the commit.

        The same parent gives the same commit on every machine (I4); two who are at it move the branch once.
        """
        ref, name = HEADS + cron.repo, rfc3339(when)
        for _ in range(TRIES):
            spec_head, old = self.pipelines.head(), self.repo.ref(ref)
            newest = self._newest(old)[0] if old else None
            if newest is not None and newest >= when:
                return None
            if old and not data_key(self.repo, old):
                raise Refused(
                    f"branch {cron.repo} is not a data repo, so it gets no ticks: give {cron.name} another one"
                )
            listing = read_listing(self.repo, self.blobs, old) if old else {}
            if cron.overwrite:
                listing = {path: md5 for path, md5 in listing.items() if not _is_tick(path, md5)}
            listing[name] = self.blobs.put_bytes(b"")
            config = self.pipelines.branch_config()
            tree = write_tree(self.repo, self.blobs, dict(sorted(listing.items())), base=old, config=config)
            who = Signature(IDENTITY, when)
            commit = self.repo.write_commit(tree, [old] if old else [], f"tick {name}\n\n{TICK}: {name}", who)
            self.blobs.sync()
            self.repo.sync()
            point("before-tick")
            # With `__spec__`, so that a pipeline which is deleted meanwhile does not get its repo back.
            still = RefUpdate(SPEC_REF, spec_head, spec_head)
            if self._move(ref, commit, old, f"gitpipe: tick {name}", still):
                return commit
            if self.pipelines.head() != spec_head:
                return None
        raise GitpipeError(f"branch {cron.repo} keeps moving: the tick {name} was not made")

    def _move(self, ref: str, new: str, old: str | None, reason: str, *also: RefUpdate) -> bool:
        """Move a branch with its clean working trees; a dirty one is a refusal (I6)."""
        if old is None:
            return self.repo.update_refs([RefUpdate(ref, new, None), *also], reason)
        return self.checkouts.move_branch(ref, new, old, reason, strict=True, also=also)

    def run_cron(self, name: str, now: float) -> list[str]:
        """Make a tick of all cron inputs of a pipeline now; lines to print.

        Raises:
            NotFound: no such pipeline.
            Refused: it has no cron input, is stopped or not trusted, or has a tick that is later than now.
        """
        pipeline = self.pipelines.get(name)
        trusted, stopped = self.pipelines.trusted_and_stopped()
        crons = [leaf for leaf in pipeline.spec.input.leaves() if isinstance(leaf, Cron)]
        if not crons:
            raise Refused(f"{name} has no cron input: `gitpipe run-pipeline {name}` runs it on the data that is there")
        if name in stopped:
            raise Refused(f"{name} is stopped: `gitpipe start-pipeline {name}`")
        if pipeline.version not in trusted:
            raise Refused(f"{name} came from elsewhere and does not run here: `gitpipe trust`")
        lines = []
        for cron in crons:
            head = self.repo.ref(HEADS + cron.repo)
            newest = self._newest(head)[0] if head else None
            if newest is not None and newest > now:
                raise Refused(f"{cron.repo} has a tick of {rfc3339(newest)}, which is later than now: see to the clock")
            done = self._strike(cron, int(now))
            lines.append(f"{cron.repo}: tick {rfc3339(now)}" + ("" if done else " is there already"))
        return lines

    # -- triggers ----------------------------------------------------------------------------------------------------

    def _move_all(self, triggers: Mapping[str, Trigger], owned: set[str], now: float) -> list[int | None]:
        """Move what is to move, again as long as one move leads to the next; when the next may be due."""
        for _ in range(len(triggers) + 1):
            heads = {branch: self.repo.ref(HEADS + branch) for branch in triggers}
            due = [
                self._kept(branch, partial(self._follow, branch, trigger, branch in owned, now))
                for branch, trigger in triggers.items()
            ]
            if heads == {branch: self.repo.ref(HEADS + branch) for branch in triggers}:
                return due
        return due if triggers else []

    def _follow(self, branch: str, trigger: Trigger, owned: bool, now: float) -> int | None:
        """Move one branch if its trigger says so, else say when the schedule will."""
        ref, watched = HEADS + branch, git_branch(repo_of(branch)[0], trigger.branch)
        old, new = self.repo.ref(ref), self.repo.ref(HEADS + watched)
        if new is None or new == old or not is_data(self.repo, new):
            return None
        if old is not None and not data_key(self.repo, old):
            # `__spec__` may have come from elsewhere: no branch of code is moved by what it says.
            raise Refused(f"branch {branch} holds no data, so its trigger does not move it: `git log {branch}`")
        backlog = self._backlog(watched, branch, old, new)
        if not trigger.holds(backlog, now):
            due = trigger.due(backlog)
            return due if due is not None and due > now and backlog.commits else None
        if not owned and old is not None and is_data(self.repo, old) and not self._contains(new, old):
            raise Refused(
                f"{branch} has commits that {watched} has not, so its trigger would lose them: merge them, or "
                f"`gitpipe create-branch {repo_of(branch)[0]}@{repo_of(branch)[1]} --head {trigger.branch}` drops them"
            )
        self._move(ref, new, old, f"gitpipe: trigger, {trigger.describe()}")
        return None

    def _backlog(self, watched: str, branch: str, old: str | None, new: str) -> Backlog:
        known = self._backlogs.get(branch)
        if known is None or known[:2] != (old, new):
            commits = list(self._unseen(watched, old, new))
            grown = (data_size(self.repo, self.blobs, new)[0] or 0) - (
                (data_size(self.repo, self.blobs, old)[0] or 0) if old else 0
            )
            known = self._backlogs[branch] = old, new, Backlog(len(commits), grown, min(commits, default=0))
        return known[2]

    def _unseen(self, watched: str, old: str | None, new: str) -> Iterator[int]:
        """The dates of the data commits that lead from `old` to `new`; all of them where `old` is not on the way."""
        paths = [] if repo_of(watched)[0] in self.pipelines.versions(self.pipelines.head()) else [POINTER, DATA]
        chain = self.repo.first_parents(new, old, paths) if old else None
        if chain is None:
            chain = list(islice(self.repo.log([new], "--first-parent", paths=paths), MOST_COMMITS))
        yield from (commit.time for commit in chain if commit.parents or is_data(self.repo, commit.sha))

    def _contains(self, new: str, old: str) -> bool:
        return not self.repo.git("rev-list", "-n", "1", old, f"^{new}", "--").strip()

    # -- the branches that come and go with a pipeline -----------------------------------------------------------------

    def check_repos(self, specs: Mapping[str, Spec], heads: Mapping[str, str]) -> None:
        """Make sure that cron inputs write to no repo that holds something else.

        Raises:
            Refused: a repo that was not made for a cron input holds files that are no ticks.
        """
        for name, spec in specs.items():
            for cron in (leaf for leaf in spec.input.leaves() if isinstance(leaf, Cron)):
                head = heads.get(HEADS + cron.repo)
                if head is None or self._makers(head) is not None:
                    continue
                if not all(_is_tick(*file) for file in read_listing(self.repo, self.blobs, head).items()):
                    raise Refused(
                        f"pipeline {name}: repo {cron.repo} holds files that are no ticks: "
                        f'give the cron input {cron.name} another "repo"'
                    )

    def fresh_branches(self, specs: Mapping[str, Spec], heads: Mapping[str, str]) -> list[RefUpdate]:
        """The branches that pipelines need and that are not there: empty, to be made together with them."""
        found: dict[str, RefUpdate] = {}
        for name, spec in specs.items():
            for leaf in spec.input.leaves():
                branch = git_branch(leaf.repo, leaf.branch)
                if HEADS + branch in heads or not (isinstance(leaf, Cron) or leaf.trigger is not None):
                    continue
                cron = isinstance(leaf, Cron)
                text = f"{MAKES}{branch}\n\n{MADE_FOR}: {name}" if cron else f"create-branch {branch}"
                tree = write_tree(self.repo, self.blobs, {}, config=self.pipelines.branch_config())
                commit = self.repo.write_commit(tree, [], text, self.repo.user())
                found[branch] = RefUpdate(HEADS + branch, commit, None)
        if found:
            self.blobs.sync()
        return list(found.values())

    def own_branches(self, name: str, spec: Spec) -> list[str]:
        """The branches that were made with a pipeline and nobody else reads: those that go with it, sorted.

        Among them are the repos of cron inputs that an update has dropped.
        """
        head = self.pipelines.head()
        others = {
            git_branch(leaf.repo, leaf.branch)
            for other, p in self.pipelines.all(head).items()
            if other != name
            for leaf in p.spec.input.leaves()
        }
        found = set()
        for leaf in spec.input.leaves():
            branch = git_branch(leaf.repo, leaf.branch)
            sha = self.repo.ref(HEADS + branch)
            if sha is None or branch in others:
                continue
            own = leaf.trigger is not None and leaf.branch.startswith(f"{name}{TRIGGERED}")
            if own or (isinstance(leaf, Cron) and self._makers(sha) in ([name], [])):
                found.add(branch)
        return sorted(found | self._made_with(name) - others)

    def _made_with(self, name: str) -> set[str]:
        """The repos whose first commit says that it made them for pipeline `name`; not what was branched off them."""
        refs = self.repo.refs("refs/heads")
        roots = self.repo.log(list(refs.values()), "--max-parents=0", "-F", f"--grep={MADE_FOR}: {name}")
        made = {c.subject.removeprefix(MAKES) for c in roots if trailers(c.message).get(MADE_FOR) == [name]}
        return {b for b in made if HEADS + b in refs and self._makers(refs[HEADS + b]) == [name]}

    def _makers(self, sha: str) -> list[str] | None:
        """The pipeline that the repo of a commit was made with, [] where a tick made it; None where a person did."""
        root = self.repo.git("rev-list", "--first-parent", "--max-parents=0", sha, "--").split()
        message = self.repo.commit(root[-1]).message if root else ""
        return trailers(message).get(MADE_FOR, None if _tick_of(message) is None else [])


def _is_tick(path: str, md5: str) -> bool:
    """Whether a file is one that a tick made: empty, and named by its time."""
    try:
        return md5 == EMPTY and path == rfc3339(moment(path))
    except ValueError:
        return False


def _tick_of(message: str) -> int | None:
    """The time of the tick that a commit says it is; None for any other commit."""
    for text in trailers(message).get(TICK, []):
        try:
            return moment(text)
        except ValueError:
            return None
    return None
