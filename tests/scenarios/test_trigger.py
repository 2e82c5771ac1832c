"""A commit becomes a result with no command typed: hooks, runner, nudges, and what may be killed or missing of them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Shell, end_runner

COPY = "for d in /pfs/*/; do [ $d = /pfs/out/ ] || cp -R $d. /pfs/out; done"


class Stage:
    """A repository with gitpipe in it, data repo `a`, and the shell to work there."""

    def __init__(self, root: Path, sh: Shell) -> None:
        self.root, self._sh = root, sh
        self("gitpipe init && git config gitpipe.engine local && gitpipe create-repo a")

    def __call__(self, command: str, **more: object) -> str:
        return self._sh(command, cwd=self.root, **more).strip()

    def specs(self, *pipelines: tuple[str, str, str], **more: object) -> None:
        """Create pipelines: (name, repo that it reads, script)."""
        specs = [
            {
                "pipeline": {"name": name},
                "transform": {"cmd": ["sh", "-c", script]},
                "input": {"pfs": {"repo": repo, "glob": "/*"}},
                "code": [],
                "datum_tries": 1,
                **more,
            }
            for name, repo, script in pipelines
        ]
        (self.root / "specs").mkdir(exist_ok=True)
        (self.root / "specs" / "all.json").write_text(json.dumps(specs))
        self("gitpipe update-pipeline --create -f specs/all.json")

    def ref(self, branch: str) -> str:
        path = self.root / ".git" / "refs" / "heads" / branch
        return path.read_text().strip() if path.exists() else ""

    def until(self, true: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Wait for something that happens by itself."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"{what} did not happen: {self('gitpipe status')}"
            time.sleep(0.02)

    def jobs(self, *states: str) -> list[dict[str, object]]:
        rows = [json.loads(line) for line in self("gitpipe list-job --raw").splitlines()]
        return [row for row in rows if not states or row["state"] in states]

    def at_work(self, pipeline: str) -> bool:
        """Whether a job of the pipeline is running; read from the journal itself, as a command may take a second."""
        with contextlib.closing(sqlite3.connect(self.root / ".git/gitpipe/journal.sqlite")) as journal:
            found = journal.execute("SELECT 1 FROM jobs WHERE state = 'running' AND pipeline = ?", (pipeline,))
            return found.fetchone() is not None

    def count(self, branch: str) -> int:
        return int(self(f"git rev-list --count {branch} --"))

    def closures(self, branch: str) -> list[str]:
        """The `a` of each output commit's closure, oldest first."""
        out = self(f"git log --reverse --format='%(trailers:key=Provenance,valueonly)' {branch} --")
        return [line[2:] for line in out.splitlines() if line.startswith("a@")]


@pytest.fixture
def stage(scratch: Path, sh: Shell) -> Stage:
    return Stage(scratch, sh)


def test_git_commit_brings_results_and_nothing_else_is_typed(stage: Stage) -> None:
    """I6, I9: the hook prints nothing and returns at once; index, working trees and branches stay what they were."""
    stage.specs(("p", "a", COPY), ("q", "p", "sleep 0.3; " + COPY))
    stage("git worktree add -q ../a a")
    stage("echo half > staged && git add staged && echo done >> staged && echo new > untracked")
    before = stage("git status --porcelain=v2 --branch && git rev-parse HEAD")
    began = time.monotonic()
    # Captured: whoever holds its pipe would keep it from returning.
    said = stage("cd ../a && echo 1 > data/x && gitpipe add data && git commit -qm one", stderr=True)
    assert "hook" not in said and time.monotonic() - began < 20
    assert not stage.ref("q")
    stage.until(lambda: stage.ref("q"), "a result")
    assert stage("gitpipe get-file q x") == "1"
    assert stage("git status --porcelain=v2 --branch && git rev-parse HEAD") == before
    assert stage("git -C ../a status --porcelain") == ""

    # A commit while the runner lingers; amend and revert; each brings its own.
    stage("cd ../a && echo 2 > data/x && gitpipe add data && git commit -qm two && gitpipe wait")
    stage("cd ../a && echo 3 > data/x && gitpipe add data && git commit -q --amend -m three && gitpipe wait")
    assert stage("gitpipe get-file q x") == "3"
    stage("cd ../a && git revert --no-edit HEAD && gitpipe wait")
    assert stage("gitpipe get-file q x") == "1"
    assert stage("cat ../a/data/x") == "1"
    assert stage("git fsck --strict --no-dangling") == ""


def test_without_nudge_hook_or_runner(stage: Stage) -> None:
    """I9: a nudge that is missed costs time, never a result; `gitpipe run` needs no hook and no runner."""
    stage.specs(("p", "a", COPY))
    stage("git worktree add -q ../a a && echo 1 > ../a/data/x && cd ../a && gitpipe add data && git commit -qm 1")
    stage("gitpipe wait && gitpipe runner stop")
    one = stage.ref("p")
    stage("cd ../a && echo 2 > data/x && gitpipe add data && GITPIPE=0 git commit -qm 2")
    assert stage("gitpipe runner status") == "not running"
    assert list((stage.root / ".git/gitpipe/nudge").iterdir()) == []
    assert "a changed since the last run" in stage("gitpipe status", status=3)
    stage("gitpipe hooks uninstall && cd ../a && echo 3 > data/x && gitpipe add data && git commit -qm 3")
    assert stage("gitpipe runner status") == "not running" and stage.ref("p") == one
    stage("gitpipe run")
    assert stage.closures("p") == stage("git rev-list --reverse a --").splitlines()[1:]
    # a ref that moved without any hook
    stage("git update-ref refs/heads/a a~2")
    stage("gitpipe run")
    assert stage("gitpipe get-file p x") == "1" and stage.count("p") == 4
    assert stage("gitpipe runner status") == "not running"

    stage("gitpipe hooks install && rm -rf .git/gitpipe && echo in the way > .git/gitpipe")
    stage("cd ../a && git reset -q --hard && git commit -q --allow-empty -m still")
    stage("rm .git/gitpipe")
    assert "p" in stage("gitpipe list-pipeline")


def test_exit_codes_and_what_is_said_of_a_failure(stage: Stage) -> None:
    """I5: `git commit` succeeds, `wait` and `run` end with 3, `status`, `list-job` and `logs` tell why."""
    stage.specs(("p", "a", "cat /pfs/a/*; [ -e /pfs/a/good ] && cp /pfs/a/good /pfs/out"), ("q", "p", COPY))
    stage("echo 1 > good && gitpipe put-file a -f good && gitpipe wait")
    stage("echo why > bad && gitpipe put-file a -f bad")
    said = stage("gitpipe wait", status=3, stderr=True)
    assert "p: datum" in said and "why" in said
    assert "p failed" in stage("gitpipe list-job --raw")
    assert "unrunnable" in stage("gitpipe list-job") and "why" in stage("gitpipe logs --pipeline p")
    assert "why" in stage("gitpipe status", status=3)
    stage("gitpipe run", status=3)
    stage("gitpipe run-pipeline p && gitpipe wait", status=3)
    assert stage.count("p") == stage.count("q") == 1
    stage("gitpipe delete-file a bad && gitpipe wait")
    assert stage.count("p") == stage.count("q") == 2
    assert "Failed:" not in stage("gitpipe status")


def test_many_at_once_make_one_commit_a_job(stage: Stage) -> None:
    """I2: runs, waits and nudges side by side, and again, end with one output commit per job id."""
    stage("GITPIPE=0; export GITPIPE; echo 1 > x && gitpipe put-file a -f x")
    stage.specs(("p", "a", "sleep 0.1; " + COPY), ("q", "p", COPY))
    for n in (2, 3):
        stage(f"echo {n} > x && GITPIPE=0 gitpipe put-file a -f x")
        each = "gitpipe run & gitpipe wait & sh .git/hooks/post-commit & sh .git/hooks/post-commit & gitpipe run & wait"
        stage(each)
    stage("gitpipe wait && gitpipe run")
    for name in "pq":
        ids = stage(f"git log --format='%(trailers:key=Job,valueonly,separator=)' {name} --").split()
        assert len(ids) == len(set(ids)) == stage.count(name) == len(set(stage.closures(name)))
        assert stage.closures(name)[-2:] == stage("git rev-list --reverse a -- ").splitlines()[-2:]
    assert stage.jobs("failed", "running", "queued") == []


def test_local_state_deleted_under_a_live_runner(stage: Stage) -> None:
    """I1: nothing is lost, no second runner, no second output commit; the backlog is found."""
    stage.specs(("p", "a", "[ $(cat /pfs/a/x) != 2 ] || sleep 3; " + COPY), ("q", "p", COPY))
    stage("echo 1 > x && gitpipe put-file a -f x && gitpipe wait && echo 2 > x && gitpipe put-file a -f x")
    stage.until(lambda: stage.at_work("p"), "a running job")
    runner = stage("gitpipe runner status")
    # The runner goes on writing there, so that a folder may not be empty the moment that it is removed.
    stage("until rm -rf .git/gitpipe; do sleep 0.05; done && echo 3 > x && gitpipe put-file a -f x")
    stage("gitpipe wait")
    assert stage("gitpipe runner status") == runner
    assert stage.closures("p") == stage("git rev-list --reverse a -- ").splitlines()[1:]
    assert stage.closures("q") == stage.closures("p")
    assert stage.jobs("failed", "running", "queued", "unrunnable") == []
    assert stage("gitpipe get-file q x") == "3"


def test_a_deleted_pipeline_stays_deleted_and_others_do_not_wait(stage: Stage) -> None:
    """A first job that is still at work does not bring its branch back; unrelated pipelines never wait."""
    stage("gitpipe create-repo b")
    stage.specs(("slow", "a", "sleep 60"), ("quick", "b", COPY))
    stage("echo 1 > x && gitpipe put-file a -f x && gitpipe put-file b -f x")
    stage.until(lambda: stage.ref("quick"), "the quick result")
    assert [job["pipeline"] for job in stage.jobs("running")] == ["slow"]
    stage("gitpipe runner stop")
    stage.specs(("slow", "a", "sleep 3; " + COPY))
    stage.until(lambda: stage.at_work("slow"), "the slow job")
    stage("gitpipe delete-pipeline slow && gitpipe wait")
    stage("echo 2 > x && gitpipe put-file a -f x && gitpipe wait && gitpipe run")
    assert stage.ref("slow") == ""
    assert stage.jobs("failed", "running", "queued") == []
    assert "slow" not in stage("gitpipe list-pipeline")


def test_an_output_branch_that_is_checked_out(stage: Stage) -> None:
    """I6: a working tree moves along, with what is changed in it unless that is in the way: then status says so."""
    stage.specs(("p", "a", COPY))
    stage("echo 1 > x && gitpipe put-file a -f x && gitpipe wait && git worktree add -q ../p p")
    assert stage("cat ../p/data/x") == "1"
    stage("echo 2 > x && gitpipe put-file a -f x && gitpipe wait")
    assert stage("cat ../p/data/x") == "2"
    assert stage("git -C ../p status --porcelain") == ""
    stage("echo mine >> ../p/.dvcignore && git -C ../p add -A")
    stage("echo 3 > x && gitpipe put-file a -f x && gitpipe wait")
    assert stage("git -C ../p diff --cached --name-only") == ".dvcignore"
    assert stage("cat ../p/data/x") == "3"
    stage("echo 'desc: mine' >> ../p/data.dvc")
    stage("echo 4 > x && gitpipe put-file a -f x && gitpipe wait")
    assert stage("gitpipe get-file p x") == "4"
    assert stage("tail -1 ../p/data.dvc") == "desc: mine" and stage("cat ../p/data/x") == "3"
    assert "../p is behind" in stage("gitpipe status").replace(str(stage.root.parent), "..")
    stage("git -C ../p commit -qam oops", status=1)
    stage("git -C ../p checkout -q HEAD -- data.dvc && git -C ../p switch -q p")
    assert stage("cat ../p/data/x") == "4"
    assert stage("git -C ../p diff --cached --name-only") == ".dvcignore"


@pytest.mark.xdist_group("ray")
def test_ten_slots_on_ray(stage: Stage) -> None:
    """`"constant": "10"` gives ten worker slots; embedded Ray wants a token, which no stage sees."""
    stage("git config gitpipe.engine ray")
    stage.specs(("p", "a", "env > /pfs/out/$(basename $a)"), parallelism_spec={"constant": "10"})
    stage("mkdir d && for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $n > d/$n; done; gitpipe put-file a -r -f d/..")
    stage("gitpipe wait", timeout=180)
    rows = [json.loads(line) for line in stage("gitpipe list-worker --raw").splitlines()]
    assert sorted(row["slot"] for row in rows) == list(range(10))
    assert {(row["engine"], row["state"]) for row in rows} == {("ray", "idle")}
    seen = stage("gitpipe get-file p -r / -o out && cat out/*")
    assert "TOKEN" not in seen and "RAY_AUTH" not in seen and "GIT_DIR" not in seen
    # What varies from run to run is a note, which moved together with the branch.
    assert '"engine": "ray"' in stage("git notes --ref gitpipe show p")
    end_runner(stage.root)


@pytest.mark.xdist_group("ray")
def test_a_ray_cluster_that_runs_already(stage: Stage, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gitpipe.rayAddress`: workers live on a cluster that somebody else started, and it lives on after us."""
    port = 20000 + stage.root.stat().st_ino % 20000
    ray = f"ray start --head --port {port} --num-cpus 2 --include-dashboard=false --disable-usage-stats"
    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    stage(f"git config gitpipe.engine ray && git config gitpipe.rayAddress 127.0.0.1:{port}")
    stage.specs(("p", "a", COPY), parallelism_spec={"constant": 2})
    started = stage(f"{ray} --block >../ray.log 2>&1 & echo $!")
    try:
        stage.until(lambda: stage(f"ray status --address 127.0.0.1:{port} >/dev/null 2>&1; echo $?") == "0", "Ray", 90)
        stage("echo 1 > x && echo 2 > y && gitpipe put-file a -f x -f y && gitpipe wait", timeout=180)
        assert {json.loads(r)["engine"] for r in stage("gitpipe list-worker --raw").splitlines()} == {"ray"}
        assert stage("gitpipe get-file p y") == "2"
        end_runner(stage.root)
        stage(f"ray status --address 127.0.0.1:{port}")
    finally:
        end_runner(stage.root)
        stage(f"kill -TERM {started}; for i in $(seq 100); do kill -0 {started} 2>/dev/null || break; sleep 0.1; done")
