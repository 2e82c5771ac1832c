"""What an output commit says of itself: the message with its trailers, and back.  Knows nothing of git objects.

Formats are those of ``docs/design.md``.  Git's own tools read them: trailers are the last paragraph, keys of letters,
digits and ``-`` (git-interpret-trailers(1)).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gitpipe.commit import CommitRef, repo_of
from gitpipe.errors import BadData

IDENTITY = "gitpipe <gitpipe@localhost>"
KEEP = "refs/gitpipe/keep/"
"""A ref for each pipeline: a chain with one commit a job, in the order in which they published (I8)."""
KEPT_JOB = "keep: {} {}"
"""The subject of such a commit: pipeline, job."""
TRAILER = re.compile(r"([A-Za-z0-9-]+): (.*)\Z")


class Inconsistent(BadData):
    """The closure would name two commits of one branch (I3)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the trailers of a commit say; all empty for a commit that a person made.

    Attributes:
        pipeline: the pipeline's name, or "".
        version: the tree id of the pipeline's folder on ``__spec__``.
        job: 32 hex digits.
        provenance: the closure, sorted.
    """

    pipeline: str = ""
    version: str = ""
    job: str = ""
    provenance: tuple[CommitRef, ...] = ()

    @property
    def key(self) -> tuple[str, tuple[CommitRef, ...]]:
        """What a job is done for: equal keys mean that there is nothing to do (I2)."""
        return self.version, self.provenance


def trailers(message: str) -> dict[str, list[str]]:
    """Key -> values of the last paragraph, where all of it is trailers; else nothing."""
    paragraphs = message.rstrip("\n").split("\n\n")
    if len(paragraphs) < 2:
        return {}
    found: dict[str, list[str]] = {}
    for line in paragraphs[-1].split("\n"):
        match = TRAILER.match(line)
        if match is None:
            return {}
        found.setdefault(match[1], []).append(match[2])
    return found


def read_origin(message: str) -> Origin:
    """The `Origin` of a commit message; one that is malformed counts as made by a person."""
    found = trailers(message)
    if "Pipeline" not in found or "Job" not in found:
        return Origin()
    name, _, version = found["Pipeline"][0].rpartition("@")
    try:
        refs = tuple(sorted(CommitRef.parse(text) for text in found.get("Provenance", [])))
    except BadData:
        return Origin()
    return Origin(name, version, found["Job"][0], refs)


def made_for(branch: str, origin: Origin) -> bool:
    """Whether a commit with this origin, on git branch `branch`, is a result of the pipeline that the repo is named
    after; other branches of that repo (``model@prod``) are given such commits by ``create-branch``."""
    return origin.pipeline != "" and origin.pipeline == repo_of(branch)[0]


def output_message(origin: Origin, processed: int, skipped: int, recovered: int = 0) -> str:
    """The message of an output commit; the counts are against the pipeline's earlier commits (I4)."""
    total = processed + skipped + recovered
    counts = f"{processed} processed, {skipped} skipped" + (f", {recovered} recovered" if recovered else "")
    lines = [
        f"{origin.pipeline}: {counts} of {total} datum{'' if total == 1 else 's'}",
        "",
        f"Pipeline: {origin.pipeline}@{origin.version}",
        f"Job: {origin.job}",
        *(f"Provenance: {ref}" for ref in origin.provenance),
    ]
    return "\n".join(lines) + "\n"


def closure(parts: Iterable[tuple[CommitRef, Sequence[CommitRef]]]) -> tuple[CommitRef, ...]:
    """The closure of direct inputs, each with its own closure; sorted, one commit a branch.

    Raises:
        Inconsistent: two commits of one branch (I3: D never joins B of an old A with C of a new one).
    """
    found: dict[str, CommitRef] = {}
    for direct, above in parts:
        for ref in (direct, *above):
            other = found.setdefault(ref.branch, ref)
            if other != ref:
                raise Inconsistent(f"inputs come from two commits of {ref.branch}: {other.sha[:12]} and {ref.sha[:12]}")
    return tuple(sorted(found.values()))


def job_id(version: str, provenance: Iterable[CommitRef], parent: str | None) -> str:
    """32 hex digits from the pipeline's version, the closure and the parent output commit."""
    text = "\n".join([version, *map(str, provenance), parent or "-"])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
