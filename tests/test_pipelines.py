"""``__spec__``: what follows a source branch, what is trusted, and what a crafted tree cannot do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from gitpipe import datumindex
from gitpipe.errors import GitpipeError
from gitpipe.pipelines import SPEC_REF
from gitpipe.repo import BLOB, TREE, Entry, RefUpdate, Signature
from tests.lab import EPOCH, Lab


def commit_specs(lab: Lab, *paths: str) -> None:
    lab.git("add", *(paths or ("specs",)))
    lab.git("commit", "-qm", "specs")


def on_spec_branch(lab: Lab, files: Mapping[str, Entry]) -> None:
    """Commit entries to ``__spec__`` past all checks, as somebody may push them."""
    repo = lab.project.repo
    head = repo.ref(SPEC_REF)
    assert head
    commit = repo.write_commit(repo.write_paths(files, head), [head], "x", Signature("E <e@example.org>", EPOCH))
    assert repo.update_refs([RefUpdate(SPEC_REF, commit, head)], "test")


def stage_folder(lab: Lab, text: str) -> Path:
    folder = lab.root / "stage"
    folder.mkdir(exist_ok=True)
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["sh", "run.sh"]},
        "input": {"pfs": {"repo": "a", "glob": "/"}},
        "datum_tries": 1,
    }
    (folder / "p.json").write_text(json.dumps(spec))
    (folder / "run.sh").write_text(f"echo {text} >/pfs/out/x")
    return folder


def test_a_source_commit_that_was_amended_and_pruned_stops_nothing(lab: Lab) -> None:
    """With and without local state: what `__spec__` came from may be gone, as in a clone after a force-push."""
    lab.data("a", {"x": "1"})
    lab.write_spec("p", {"a": "/"})
    commit_specs(lab)
    lab.pipeline("p", {"a": "/"})
    lab.run()
    lab.git("commit", "--amend", "-qm", "amended")
    lab.prune()
    lab.data("a", {"x": "2"})
    lab.run()
    assert lab.files("p") == {"x": "2"}
    lab.git("commit", "--amend", "-qm", "again")
    lab.prune()
    lab.forget()
    lab.data("a", {"x": "3"})
    lab.run()
    assert lab.files("p") == {"x": "3"}


def test_an_update_from_an_uncommitted_file_outlives_commits_of_others(lab: Lab) -> None:
    """A commit beside a changed spec does not bring back the old one; nor does a loss of the local state (I1)."""
    lab.data("a", {"x": "1"})
    lab.write_spec("p", {"a": "/"})
    commit_specs(lab)
    lab.pipeline("p", {"a": "/"})
    lab.write_spec("q", {"a": "/"})
    commit_specs(lab)
    lab.pipeline("q", {"a": "/"})
    lab.run()
    lab.pipeline("q", {"a": "/"}, "echo typed >/pfs/out/x")
    lab.run()
    assert lab.files("q") == {"x": "typed\n"}
    lab.write_spec("p", {"a": "/"}, parallelism_spec={"constant": 2})
    commit_specs(lab, "specs/p.json")
    lab.run()
    assert lab.files("q") == {"x": "typed\n"}
    lab.forget()
    lab.run()
    assert lab.files("q") == {"x": "typed\n"}
    lab.write_spec("q", {"a": "/"}, "echo committed >/pfs/out/x")
    commit_specs(lab, "specs/q.json")
    lab.run()
    assert lab.files("q") == {"x": "committed\n"}


def test_pulled_code_below_a_commit_of_ours_is_not_trusted(lab: Lab, tmp_path: Path) -> None:
    """I12: a note of ours in the same folder does not vouch for what came from elsewhere."""
    lab.data("a", {"x": "1"})
    folder = stage_folder(lab, "ours")
    commit_specs(lab, "stage")
    lab.project.pipelines.create([str(folder / "p.json")])
    lab.run()
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(lab.root), str(other)], check=True)
    (other / "stage" / "run.sh").write_text("echo theirs >/pfs/out/x")
    subprocess.run(["git", "commit", "-qam", "theirs"], cwd=other, check=True)
    lab.git("fetch", "-q", str(other), "main")
    lab.git("merge", "-q", "--ff-only", "FETCH_HEAD")
    (folder / "note.txt").write_text("a note")
    commit_specs(lab, "stage")
    lab.run()
    assert lab.files("p") == {"x": "ours\n"}
    (folder / "note.txt").write_text("another note")
    commit_specs(lab, "stage")
    lab.run()
    assert lab.files("p") == {"x": "ours\n"}
    lab.project.pipelines.trust(True, lambda _: True)
    lab.run()
    assert lab.files("p") == {"x": "theirs\n"}


def test_trust_is_not_lost_where_the_settings_are_locked_for_a_moment(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.write_spec("p", {"a": "/"})
    commit_specs(lab)
    lab.pipeline("p", {"a": "/"})
    lab.run()
    lab.write_spec("p", {"a": "/"}, "echo new >/pfs/out/x")
    commit_specs(lab)
    lock = lab.root / ".git" / "config.lock"
    lock.touch()
    try:
        lab.run()
    except GitpipeError as error:
        assert "config" in str(error)
    lock.unlink()
    lab.run()
    assert lab.files("p") == {"x": "new\n"}


def test_a_crafted_code_tree_does_not_leave_its_folder(lab: Lab) -> None:
    """I11: git stores an entry named `..` if somebody makes it."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    repo = lab.project.repo
    tree = repo.write_tree({"escaped": Entry(BLOB, repo.write_blob(b"x"))})
    for _ in range(2):
        tree = repo.write_tree({"..": Entry(TREE, tree)})
    on_spec_branch(lab, {"p/code": Entry(TREE, tree)})
    lab.project.pipelines.trust(True, lambda _: True)
    (job,) = lab.run()
    assert job.state == "failed"
    assert "unsafe path" in job.reason
    assert list(lab.root.rglob("escaped")) == []


def test_a_damaged_note_of_the_source_stops_nothing(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    on_spec_branch(lab, {".gitpipe/p.json": Entry(BLOB, lab.project.repo.write_blob(b"{}"))})
    lab.data("a", {"x": "2"})
    lab.run()
    assert lab.files("p") == {"x": "2"}


def test_code_that_no_pipeline_has_any_more_is_removed(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    for n in range(3):
        spec = stage_folder(lab, str(n)) / "p.json"
        lab.project.pipelines.update([str(spec)], create=True)
        lab.run()
    assert len(list((lab.root / ".git" / "gitpipe" / "code").iterdir())) == 1


def test_the_index_names_the_branch_that_a_skipped_datum_is_read_from_now(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    lab.data("b", {"x": "1"})
    lab.pipeline("p", {"a": "/"}, "cp /pfs/a/x /pfs/out/x")
    lab.run()
    path = lab.write_spec(
        "p", {"a": "/"}, "cp /pfs/a/x /pfs/out/x", input={"pfs": {"repo": "b", "name": "a", "glob": "/"}}
    )
    lab.project.pipelines.update([str(path)])
    assert lab.ran() == ["p: 0 + 1 / 1 success"]
    project = lab.project
    (line,) = datumindex.state(project.blobs, datumindex.segments(project.repo, project.blobs, lab.head("p"))).values()
    assert json.loads(line)["inputs"][0][:3] == ["a", "b", "x"]


def test_a_pipeline_whose_input_is_gone_does_not_pass_for_running(lab: Lab) -> None:
    lab.data("training", {"a": "1"})
    lab.pipeline("copy", {"training": "/*"})
    lab.pipeline("next", {"copy": "/*"})
    lab.run()

    def states() -> dict[str, str]:
        return {info.name: info.state for info in lab.project.pipelines.list()}

    assert states() == {"copy": "running", "next": "running"}
    head = lab.head("training")
    lab.git("branch", "-q", "-D", "training")
    assert states() == {"copy": "no input", "next": "running"}
    lab.git("branch", "-q", "training", head)
    assert states() == {"copy": "running", "next": "running"}


def test_only_the_code_is_read(lab: Lab, tmp_path: Path) -> None:
    """Whatever else lies beside the spec stays out of git; and names that git reads in its own way."""
    lab.data("a", {"x": "1"})
    inside, outside = lab.root / "pipes", tmp_path / "elsewhere"
    odd = ['odd/"quoted".py', '"a"', "two\nlines.py", "back\\slash\n.py", "odd/ends\r", "train.py"]
    for folder in (inside, outside):
        (folder / "odd").mkdir(parents=True)
        spec = {
            "pipeline": {"name": folder.name},
            "transform": {"cmd": ["true"]},
            "input": {"pfs": {"repo": "a", "glob": "/"}},
            "code": ["odd", *odd[1:4], "train.py"],
        }
        (folder / "p.json").write_text(json.dumps(spec))
        for name in odd:
            (folder / name).write_text(name)
        (folder / "results").mkdir()
        for number in range(20):
            (folder / "results" / f"{number}.txt").write_text(f"{folder.name} {number}")
        lab.project.pipelines.create([str(folder / "p.json")])
        repo = lab.project.repo
        code = dict(repo.walk(lab.git("rev-parse", f"__spec__:{folder.name}/code")))
        assert {path: repo.blob(entry.sha).decode() for path, entry in code.items()} == {name: name for name in odd}
        repo.close()
        for number in range(20):
            sha = lab.git("hash-object", str(folder / "results" / f"{number}.txt"))
            assert lab.git("cat-file", "-t", sha, check=False) == "", "it was read"
    assert (
        lab.git("log", "-1", "--format=%(trailers:key=Source,valueonly)", "__spec__~")
        .strip()
        .endswith("-dirty:pipes/p.json")
    )


def test_what_gitpipeignore_names_is_not_read(lab: Lab) -> None:
    lab.data("a", {"x": "1"})
    folder = lab.root / "pipes"
    folder.mkdir()
    spec = {"pipeline": {"name": "p"}, "transform": {"cmd": ["true"]}, "input": {"pfs": {"repo": "a", "glob": "/"}}}
    for name, text in {"p.json": json.dumps(spec), ".gitpipeignore": "*.log\n", "a.py": "1", "b.log": "no"}.items():
        (folder / name).write_text(text)
    lab.project.pipelines.create([str(folder / "p.json")])
    assert lab.git("ls-tree", "-r", "--name-only", "__spec__:p/code") == "a.py"
    assert lab.git("cat-file", "-t", lab.git("hash-object", "pipes/b.log"), check=False) == "", "it was read"
