"""`run-pipeline PIPELINE REPO@COMMIT…`: a job on chosen commits, beside the sets, whose result is on no branch."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitpipe import cli
from gitpipe.errors import GitpipeError, NotFound, Refused, UsageError
from tests.lab import Lab, new_lab

COPIES = "cat /pfs/a/x /pfs/m/m > /pfs/out/x"


@pytest.fixture
def shop(lab: Lab) -> Lab:
    """`a` and `m` have two commits each; `p` joins them, `q` reads `p` and `a`."""
    return fill(lab)


def fill(lab: Lab) -> Lab:
    lab.data("a", {"x": "a1 "})
    lab.data("m", {"m": "m1"})
    lab.pipeline("p", {"a": "/*", "m": "/"}, COPIES)
    lab.pipeline("q", {"p": "/*", "a": "/"}, "cat /pfs/p/x /pfs/a/x > /pfs/out/x")
    lab.run()
    lab.data("a", {"x": "a2 "})
    lab.data("m", {"m": "m2"})
    lab.run()
    return lab


def refused(lab: Lab, kind: type[GitpipeError], match: str, name: str, *words: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        lab.project.run_on(name, words)
    assert "\n" not in str(caught.value)


def test_a_run_on_chosen_commits_is_kept_and_disturbs_nothing(shop: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Its commit has no parent and the usual provenance; branches, states and what is below stay as they are (I8)."""
    heads = shop.git("for-each-ref", "refs/heads")
    where = ["-C", str(shop.root)]
    assert cli.run([*where, "run-pipeline", "p", "a@master~1"]) == 0
    assert "p: runs on a@" in capsys.readouterr().out
    assert shop.ran() == ["p: 1 + 0 / 1 success"]
    assert shop.git("for-each-ref", "refs/heads") == heads
    newest = shop.project.jobs.list()[0]
    sha = newest.output
    assert sha is not None and newest.notes == ("it ran on chosen commits, and its output commit is not on p",)
    made = shop.project.repo.commit(sha)
    assert made.parents == () and made.subject == "p: 1 processed, 0 skipped of 1 datum"
    for command in (["get-file", f"p@{sha}:x"], ["get-file", f"p@{newest.id}:x"]):
        assert cli.run([*where, *command]) == 0
        assert capsys.readouterr().out == "a1 m2"
    assert cli.run([*where, "log", "--provenance", f"p@{sha}"]) == 0
    said = capsys.readouterr().out
    old = [commit.sha for commit in shop.commits("a")][-2]
    assert f"a@{old[:12]}" in said and f"m@{shop.head('m')[:12]}" in said
    assert shop.run() == [] and shop.project.status().pending == () and shop.project.jobs.failures() == []

    assert f"nothing to do, p@{sha[:12]} is the result" in shop.project.run_on("p", ["a@master~1"])[0]
    shop.forget()
    shop.prune()
    assert f"p@{sha[:12]} is the result" in shop.project.run_on("p", ["a@master~1"])[0], "I1"
    assert cli.run([*where, "create-branch", "p", "old", "--head", sha]) == 0
    assert shop.files("p@old") == {"x": "a1 m2"}
    shop.run()


def test_what_it_finished_is_known_and_the_next_job_is_what_it_would_have_been(shop: Lab, tmp_path: Path) -> None:
    """I4: the same commit on a machine where nobody ran anything aside, though its datum is not run again."""
    shop.project.run_on("p", ["a@master~1"])
    shop.run()
    shop.data("a", {"x": "a1 "})
    assert "p: 0 + 1 / 1 success" in shop.ran()
    other = fill(new_lab(tmp_path / "other"))
    other.data("a", {"x": "a1 "})
    other.run()
    assert (other.head("p"), other.head("q")) == (shop.head("p"), shop.head("q"))
    other.project.run_on("p", ["a@master~2", "m@master"])
    other.run()
    aside = {job.output for lab in (shop, other) for job in lab.project.jobs.list("p") if job.notes}
    assert len(aside) == 1, "and so is what ran aside, whatever stood on the branch"


def test_what_is_there_already_is_named(shop: Lab) -> None:
    first, second = (made.sha for made in shop.made("p")[:: len(shop.made("p")) - 1])
    assert first[:12] in shop.project.run_on("p", ["a@master~1", "m@master~1"])[0]
    assert second[:12] in shop.project.run_on("p", ["a"])[0]
    line = shop.project.run_on("q", [f"p@{first}"])[0]
    assert shop.made("q")[0].sha[:12] in line, "of `a`, the commit that this was made from"
    assert shop.run() == []


def test_commits_that_cannot_be(shop: Lab) -> None:
    """I3 and the rest: one line, and nothing is queued."""
    first = shop.made("p")[0].sha
    refused(shop, Refused, "inputs come from two commits of a", "q", f"p@{first}", "a@master")
    refused(shop, Refused, "q does not read m: choose commits of a, p", "q", "m@master")
    refused(shop, UsageError, "two commits of a are named", "p", "a@master", "a@master~1")
    refused(shop, NotFound, "a has no branch or commit 'nope'", "p", "a@nope")
    refused(shop, NotFound, "pipeline r does not exist", "r", "a@master")
    opened = shop.project.data.start_commit(["a"])
    refused(shop, NotFound, "is no finished commit", "p", f"a@{opened}")
    shop.project.pipelines.stop("p")
    refused(shop, Refused, "p is stopped", "p", "a@master~1")
    shop.project.pipelines.start("p")
    shop.git("config", "--unset-all", "gitpipe.trusted")
    refused(shop, Refused, "does not run here: `gitpipe trust`", "p", "a@master~1")
    assert shop.project.journal.unfinished() == []


def test_one_that_fails_counts_for_nothing_but_itself(shop: Lab) -> None:
    """No state, retry or set knows of it; what follows it goes on; a second try of the same is made."""
    shop.data("a", {"x": "bad"})
    shop.data("a", {"x": "a3 "})
    shop.pipeline("p", {"a": "/*", "m": "/"}, f"! grep -q bad /pfs/a/x && {COPIES}")
    shop.run()
    head = shop.head("p")
    for _ in range(2):
        assert "p: runs on" in shop.project.run_on("p", ["a@master~1"])[0]
        (line,) = shop.ran()
        assert line.startswith("p: failed datum")
        assert shop.project.jobs.failures() == [] and shop.run() == []
        assert [pipeline.state for pipeline in shop.project.pipelines.list()] == ["running", "running"]
        assert "nothing to do, its newest job succeeded" in shop.project.pipelines.run("p")[0]
    shop.data("a", {"x": "a4 "})
    assert shop.ran() == ["p: 1 + 0 / 1 success", "q: 1 + 0 / 1 success"] and shop.head("p") != head


def test_asked_for_several_times_and_with_other_work_queued(shop: Lab) -> None:
    """In the order in which they were asked for, one output commit for the same commits (I2), sets untouched."""
    shop.data("a", {"x": "a3 "})
    for words in (["a@master~2"], ["a@master~2"], ["m@master~1"]):
        shop.project.run_on("p", words)
    jobs = shop.run()
    assert sorted(f"{job.pipeline} {job.state}" for job in jobs) == ["p success"] * 4 + ["q success"]
    aside = [job for job in shop.project.jobs.list("p")[::-1] if job.notes]
    assert len(aside) == 3 and aside[0].output == aside[1].output != aside[2].output
    assert shop.files("q") == {"x": "a3 m2a3 "} and shop.run() == []
