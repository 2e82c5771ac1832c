"""A scratch repository driven through the library: data commits, pipelines and runs in this process, all of it real.

Commits get ascending dates of their own, so that two labs which do the same have the same SHAs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitpipe.datatree import read_listing, write_tree
from gitpipe.project import Project, init, open_project
from gitpipe.provenance import Origin, read_origin
from gitpipe.repo import HEADS, Commit, RefUpdate, Signature
from gitpipe.views import JobInfo

EPOCH = 1_700_000_000


@dataclass(frozen=True)
class Made:
    """One output commit: what its trailers say."""

    sha: str
    subject: str
    origin: Origin

    @property
    def sources(self) -> dict[str, str]:
        """Branch -> sha of the closure."""
        return {ref.branch: ref.sha for ref in self.origin.provenance}


class Lab:
    """One repository; `GITPIPE=0` is in force, so that nothing runs but by `run`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = 0
        if not self.git("config", "--get", "gitpipe.python", check=False):
            init(root)
        self.git("config", "gitpipe.engine", "local")

    @property
    def project(self) -> Project:
        """A fresh one, as each command has it."""
        return open_project(self.root)

    def git(self, *args: str, check: bool = True) -> str:
        """Run git; what it printed."""
        done = subprocess.run(["git", *args], cwd=self.root, capture_output=True, encoding="utf-8")
        assert not check or done.returncode == 0, f"git {' '.join(args)}: {done.stderr}"
        return done.stdout.rstrip("\n")

    def head(self, branch: str) -> str:
        """The sha of a branch, or ""."""
        return self.git("rev-parse", "-q", "--verify", f"refs/heads/{branch}", check=False)

    # -- data in -----------------------------------------------------------------------------------------------------

    def data(
        self,
        branch: str,
        files: Mapping[str, str] | None,
        *,
        parent: str | None = None,
        when: int | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> str:
        """Commit `files` (all of the repo's then; None: as they were) to a data branch without a checkout; the sha.

        Args:
            parent: on top of this one, as after a reset; by default on the branch's head.
            when: committer's date in seconds after the lab's epoch; by default a minute after the last.
            extra: other files of the tree, such as a README.
        """
        project = self.project
        repo, blobs = project.repo, project.blobs
        old = self.head(branch) or None
        base = parent if parent is not None else old
        if files is None:
            assert base
            listing = read_listing(repo, blobs, base)
        else:
            listing = {path: blobs.put_bytes(text.encode()) for path, text in sorted(files.items())}
        tree = write_tree(repo, blobs, listing, base=base)
        if extra:
            from gitpipe.repo import BLOB, Entry

            tree = repo.write_paths({p: Entry(BLOB, repo.write_blob(t.encode())) for p, t in extra.items()}, tree)
        self.clock = self.clock + 60 if when is None else when
        who = Signature("Ada <ada@example.org>", EPOCH + self.clock)
        sha = repo.write_commit(tree, [base] if base else [], f"data {self.clock}", who)
        assert repo.update_refs([RefUpdate(HEADS + branch, sha, old)], "test: data")
        repo.close()
        return sha

    # -- pipelines ---------------------------------------------------------------------------------------------------

    def write_spec(self, name: str, reads: Mapping[str, str], script: str = "", **more: Any) -> Path:
        """Write ``specs/<name>.json``, a `sh` stage that reads `reads` (repo -> glob); by default it copies all."""
        script = script or " && ".join(f"cp -R /pfs/{repo}/. /pfs/out" for repo in reads)
        leaves = [{"pfs": {"repo": repo, "glob": glob}} for repo, glob in reads.items()]
        spec = {
            "pipeline": {"name": name},
            "transform": {"cmd": ["sh", "-c", script]},
            "input": leaves[0] if len(leaves) == 1 else {"cross": leaves},
            "code": [],
            "datum_tries": 1,
            **more,
        }
        path = self.root / "specs" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(spec))
        return path

    def pipeline(self, name: str, reads: Mapping[str, str], script: str = "", **more: Any) -> None:
        """Create or update a pipeline."""
        path = self.write_spec(name, reads, script, **more)
        self.project.pipelines.update([str(path)], create=True)

    def run(self) -> list[JobInfo]:
        """``gitpipe run``: the jobs that ran, and those that stand failed."""
        before = signal.getsignal(signal.SIGTERM)
        try:
            return self.project.run()
        finally:
            signal.signal(signal.SIGTERM, before)

    def ran(self) -> list[str]:
        """Run; each job as ``name: processed + skipped / total state``, in the order in which they were queued."""
        return [
            f"{job.pipeline}: {job.processed} + {job.skipped} / {job.total} {job.state}"
            if job.state == "success"
            else f"{job.pipeline}: {job.state} {job.reason}"
            for job in self.run()
        ]

    def killed(self, at: str) -> bool:
        """``gitpipe run`` in a process of its own that ends itself at a point of `gitpipe.faults`; whether it did."""
        done = subprocess.run(
            [sys.executable, "-I", "-m", "gitpipe", "run"],
            cwd=self.root,
            env={**os.environ, "GITPIPE_KILL_AT": at},
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode in (0, 3, -signal.SIGKILL), f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.returncode == -signal.SIGKILL

    # -- results out -------------------------------------------------------------------------------------------------

    def commits(self, branch: str) -> list[Commit]:
        """The commits of a branch, oldest first."""
        head = self.head(branch)
        project = self.project
        found = list(project.repo.log([head], "--first-parent"))[::-1] if head else []
        project.repo.close()
        return found

    def made(self, pipeline: str) -> list[Made]:
        """The output commits of a pipeline, oldest first."""
        return [Made(c.sha, c.subject, read_origin(c.message)) for c in self.commits(pipeline)]

    def files(self, branch: str) -> dict[str, str]:
        """Path -> content at the head of a branch."""
        return self.files_of(self.head(branch))

    def files_of(self, sha: str) -> dict[str, str]:
        """Path -> content of a commit."""
        project = self.project
        listing = read_listing(project.repo, project.blobs, sha)
        project.repo.close()
        return {path: project.blobs.read(md5).decode() for path, md5 in listing.items()}

    def printed(self, pipeline: str) -> list[str]:
        """Each line that the stages of a pipeline printed, of all jobs."""
        return [line.message for line in self.project.jobs.logs(pipeline=pipeline)]

    def prune(self) -> None:
        """Have git forget all that no ref names."""
        self.git("reflog", "expire", "--expire=now", "--expire-unreachable=now", "--all")
        self.git("gc", "-q", "--prune=now")

    def forget(self) -> None:
        """Delete the local state (I1)."""
        import shutil

        shutil.rmtree(self.root / ".git" / "gitpipe")


LabMaker = Callable[[str], Lab]


def new_lab(folder: Path) -> Lab:
    """A lab in a new repository with one commit, whose SHA is the same wherever it is made."""
    env = {**os.environ, "GIT_AUTHOR_DATE": f"{EPOCH} +0000", "GIT_COMMITTER_DATE": f"{EPOCH} +0000"}
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True, env=env)
    (folder / "README").write_text("scratch\n")
    subprocess.run(["git", "add", "README"], cwd=folder, check=True, env=env)
    subprocess.run(["git", "commit", "-qm", "Begin"], cwd=folder, check=True, env=env)
    return Lab(folder)
