"""Spec files before they are committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gitpipe.speccheck import check_specs

from .conftest import ROOT
from .lab import Lab


def spec(name: str, *reads: str, **more: object) -> str:
    leaves = [{"pfs": {"repo": repo, "glob": "/*"}} for repo in reads]
    value = {
        "pipeline": {"name": name},
        "transform": {"cmd": ["true"]},
        "input": leaves[0] if len(leaves) == 1 else {"cross": leaves},
        "code": [],
        **more,
    }
    return json.dumps(value)


def check(lab: Lab, **files: str) -> list[str]:
    """Write and stage `files` (``_`` stands for the dot), and check them all."""
    names = [name.replace("_", ".", 1) for name in files]
    for name, text in zip(names, files.values(), strict=True):
        (lab.root / name).write_text(text)
    lab.git("add", *names)
    project = lab.project
    return check_specs(project.repo, project.store, names, {})


def test_good_specs_and_other_files_pass(lab: Lab) -> None:
    files = {
        "a_json": spec("model", "training"),
        "b_yaml": "pipeline: {name: x}\ntransform: {cmd: ['true']}\ninput: {pfs: {repo: model, glob: /}}\ncode: []\n",
        "package_json": '{"name": "x", "pipeline": "nightly", "input": 3}',
        "broken_json": '{"name": ',
        "ci_yml": "pipeline: {{ .Values.name }}\ninput: {{ .Values.input }}\n",
        "list_json": "[1, 2]",
        "empty_json": "",
        "large_json": '{"pipeline": {"name": "x"}, "transform": "' + "x" * (1 << 20) + '"}',
    }
    assert check(lab, **files) == []
    project = lab.project
    assert check_specs(project.repo, project.store, ["gone.json"], {}) == []


def test_a_wrong_spec_is_one_line_with_its_place(lab: Lab) -> None:
    (line,) = check(lab, a_json=spec("model", "training", datum_tries="often"))
    assert line.startswith("a.json:1: datum_tries: ")
    (line,) = check(lab, a_json='{"pipeline": {"name": "x"},\n "transform": }')
    assert line.startswith("a.json:2: not valid JSON")
    (line,) = check(lab, a_json='{"pipeline": {"name": "x"}, "transfrom": {}, "input": {"pfs": {"repo": "a"}}}')
    assert line.startswith("a.json:1: ")


def test_circles_among_files_and_with_what_is_recorded(lab: Lab) -> None:
    (line,) = check(lab, a_json=spec("one", "two"), b_json=spec("two", "one"))
    assert line.startswith("pipelines read each other in a circle: one → two → one")
    lab.data("training", {"a": "1"})
    lab.pipeline("one", {"training": "/*"})
    assert check(lab, b_json=spec("two", "one")) == []
    lab.pipeline("two", {"one": "/*"})
    (line,) = check(lab, a_json=spec("one", "two"))
    assert "in a circle" in line


def test_variants_of_one_pipeline_in_several_files_are_no_mistake(lab: Lab) -> None:
    assert check(lab, a_json=spec("model", "training"), b_json=spec("model", "other")) == []
    (line,) = check(lab, a_json=spec("model", "training") + spec("model", "training"))
    assert "stands twice" in line


def test_names_that_are_taken(lab: Lab) -> None:
    lab.data("training", {"a": "1"})
    (line,) = check(lab, a_json=spec("training", "other"))
    assert line == (
        "a.json: pipeline training would write to branch training, which exists and is not its own: rename one"
    )
    lab.pipeline("copy", {"training": "/*"})
    lab.run()
    assert check(lab, a_json=spec("copy", "training")) == []
    lab.git("update-ref", "-d", "refs/heads/__spec__")  # as in a clone that has the output alone
    assert check(lab, a_json=spec("copy", "training")) == []


def test_code_that_a_spec_names_is_to_be_staged(lab: Lab) -> None:
    (lab.root / "train.py").write_text("")
    (line,) = check(lab, a_json=spec("model", "training", code=["train.py"]))
    assert line.startswith("a.json: code 'train.py' of pipeline model is not in ./: add it there")
    lab.git("add", "train.py")
    assert check(lab, a_json=spec("model", "training", code=["train.py"])) == []


def test_code_that_git_ignores_is_built_elsewhere(lab: Lab) -> None:
    (lab.root / ".gitignore").write_text("/train\n")
    assert check(lab, a_json=spec("model", "training", code=["./train"])) == []
    assert check(lab, a_json=spec("model", "training", code=["trains"]))


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "pipelines").iterdir()))
def test_the_examples_pass(lab: Lab, folder: str) -> None:
    import shutil

    shutil.copytree(ROOT / "pipelines" / folder, lab.root / folder)
    lab.git("add", ".")
    paths = [str(Path(folder, path.name)) for path in (lab.root / folder).glob("*.json")]
    assert paths
    assert check_specs(lab.project.repo, lab.project.store, paths, {}) == []


def test_a_script_that_is_not_there(lab: Lab) -> None:
    (line,) = check(lab, a_json=spec("model", "training", transform={"cmd": ["python3", "no.py"]}))
    assert line == 'a.json: model: its code has no no.py: put it beside the spec, or name it in "code"'
    (lab.root / "train.py").write_text("print()\n")
    lab.git("add", "train.py")
    good = spec(
        "model", "training", transform={"cmd": ["python3", "/code/train.py", "/pfs/training/x.py"]}, code=["train.py"]
    )
    assert check(lab, a_json=good) == []
