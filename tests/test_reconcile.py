"""Refs in, commit sets out: which jobs there are, in which order, and that refs and trailers alone decide it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gitpipe.journal import Cursor, JobState
from gitpipe.pipelines import PipelineStore
from gitpipe.views import JobInfo
from tests.lab import Lab


def test_a_backlog_gets_one_output_commit_each_in_order(lab: Lab) -> None:
    """I9: each first-parent commit that changed the data makes a job, whoever noticed it and when."""
    lab.data("a", {"x": "0"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    shas = [lab.data("a", {"x": str(n)}) for n in (1, 2, 3)]
    lab.run()
    made = lab.made("p")
    assert [m.sources["a"] for m in made[1:]] == shas
    assert lab.files("p") == {"x": "3"}
    assert lab.run() == []  # I2: nothing left, nothing done twice
    assert lab.made("p") == made


def test_backlogs_of_several_branches_are_merged_by_date_then_name(lab: Lab) -> None:
    """Every machine replays the same order: running maximum of the date along each branch, then the branch's name."""
    lab.data("a", {"a": "0"}, when=0)
    lab.data("b", {"b": "0"}, when=0)
    lab.pipeline("p", {"a": "/", "b": "/"})
    lab.run()
    a1 = lab.data("a", {"a": "1"}, when=300)
    a2 = lab.data("a", {"a": "2"}, when=100)  # a clock that went backwards: counts as 300
    b1 = lab.data("b", {"b": "1"}, when=200)
    b2 = lab.data("b", {"b": "2"}, when=300)
    lab.run()
    steps = [(m.sources["a"], m.sources["b"]) for m in lab.made("p")[1:]]
    assert steps == [(steps[0][0], b1), (a1, b1), (a2, b1), (a2, b2)]


def test_after_amend_or_reset_only_the_head_counts(lab: Lab) -> None:
    first = lab.data("a", {"x": "0"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    lab.data("a", {"x": "1"})
    lab.data("a", {"x": "2"})
    lab.run()
    n = len(lab.made("p"))
    lab.data("a", {"x": "3"}, parent=first)
    amended = lab.data("a", {"x": "4"})
    amended = lab.data("a", {"x": "5"}, parent=lab.head("a"))
    lab.run()
    assert [m.sources["a"] for m in lab.made("p")[n:]] == [amended]
    # reset to the very first: a new output commit with the old result, all skipped
    lab.git("update-ref", "refs/heads/a", first)
    assert lab.ran() == ["p: 0 + 1 / 1 success"]
    assert lab.files("p") == {"x": "0"}
    assert lab.made("p")[-1].sources["a"] == first


def test_a_commit_that_changes_no_data_makes_no_job_and_no_contradiction(lab: Lab) -> None:
    """I3: a README on a data branch is not data; what reads that branch directly and through another still agrees."""
    a1 = lab.data("a", {"x": "1"})
    lab.data("b", {"y": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.pipeline("q", {"a": "/", "p": "/", "b": "/"}, "cat /pfs/a/x /pfs/p/x /pfs/b/y > /pfs/out/all")
    lab.run()
    lab.data("a", None, extra={"README": "about a"})
    assert lab.run() == []
    lab.data("b", {"y": "2"})
    assert lab.ran() == ["q: 1 + 0 / 1 success"]
    assert lab.made("q")[-1].sources["a"] == a1
    lab.pipeline("q", {"a": "/", "p": "/", "b": "/"}, "cat /pfs/b/y /pfs/p/x /pfs/a/x > /pfs/out/all")
    assert lab.ran() == ["q: 1 + 0 / 1 success"]
    assert lab.made("q")[-1].sources["a"] == a1


def test_an_amended_message_is_another_provenance(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    first = lab.data("a", {"x": "2"})
    lab.data("b", {"y": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.pipeline("q", {"a": "/", "p": "/", "b": "/"}, "cat /pfs/a/x /pfs/p/x /pfs/b/y > /pfs/out/all")
    lab.run()
    amended = lab.data("a", {"x": "2"}, parent=lab.commits("a")[0].sha)
    assert amended != first
    assert lab.ran() == ["p: 0 + 1 / 1 success", "q: 0 + 1 / 1 success"]
    lab.data("b", {"y": "2"})
    assert lab.ran() == ["q: 1 + 0 / 1 success"]
    assert lab.made("q")[-1].sources["a"] == amended


def test_without_local_state_nothing_is_done_again(lab: Lab) -> None:
    """I1: refs and trailers alone tell what is stale: here nothing is but what failed."""
    lab.data("a", {"x": "1", "y": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.pipeline("q", {"p": "/"})
    lab.pipeline("bad", {"p": "/*"}, "[ $(cat /pfs/p/*) -lt 2 ] && cp /pfs/p/* /pfs/out")
    lab.run()
    lab.data("a", {"x": "1", "y": "2"})
    lab.data("a", None, extra={"README": "about a"})
    lab.run()
    heads = lab.git("for-each-ref", "refs/heads", "refs/gitpipe")
    lab.forget()
    jobs = lab.run()
    assert [(j.pipeline, j.state) for j in jobs if j.state != "success"] == [("bad", "failed")]
    assert not [j for j in jobs if j.processed and j.pipeline != "bad" and j.output != lab.head(j.pipeline)]
    assert lab.git("for-each-ref", "refs/heads", "refs/gitpipe") == heads


def test_a_backlog_is_the_same_with_and_without_local_state(lab: Lab, tmp_path: Path) -> None:
    """I1, I4: the same commits, to the last bit, whether the journal remembers or trailers have to tell."""
    lab.data("a", {"x": "1"})
    lab.data("b", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.pipeline("q", {"p": "/", "b": "/"}, "cat /pfs/p/x /pfs/b/x > /pfs/out/x")
    lab.pipeline("r", {"b": "/*"})
    lab.run()
    lab.data("a", {"x": "2"})
    lab.run()
    for n in (3, 4):
        lab.data("a", {"x": str(n)})
        lab.data("b", {"x": str(n)})
    shutil.copytree(lab.root, tmp_path / "copy", symlinks=True)
    copy = Lab(tmp_path / "copy")
    copy.forget()
    lab.run()
    copy.run()
    assert len(lab.made("q")) == 6
    refs = ("for-each-ref", "refs/heads", "refs/gitpipe")
    assert copy.git(*refs) == lab.git(*refs)


def test_an_output_branch_that_was_moved_away_is_made_again(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.pipeline("q", {"p": "/*"})
    lab.run()
    lab.data("a", {"x": "2"})
    lab.run()
    before = {n: lab.made(n) for n in "pq"}
    lab.git("branch", "-q", "-f", "p", before["p"][0].sha)
    lab.git("branch", "-q", "-D", "q")
    lab.run()
    assert lab.files("p") == lab.files("q") == {"x": "2"}
    # the same job again, and so the same commit (I4)
    assert lab.made("p") == before["p"]
    assert lab.made("q")[-1].sources["a"] == lab.head("a")
    assert lab.run() == []


def test_a_job_that_ends_while_refs_are_looked_at_has_not_moved_its_branch(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I2: refs are read before the journal; a job that ends in between was taken for a branch that somebody moved."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"})
    looking = lab.project
    looking.reconciler.plan()
    follow = PipelineStore.follow
    ran: list[JobInfo] = []

    def slowly(store: PipelineStore, seen: Mapping[str, str], heads: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        if store is looking.reconciler.pipelines:  # it has read the refs by now
            ran.extend(lab.run())
        return follow(store, seen, heads)

    monkeypatch.setattr(PipelineStore, "follow", slowly)
    looking.reconciler.plan()
    assert [(job.pipeline, job.state, job.output) for job in ran] == [("p", "success", lab.head("p"))]
    assert looking.journal.unfinished() == []


def test_every_commit_of_a_diamond_stands_on_one_commit_of_its_source(lab: Lab) -> None:
    """I3: with one branch of the diamond slow, and several commits in a row."""
    shas = [lab.data("a", {"x": "0"})]
    lab.pipeline("b", {"a": "/*"}, "sleep 0.2; cp /pfs/a/x /pfs/out")
    lab.pipeline("c", {"a": "/*"})
    lab.pipeline("d", {"b": "/", "c": "/"}, "cat /pfs/b/x /pfs/c/x > /pfs/out/x")
    lab.run()
    shas += [lab.data("a", {"x": str(n)}) for n in range(1, 4)]
    lab.run()
    for name in "bcd":
        assert [m.sources["a"] for m in lab.made(name)][-3:] == shas[-3:]
    for made in lab.made("d"):
        assert len({ref.branch for ref in made.origin.provenance}) == len(made.origin.provenance) == 3
    assert lab.files("d") == {"x": "33"}
    assert [len(lab.made(n)) for n in "bcd"] == [len(lab.made("b"))] * 3


FAILS_ON_BAD = "if grep -q bad /pfs/a/x; then exit 1; fi; cp /pfs/a/x /pfs/out/x"


def test_back_on_good_data_nothing_counts_as_failing(lab: Lab) -> None:
    """After a reset to the commit before the bad one, its output stands already; the failure is history."""
    good = lab.data("a", {"x": "good"})
    lab.pipeline("p", {"a": "/"}, FAILS_ON_BAD)
    lab.run()
    lab.data("a", {"x": "bad"})
    lab.run()
    lab.git("update-ref", "refs/heads/a", good)
    lab.run()
    assert lab.project.jobs.failures() == []
    assert lab.project.pipelines.list()[0].state == "running"
    assert lab.run() == []
    assert len(lab.made("p")) == 1


def test_what_failed_upstream_is_not_replaced_by_an_older_output(lab: Lab) -> None:
    """I5: as long as p has no output for the newest `a`, what reads p is unrunnable, whatever else it reads."""
    lab.data("a", {"x": "good"})
    lab.data("b", {"y": "1"})
    lab.pipeline("p", {"a": "/"}, FAILS_ON_BAD)
    lab.pipeline("q", {"p": "/", "b": "/"})
    lab.run()
    lab.data("a", {"x": "bad"})
    lab.run()
    lab.data("b", {"y": "2"})
    assert "q: unrunnable p failed" in lab.ran()
    assert len(lab.made("q")) == 1
    lab.data("a", {"x": "fine"})
    lab.run()
    assert lab.files("q") == {"x": "fine", "y": "2"}


def test_a_job_left_from_a_run_that_failed_is_no_failure_of_the_next(lab: Lab, tmp_path: Path) -> None:
    """I5: killed between the failure and what it means for the job below; the retry makes both good."""
    lab.git("config", "gitpipe.sandbox", "none")
    mended = tmp_path / "mended"
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/*"}, f"[ -e {mended} ] && cp /pfs/a/x /pfs/out")
    lab.pipeline("q", {"p": "/*"})
    assert [(job.pipeline, job.state) for job in lab.run()] == [("p", "failed"), ("q", "unrunnable")]
    journal = lab.project.journal
    (left,) = journal.jobs("pipeline = 'q'")
    journal.update_job(left.seq, state=JobState.QUEUED, finished=None, reason="")
    mended.touch()
    assert [(job.pipeline, job.state) for job in lab.run()] == [("p", "success"), ("q", "success")]
    assert lab.files("q") == {"x": "1"}


def test_the_output_of_a_stopped_pipeline_is_read_on_without_local_state(lab: Lab) -> None:
    """I1: what reads a pipeline that may not run here goes on with what that has made."""
    a = lab.data("a", {"x": "1"})
    lab.data("b", {"y": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.pipeline("q", {"p": "/", "b": "/"})
    lab.run()
    lab.project.pipelines.stop("p")
    lab.forget()
    lab.data("b", {"y": "2"})
    lab.run()
    assert len(lab.made("q")) == 2
    assert lab.made("q")[-1].sources == {"a": a, "b": lab.head("b"), "p": lab.head("p")}


def test_a_diamond_with_a_stopped_side_waits_for_it(lab: Lab) -> None:
    """I3: no join of both sides of different age; the start of the pipeline catches up."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.pipeline("c", {"a": "/"})
    lab.pipeline("d", {"p": "/", "c": "/"}, "cat /pfs/p/x /pfs/c/x >/pfs/out/x")
    lab.run()
    lab.project.pipelines.stop("p")
    lab.data("a", {"x": "2"})
    lab.run()
    assert lab.files("d") == {"x": "11"}
    project = lab.project
    assert project.jobs.failures() == [] and project.status().well
    assert [line.split(",")[0] for line in project.status().waiting] == ["d for p"]
    lab.project.pipelines.start("p")
    lab.run()
    assert lab.files("d") == {"x": "22"}
    assert lab.project.jobs.failures() == []


def test_a_kill_while_a_backlog_is_queued_does_not_queue_it_twice(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """I2: the sets and what they stand for are written together."""
    lab.data("a", {"x": "0"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    shas = [lab.data("a", {"x": str(n)}) for n in (1, 2, 3)]
    project = lab.project

    def killed(_: Cursor) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(project.journal, "set_cursor", killed)
    with pytest.raises(KeyboardInterrupt):
        project.reconciler.plan()
    lab.run()
    assert [m.sources["a"] for m in lab.made("p")[1:]] == shas


def test_an_output_branch_that_cannot_be_made_again_is_tried_once(lab: Lab) -> None:
    """The runner looks every few seconds: a job that fails there must not be queued by each look."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"}, "cp /pfs/a/x /pfs/out/x && echo more >>/pfs/out/x")
    lab.run()
    lab.git("update-ref", "-d", "refs/heads/p")
    shutil.rmtree(lab.project.blobs.files)
    (failed,) = lab.run()
    assert failed.state == "failed"
    project = lab.project
    newest = project.journal.newest_set()
    assert project.reconciler.plan() == newest
    assert project.journal.unfinished() == []


def test_after_gc_of_an_abandoned_output_commit_the_pipeline_goes_on(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    lab.data("a", {"x": "2"})
    lab.run()
    lab.git("update-ref", "refs/heads/p", lab.made("p")[0].sha)
    lab.prune()
    lab.data("a", {"x": "3"})
    lab.run()
    assert lab.files("p") == {"x": "3"}


def test_sources_at_different_places_are_found_again_from_trailers(lab: Lab) -> None:
    """I1: one pipeline failed at the newest `a`, others went on; nothing is done twice and nothing is left out."""
    lab.data("a", {"x": "1"})
    lab.data("b", {"y": "1"})
    lab.pipeline("p", {"a": "/"}, FAILS_ON_BAD)
    lab.pipeline("q", {"a": "/", "b": "/"})
    lab.pipeline("r", {"p": "/", "b": "/"})
    lab.run()
    lab.data("a", {"x": "bad"})
    for n in (2, 3):
        lab.data("b", {"y": str(n)})
    lab.run()
    before = {name: lab.made(name) for name in "pqr"}
    lab.forget()
    lab.run()
    assert {name: lab.made(name) for name in "pqr"} == before
    lab.data("a", {"x": "fine"})
    lab.run()
    assert lab.files("r") == {"x": "fine", "y": "3"}
    assert [len(lab.made(name)) - len(before[name]) for name in "pqr"] == [1, 1, 1]
