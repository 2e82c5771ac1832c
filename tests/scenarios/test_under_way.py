"""What people do to pipelines, jobs and repos while jobs run or wait: the table of docs/control.md.

`p` reads `a` and `q` reads `p`.  Of `p`'s datums the one named ``slow`` hangs, with a child in a session of its own,
until a file is there that lets all go.  A runner is at work in one thread, somebody waits in another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from gitpipe import cli
from gitpipe.cli.jobs import check
from gitpipe.errors import GitpipeError, JobFailed, NotFound, Refused
from gitpipe.views import JobInfo
from tests.lab import Lab
from tests.test_control import PATIENCE, until
from tests.test_datumviews import sleeping

GATE = """case "$(ls /pfs/a)" in slow)
echo x >> BEGUN; setsid sleep NAP & until [ -e GO ]; do sleep 0.05; done; kill $!;; esac
cp /pfs/a/* /pfs/out"""
TWO = {"quick": "quick", "slow": "slow"}
THREE = {**TWO, "third": "third"}


class Desk:
    """A repository where the first job of `p` hangs, with a queued one of `q` below it."""

    def __init__(self, lab: Lab, nap: str) -> None:
        self.lab, self.nap = lab, nap
        self.begun, self.go = lab.root / ".git" / "begun", lab.root / ".git" / "go"
        lab.git("config", "gitpipe.sandbox", "none")
        lab.data("a", TWO)
        self.p()
        lab.pipeline("q", {"p": "/*"})
        self.runner()
        self.hangs(1)

    def p(self, script: str = "", **fields: object) -> None:
        """Create or update `p`."""
        gate = GATE.replace("BEGUN", str(self.begun)).replace("GO", str(self.go)).replace("NAP", self.nap)
        self.lab.pipeline("p", {"a": "/*"}, script or gate, parallelism_spec={"constant": 2}, **fields)

    def runner(self) -> None:
        """`gitpipe run` until nothing is left."""
        self._worker = threading.Thread(target=lambda: self.lab.project.run(), daemon=True)
        self._worker.start()

    def hangs(self, times: int) -> None:
        """Wait until the slow datum was begun so often, its child is there and the quick one is known as done."""
        until(lambda: self.begun.exists() and len(self.begun.read_text().splitlines()) >= times and sleeping(self.nap))
        jobs = self.lab.project.journal
        until(lambda: jobs.jobs("pipeline = 'p' AND state = 'running' AND processed + skipped > 0"))

    def ended(self) -> None:
        """Wait until nothing of the slow datum is left."""
        until(lambda: not sleeping(self.nap))

    def jobs(self) -> list[str]:
        """As `list-job` shows them, the oldest first."""
        found = self.lab.project.jobs.list()[::-1]
        return [f"{job.pipeline}: {job.processed} + {job.skipped} / {job.total} {job.state}" for job in found]

    @contextlib.contextmanager
    def waiting(self, failure: str = "") -> Iterator[None]:
        """`gitpipe wait` in another terminal meanwhile, which ends with status 0, or with 3 and says so."""
        ended: list[list[JobInfo] | GitpipeError] = []

        def wait() -> None:
            try:
                ended.append(self.lab.project.wait(timeout=PATIENCE))
            except GitpipeError as error:
                ended.append(error)

        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        until(lambda: any((self.lab.root / ".git/gitpipe/nudge").glob("wait-*")))
        yield
        waiter.join(PATIENCE)
        self._worker.join(PATIENCE)
        (jobs,) = ended
        assert isinstance(jobs, list), jobs
        if failure:
            with pytest.raises(JobFailed, match=failure):
                check(jobs)
        else:
            check(jobs)

    def settled(self) -> None:
        """Nothing is left to do, and no lock or process."""
        self._worker.join(PATIENCE)
        assert self.lab.run() == []
        assert not list((self.lab.root / ".git").rglob("*.lock")) and not sleeping(self.nap)


@pytest.fixture
def desk(lab: Lab, request: pytest.FixtureRequest) -> Desk:
    return Desk(lab, str(100_000 + sum(n * ord(char) for n, char in enumerate(request.node.name))))


def refused(what: Callable[[], object], match: str) -> None:
    with pytest.raises(Refused, match=match) as caught:
        what()
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- update-pipeline


def test_an_update_ends_the_job_of_the_old_version(desk: Desk) -> None:
    """Its processes end at once, what was finished and is the same work is kept, who waits waits for the new job."""
    desk.lab.data("a", THREE)  # one more set, queued
    with desk.waiting():
        desk.p(job_timeout="300s")  # another version, the same work
        desk.hangs(2)
        desk.go.touch()
    assert desk.jobs() == ["p: 2 + 1 / 3 success", "q: 3 + 0 / 3 success"], "no trace of the jobs of the old version"
    assert desk.lab.files("q") == THREE
    desk.settled()


def test_an_update_to_other_code_publishes_nothing_of_the_old_one(desk: Desk) -> None:
    with desk.waiting():
        desk.p("echo new > /pfs/out/$(ls /pfs/a)")
        desk.ended()
    assert desk.jobs() == ["p: 2 + 0 / 2 success", "q: 2 + 0 / 2 success"]
    assert desk.lab.files("q") == {"quick": "new\n", "slow": "new\n"} and len(desk.lab.made("p")) == 1
    desk.settled()


def test_an_update_that_changes_nothing_disturbs_nothing(desk: Desk) -> None:
    with desk.waiting():
        assert desk.lab.project.pipelines.update([str(desk.lab.root / "specs/p.json")]) == ["p: unchanged"]
        desk.go.touch()
    assert desk.begun.read_text() == "x\n" and desk.jobs() == ["p: 2 + 0 / 2 success", "q: 2 + 0 / 2 success"]
    desk.settled()


def test_reprocess_ends_the_job_and_runs_all_again(desk: Desk) -> None:
    with desk.waiting():
        assert desk.lab.project.pipelines.update([str(desk.lab.root / "specs/p.json")], reprocess=True)
        desk.hangs(2)
        desk.go.touch()
    assert desk.jobs() == ["p: 2 + 0 / 2 success", "q: 2 + 0 / 2 success"]
    desk.settled()


def test_an_update_of_what_waits_below(desk: Desk) -> None:
    """`q`, whose upstream runs: that goes on, and the new version runs on its result."""
    with desk.waiting():
        desk.lab.pipeline("q", {"p": "/*"}, "echo new > /pfs/out/$(ls /pfs/p)")
        desk.go.touch()
    assert desk.begun.read_text() == "x\n"
    assert desk.jobs() == ["p: 2 + 0 / 2 success", "q: 2 + 0 / 2 success"]
    desk.settled()


# ---------------------------------------------------------------- delete-pipeline


def test_a_deleted_pipeline_ends_with_its_processes(desk: Desk) -> None:
    """Refused while another reads it; with -f that one is left without input."""
    refused(lambda: desk.lab.project.pipelines.delete("p"), "p is read by pipeline q: delete that first, or use -f")
    assert sleeping(desk.nap)
    with desk.waiting():
        assert desk.lab.project.pipelines.delete("p", force=True) == ["p: deleted"]
        desk.ended()
    assert desk.jobs() == [] and not desk.lab.head("p") and not desk.lab.head("q")
    with pytest.raises(NotFound, match="pipeline p does not exist"):
        desk.lab.project.jobs.list("p")
    desk.settled()


def test_what_waits_below_is_deleted(desk: Desk) -> None:
    with desk.waiting():
        assert desk.lab.project.pipelines.delete("q") == ["q: deleted"]
        desk.go.touch()
    assert desk.jobs() == ["p: 2 + 0 / 2 success"] and not desk.lab.head("q")
    desk.settled()


@pytest.mark.parametrize("looked", [False, True])
def test_made_again_right_after_it_was_deleted(desk: Desk, looked: bool) -> None:
    """To the byte the same, be it before any runner has looked: it runs; who was stopped is not stopped any more."""
    desk.lab.project.pipelines.stop("p")
    desk.go.touch()
    with desk.waiting():
        pass
    first = desk.lab.head("p")
    desk.lab.project.pipelines.delete("p", force=True)
    if looked:
        desk.lab.run()
    desk.p()
    assert not desk.lab.head("p")
    desk.lab.run()
    assert desk.lab.head("p") == first, "I4"
    desk.settled()


def test_made_again_while_its_job_is_still_at_work(desk: Desk) -> None:
    with desk.waiting():
        desk.lab.project.pipelines.delete("p", force=True)
        desk.p(job_timeout="300s")
        desk.hangs(2)
        desk.go.touch()
    assert desk.lab.files("q") == TWO and len(desk.lab.made("p")) == 1
    desk.settled()


def test_a_pipeline_deleted_without_its_repo(desk: Desk) -> None:
    """What was published stays, with a provenance that resolves (I8); the running job adds nothing to it."""
    lab = desk.lab
    desk.go.touch()
    with desk.waiting():
        pass
    head = lab.head("p")
    desk.go.unlink()
    lab.data("a", {**TWO, "slow": "other"})
    desk.runner()
    desk.hangs(2)
    with desk.waiting():
        assert lab.project.pipelines.delete("p", force=True, keep_repo=True) == ["p: deleted (its repo is kept)"]
        desk.ended()
    assert lab.head("p") == head and lab.files("p") == TWO
    lab.prune()
    (made,) = lab.made("p")
    assert lab.git("cat-file", "-t", made.sources["a"]) == "commit"
    assert "p" in lab.project.data.names()
    refused(desk.p, "pipeline p would write to branch p, which exists and is not its own")
    lab.project.pipelines.delete("q")
    lab.project.data.delete_repo("p")
    desk.go.touch()
    desk.p()
    lab.run()
    assert lab.files("p") == {**TWO, "slow": "other"}
    desk.settled()


# ---------------------------------------------------------------- stop-pipeline, start-pipeline


def test_a_stopped_pipeline_ends_what_it_is_at(desk: Desk) -> None:
    """What is queued does not run, `wait` does not wait for it, and a start catches up; twice is harmless."""
    desk.lab.data("a", THREE)
    with desk.waiting():
        desk.lab.project.pipelines.stop("p")
        desk.lab.project.pipelines.stop("p")
        desk.go.touch()
    assert desk.jobs() == ["p: 2 + 0 / 2 success", "q: 2 + 0 / 2 success"]
    refused(lambda: desk.lab.project.pipelines.run("p"), "p is stopped")
    desk.lab.project.pipelines.start("p")
    desk.lab.project.pipelines.start("p")
    desk.lab.run()
    assert len(desk.lab.made("q")) == 2
    desk.settled()


# ---------------------------------------------------------------- stop-job


def test_a_stopped_job_is_ended_with_all_its_children(desk: Desk) -> None:
    """It publishes nothing, what waits for it cannot run, the next set goes on, and a retry knows what was done."""
    with desk.waiting("p: stopped by stop-job"):
        desk.lab.project.jobs.stop("p")
        desk.ended()
    assert desk.jobs() == ["p: 1 + 0 / 2 killed", "q: 0 + 0 / 0 unrunnable"] and not desk.lab.head("p")
    refused(lambda: desk.lab.project.jobs.stop("p"), "nothing to stop")
    assert cli.run(["-C", str(desk.lab.root), "status"]) == 3
    desk.go.touch()
    assert desk.lab.project.pipelines.run("p") == ["p: runs again"]
    desk.lab.run()
    assert desk.jobs()[2:] == ["p: 1 + 1 / 2 success", "q: 2 + 0 / 2 success"]
    desk.settled()


def test_a_job_that_waits_is_stopped(desk: Desk) -> None:
    """`q`, whose upstream runs: that goes on, `q` does not run for that set, the next set has both."""
    with desk.waiting("q: stopped by stop-job"):
        desk.lab.project.jobs.stop("q")
        desk.go.touch()
    assert desk.lab.files("p") == TWO and not desk.lab.head("q")
    desk.lab.data("a", THREE)
    desk.lab.run()
    assert desk.lab.files("q") == THREE
    desk.settled()


def test_a_job_that_is_publishing_is_not_stopped_half(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either it is killed and nothing is published, or it is over: what `stop-job` says is true."""
    from gitpipe.repo import Repo

    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    said: list[object] = []
    update = Repo.update_refs

    def stop() -> None:
        try:
            said.append(lab.project.jobs.stop("p").state)
        except Refused as error:
            said.append(str(error))

    def slowly(repo: Repo, updates: list, reason: str, **more: bool) -> bool:  # type: ignore[type-arg]
        if reason.startswith("gitpipe: job "):
            stopper.start()
            done = update(repo, updates, reason, **more)
            stopper.join(1.0)  # it has to wait: nobody is told that a job was stopped whose result is there
            assert said == []
            return done
        return update(repo, updates, reason, **more)

    stopper = threading.Thread(target=stop, daemon=True)
    monkeypatch.setattr(Repo, "update_refs", slowly)
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    stopper.join(PATIENCE)
    assert said and "is over (success): there is nothing to stop" in str(said[0])
    assert lab.head("p") == lab.project.jobs.inspect("p").output


# ---------------------------------------------------------------- run, run-pipeline


def test_run_beside_the_runner_waits_for_it(desk: Desk) -> None:
    assert desk.lab.project.pipelines.run("p") == ["p: a job is running already"]
    assert desk.lab.project.pipelines.run("q") == ["q: a job is queued already"]
    with desk.waiting():
        beside = threading.Thread(target=lambda: desk.lab.project.run(), daemon=True)
        beside.start()
        until(lambda: len(list((desk.lab.root / ".git/gitpipe/nudge").glob("wait-*"))) == 2)
        desk.go.touch()
    beside.join(PATIENCE)
    assert desk.begun.read_text() == "x\n" and desk.jobs() == ["p: 2 + 0 / 2 success", "q: 2 + 0 / 2 success"]
    desk.settled()


def test_a_retry_runs_on_what_the_set_had(lab: Lab) -> None:
    """A commit that came since has a set of its own, after it."""
    lab.git("config", "gitpipe.sandbox", "none")
    mended = lab.root / ".git" / "mended"
    first = lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"}, f"[ -e {mended} ] && cp /pfs/a/x /pfs/out")
    lab.pipeline("q", {"p": "/"})
    assert [job.state for job in lab.run()] == ["failed", "unrunnable"]
    mended.touch()
    second = lab.data("a", {"x": "2"})
    assert lab.project.pipelines.run("p") == ["p: runs again"]
    lab.run()
    assert [made.sources["a"] for made in lab.made("q")] == [first, second]


# ---------------------------------------------------------------- repos, branches, commits


def test_the_repo_that_a_job_reads_is_deleted(desk: Desk) -> None:
    """Refused; with -f what runs comes to its end, and its provenance resolves though the branch is gone (I8)."""
    lab, data, branches = desk.lab, desk.lab.project.data, desk.lab.project.branches
    refused(lambda: data.delete_repo("a"), "a is read by pipeline p: delete that first, or use -f")
    refused(lambda: data.delete_repo("p", force=True), "p is the output of a pipeline: `gitpipe delete-pipeline p`")
    refused(lambda: branches.delete(["p", "master"], force=True), "is the output of a pipeline")
    sha = lab.head("a")
    refused(lambda: data.delete_commit(["a", sha]), "finished already")
    branches.create(["a", "b"])
    for words in (["a", "b"], ["a"], ["a"]):
        data.start_commit(words)
    with desk.waiting():
        branches.delete(["a", "b"])
        data.delete_repo("a", force=True)
        desk.go.touch()
    assert lab.git("for-each-ref", "refs/gitpipe-local") == "", "an open commit goes with its branch"
    lab.prune()
    assert lab.git("cat-file", "-t", sha) == "commit" and lab.made("q")[0].sources["a"] == sha
    assert {p.name: p.state for p in lab.project.pipelines.list()}["p"] == "no input"
    data.create_repo("a")
    lab.data("a", {"third": "third"})
    lab.run()
    assert lab.files("q") == {"third": "third"}
    desk.settled()


def test_the_page_names_tests_that_exist() -> None:
    import re

    from tests.conftest import ROOT

    page = (ROOT / "docs/control.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
