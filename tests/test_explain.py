"""Why jobs and datums ran or were skipped, on real repositories, with the journal and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from gitpipe import cli
from gitpipe.differences import words
from gitpipe.errors import NotFound
from gitpipe.views import DatumWhy, JobWhy
from tests.lab import Lab

PAIR = 'for f in /pfs/a/*; do cat "$f" /pfs/m/m > "/pfs/out/${f##*/}"; done'


def why_job(lab: Lab, name: str) -> JobWhy:
    found = lab.project.why.explain(name)
    assert isinstance(found, JobWhy)
    return found


def why_datum(lab: Lab, name: str, job: str | None = None) -> DatumWhy:
    found = lab.project.why.explain(name, job)
    assert isinstance(found, DatumWhy)
    return found


def lots(why: JobWhy) -> dict[str, tuple[int, tuple[str, ...]]]:
    """State -> how many and why, of a job that has one group of each."""
    found = {group.state: (group.count, group.why) for group in why.groups}
    assert len(found) == len(why.groups), why.groups
    return found


def say(*args: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(list(args)) == 0
    return capsys.readouterr().out


def train(lab: Lab, script: str = "cp /pfs/t/rows /pfs/out/m; echo $2 >> /pfs/out/m", **transform: object) -> None:
    """Create or update `m`, which has a script; its command is ``sh train.sh -e 1``."""
    (lab.root / "specs").mkdir(exist_ok=True)
    (lab.root / "specs" / "train.sh").write_text(script)
    lab.pipeline("m", {"t": "/rows"}, transform={"cmd": ["sh", "train.sh", "-e", "1"], **transform}, code=["train.sh"])


@pytest.fixture
def chain(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """`t` -> model `m` -> `p`, which pairs each file of `a` with the model."""
    monkeypatch.chdir(lab.root)
    lab.data("t", {"rows": "1", "notes": "n"})
    lab.data("a", {"x": "x", "y": "y"})
    train(lab)
    lab.pipeline("p", {"a": "/*", "m": "/"}, PAIR)
    assert lab.ran() == ["m: 1 + 0 / 1 success", "p: 2 + 0 / 2 success"]
    yield lab


def test_the_first_run(chain: Lab) -> None:
    why = why_job(chain, "p")
    assert why.before is None and why.change is None and why.inputs == ()
    assert lots(why) == {"ran": (2, ("the first run",))}
    assert {of for _, of in why.groups[0].datums} == {"a:/x, m:/", "a:/y, m:/"}


def test_a_changed_command_and_what_it_does_downstream(chain: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """The issue's own words: "cmd: -e 1 → -e 2", "model/model.pkl changed"."""
    train(chain, cmd=["sh", "train.sh", "-e", "2"], env={"LEVEL": "3"})
    chain.run()
    why = why_job(chain, "m")
    assert why.change is not None and (why.change.old, why.change.new) == (
        chain.made("m")[0].origin.version,
        chain.made("m")[1].origin.version,
    )
    assert lots(why) == {"ran": (1, ("cmd: -e 1 → -e 2", "env.LEVEL: not set → 3"))}
    below = why_job(chain, "p")
    assert below.change is None and str(below.before) == f"p@{chain.made('p')[0].sha}"
    assert lots(below) == {"ran": (2, ("m/m changed",))}
    (moved,) = below.inputs
    assert (moved.move.branch, moved.move.ahead, moved.move.behind) == ("m", 1, 0)
    assert [(f.path, f.old_size, f.new_size) for f in moved.files] == [("m", 3, 3)]
    out = say("explain", "m", capsys=capsys)
    assert "  cmd: -e 1 → -e 2\n" in out and "Datums: 1 ran\n  1 ran: cmd: -e 1 → -e 2, env" in out
    assert "    m changed (3B → 3B)\n" in say("explain", "p", capsys=capsys)
    raw = json.loads(say("explain", "p", "--raw", capsys=capsys))
    assert raw["groups"][0]["why"] == ["m/m changed"] and len(raw["groups"][0]["datums"]) == 2


def test_changed_code_reprocess_and_what_no_result_depends_on(chain: Lab) -> None:
    train(chain, script="cp /pfs/t/rows /pfs/out/m")
    chain.run()
    assert lots(why_job(chain, "m")) == {"ran": (1, ("code: train.sh changed",))}
    (code,) = why_job(chain, "m").change.code  # type: ignore[union-attr]
    assert (code.path, code.change) == ("train.sh", "changed")

    path = chain.root / "specs" / "m.json"
    chain.project.pipelines.update([str(path)], reprocess=True)
    chain.run()
    why = why_job(chain, "m")
    assert lots(why) == {"ran": (1, ("--reprocess",))} and why.change is not None and why.change.fields == ()

    path.write_text(json.dumps({**json.loads(path.read_text()), "parallelism_spec": {"constant": 3}}))
    chain.project.pipelines.update([str(path)])
    chain.run()
    why = why_job(chain, "m")
    assert why.change is not None
    assert [(f.field, f.text, f.matters) for f in why.change.fields] == [
        ("parallelism_spec.constant", "not set → 3", False)
    ]
    assert lots(why)["skipped"][0] == 1 and why.notes[-1].startswith("no datum is another one because of that")


def test_changed_added_removed_and_unseen_files(chain: Lab) -> None:
    chain.data("a", {"x": "x", "y": "other", "z": "z"})
    chain.run()
    why = why_job(chain, "p")
    assert {(g.state, g.count, g.why) for g in why.groups} == {
        ("ran", 1, ("a/y changed",)),
        ("ran", 1, ("a/z added",)),
        ("skipped", 1, (f"nothing of theirs changed since p@{chain.made('p')[0].sha[:12]}",)),
    }
    chain.data("a", {"x": "x"})
    chain.run()
    assert lots(why_job(chain, "p"))["vanished"] == (2, ("a/y removed", "a/z removed"))

    chain.data("t", {"rows": "1", "notes": "other"})
    assert chain.ran() == ["m: 0 + 1 / 1 success", "p: 0 + 1 / 1 success"]
    model = why_job(chain, "m")
    assert model.inputs[0].unseen == ("notes",) and "no datum sees what changed" in model.notes[-1]
    below = why_job(chain, "p")
    assert below.inputs[0].files == () and [move.branch for move in below.above] == ["t"]
    assert "only their provenance" in below.notes[-1] and lots(below)["skipped"][0] == 1


def test_many_files_are_counted(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A screen at most; --raw has everything."""
    monkeypatch.chdir(lab.root)
    lab.data("a", {f"{n:02}": "old" for n in range(30)})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    lab.data("a", {f"{n:02}": "new" for n in range(30)})
    lab.run()
    assert lots(why_job(lab, "p"))["ran"] == (30, ("30 files of a changed",))
    out = say("explain", "p", capsys=capsys)
    assert "    and 25 more\n" in out and "    and 28 more\n" in out and out.count("\n") < 24
    assert len(json.loads(say("explain", "p", "--raw", capsys=capsys))["groups"][0]["datums"]) == 30


def test_back_to_an_older_version_runs_nothing(chain: Lab) -> None:
    first = chain.made("m")[0].sha
    train(chain, cmd=["sh", "train.sh", "-e", "2"])
    chain.run()
    train(chain)
    assert chain.ran()[0] == "m: 0 + 1 / 1 success"
    why = why_job(chain, "m")
    (group,) = why.groups
    assert (group.state, group.count) == ("skipped", 1) and group.why[0].startswith("made before: m@")
    datum = why_datum(chain, group.datums[0][0])
    assert datum.state == "skipped" and datum.made is not None and datum.made.sha == first
    assert datum.made_job == chain.made("m")[0].origin.job


def test_datums(chain: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    old = {of: i for i, of in why_job(chain, "p").groups[0].datums}
    x, y = old["a:/x, m:/"], old["a:/y, m:/"]
    chain.data("a", {"x": "changed"})
    chain.run()
    first, second = chain.made("p")
    now = next(i for group in why_job(chain, "p").groups for i, _ in group.datums if group.state == "ran")
    ran = why_datum(chain, now[:8])
    assert (ran.state, ran.earlier, ran.why, ran.change) == ("ran", x, ("a/x changed",), None)
    assert ran.job == second.origin.job and ran.before is not None and ran.before.sha == first.sha
    replaced = why_datum(chain, x)
    assert (replaced.state, replaced.earlier, replaced.why) == ("replaced", now, ("a/x changed",))
    gone = why_datum(chain, y)
    assert (gone.state, gone.job, gone.why) == ("vanished", second.origin.job, ("a/y removed",))
    then = why_datum(chain, y, first.origin.job)
    assert (then.state, then.before, then.why) == ("ran", None, ())
    assert "It was in p@" in say("explain", y, capsys=capsys) and "the first run" in say(
        "explain", y, "--job", first.origin.job, capsys=capsys
    )

    train(chain, cmd=["sh", "train.sh", "-e", "2"])
    chain.pipeline("p", {"a": "/*", "m": "/"}, PAIR, transform={"cmd": ["sh", "-c", PAIR], "env": {"A": "1"}})
    chain.run()
    latest = why_datum(chain, why_job(chain, "p").groups[0].datums[0][0])
    assert latest.why == ("m/m changed",) and latest.change is not None
    assert [field.text for field in latest.change.fields] == ["not set → 1"]


def test_without_local_state_the_commits_tell(chain: Lab) -> None:
    """I1: all of it, as long as it was published."""
    chain.data("a", {"x": "changed", "z": "z"})
    chain.run()
    train(chain, cmd=["sh", "train.sh", "-e", "2"])
    chain.run()
    names = ["m", "p", *(made.origin.job for made in chain.made("p")), chain.head("p")[:10], f"p@{chain.head('p')}"]
    datums = [i for name in names for group in why_job(chain, name).groups for i, _ in group.datums]
    before = [why_job(chain, name) for name in names], [why_datum(chain, datum) for datum in datums]
    chain.forget()
    after = [why_job(chain, name) for name in names], [why_datum(chain, datum) for datum in datums]
    assert after[0] == before[0]
    for one, other in zip(*(side[1] for side in (before, after)), strict=True):
        assert (one.state, one.why, one.made, one.job, one.earlier) == (
            other.state,
            other.why,
            other.made,
            other.job,
            other.earlier,
        )


def test_failed_unrunnable_and_kept(lab: Lab) -> None:
    """I5: a failed job published nothing; what is compared is the output that it was to stand on."""
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"}, "! grep -q bad /pfs/a/* && cp /pfs/a/* /pfs/out")
    lab.pipeline("q", {"p": "/*"})
    lab.run()
    base = lab.head("p")
    lab.data("a", {"1": "1", "2": "bad", "3": "3"})
    lab.run()
    failed = why_job(lab, "p")
    assert (failed.state, failed.output) == ("failed", None) and "exit status 1" in failed.reason
    assert failed.before is not None and failed.before.sha == base
    found = lots(failed)
    assert (found["failed"][0], found["ran"], found["skipped"][0]) == (1, (1, ("a/3 added",)), 1)
    assert "exit status 1" in found["failed"][1][0]
    unrunnable = why_job(lab, "q")
    assert (unrunnable.state, unrunnable.reason, unrunnable.groups) == ("unrunnable", "p failed", ())
    bad = next(i for g in failed.groups for i, _ in g.datums if g.state == "failed")
    datum = why_datum(lab, bad[:10])
    assert (datum.state, datum.why) == ("failed", ("a/2 changed",)) and "exit status 1" in datum.reason

    lab.data("a", {"1": "1", "3": "3"})
    assert lab.ran()[0] == "p: 0 + 2 / 2 success"
    after = why_job(lab, "p")
    assert {(g.state, g.count, g.why[0][:16]) for g in after.groups if g.state == "skipped"} == {
        ("skipped", 1, "nothing of their"),
        ("skipped", 1, "finished by job "),
    }
    assert any("its commit counts 1 as processed" in note for note in after.notes)
    again = why_job(lab, failed.job)  # a later commit is on the branch now, and is not what this one stood on
    assert again.before == failed.before and again.state == "failed"
    assert why_datum(lab, bad).state == "failed"


def test_queued_and_never_run(lab: Lab) -> None:
    lab.data("a", {"1": "1"})
    lab.project.data.create_repo("empty")
    lab.pipeline("p", {"a": "/*"})
    lab.pipeline("idle", {"empty": "/*"})
    lab.project.reconciler.plan()
    queued = why_job(lab, "p")
    assert queued.state == "queued" and any("no runner lives" in note for note in queued.notes)
    lab.project.jobs.stop("p")
    killed = why_job(lab, "p")
    assert (killed.state, killed.reason, killed.groups) == ("killed", "stopped by stop-job", ())
    lab.run()
    idle = why_job(lab, "idle")
    assert idle.state == "no job" and "its input empty has no data yet" in idle.notes
    lab.project.pipelines.stop("idle")
    assert any("start-pipeline idle" in note for note in why_job(lab, "idle").notes)


def test_a_group_and_another_cut(lab: Lab) -> None:
    """A group that gained a file is the same group; another glob makes other datums, and says so."""
    lab.data("a", {"k1-a": "1", "k2-a": "2"})
    grouped = {"group": [{"pfs": {"repo": "a", "glob": "/(*)-*", "group_by": "$1"}}]}
    lab.pipeline("g", {"a": "/*"}, input=grouped)
    lab.run()
    lab.data("a", {"k1-a": "1", "k1-b": "1", "k2-a": "2"})
    lab.run()
    why = why_job(lab, "g")
    assert lots(why)["ran"] == (1, ("a/k1-b added",)) and lots(why)["skipped"][0] == 1 and "vanished" not in lots(why)
    lab.pipeline("g", {"a": "/"}, "cp -R /pfs/a/. /pfs/out")
    lab.run()
    why = why_job(lab, "g")
    assert why.change is not None
    assert any(f.field == "input" and f.text.endswith("→ a:/") for f in why.change.fields)


def test_a_commit_by_hand_in_between(chain: Lab) -> None:
    """The output branch was changed by a person: compared is what the pipeline itself had made."""
    by_job = chain.head("p")
    chain.data("p", {"x": "by hand"})
    chain.data("a", {"x": "x"})
    chain.run()
    why = why_job(chain, "p")
    assert why.before is not None and why.before.sha == by_job
    assert any("was made by a person" in note for note in why.notes)


def test_names_that_are_none(chain: Lab) -> None:
    for name in ("", "nope", "ffffffff", "abc", "p@ffffffff", "é", "x" * 300, "A" * 8):
        with pytest.raises(NotFound):
            chain.project.why.explain(name)
    for datum, job in (("ffffffff", "p"), ("ff", "p"), ("p", "p"), ("ffffffff", "nope")):
        with pytest.raises(NotFound):
            chain.project.why.explain(datum, job)


def test_an_ambiguous_datum(lab: Lab) -> None:
    """Ids are made of content alone, so it is known which two of these begin alike."""
    lab.data("a", {name: name for name in ("434", "878", "1")})
    lab.pipeline("p", {"a": "/*"}, transform={"cmd": ["true"]})
    lab.run()
    ids = sorted(datum.id for datum in lab.project.datums.list("p"))
    one, other = next((a, b) for a, b in pairwise(ids) if a[:5] == b[:5])
    for job in (None, "p"):
        with pytest.raises(NotFound, match="short for 2 datums"):
            lab.project.why.explain(one[:5], job)
    assert why_datum(lab, one).datum == one and why_datum(lab, other).datum == other


def test_the_model_of_the_iris_walkthrough(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walkthrough's own change, on its real pipeline; that page shows what it does to the inferences."""
    pytest.importorskip("sklearn")
    monkeypatch.chdir(lab.root)
    assert cli.run(["example", "iris"]) == 0
    lab.data("training", {"iris.csv": Path("samples/iris/iris.csv").read_text()})
    lab.project.pipelines.create(["pipelines/iris/train.json"])
    assert lab.ran() == ["model: 1 + 0 / 1 success"]
    lab.project.pipelines.update(["pipelines/iris/train-lda.json"])
    lab.run()
    why = why_job(lab, "model")
    assert lots(why)["ran"][1][0] == "cmd: train-svm.py → train-lda.py"
    assert why.change is not None
    assert {(c.path, c.change) for c in why.change.code} >= {("train-lda.py", "added"), ("train-svm.py", "removed")}


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("train -e 1 --fast", "train -e 2 --fast", "-e 1 → -e 2"),
        ("train", "train --fast", "+ --fast"),
        ("train --fast -e 1", "train -e 1", "- --fast"),
        ("a b c", "a x c", "b → x"),
        ("a b c d", "x b c y", "a → x, d → y"),
        ("", "train", "+ train"),
    ],
)
def test_word_by_word(old: str, new: str, text: str) -> None:
    assert words(old.split(), new.split()) == text


def test_words_that_are_only_joined_otherwise() -> None:
    assert words(["sh", "a b"], ["sh", "a", "b"]) == '["sh", "a b"] → ["sh", "a", "b"]'
    assert words(["sh", "-c", "cat x; wc y"], ["sh", "-c", "cat z; wc y"]) == "x; → z;"


def test_a_pipeline_that_writes_another_branch(lab: Lab) -> None:
    lab.data("a", {"x": "x"})
    lab.pipeline("p", {"a": "/*"}, output_branch="prod")
    lab.pipeline(
        "q",
        {"a": "/*"},
        input={"pfs": {"repo": "p", "branch": "prod", "glob": "/*"}},
        transform={"cmd": ["sh", "-c", "! grep -q bad /pfs/p/* && cp /pfs/p/* /pfs/out"]},
    )
    lab.run()
    lab.data("a", {"x": "bad"})
    lab.run()
    for forget in (False, True):
        if forget:
            lab.forget()
        why = why_job(lab, "p")
        assert lots(why) == {"ran": (1, ("a/x changed",))} and str(why.output) == f"p@prod@{lab.head('p@prod')}"
        datum = why_datum(lab, why.groups[0].datums[0][0])
        assert datum.made == why.output and datum.earlier
        assert lab.project.commit_diffs.diff(["p@prod~1", "p@prod"]).new == why.output
        if not forget:
            failed = why_job(lab, "q")
            assert failed.before is not None and [i.move.branch for i in failed.inputs] == ["p@prod"]
            assert lots(failed)["failed"][0] == 1
            assert lab.project.commit_diffs.diff([why.job]).new == why.output
            assert lab.project.datums.inspect("p", datum.datum).made is not None


def test_a_change_of_the_output_branch(lab: Lab) -> None:
    """What the pipeline made on the earlier branch is not made again, and that is told; the commit counts (I4)."""
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"}, "echo made; cp /pfs/a/* /pfs/out", output_branch="staging")
    assert lab.ran() == ["p: 2 + 0 / 2 success"]
    (first,) = lab.made("p@staging")
    lab.pipeline("p", {"a": "/*"}, "echo made; cp /pfs/a/* /pfs/out", output_branch="dev")
    assert lab.ran() == ["p: 0 + 2 / 2 success"]
    (second,) = lab.made("p@dev")
    assert "2 processed" in second.subject  # as on a machine that has p@dev alone
    lab.data("a", {"1": "1", "2": "2", "3": "3"})
    assert lab.ran() == ["p: 1 + 2 / 3 success"]
    for forget in (False, True):
        if forget:
            lab.forget()
        why = why_job(lab, second.origin.job)
        assert str(why.before) == f"p@staging@{first.sha}" and why.change is not None
        assert [(f.field, f.text) for f in why.change.fields] == [("output_branch", "staging → dev")]
        assert lots(why) == {"skipped": (2, (f"nothing of theirs changed since p@staging@{first.sha[:12]}",))}
        assert any("counts 2 as processed" in note for note in why.notes)
        assert why_job(lab, first.origin.job).job == first.origin.job, "a job of the earlier branch is found as well"
        datum = why_datum(lab, why.groups[0].datums[0][0])
        assert (datum.state, str(datum.made)) == ("skipped", f"p@staging@{first.sha}")
        assert datum.made_job == first.origin.job
        details = lab.project.file_history.inspect(["p@dev", "1"]).making
        assert details is not None and details.made is not None
        assert (str(details.made.commit), details.made.job) == (f"p@staging@{first.sha}", first.origin.job)
        assert bool(details.made.log) is not forget

    lab.pipeline("p", {"a": "/*"}, "echo made; cp /pfs/a/* /pfs/out", output_branch="staging")  # and back
    lab.run()
    third = lab.made("p@staging")[-1]
    why = why_job(lab, "p")
    assert {(g.state, g.count, g.why[0]) for g in why.groups} == {
        ("skipped", 2, f"nothing of theirs changed since p@staging@{first.sha[:12]}"),
        ("skipped", 1, f"made before: p@dev@{lab.head('p@dev')[:12]} has them"),
    }
    made = lab.project.file_history.inspect([f"p@{first.sha}", "1"]).making
    assert made is not None and made.made is not None and made.made.job == first.origin.job
    made = lab.project.file_history.inspect(["p@staging", "3"]).making
    assert made is not None and made.made is not None and str(made.made.commit) == f"p@dev@{lab.head('p@dev')}"
    assert third.sha != first.sha


def test_a_first_job_on_another_branch_that_fails(lab: Lab) -> None:
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"}, "! grep -q bad /pfs/a/* && cp /pfs/a/* /pfs/out", output_branch="staging")
    lab.run()
    lab.project.pipelines.stop("p")
    lab.pipeline("p", {"a": "/*"}, "! grep -q bad /pfs/a/* && cp /pfs/a/* /pfs/out", output_branch="dev")
    lab.data("a", {"1": "1", "2": "bad"})
    lab.project.pipelines.start("p")
    lab.run()
    failed = why_job(lab, "p")
    assert failed.state == "failed" and str(failed.before).startswith("p@staging@")
    assert lots(failed)["skipped"] == (1, (f"nothing of theirs changed since {str(failed.before)[:22]}",))


CLASH = "case $(ls /pfs/a) in 3) echo 3 > /pfs/out/3;; *) cp /pfs/a/* /pfs/out/same;; esac; echo ran"


def test_who_made_what_a_failed_job_had_finished(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that ran it is named, with its log, everywhere; the commit counts by what commits hold (I4)."""
    monkeypatch.chdir(lab.root)
    lab.data("a", {"1": "1", "2": "2", "3": "3"})
    lab.pipeline("p", {"a": "/*"}, CLASH)
    lab.run()
    failed = why_job(lab, "p")
    assert failed.state == "failed" and lots(failed)["ran"][0] == 3
    lab.data("a", {"1": "1", "3": "3"})
    assert lab.ran() == ["p: 0 + 2 / 2 success"]
    assert lab.made("p")[0].subject.startswith("p: 2 processed")
    by = f"finished by job {failed.job[:12]}, which failed"
    why = why_job(lab, "p")
    assert lots(why) == {"skipped": (2, (by,))} and any("counts 2 as processed" in note for note in why.notes)
    one = next(datum for datum, of in why.groups[0].datums if of == "a:/1")
    datum = why_datum(lab, one)
    assert (datum.state, datum.reason) == ("skipped", by)
    project = lab.project
    (entry,) = project.file_history.lineage(["p", "same"])
    inspected = project.file_history.inspect(["p", "same"]).making
    assert inspected is not None
    for made in (entry.making, inspected.made, project.datums.inspect("p", one).made):
        assert made is not None and (made.attempt, made.job) == (failed.job, why.job)
        assert made.log == f"gitpipe logs --job {failed.job[:12]} --datum {one[:12]}"
        assert cli.run(made.log.split()[1:]) == 0
    lab.forget()  # what no commit tells is not known then
    assert lots(why_job(lab, "p")) == {"ran": (2, ("the first run",))}


def test_a_failed_job_does_not_count_what_later_ones_made(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of two attempts with one id, what is told is that of the newer, and says so."""
    monkeypatch.chdir(lab.root)
    flag = lab.root / "flag"
    lab.git("config", "gitpipe.sandbox", "none")
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"}, f"case $(ls /pfs/a) in 2) test -e {flag};; esac && cp /pfs/a/* /pfs/out")
    lab.run()
    first = why_job(lab, "p")
    assert (lots(first)["failed"][0], lots(first)["ran"][0]) == (1, 1) and not any("attempt" in n for n in first.notes)
    lab.data("a", {"1": "1", "2": "2", "3": "3"})
    lab.run()
    second = why_job(lab, "p")
    assert lots(second)["skipped"] == (1, (f"finished by job {first.job[:12]}, which failed",))
    flag.write_text("")
    lab.project.pipelines.run("p")
    assert lab.ran() == ["p: 1 + 2 / 3 success"]
    again = why_job(lab, "p")
    assert again.job == second.job and any("1 earlier attempt of this job ended as failed" in n for n in again.notes)
    assert {g.why[0] for g in again.groups if g.state == "skipped"} == {
        f"finished by job {first.job[:12]}, which failed",
        "finished by an earlier attempt of this job, which failed",
    }
    assert cli.run(["list-datum", again.job]) == 0
    assert "1 earlier attempt of this job ended as failed" in capsys.readouterr().err
    assert {of: g.state for g in why_job(lab, first.job).groups for _, of in g.datums} == {
        "a:/1": "ran",
        "a:/2": "failed",
    }


def test_a_killed_job_does_not_count_what_later_ones_made(lab: Lab) -> None:
    """Its datums that had not run are told as such, also after another job has made them."""
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    lab.data("a", {"1": "1", "2": "other", "3": "3"})
    project = lab.project
    project.reconciler.plan()
    (row,) = project.journal.unfinished()
    # Stopped before a datum of it ran: what a kill leaves where the runner was at its first datum.
    project.journal.update_job(row.seq, inputs=[f"a@{lab.head('a')}"], id="0" * 32, started=1.0, total=3)
    project.jobs.stop("p")
    lab.project.pipelines.run("p")
    lab.run()
    killed = why_job(lab, "0" * 32)
    assert killed.state == "killed"
    assert {of: g.state for g in killed.groups for _, of in g.datums} == {
        "a:/1": "skipped",
        "a:/2": "not run",
        "a:/3": "not run",
    }
    assert {d.files: d.state for d in lab.project.datums.list("0" * 32)} == {
        "a:/1": "skipped",
        "a:/2": "not run",
        "a:/3": "not run",
    }


def test_back_to_older_code_after_reprocess(chain: Lab) -> None:
    """The older result is there, and is not taken: that is for the --reprocess in between, and is said."""
    first = chain.made("m")[0].sha
    train(chain, cmd=["sh", "train.sh", "-e", "2"])
    chain.run()
    chain.project.pipelines.update([str(chain.root / "specs" / "m.json")], reprocess=True)
    chain.run()
    assert not any("--reprocess" in note for note in why_job(chain, "m").notes)
    train(chain)
    assert chain.ran()[0] == "m: 1 + 0 / 1 success"
    why = why_job(chain, "m")
    assert lots(why) == {"ran": (1, ("cmd: -e 2 → -e 1",))}
    assert any(n.startswith(f"m@{first[:12]} was made by the same") and "--reprocess" in n for n in why.notes)
