"""The invariants I1 to I8 of docs/design.md as functions: each looks at a real repository and says where it breaks one.

They read git by git and blobs by their md5: what a journal says is asked for only where the invariant is about jobs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gitpipe import datumindex
from gitpipe.datatree import read_listing
from gitpipe.journal import JobState
from gitpipe.project import Project
from gitpipe.provenance import read_origin
from tests.lab import Lab, Made

Refs = Mapping[str, str]
Files = Mapping[str, str]
DATA = (":(top)data.dvc", ":(top)data")


@dataclass(frozen=True)
class WorkingTree:
    """What a person sees of a working tree: HEAD, index, status, and the bytes of each file but the data."""

    head: str
    staged: str
    status: str
    files: Mapping[str, str]


def refs(lab: Lab, *below: str) -> dict[str, str]:
    """Full name -> sha; by default of all branches and of all that gitpipe keeps but its notes on how runs went."""
    lines = lab.git("for-each-ref", "--format=%(refname) %(objectname)", *(below or ("refs/heads", "refs/gitpipe")))
    return {name: sha for name, _, sha in (line.partition(" ") for line in lines.splitlines())}


def history(lab: Lab) -> dict[str, list[Made]]:
    """Pipeline -> its output commits, oldest first, of all that have a branch of their name."""
    branches = [name.removeprefix("refs/heads/") for name in refs(lab, "refs/heads")]
    found = {name: [made for made in lab.made(name) if made.origin.pipeline == name] for name in branches}
    return {name: all_made for name, all_made in found.items() if all_made}


def look(top: Path) -> WorkingTree:
    """A `WorkingTree` to be compared with one of later."""

    def git(*args: str) -> str:
        # Without the refresh of the index that `status` writes by the way.
        command = ["git", "--no-optional-locks", *args]
        return subprocess.run(command, cwd=top, capture_output=True, check=True, encoding="utf-8").stdout

    found = {}
    for folder, below, names in os.walk(top):
        below[:] = [name for name in below if name != ".git" and not (folder == str(top) and name in ("data", ".dvc"))]
        for name in names:
            path = Path(folder, name)
            found[str(path.relative_to(top))] = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return WorkingTree(git("symbolic-ref", "-q", "HEAD"), git("ls-files", "-s"), git("status", "--porcelain"), found)


# -- each invariant ----------------------------------------------------------------------------------------------------


def exactly_once(lab: Lab) -> None:
    """I2: a job has one output commit at most, and none is made where the head has that version and provenance."""
    seen: dict[str, str] = {}
    for name, commits in history(lab).items():
        for before, made in zip([None, *commits], commits, strict=False):
            assert made.origin.job not in seen, f"{name}: {made.sha} and {seen[made.origin.job]} are of one job"
            seen[made.origin.job] = made.sha
            assert before is None or before.origin.key != made.origin.key, f"{name}: {made.sha} is no news"


def nothing_left_to_do(lab: Lab) -> None:
    """I2: a second run moves no ref, and all that it does is to try what failed again."""
    before = refs(lab)
    again = [job for job in lab.run() if job.state == "success"]
    assert not again, again
    assert refs(lab) == before


def consistent_provenance(lab: Lab) -> None:
    """I3: a closure names one commit a branch, and is all that its direct inputs are made from, nothing else."""
    project = lab.project
    made = {each.sha: each for commits in history(lab).values() for each in commits}
    for each in made.values():
        sources = each.sources
        assert len(sources) == len(each.origin.provenance), f"{each.sha} stands on two commits of one branch"
        assert list(each.origin.provenance) == sorted(each.origin.provenance)
        whole = set()
        for branch in _direct(project, each.sha):
            assert branch in sources, f"{each.sha} does not name {branch}, which it reads"
            whole.add((branch, sources[branch]))
            message = lab.git("log", "-1", "--format=%B", sources[branch])
            origin = read_origin(message + "\n")
            if origin.pipeline == branch:
                whole |= {(ref.branch, ref.sha) for ref in origin.provenance}
        assert whole == set(sources.items()), f"{each.sha} names other commits than its inputs stand on"
    project.repo.close()


def _direct(project: Project, sha: str) -> list[str]:
    import json

    entry = project.repo.entry(sha, ".gitpipe/job.json")
    assert entry is not None, f"{sha} has no record of its job"
    return [each["branch"] for each in json.loads(project.repo.blob(entry.sha))["inputs"]]


def failed_publishes_nothing(lab: Lab) -> None:
    """I5: no output commit is of a job that ended otherwise; finished datums of it are kept, see `Lab.ran`."""
    made = {each.origin.job: each.sha for commits in history(lab).values() for each in commits}
    project = lab.project
    last = {job.id: job for job in project.journal.jobs("id IS NOT NULL AND id != ''")}
    for job in last.values():
        if job.state in (JobState.FAILED, JobState.UNRUNNABLE, JobState.KILLED):
            assert job.output is None and job.id not in made, f"{job.pipeline}: {job.state} but {made.get(job.id)}"


def hands_off(before: WorkingTree, top: Path) -> None:
    """I6: what runs in the background leaves a person's branch, index and files alone."""
    assert look(top) == before


def follows(lab: Lab, top: Path, branch: str) -> None:
    """I6: a clean working tree of an output branch has moved together with it: index, files, data."""
    dirty = subprocess.run(["git", "status", "--porcelain"], cwd=top, capture_output=True, check=True, text=True).stdout
    assert not dirty, f"{top}: {dirty}"
    data = top / "data"
    found = {str(path.relative_to(data)): path.read_text() for path in data.rglob("*") if path.is_file()}
    assert found == lab.files(branch), f"{top}/data is not what {branch} has"


def blobs_are_whole(lab: Lab, branches: Iterable[str] = ()) -> None:
    """I7: every blob of each output commit, those of the datum index too, is here, is what its md5 says, and protected.

    Args:
        branches: others whose heads are to be whole.
    """
    project = lab.project
    ours: dict[str, str] = {}
    for sha in [each.sha for all_made in history(lab).values() for each in all_made]:
        for md5 in read_listing(project.repo, project.blobs, sha).values():
            ours.setdefault(md5, sha)
        for md5 in datumindex.segments(project.repo, project.blobs, sha).values():
            ours.setdefault(md5, sha)
    wanted = dict(ours)
    for sha in filter(None, map(lab.head, branches)):
        wanted |= dict.fromkeys(read_listing(project.repo, project.blobs, sha).values(), sha)
    project.repo.close()
    for md5, sha in wanted.items():
        assert project.blobs.has(md5), f"{sha} names {md5}, which is not here"
        path = Path(project.blobs.path_of(md5))
        assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5, f"{md5} of {sha} is damaged"
        if md5 in ours:
            assert path.stat().st_mode & 0o777 == 0o444, f"{md5} of {sha} is not protected"


def provenance_resolves(lab: Lab) -> None:
    """I8: every SHA that a trailer names is a commit here; call it after ``git gc --prune=now``."""
    named = {sha for all_made in history(lab).values() for each in all_made for sha in each.sources.values()}
    if not named:
        return
    asked = "".join(f"{sha}\n" for sha in sorted(named))
    done = subprocess.run(
        ["git", "cat-file", "--batch-check"], cwd=lab.root, input=asked, capture_output=True, check=True, text=True
    )
    lost = [line for line in done.stdout.splitlines() if line.split()[1] != "commit"]
    assert not lost, lost


def whole_repository(lab: Lab) -> None:
    """``git fsck --strict`` finds nothing wrong."""
    done = subprocess.run(["git", "fsck", "--strict", "--full"], cwd=lab.root, capture_output=True, text=True)
    assert done.returncode == 0 and "error" not in done.stderr, done.stderr
