"""What commands answer with: plain values, ready to be printed as a table or as JSON.  No behaviour.

Times are POSIX seconds, sizes bytes; None means unknown (a blob that is not here) or not yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from gitpipe.commit import CommitRef

FEW = 3
"""Inputs of a datum that are named where many would be too many."""
_PART = re.compile(r", (?=[A-Za-z0-9_][A-Za-z0-9_-]*:/)")  # a file's name may have a comma in it


@dataclass(frozen=True, slots=True)
class RepoInfo:
    name: str
    branch: str
    created: float
    size: int | None
    files: int
    head: str
    pipeline: bool


@dataclass(frozen=True, slots=True)
class FileInfo:
    name: str
    type: str  # "file" or "dir"
    size: int | None
    md5: str = ""


@dataclass(frozen=True, slots=True)
class Making:
    """Where and by what the files of a datum were made."""

    commit: CommitRef  # the first output commit that had them
    job: str  # which made that commit
    log: str = ""  # the command that prints what was said then; "" where this machine has not heard it
    attempt: str = ""  # an earlier job, which ran the datum and published nothing


@dataclass(frozen=True, slots=True)
class FileMaking:
    """What made a file, from what."""

    datum: str
    pipeline: str  # "model@<tree id>", the version that made it
    inputs: tuple[DatumFile, ...]
    made: Making | None


@dataclass(frozen=True, slots=True)
class FileDetails:
    repo: str
    branch: str
    commit: str
    path: str
    type: str  # "file" or "dir"
    size: int | None
    md5: str = ""
    files: int = 1  # below it, where it is a folder
    here: bool = True  # False: some of it is not in the cache of this machine
    making: FileMaking | None = None  # of a file that a pipeline made


@dataclass(frozen=True, slots=True)
class FileChange:
    path: str
    old: str  # md5, "" where the file was not there
    new: str  # md5, "" where it is no longer
    old_size: int | None = None
    new_size: int | None = None


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field of a spec that differs between two versions of a pipeline."""

    field: str  # "cmd", "env.LEVEL", "input.cross[0].pfs.glob", "parallelism_spec.constant"
    old: Any  # None where it was not there
    new: Any
    text: str  # what differs, word by word: "-e 1 → -e 2"
    matters: bool = True  # False: no datum is another one because of it


@dataclass(frozen=True, slots=True)
class CodeChange:
    path: str
    change: str  # "added", "removed" or "changed"


@dataclass(frozen=True, slots=True)
class VersionChange:
    """What differs between two versions of a pipeline; None in place of a version that is not."""

    pipeline: str
    old: str | None
    new: str | None
    fields: tuple[FieldChange, ...] = ()
    code: tuple[CodeChange, ...] = ()
    reprocess: bool = False  # `--reprocess` made every datum new
    unknown: str = ""  # why it cannot be told in full


@dataclass(frozen=True, slots=True)
class Move:
    """A branch that stands at different commits in two provenances; None where it is in one of them only."""

    branch: str
    old: str | None
    new: str | None
    ahead: int = 0  # commits of the new one that the old one lacks
    behind: int = 0  # commits of the old one that the new one lacks
    subject: str = ""  # of the new one


@dataclass(frozen=True, slots=True)
class InputChange:
    """A branch that a pipeline reads, at another commit than before."""

    move: Move
    files: tuple[FileChange, ...] = ()
    unseen: tuple[str, ...] = ()  # paths among them that no datum sees, before or after
    unknown: str = ""  # why its files cannot be told


@dataclass(frozen=True, slots=True)
class EnvironmentChange:
    """Something that two runs of a pipeline had otherwise, beside inputs and code; "" where one of them had it not."""

    pipeline: str
    what: str  # "interpreter", "cpu", "kernel" …, or "package NAME"
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class ProvenanceChange:
    """What else differs between two commits than their files."""

    inputs: tuple[Move, ...] = ()
    versions: tuple[VersionChange, ...] = ()
    environments: tuple[EnvironmentChange, ...] | None = None  # None: not recorded of both, or no outputs


@dataclass(frozen=True, slots=True)
class CommitDiff:
    old: CommitRef | None  # None: there was no commit before
    new: CommitRef
    files: tuple[FileChange, ...] = ()
    provenance: ProvenanceChange | None = None  # None: not asked for

    @property
    def differs(self) -> bool:
        """Whether there is anything that was asked for."""
        more = self.provenance
        return bool(self.files or (more and (more.inputs or more.versions)))


@dataclass(frozen=True, slots=True)
class DatumGroup:
    """Datums of a job that had the same lot, for the same reason."""

    state: str  # ran, skipped, failed, recovered, running, queued, not run, vanished
    why: tuple[str, ...]  # "model/model.joblib changed"
    count: int
    datums: tuple[tuple[str, str], ...]  # (id, of what)


@dataclass(frozen=True, slots=True)
class JobWhy:
    """Why a job was, and why it ran or skipped its datums, against what its pipeline had made before."""

    job: str
    pipeline: str
    version: str
    state: str
    output: CommitRef | None
    before: CommitRef | None  # the output commit that it is compared with
    before_job: str = ""
    reason: str = ""  # why it failed or cannot run
    notes: tuple[str, ...] = ()
    change: VersionChange | None = None
    inputs: tuple[InputChange, ...] = ()
    above: tuple[Move, ...] = ()  # of the provenance, what it does not read itself
    groups: tuple[DatumGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class DatumWhy:
    """Why a datum ran, was skipped or vanished in a job."""

    datum: str
    files: str  # what it is of, worded: "attributes:/1.csv, model:/"
    job: str
    pipeline: str
    state: str
    output: CommitRef | None = None  # of the job
    earlier: str = ""  # the datum of the same matches in `before`
    before: CommitRef | None = None  # the output commit that it is compared with
    why: tuple[str, ...] = ()
    change: VersionChange | None = None
    made: CommitRef | None = None  # the output commit that made its files, with when (POSIX seconds) and by which job
    made_at: float | None = None
    made_job: str = ""
    reason: str = ""  # why it failed
    gone_at: CommitRef | None = None  # the first output commit without it


@dataclass(frozen=True, slots=True)
class BranchInfo:
    repo: str
    branch: str
    head: str
    git: str  # the git branch: "training@staging"
    trigger: str = ""  # "staging on Size(1MB)"


@dataclass(frozen=True, slots=True)
class CommitInfo:
    repo: str
    branch: str
    sha: str
    parent: str | None
    started: float
    finished: float | None
    size: int | None
    subject: str
    author: str = ""
    job: str = ""
    pipeline: str = ""  # "model@<tree id>", or "" for a commit made by a person
    provenance: tuple[CommitRef, ...] = ()  # the closure
    specs: tuple[CommitRef, ...] | None = None  # on `__spec__`: recorded the pipelines it was made by; None: not asked


@dataclass(frozen=True, slots=True)
class JobInfo:
    id: str
    pipeline: str
    version: str
    state: str  # a `journal.JobState` value: queued, running, success, failed, unrunnable, killed, superseded
    output: str | None  # sha of the output commit
    started: float | None
    finished: float | None
    restarts: int = 0
    processed: int = 0
    skipped: int = 0
    failed: int = 0
    total: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    reason: str = ""  # one line: why it failed or cannot run
    notes: tuple[str, ...] = ()
    inputs: tuple[CommitRef, ...] = ()  # direct inputs
    engine: str = ""
    ran_in: tuple[dict[str, Any], ...] | None = None  # see `gitpipe.record.Records.read`; None: not asked
    image: str = ""  # that the spec names
    image_id: str = ""  # what it stood for ("sha256:..."), or "host" where it was not used
    recovered: int = 0  # datums that failed, and err_cmd made good for it: they have no output
    seq: int = 0  # its number in the local journal: one that never began has no id


@dataclass(frozen=True, slots=True)
class DatumFile:
    commit: CommitRef | None  # None for an output
    path: str
    size: int | None
    md5: str


@dataclass(frozen=True, slots=True)
class DatumInfo:
    id: str
    job: str
    state: str  # success, skipped, failed, recovered, running, queued, or, where the job ended before: not run
    files: str  # what it is of, worded: "attributes:/1.csv, model:/"
    tries: int = 0
    seconds: float | None = None  # of the last try; None where this job did not run it
    bytes_in: int = 0
    bytes_out: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DatumPreview:
    """The first datums of a spec that did not run yet (state: new, skipped), and how many there are."""

    datums: tuple[DatumInfo, ...]
    total: int
    more: bool = False  # there are more than `total`, which were not counted


@dataclass(frozen=True, slots=True)
class DatumDetails:
    datum: DatumInfo
    pipeline: str
    inputs: tuple[DatumFile, ...]
    outputs: tuple[DatumFile, ...]
    version: str = ""  # of the pipeline, in this job
    made: Making | None = None  # None: no output commit has it


@dataclass(frozen=True, slots=True)
class PipelineInfo:
    name: str
    version: str
    created: float
    state: str  # running, stopped, failing, untrusted
    input: str  # "training:/", "(attributes:/* ⨯ model:/)"
    output: str
    source: str  # "main@<sha>:pipelines/iris/train.json"
    parallelism: int
    spec: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DagNode:
    name: str  # the git branch: "training", "training@staging", or the pipeline and the branch that it writes
    kind: str  # "repo" or "pipeline"
    state: str = ""  # a pipeline's, as in `PipelineInfo`
    how: str = ""  # how a pipeline's inputs meet: "", "cross", "cross(training, union(a, b))"
    input: str = ""  # "(attributes:/* ⨯ model:/)"


@dataclass(frozen=True, slots=True)
class DagEdge:
    source: str  # the node that is read
    target: str  # the pipeline that reads it, or the branch that a trigger moves up to it
    glob: str = "/"  # for a trigger, its conditions: ``Commits(3)``


@dataclass(frozen=True, slots=True)
class DagInfo:
    """What reads what; nodes come after all that they read, edges by target, in the order of its inputs."""

    nodes: tuple[DagNode, ...] = ()
    edges: tuple[DagEdge, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    pipeline: str
    slot: int
    engine: str
    state: str  # idle, starting, running, off (no runner lives)
    datum: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    job: str
    pipeline: str
    datum: str
    time: float
    message: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """A commit and, below it, what it was made from (or, downward, what was made from it)."""

    commit: CommitInfo
    children: tuple[Lineage, ...] = ()


@dataclass(frozen=True, slots=True)
class FileLineage:
    """A file of a commit and, below it, the files that it was made from (or, downward, that were made from it)."""

    commit: CommitRef
    path: str
    md5: str
    subject: str  # of the commit
    datum: str = ""  # that made it; "" for a file that a person put
    pipeline: str = ""  # "model@<tree id>", the version that made it
    children: tuple[FileLineage, ...] = ()
    making: Making | None = None  # of the file that was asked for


@dataclass(frozen=True, slots=True)
class StatusInfo:
    git_dir: str
    runner: str  # "not running" or "running (pid 123)"
    engine: str
    sandbox: str
    cache: str
    pending: tuple[str, ...] = ()  # jobs queued or running, worded
    failures: tuple[JobInfo, ...] = ()
    warnings: tuple[str, ...] = ()
    clocks: tuple[str, ...] = ()  # cron inputs and their next tick, worded
    waiting: tuple[str, ...] = ()  # pipelines with an input that has no data yet, worded
    passed: tuple[str, ...] = ()  # pipelines that passed over commit sets before their newest job, worded
    containers: str = ""  # what runs the images of pipelines; "" where none has one
    stale: tuple[str, ...] = ()  # why outputs are not up to date, where nothing is at work on that

    @property
    def well(self) -> bool:
        """Whether nothing failed, and nothing is left as it is that should be done."""
        return not self.failures and not self.stale


@dataclass(frozen=True, slots=True)
class Progress:
    """One job that is being waited for."""

    seq: int  # what it is told from others by, those of the same pipeline and those without an id included
    pipeline: str
    state: str
    done: int
    skipped: int
    failed: int
    total: int
    recovered: int = 0


def few(described: str) -> str:
    """What a datum is of, in few words: of a group's hundreds of files the first, and how many more there are."""
    parts = _PART.split(described)
    if len(parts) <= FEW + 1:  # to say "and 1 more" is no shorter
        return described
    return f"{', '.join(parts[:FEW])} and {len(parts) - FEW} more"
