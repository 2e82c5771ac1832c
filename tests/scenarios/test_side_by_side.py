"""Everything at once in one repository, then every invariant is looked at.

Two people commit in two working trees, two terminals say ``gitpipe run``, a runner is at work in the background, others
add, push and collect with DVC, repack and collect with git, add and remove working trees, and look.  Each command ends
with 0, or says in one documented line why not.

``GITPIPE_SIDE_BY_SIDE=300 python -m pytest -s tests/scenarios/test_side_by_side.py`` does so for 300 seconds.

What is kept apart here, as people have to: a ``dvc gc`` or ``git gc --prune=now`` from somebody's own ``add`` and
``commit``, since DVC and git themselves lose what is added but not committed to these.
"""

from __future__ import annotations

import collections
import json
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gitpipe import nudges
from gitpipe.journal import JobState
from tests import invariants
from tests.conftest import Shell, attempt, end_runner
from tests.lab import Lab
from tests.oracle import Files, Oracle, Stage
from tests.scenarios.test_killed import until

SECONDS = float(os.environ.get("GITPIPE_SIDE_BY_SIDE", "8"))
PATIENCE = 300.0  # reached only by a failure
STAGES = {
    "up": Stage((("a", "/*"),)),
    "left": Stage((("b", "/*"),)),
    "tot": Stage((("left", "/"),), "all"),
    "both": Stage((("up", "/*"), ("b", "/"))),
}
# What git and DVC say where another one of their kind is at work; each is theirs, and nothing is done.
OTHERS = re.compile(
    r"cannot lock ref|gc is already running|File exists|Unable to acquire lock|is busy, it is being blocked"
    r"|Failed to lock|index\.lock|could not lock|failed to run repack"
)
# What gitpipe says: the reason of a job that was tried while its blobs were collected, or its branch was moved.
REFUSALS = re.compile(r"vanished from the cache meanwhile|is not in the cache|was moved by somebody else")


@dataclass
class Crowd:
    """Those who are at work, what they did, and what went wrong."""

    repo: Path
    end: float
    wrong: list[str] = field(default_factory=list)
    count: collections.Counter[str] = field(default_factory=collections.Counter)
    data: dict[str, Files] = field(default_factory=dict)
    apart: threading.Lock = field(default_factory=threading.Lock)

    def do(self, command: str, cwd: Path | None = None, *, status: tuple[int, ...] = (0,)) -> str:
        """Run a command; what it says on both streams.  What it may not say is noted."""
        code, said = attempt(command, cwd or self.repo, PATIENCE)
        words = shlex.split(command)
        name = " ".join(words[:2])
        self.count[name] += 1
        if code not in status:
            last = said.strip().splitlines()[-1:] or [""]
            ours = words[0] == "gitpipe"
            if not ours and OTHERS.search(said) and "Traceback" not in said:
                self.count[f"{name}: refused"] += 1
            elif ours and code == 3 and REFUSALS.search(said):
                self.count[f"{name}: a job failed"] += 1
            else:
                self.wrong.append(f"$ {command}\nexit status {code}: {last[0]}\n{said}")
        if "Traceback" in said:
            self.wrong.append(f"$ {command}\n{said}")
        return said

    def keep_on(self, *acts: Callable[[int], None]) -> list[threading.Thread]:
        """Each of `acts` in a thread of its own, again and again until the time is over or something went wrong."""

        def loop(act: Callable[[int], None]) -> None:
            number = 0
            while time.monotonic() < self.end and not self.wrong:
                number += 1
                try:
                    act(number)
                except Exception as error:  # else the thread would end unnoticed
                    self.wrong.append(f"{act.__name__}: {error!r}")

        threads = [threading.Thread(target=loop, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        return threads


@pytest.fixture
def crowd(scratch: Path, sh: Shell) -> Iterator[Crowd]:
    """The repository with its pipelines, a remote, and a working tree for each of its two data branches."""
    sh("gitpipe init && git config gitpipe.engine local && git config gitpipe.linger 1", cwd=scratch)
    sh("gitpipe create-repo a && gitpipe create-repo b", cwd=scratch)
    sh("git worktree add -q ../a a && git worktree add -q ../b b", cwd=scratch)
    made = Crowd(scratch, 0.0)
    for name in "ab":
        store = f"dvc remote add -q -d store {scratch.parent}/store && git add .dvc && "
        sh(f"{store}git commit -qm Remote", cwd=scratch.parent / name)
    lab = Lab(scratch)
    for name, stage in STAGES.items():
        lab.write_spec(name, dict(stage.reads), stage.script(), parallelism_spec={"constant": 2})
    files = " ".join(f"-f specs/{name}.json" for name in STAGES)
    sh(f"gitpipe create-pipeline {files}", cwd=scratch)
    yield made
    end_runner(scratch)


def test_side_by_side(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """I1 to I8, whoever else is at work."""
    repo, above = crowd.repo, crowd.repo.parent

    def commit(branch: str, number: int, add: str, how: str = "") -> None:
        top = above / branch
        with crowd.apart:
            (top / "data").mkdir(exist_ok=True)
            for name in (f"f{number % 3}", "g"):
                (top / "data" / name).unlink(missing_ok=True)
                (top / "data" / name).write_text(f"{branch} {name} {number // 2}\n")
            crowd.do(add, top)
            crowd.do("git add data.dvc", top)
            crowd.do(f"git commit -qm {number} --allow-empty {how}", top)
            sha = attempt("git rev-parse HEAD", top, PATIENCE)[1].strip()
            crowd.data[sha] = {path.name: path.read_text() for path in (top / "data").iterdir()}

    def ada(number: int) -> None:
        commit("a", number, "dvc add -q data" if number % 3 == 0 else "gitpipe add data")
        if number % 4 == 0:
            crowd.do("dvc push -q", above / "a")
        if number % 4 == 2:
            with crowd.apart:
                crowd.do("dvc gc -q -A -f", above / "a")

    def bob(number: int) -> None:
        commit("b", number, "gitpipe add data", "--amend" if number % 4 == 3 else "")
        if number % 5 == 0:
            crowd.do("dvc status -q", above / "b")

    def terminal(number: int) -> None:
        crowd.do("gitpipe run")

    def other_terminal(number: int) -> None:
        crowd.do("gitpipe run" if number % 2 else "gitpipe wait")

    def git(number: int) -> None:
        with crowd.apart:
            crowd.do("git gc -q --prune=now")
        crowd.do("git repack -adq")
        crowd.do("git pack-refs --all")

    def trees(number: int) -> None:
        name = ("up", "both")[number % 2]
        if attempt(f"git rev-parse -q --verify refs/heads/{name}", repo, PATIENCE)[0]:
            time.sleep(0.1)
            return
        tree = above / f"tree-{number}"
        crowd.do(f"git worktree add -q {tree} {name}")
        crowd.do("gitpipe status", tree, status=(0, 3))
        crowd.do(f"git worktree remove --force {tree}")

    def look(number: int) -> None:
        crowd.do("gitpipe status", status=(0, 3))
        crowd.do("gitpipe list-job")
        crowd.do("gitpipe list-repo")
        crowd.do("gitpipe list-pipeline")

    commit("a", 0, "gitpipe add data")
    commit("b", 0, "gitpipe add data")
    mine = invariants.look(repo)
    crowd.end = time.monotonic() + SECONDS
    for thread in crowd.keep_on(ada, bob, terminal, other_terminal, git, trees, look):
        thread.join()
    print(f"\n{dict(crowd.count)}")
    assert not crowd.wrong, "\n\n".join(crowd.wrong)
    invariants.hands_off(mine, repo)
    for number in ("a", "b"):
        commit(number, 1_000, "gitpipe add data")
    # What failed as its blobs were collected is no more asked for, or is made now.
    for _ in range(2):
        crowd.do("gitpipe wait", status=(0, 3))
    crowd.do("gitpipe run")
    crowd.do("gitpipe runner stop")
    assert not crowd.wrong, "\n\n".join(crowd.wrong)
    monkeypatch.setenv("GITPIPE", "0")
    at_rest(crowd, Lab(repo))


def at_rest(crowd: Crowd, lab: Lab) -> None:
    """All is as it has to be when nobody is at work any more."""
    above = crowd.repo.parent
    oracle = Oracle(lab, crowd.data, {lab.git("rev-parse", f"__spec__:{n}"): stage for n, stage in STAGES.items()})
    history = invariants.history(lab)
    assert set(history) == set(STAGES)
    for name, commits in history.items():
        newest = commits[-1]
        assert newest.sources.items() >= {b: lab.head(b) for b in newest.sources if b in "ab"}.items(), f"{name} is old"
        for made in commits:
            assert lab.files_of(made.sha) == oracle.commit(made), f"{name} {made.sha}"
    invariants.nothing_left_to_do(lab)
    invariants.exactly_once(lab)
    invariants.consistent_provenance(lab)
    invariants.failed_publishes_nothing(lab)
    invariants.blobs_are_whole(lab, ["a", "b"])
    lab.prune()
    invariants.provenance_resolves(lab)
    invariants.whole_repository(lab)
    failed = [job.reason for job in lab.project.journal.jobs() if job.state is JobState.FAILED]
    assert all(REFUSALS.search(reason) for reason in failed), failed
    for name in "ab":
        assert attempt("dvc status", above / name, PATIENCE)[1].strip() == "Data and pipelines are up to date."
        assert not attempt("git status --porcelain", above / name, PATIENCE)[1]
    listed = json.loads(attempt("dvc list --json -R ../a data --rev both", crowd.repo, PATIENCE)[1])
    assert {each["path"] for each in listed} == set(lab.files("both"))
    common = crowd.repo / ".git"
    until(lambda: not nudges.runner_lives(common))
    assert not nudges.pending(common) and nudges.marked(common) is None
    slots = common / "dvc" / "cache" / ".gitpipe-slots"
    assert not slots.exists() or not list(slots.iterdir())
    locks = [path.name for path in common.rglob("*.lock") if ".gitpipe-slots" not in path.parts]
    assert set(locks) <= {"gitpipe-data.lock"}, locks
    assert not list((common / "objects").rglob("tmp_obj_*"))
