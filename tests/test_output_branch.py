"""``output_branch``: a pipeline that writes another branch of its repo than ``master``, and who reads which of them."""

from __future__ import annotations

import json

import pytest

from gitpipe.errors import GitpipeError, NotFound, Refused
from gitpipe.graph import downstream, order, sources, upstream
from gitpipe.spec import Spec, load_specs
from tests.conftest import Shell
from tests.lab import Lab


def spec(name: str, *reads: str, output: str = "master") -> Spec:
    inputs = [
        {"pfs": {"repo": r.partition("@")[0], "branch": r.partition("@")[2] or "master", "glob": "/"}} for r in reads
    ]
    value = {"pipeline": {"name": name}, "transform": {"cmd": ["true"]}, "input": {"cross": inputs}}
    return load_specs(json.dumps({**value, "output_branch": output}).encode(), "s.json")[0]


def test_the_graph_knows_branches_from_pipelines() -> None:
    """A pipeline called ``model`` and the branch ``model`` that it does not write are two things."""
    specs = {
        "model": spec("model", "training", output="staging"),
        "live": spec("live", "model"),
        "trial": spec("trial", "model@staging"),
    }
    assert specs["model"].output == "model@staging"
    assert sources(specs) == {"training", "model"}
    assert upstream(specs, "live") == set() and upstream(specs, "trial") == {"model"}
    assert downstream(specs, "model") == {"trial"} and downstream(specs, "training") == {"model", "trial"}
    assert order(specs).index("trial") > order(specs).index("model")


def test_deferred_processing_of_an_output(lab: Lab) -> None:
    """``model`` writes to staging; ``infer`` reads master, which a person moves when the model is good."""
    lab.data("training", {"x": "1"})
    lab.pipeline("model", {"training": "/"}, output_branch="staging")
    lab.pipeline("infer", {"model": "/"})  # a branch of an output may come later
    assert lab.ran() == ["model: 1 + 0 / 1 success"]
    assert lab.head("model") == "" and lab.files("model@staging") == {"x": "1"}
    assert lab.made("model@staging")[0].origin.pipeline == "model"

    project = lab.project
    assert project.branches.create(["model@master"], "staging") == lab.head("model@staging")
    assert lab.ran() == ["infer: 1 + 0 / 1 success"]
    lab.data("training", {"x": "2"})
    assert lab.ran() == ["model: 1 + 0 / 1 success"]
    assert lab.files("infer") == {"x": "1"} and lab.files("model@staging") == {"x": "2"}
    project.branches.create(["model", "master"], "staging")
    assert lab.ran() == ["infer: 1 + 0 / 1 success"] and lab.files("infer") == {"x": "2"}
    assert lab.run() == []
    heads = lab.git("show-ref", "--heads")
    lab.forget()
    lab.run()
    assert lab.git("show-ref", "--heads") == heads, "refs and trailers alone tell that all is done (I1)"
    one, two = lab.made("infer")
    assert one.sources["model"] != two.sources["model"] == lab.head("model@staging")


def test_chains_on_the_output_branch(lab: Lab) -> None:
    """Who reads ``model@staging`` runs after ``model``, in the same set; provenance names the branch."""
    lab.data("training", {"x": "1"})
    lab.pipeline("model", {"training": "/"}, output_branch="staging")
    path = lab.write_spec("trial", {"model": "/"})
    value = json.loads(path.read_text())
    value["input"]["pfs"]["branch"] = "staging"
    path.write_text(json.dumps(value))
    lab.project.pipelines.update([str(path)], create=True)
    assert lab.ran() == ["model: 1 + 0 / 1 success", "trial: 1 + 0 / 1 success"]
    assert lab.made("trial")[0].sources == {
        "training": lab.head("training"),
        "model@staging": lab.head("model@staging"),
    }
    lab.git("update-ref", "refs/heads/model@staging", lab.data("other", {"x": "by hand"}))
    assert [line.partition(":")[0] for line in lab.ran()] == ["model", "trial"], "an output that was moved is mended"
    assert lab.files("trial") == {"x": "1"}
    heads = lab.git("show-ref", "--heads")
    lab.forget()
    lab.run()
    assert lab.git("show-ref", "--heads") == heads


def test_places_and_refusals(lab: Lab, sh: Shell) -> None:
    lab.data("training", {"x": "1"})
    lab.pipeline("model", {"training": "/"}, output_branch="staging")
    assert lab.ran() == ["model: 1 + 0 / 1 success"]
    data, branches, sha = lab.project.data, lab.project.branches, lab.head("model@staging")
    assert [(r.name, r.head) for r in data.list_repo() if r.pipeline] == [("model", sha)]
    assert data.inspect_repo("model").head == sha
    assert [b.branch for b in branches.list("model")] == ["staging"]
    job = lab.made("model@staging")[0].origin.job
    for words in (["model@staging"], ["model", "staging"], [f"model@{sha}"], ["model", sha[:12]], ["model", job]):
        assert (data.inspect_commit(words).sha, data.inspect_commit(words).branch) == (sha, "staging")
    with pytest.raises(NotFound, match="has no branch master: its pipeline writes model@staging"):
        data.list_file(["model"])
    for words in (["model", "staging", "/y"], ["model@other", "y"]):
        with pytest.raises(Refused, match="output of a pipeline"):
            data.put_file(words, ["-"])
    for act in (lambda: branches.create(["model@staging"], sha), lambda: branches.delete(["model", "staging"])):
        with pytest.raises(Refused, match="model@staging is the output of a pipeline"):
            act()
    branches.create(["model", "prod"], "staging")
    assert [line.origin.job for line in lab.made("model@prod")] == [job]
    (up,) = lab.project.history.lineage(["model@prod"])
    assert [child.commit.repo for child in up.children] == ["training"]

    sh("GITPIPE=1 git worktree add -q ../out model@staging", cwd=lab.root)
    out = lab.root.parent / "out"
    with pytest.raises(Refused, match="model@staging is the output of a pipeline"):
        from gitpipe.project import open_project

        open_project(out).checkouts.add(["data"], out)
    said = sh("GITPIPE=1 git commit -q --allow-empty -m x 2>&1", cwd=out, status=1)
    assert "model@staging is the output of a pipeline" in said
    lab.data("training", {"x": "2"})
    assert lab.ran() == ["model: 1 + 0 / 1 success"]
    assert (out / "data" / "x").read_text() == "2", "a clean working tree follows"


def test_changed_by_update_and_deleted(lab: Lab) -> None:
    """The new branch begins with a new history, nothing is run again; a branch of somebody else is not taken."""
    lab.data("training", {"x": "1"})
    lab.pipeline("model", {"training": "/"})
    assert lab.ran() == ["model: 1 + 0 / 1 success"]
    lab.project.branches.create(["model", "taken"], "master")
    lab.git("branch", "model@foreign", "training")
    with pytest.raises(GitpipeError, match="would write to branch model@foreign, which exists and is not its own"):
        lab.pipeline("model", {"training": "/"}, output_branch="foreign")
    lab.pipeline("model", {"training": "/"}, output_branch="staging")
    assert lab.ran() == ["model: 0 + 1 / 1 success"]
    assert len(lab.made("model@staging")) == 1 and len(lab.made("model")) == 1
    lab.pipeline("model", {"training": "/"})
    assert lab.ran() and len(lab.made("model")) == 1, "its own branch again, where this version's result stands (I2)"
    lab.pipeline("model", {"training": "/"}, output_branch="staging")
    lab.run()
    lab.project.pipelines.delete("model")
    assert lab.head("model@staging") == "" and lab.head("model") != "" and lab.run() == []
