"""What commands answer with: plain values, ready to be printed as a table or as JSON.  No behaviour.

Times are POSIX seconds, sizes bytes; None means unknown (a blob that is not here) or not yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gitpipe.commit import CommitRef


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


@dataclass(frozen=True, slots=True)
class FileChange:
    path: str
    old: str  # md5, "" where the file was not there
    new: str  # md5, "" where it is no longer
    old_size: int | None = None
    new_size: int | None = None


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
    state: str  # a `journal.JobState` value: queued, running, success, failed, unrunnable, killed
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
    state: str  # success, skipped, failed, running, queued, or, where the job ended before: not run
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
    target: str  # the pipeline that reads it
    glob: str = "/"


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


@dataclass(frozen=True, slots=True)
class Progress:
    """One pipeline's job of the set that is being waited for."""

    job: str
    pipeline: str
    state: str
    done: int
    skipped: int
    failed: int
    total: int
