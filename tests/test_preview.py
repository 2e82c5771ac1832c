"""What would be: ``create-pipeline --dry-run`` and ``list-datum -f``, before there is a pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gitpipe.cli import run
from gitpipe.errors import BadSpec, GitpipeError, NotFound, Refused
from tests.lab import Lab


def state(lab: Lab) -> tuple[str, str]:
    """All refs and all configuration: what a dry run must leave as it is."""
    return lab.git("show-ref"), lab.git("config", "--local", "--list")


def test_datums_of_a_spec_before_there_is_a_pipeline(lab: Lab) -> None:
    lab.data("a", {f"f{n:02}": "x" for n in range(30)} | {"g/one": "1"})
    lab.data("b", {"m": "1"})
    path = str(lab.write_spec("p", {"a": "/*", "b": "/"}, "cp -R /pfs/a/. /pfs/out"))
    before = state(lab)
    found = lab.project.preview.datums([path], limit=2)
    assert [(d.files, d.state) for d in found.datums] == [("a:/f00, b:/", "new"), ("a:/f01, b:/", "new")]
    assert (found.total, found.more) == (31, False)
    assert len(lab.project.preview.datums([path]).datums) == 31
    assert lab.project.preview.create([path]) == ["p: would be created; 31 datums: 31 to run, 0 to skip"]
    assert state(lab) == before
    ids = {d.id for d in lab.project.preview.datums([path]).datums}
    lab.project.pipelines.create([path])
    assert lab.ran() == ["p: 31 + 0 / 31 success"]
    assert {d.id for d in lab.project.datums.list("p")} == ids, "what was previewed is what ran"


def test_an_update_tells_what_would_be_run_again(lab: Lab) -> None:
    """Also after the local state is gone (I1)."""
    lab.data("a", {"x": "1", "y": "2"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    lab.data("a", {"x": "1", "y": "3", "z": "4"})
    same, other = str(lab.write_spec("p", {"a": "/*"})), lab.root / "specs" / "other.json"
    other.write_text(json.dumps({**json.loads(Path(same).read_text()), "transform": {"cmd": ["true"]}}))
    for _ in range(2):
        before, preview = state(lab), lab.project.preview
        assert preview.update([same]) == ["p: would be unchanged; 3 datums: 2 to run, 1 to skip"]
        assert preview.update([str(other)]) == ["p: would be updated; 3 datums: 3 to run, 0 to skip"]
        assert preview.update([same], reprocess=True) == ["p: would be updated; 3 datums: 3 to run, 0 to skip"]
        assert [d.state for d in preview.datums([same]).datums] == ["skipped", "new", "new"]
        assert state(lab) == before
        lab.forget()
    assert lab.ran()[-1] == "p: 2 + 1 / 3 success"


def test_a_dry_run_refuses_what_the_real_one_would(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.git("branch", "taken")
    path = str(lab.write_spec("p", {"a": "/"}))
    preview = lab.project.preview
    with pytest.raises(NotFound, match="pipeline p does not exist"):
        preview.update([path])
    for spec, error in (
        (lab.write_spec("taken", {"a": "/"}), "would write to branch taken"),
        (lab.write_spec("q", {"nowhere": "/"}), "input repo nowhere does not exist"),
        (lab.write_spec("r", {"a": "/[x"}), "glob"),
    ):
        before = state(lab)
        with pytest.raises(GitpipeError, match=error):
            preview.create([str(spec)])
        assert state(lab) == before
    lab.project.pipelines.create([path])
    with pytest.raises(Refused, match="exists already"):
        preview.create([path])


def test_several_pipelines_and_no_data(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    first, second = lab.write_spec("p", {"a": "/*"}), lab.write_spec("q", {"p": "/*"}, env=1, pod_spec="{}")
    value = json.loads(second.read_text())
    value.pop("env")
    both = lab.root / "specs" / "both.json"
    both.write_text(json.dumps([json.loads(first.read_text()), value]))
    preview = lab.project.preview
    assert preview.create([str(both)]) == [
        "q: pod_spec is not used here and is ignored",
        "p: would be created; 1 datum: 1 to run, 0 to skip",
        "q: would be created; p has no data yet",
    ]
    with pytest.raises(BadSpec, match=r"holds 2 pipelines: name one of p, q"):
        preview.datums([str(both)])
    with pytest.raises(NotFound, match=r"no pipeline 'r' in .*: there is p, q"):
        preview.datums([str(both)], "r")
    with pytest.raises(NotFound, match="p has no data yet"):
        preview.datums([str(both)], "q")
    assert preview.datums([str(both)], "p").total == 1


def test_a_cross_too_large_to_be_listed_is_counted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{n}": "x" for n in range(20)}
    for repo in "abc":
        lab.data(repo, files)
    path = str(lab.write_spec("p", {"a": "/*", "b": "/*", "c": "/*"}))
    found = lab.project.preview.datums([path], limit=1)
    assert (len(found.datums), found.total, found.more) == (1, 8000, False)
    monkeypatch.setattr("gitpipe.preview.LOOKED_UP", 100)
    assert lab.project.preview.create([path]) == ["p: would be created; 8000 datums"]
    monkeypatch.setattr("gitpipe.preview.MOST", 1000)
    assert lab.project.preview.create([path]) == ["p: would be created; more than 1000 datums"]


def test_commands(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.root)
    lab.data("a", {f"{n:02}": "x" for n in range(25)})
    path = str(lab.write_spec("p", {"a": "/*"}))
    assert run(["list-datum", "-f", path], "gitpipe") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 21 and out.split()[:4] == ["ID", "FILES", "STATUS", "TIME"]
    assert err == "gitpipe: 25 datums; the first 20 are shown, -n shows more\n"
    assert run(["list-datum", "--raw", "-f", path], "gitpipe") == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 25
    assert run(["list-datum", "-n", "0", "-f", path], "gitpipe") == 0
    assert capsys.readouterr().err.startswith("gitpipe: 25 datums; the first 0")
    assert run(["create-pipeline", "--dry-run", "-f", path], "gitpipe") == 0
    assert capsys.readouterr().out == "p: would be created; 25 datums: 25 to run, 0 to skip\n"
    assert run(["update-pipeline", "--create", "--dry-run", "-f", path], "gitpipe") == 0
    assert "would be created" in capsys.readouterr().out
    assert run(["list-datum"], "gitpipe") == 2
    assert "name a job or a pipeline, or a spec" in capsys.readouterr().err


def test_an_input_that_waits_for_its_first_data(lab: Lab) -> None:
    """No job before each input has data, as `status` says; one that was emptied again has had some."""
    lab.project.data.create_repo("e")
    lab.data("a", {"x": "1", "y": "2"})
    path = lab.write_spec("p", {"a": "/*"}, "cp /pfs/in/* /pfs/out")
    sides = [{"pfs": {"name": "in", "repo": repo, "glob": "/*"}} for repo in ("e", "a")]
    path.write_text(json.dumps({**json.loads(path.read_text()), "input": {"union": sides}}))
    assert lab.project.preview.create([str(path)]) == ["p: would be created; e has no data yet"]
    lab.project.pipelines.create([str(path)])
    assert lab.run() == [] and lab.project.status().waiting == ("p for e, which has no data yet",)
    lab.data("e", {"z": "3"})
    lab.data("e", {})
    assert lab.project.preview.update([str(path)]) == ["p: would be unchanged; 2 datums: 2 to run, 0 to skip"]
    assert lab.ran()[-1] == "p: 0 + 2 / 2 success" and lab.project.status().waiting == ()
