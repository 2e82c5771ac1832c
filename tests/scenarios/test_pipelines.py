"""What pipelines do with data and code: chains, skipping, updates, failures, provenance that never dangles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gitpipe.errors import BadSpec, Refused
from tests.lab import EPOCH, Lab, new_lab


def objects_size(root: Path) -> int:
    """Bytes of all files in git's object store."""
    return sum(p.stat().st_size for p in (root / ".git" / "objects").rglob("*") if p.is_file())


def test_a_chain_of_four_and_what_it_skips(lab: Lab) -> None:
    """Unchanged datums are skipped, also after a revert and a reset; a vanished datum's file vanishes."""
    first = lab.data("a", {"x": "1", "y": "1"})
    for name, above in zip("pqrs", "apqr", strict=True):
        lab.pipeline(name, {above: "/*"}, parallelism_spec={"constant": "2"})
    assert lab.ran() == [f"{name}: 2 + 0 / 2 success" for name in "pqrs"]
    assert lab.made("s")[-1].subject == "s: 2 processed, 0 skipped of 2 datums"

    lab.data("a", {"x": "1", "y": "2"})
    assert lab.ran() == [f"{name}: 1 + 1 / 2 success" for name in "pqrs"]
    assert lab.made("s")[-1].sources == {"a": lab.head("a"), **{n: lab.head(n) for n in "pqr"}}

    lab.data("a", {"x": "1"})
    assert lab.ran() == [f"{name}: 0 + 1 / 1 success" for name in "pqrs"]
    assert lab.files("s") == {"x": "1"}

    lab.data("a", {"x": "1", "y": "1"})  # as git revert does
    assert lab.ran() == [f"{name}: 0 + 2 / 2 success" for name in "pqrs"]
    lab.git("update-ref", "refs/heads/a", first)  # as git reset does
    assert lab.ran() == [f"{name}: 0 + 2 / 2 success" for name in "pqrs"]
    assert lab.files("s") == {"x": "1", "y": "1"}
    assert lab.made("s")[-1].sources["a"] == first

    n = len(lab.made("s"))
    lab.pipeline("p", {"a": "/*"}, parallelism_spec={"constant": "3"})  # another version, but no datum is another
    assert lab.ran() == [f"{name}: 0 + 2 / 2 success" for name in "pqrs"]
    assert len(lab.made("s")) == n + 1


def test_code_that_is_committed_runs_what_it_changed(lab: Lab) -> None:
    """A commit of code or spec on the source branch re-runs its pipeline and what lies below; nothing else does."""
    folder = lab.root / "pipes"
    folder.mkdir()
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["sh", "p.sh", "/pfs/a", "/pfs/out"]},
        "input": {"pfs": {"repo": "a", "glob": "/*"}},
        "code": ["p.sh"],
    }
    other = json.loads(json.dumps(spec).replace('"p"', '"o"').replace("p.sh", "o.sh"))
    (folder / "both.json").write_text(json.dumps([spec, other]))
    for name in "po":
        (folder / f"{name}.sh").write_text("cp $1/* $2\n")
    commit = ["commit", "-qam", "Pipelines"]
    lab.git("add", "pipes")
    lab.git(*commit)
    lab.data("a", {"x": "1", "y": "1"})
    lab.project.pipelines.create([str(folder / "both.json")])
    lab.pipeline("q", {"p": "/*"})
    assert lab.ran() == ["o: 2 + 0 / 2 success", "p: 2 + 0 / 2 success", "q: 2 + 0 / 2 success"]
    version = lab.made("p")[-1].origin.version

    (folder / "README").write_text("how\n")
    lab.git("add", "pipes")
    lab.git(*commit)
    assert lab.run() == []

    (folder / "o.sh").write_text("cp $1/* $2  # changed\n")
    lab.git(*commit)
    assert lab.ran() == ["o: 2 + 0 / 2 success"]

    (folder / "p.sh").write_text('for f in $1/*; do tr 1 2 < "$f" > "$2/${f##*/}"; done\n')
    assert lab.run() == []  # not committed yet
    lab.git(*commit)
    assert lab.ran() == ["p: 2 + 0 / 2 success", "q: 2 + 0 / 2 success"]
    assert lab.files("q") == {"x": "2", "y": "2"}
    assert lab.made("p")[-1].origin.version != version
    # the commit of __spec__ names where it came from
    assert lab.git("log", "-1", "--format=%(trailers:key=Source,valueonly)", "__spec__").strip() == (
        f"main@{lab.head('main')}:pipes/both.json"
    )

    spec["transform"]["env"] = {"MODE": "new"}  # type: ignore[index]
    (folder / "both.json").write_text(json.dumps([spec, other]))
    lab.git(*commit)
    assert lab.ran() == ["p: 2 + 0 / 2 success", "q: 0 + 2 / 2 success"]

    lab.git("revert", "--no-edit", "HEAD")
    assert lab.ran() == ["p: 0 + 2 / 2 success", "q: 0 + 2 / 2 success"]


def test_code_that_is_built_and_ignored_by_git(lab: Lab) -> None:
    """A spec may name it; it is what was there at create- or update-pipeline, and commits change all else."""
    folder = lab.root / "pipes"
    folder.mkdir()
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["/bin/tool", "/pfs/a", "/pfs/out"]},
        "input": {"pfs": {"repo": "a", "glob": "/"}},
        "code": ["bin/tool", "note", "made"],
    }
    path = folder / "p.json"
    path.write_text(json.dumps(spec))
    (folder / ".gitignore").write_text("/bin/\n*.o\nmade/\n")
    (folder / "note").mkdir()
    (folder / "note" / "why").write_text("1")
    (folder / "note" / "why.o").write_text("1")
    lab.git("add", "pipes")
    lab.git("commit", "-qm", "A pipeline whose program is built")
    lab.data("a", {"x": "1"})
    with pytest.raises(BadSpec, match=r"code 'bin/tool' of pipeline p is not in pipes/"):
        lab.project.pipelines.create([str(path)])
    assert lab.git("branch", "--list", "__spec__") == ""

    def build(text: str) -> None:
        for name in ("bin/tool", "made/a/b"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"#!/bin/sh\necho {text} > $2/result\n")
            (folder / name).chmod(0o755)

    build("one")
    lab.project.pipelines.create([str(path)])
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    assert lab.files("p") == {"result": "one\n"}
    code = lab.git("ls-tree", "-r", "--name-only", "__spec__:p/code").split()
    assert code == ["bin/tool", "made/a/b", "note/why"]  # ignored files beside code that is not are left out
    source = ["log", "-1", "--format=%(trailers:key=Source,valueonly)", "__spec__"]
    assert lab.git(*source).strip() == f"main@{lab.head('main')}-dirty:pipes/p.json"

    build("two")
    (folder / "note" / "why").write_text("2")
    lab.git("commit", "-qam", "The committed part follows by itself, the built one is the one of before")
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    assert lab.files("p") == {"result": "one\n"}
    assert not any("stays as it was" in text for text in lab.project.status().warnings)

    lab.project.pipelines.update([str(path)])
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    assert lab.files("p") == {"result": "two\n"}
    (folder / "note" / "yes").write_text("3")
    lab.git("add", "pipes")
    lab.git("commit", "-qm", "It goes on following")
    assert lab.ran() == ["p: 1 + 0 / 1 success"]
    assert lab.git("ls-tree", "-r", "--name-only", "__spec__:p/code").split() == [*code, "note/yes"]
    assert lab.files("p") == {"result": "two\n"}


def test_update_pipeline_and_reprocess(lab: Lab) -> None:
    lab.data("a", {"x": "1", "y": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.pipeline("q", {"p": "/*"})
    lab.run()
    path = str(lab.root / "specs" / "p.json")
    lab.project.pipelines.update([path])
    assert lab.run() == []
    assert lab.project.pipelines.run("p")[0].startswith("p: nothing to do")
    for _ in range(2):
        lab.project.pipelines.update([path], reprocess=True)
        assert lab.ran() == ["p: 2 + 0 / 2 success", "q: 0 + 2 / 2 success"]
    lab.pipeline("p", {"a": "/*"}, "echo new > /pfs/out/$(basename $a)")
    assert lab.ran() == ["p: 2 + 0 / 2 success", "q: 2 + 0 / 2 success"]


def test_a_failed_job_publishes_nothing_and_keeps_what_it_finished(lab: Lab) -> None:
    """I5: what lies below is unrunnable and says why; a retry or a fix goes on where it stopped."""
    script = 'f=$(ls /pfs/a); echo "run $f"; [ "$(cat /pfs/a/$f)" != bad ] || exit 3; cp /pfs/a/$f /pfs/out'
    lab.data("a", {"x": "1", "y": "1"})
    lab.pipeline("p", {"a": "/*"}, script)
    lab.pipeline("q", {"p": "/*"})
    lab.pipeline("r", {"q": "/*"})
    lab.pipeline("other", {"a": "/*"})
    lab.run()
    heads = {n: lab.head(n) for n in "pqr"}
    lab.data("a", {"x": "2", "y": "bad", "z": "2"})
    jobs = {j.pipeline: j for j in lab.run()}
    assert {n: lab.head(n) for n in "pqr"} == heads
    assert {n: jobs[n].state for n in "pqr"} == {"p": "failed", "q": "unrunnable", "r": "unrunnable"}
    assert jobs["q"].reason == jobs["r"].reason == "p failed"
    assert "run y" in jobs["p"].reason
    assert jobs["other"].state == "success"
    assert sorted(line for line in lab.printed("p")) == ["run x"] * 2 + ["run y"] * 2 + ["run z"]

    assert lab.project.pipelines.run("p") == ["p: runs again"]
    assert {j.pipeline: j.state for j in lab.run()} == {"p": "failed", "q": "unrunnable", "r": "unrunnable"}
    runs = lab.printed("p")
    assert (runs.count("run x"), runs.count("run z")) == (2, 1)

    lab.data("a", {"x": "2", "y": "3", "z": "2"})
    assert lab.ran()[-4:] == [
        "other: 1 + 2 / 3 success",
        "p: 1 + 2 / 3 success",
        "q: 3 + 0 / 3 success",
        "r: 3 + 0 / 3 success",
    ]
    # The counts in the commit compare with earlier commits, not with what this machine happened to run (I4).
    assert lab.made("p")[-1].subject == "p: 3 processed, 0 skipped of 3 datums"
    assert lab.files("r") == {"x": "2", "y": "3", "z": "2"}
    assert lab.printed("p").count("run x") == 2

    # a failure that the code mends
    lab.data("a", {"x": "bad"})
    assert [j.state for j in lab.run() if j.pipeline == "p"] == ["failed"]
    lab.pipeline("p", {"a": "/*"}, "cp /pfs/a/* /pfs/out")
    assert lab.ran() == [f"{n}: 1 + 0 / 1 success" for n in "pqr"]
    assert lab.files("r") == {"x": "bad"}


def test_two_datums_that_write_one_file_fail_the_job(lab: Lab) -> None:
    lab.data("a", {"x": "1", "y": "1"})
    lab.pipeline("p", {"a": "/*"}, "cat /pfs/a/* > /pfs/out/same")
    (said,) = lab.ran()
    assert "a:/x and a:/y both write same" in said
    assert lab.head("p") == ""


def test_provenance_never_dangles(lab: Lab) -> None:
    """I8: after an amend, a deleted branch and `git gc --prune=now` every SHA in a trailer still resolves."""
    first = lab.data("a", {"x": "1"})
    lab.data("b", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.pipeline("q", {"p": "/", "b": "/"}, "cat /pfs/p/x /pfs/b/x > /pfs/out/x")
    lab.run()
    lab.data("a", {"x": "2"})
    lab.run()
    lab.data("a", {"x": "3"}, parent=first)
    lab.run()
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    made = [m for n in "pq" for m in lab.made(n)]
    lab.git("branch", "-D", "a")
    lab.git("branch", "-D", "b")
    lab.git("update-ref", "-d", "refs/heads/__spec__")
    lab.git("reflog", "expire", "--expire=now", "--expire-unreachable=now", "--all")
    lab.git("gc", "-q", "--prune=now")
    for each in made:
        for ref in each.origin.provenance:
            assert lab.git("cat-file", "-t", ref.sha) == "commit"
        assert lab.git("cat-file", "-t", each.origin.version) == "tree"
    assert "error" not in lab.git("fsck", "--strict", "--full")
    assert lab.git("show-ref").count("refs/gitpipe/") == 2  # one chain a pipeline


def test_git_grows_little_at_many_datums(lab: Lab) -> None:
    """I10: 2,000 datums, one of them changed: a few KB of git an output commit, and one datum of work."""
    files = {f"f{n:04}": str(n) for n in range(2000)}
    lab.data("a", files)
    lab.pipeline("p", {"a": "/*"}, "cp /pfs/a/* /pfs/out", parallelism_spec={"constant": "2"})
    assert lab.ran() == ["p: 2000 + 0 / 2000 success"]
    before = objects_size(lab.root)
    for n in range(3):
        lab.data("a", {**files, "f0000": f"new {n}"})
    assert lab.ran() == ["p: 1 + 1999 / 2000 success"] * 3
    assert (objects_size(lab.root) - before) / 3 < 20_000


def test_equal_work_is_one_commit_wherever_it_is_done(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I4, I12: clones of other users, zones, masks and settings write the same SHAs, once they trust the pipelines."""
    lab.data("a", {"x": "1", "über": "2"})
    lab.pipeline("p", {"a": "/*"}, "umask; cp /pfs/a/* /pfs/out", parallelism_spec={"constant": 2})
    lab.pipeline("q", {"p": "/"})
    lab.run()
    heads = {n: lab.head(n) for n in "pq"}
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Béla")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "bela@example.org")
    root = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(lab.root), str(root)], check=True)
    old = os.umask(0o077)
    try:
        clone = Lab(root)
        for key, value in {
            "commit.gpgSign": "true",
            "gpg.program": "false",
            "core.autocrlf": "true",
            "i18n.commitEncoding": "ISO-8859-1",
            "core.fileMode": "false",
            "user.name": "Someone",
        }.items():
            clone.git("config", key, value)
        clone.git("fetch", "-q", "origin", "a:a", "__spec__:__spec__")
        shutil.copytree(lab.root / ".git" / "dvc" / "cache" / "files", root / ".git" / "dvc" / "cache" / "files")
        assert clone.run() == []
        assert clone.head("p") == ""
        assert [w for w in clone.project.status().warnings if "gitpipe trust" in w and w.startswith("p ")]
        assert clone.project.trust(True, lambda _: False) == ["p: trusted", "q: trusted"]
        assert clone.ran() == ["p: 2 + 0 / 2 success", "q: 1 + 0 / 1 success"]
    finally:
        os.umask(old)
    assert {n: clone.head(n) for n in "pq"} == heads

    # A changed version that arrives by fetch does not run either.
    lab.pipeline("p", {"a": "/*"}, "cp /pfs/a/* /pfs/out; echo changed")
    clone.git("fetch", "-q", "origin", "__spec__:__spec__")
    assert clone.run() == []
    assert {n: clone.head(n) for n in "pq"} == heads


def test_a_script_that_is_not_there_is_said_at_once(lab: Lab, tmp_path: Path) -> None:
    """Whether the spec lies in the repository or not; what is there, or is no script of ours, is not mentioned."""
    lab.data("a", {"x": "1"})
    (tmp_path / "p.json").write_text(lab.write_spec("p", {"a": "/"}).read_text())
    specs = {
        "here": ["sh", "here.sh", "/code/here.sh", "./here.sh", "/here.sh", "/pfs/a/x.py", "-f=gone.py"],
        "gone": ["python", "gone.py"],
        "image": ["python3", "/code/deep/gone.py"],
        "root": ["julia", "/gone.jl"],
    }
    folder = lab.root / "pipes"
    folder.mkdir()
    (folder / "here.sh").write_text("true\n")
    said = []
    for name, cmd in specs.items():
        path = lab.write_spec(name, {"a": "/"}, transform={"cmd": cmd}, code=None)
        spec = json.loads(path.read_text())
        del spec["code"]
        (folder / f"{name}.json").write_text(json.dumps(spec))
        said += lab.project.pipelines.update([str(folder / f"{name}.json")], create=True)
    assert [line for line in said if "its code has no" in line] == [
        'gone: its code has no gone.py: put it beside the spec, or name it in "code"',
        'image: its code has no deep/gone.py: put it beside the spec, or name it in "code"',
        'root: its code has no /gone.jl: put it beside the spec, or name it in "code"',
    ]


def test_a_fetched_commit_on_the_source_branch_is_not_trusted(lab: Lab, tmp_path: Path) -> None:
    """I12: only commits that were made here, or what a person typed, make code run here."""
    folder = lab.root / "pipes"
    folder.mkdir()
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["sh", "p.sh", "/pfs/a", "/pfs/out"]},
        "input": {"pfs": {"repo": "a", "glob": "/*"}},
    }
    (folder / "p.json").write_text(json.dumps(spec))
    (folder / "p.sh").write_text("cp $1/* $2\n")
    lab.git("add", "pipes")
    lab.git("commit", "-qm", "Pipeline")
    lab.data("a", {"x": "1"})
    lab.project.pipelines.create([str(folder / "p.json")])
    lab.run()
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(lab.root), str(other)], check=True)
    (other / "pipes" / "p.sh").write_text("echo owned > $2/x\n")
    subprocess.run(["git", "commit", "-qam", "Evil"], cwd=other, check=True)
    lab.git("pull", "-q", str(other), "main")
    assert lab.run() == []
    assert lab.files("p") == {"x": "1"}
    assert [w for w in lab.project.status().warnings if w.startswith("p came from elsewhere")]
    lab.project.trust(True, lambda _: False)
    lab.run()
    assert lab.files("p") == {"x": "owned\n"}


def test_names_and_inputs_that_cannot_be(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    before = lab.git("for-each-ref")
    with pytest.raises(Refused, match="branch main, which exists"):
        lab.pipeline("main", {"a": "/"})
    with pytest.raises(BadSpec, match="input repo nowhere does not exist"):
        lab.pipeline("p", {"nowhere": "/"})
    with pytest.raises(BadSpec, match="is taken"):
        lab.pipeline("__spec__", {"a": "/"})
    lab.write_spec("p", {"q": "/"})
    lab.write_spec("q", {"p": "/"})
    with pytest.raises(BadSpec, match="p → q → p"):
        lab.project.pipelines.create([str(lab.root / "specs" / f"{n}.json") for n in "pq"])
    assert lab.git("for-each-ref") == before
    lab.pipeline("p", {"a": "/"})
    with pytest.raises(Refused, match="p exists already"):
        lab.project.pipelines.create([str(lab.write_spec("p", {"a": "/"}))])
    with pytest.raises(Refused, match="output of a pipeline"):
        lab.project.data.create_repo("p")
    lab.run()
    with pytest.raises(Refused, match="output of a pipeline"):
        lab.project.data.put_file(["p"], [str(lab.root / "README")])
    with pytest.raises(Refused, match="read by pipeline p"):
        lab.project.data.delete_repo("a")


def test_two_labs_that_do_the_same_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I4: over several commits, deletions of the local state and a failure on one side only."""
    monkeypatch.setenv("GITPIPE", "0")
    monkeypatch.setenv("GIT_AUTHOR_DATE", f"{EPOCH} +0000")
    monkeypatch.setenv("GIT_COMMITTER_DATE", f"{EPOCH} +0000")
    labs = [new_lab(tmp_path / name) for name in ("one", "two")]
    for n, lab in enumerate(labs):
        lab.data("a", {"x": "1", "y": "1"})
        lab.pipeline("p", {"a": "/*"})
        lab.run()
        for text in ("2", "3"):
            lab.data("a", {"x": text, "y": "1", "z": text})
            if n:
                lab.forget()
                lab.run()
        lab.run()
    assert len(labs[0].made("p")) == 3
    assert labs[0].git("for-each-ref", "refs/heads") == labs[1].git("for-each-ref", "refs/heads")
