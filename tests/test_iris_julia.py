"""The Iris example in Julia: specs that name programs as an image has them; the programs run where there is Julia."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gitpipe.example import copy_example
from tests.conftest import ROOT, Shell
from tests.lab import Lab
from tests.test_examples import LABELS, tree

JULIA = ROOT / "pipelines" / "iris-julia"
DATA = ROOT / "data" / "iris"

needs_julia = pytest.mark.skipif(shutil.which("julia") is None, reason="julia is not installed here")


def example(lab: Lab) -> Path:
    """The example in the lab's main branch, and its data; the folder of the specs."""
    copy_example("iris-julia", lab.root)
    lab.git("add", "pipelines", "samples")
    lab.git("commit", "-qm", "Iris pipelines")
    lab.data("training", {"iris.csv": (DATA / "iris.csv").read_text()})
    lab.data("attributes", {name: (DATA / "attributes" / name).read_text() for name in LABELS})
    return lab.root / "pipelines" / "iris-julia"


@needs_julia
@pytest.mark.parametrize("kind", ["train", "train-forest"])
def test_the_scripts_by_themselves(tmp_path: Path, sh: Shell, kind: str) -> None:
    for model in ("a.jld", "b.jld"):
        sh(f"julia {JULIA}/{kind}.jl {DATA}/iris.csv {model}")
    assert (tmp_path / "a.jld").read_bytes() == (tmp_path / "b.jld").read_bytes()
    sh(f"mkdir out && julia {JULIA}/infer.jl a.jld {DATA}/attributes out")
    assert {name: text.decode() for name, text in tree(tmp_path / "out").items()} == LABELS


@needs_julia
def test_the_pipelines(lab: Lab) -> None:
    specs = example(lab)
    lab.project.pipelines.create([str(specs / "train.json"), str(specs / "infer.json")])
    assert lab.ran() == ["model: 1 + 0 / 1 success", "inference: 2 + 0 / 2 success"]
    assert lab.files("inference") == LABELS
    lab.project.pipelines.update([str(specs / "train-forest.json")])
    assert lab.ran() == ["model: 1 + 0 / 1 success", "inference: 2 + 0 / 2 success"]
    assert lab.files("inference") == LABELS


def test_specs_load_with_the_code_that_they_name(lab: Lab) -> None:
    specs = example(lab)
    lab.project.pipelines.create([str(specs / "train.json"), str(specs / "infer.json")])
    code = lab.git("ls-tree", "-r", "--name-only", "__spec__", "model/code", "inference/code").splitlines()
    assert code == ["inference/code/infer.jl", "inference/code/tree.jl", "model/code/train.jl", "model/code/tree.jl"]
    lab.project.pipelines.update([str(specs / "train-forest.json")])
    code = lab.git("ls-tree", "-r", "--name-only", "__spec__", "model/code").splitlines()
    assert code == ["model/code/train-forest.jl", "model/code/tree.jl"]
    for name in ("train", "train-forest", "infer"):
        spec = json.loads((JULIA / f"{name}.json").read_text())
        assert spec["transform"]["cmd"][:2] == ["julia", f"/{name}.jl"]
        assert spec["parallelism_spec"] == {"strategy": "CONSTANT", "constant": "1"}


def test_a_job_takes_the_programs_of_an_image_from_the_code_and_says_so(lab: Lab, sh: Shell) -> None:
    """The same form of spec with an interpreter that every machine has."""
    folder = lab.root / "pipelines"
    folder.mkdir()
    (folder / "train.sh").write_text('wc -l < "$1" > "$2"\n')
    (folder / "infer.sh").write_text('for f in "$2"/*; do cat "$1" "$f" > "$3/${f##*/}"; done\n')
    specs = {}
    for name in ("train", "infer"):
        spec = json.loads((JULIA / f"{name}.json").read_text())
        spec["transform"]["cmd"][:2] = ["sh", f"/{name}.sh"]
        specs[name] = folder / f"{name}.json"
        specs[name].write_text(json.dumps({**spec, "code": [f"{name}.sh"]}))
    lab.git("add", "pipelines")
    lab.git("commit", "-qm", "Pipelines")
    lab.data("training", {"iris.csv": "1\n2\n3\n"})
    lab.data("attributes", {"1.csv": "one\n", "2.csv": "two\n"})
    lab.project.pipelines.create([str(path) for path in specs.values()])
    assert lab.ran() == ["model: 1 + 0 / 1 success", "inference: 2 + 0 / 2 success"]
    assert lab.files("inference") == {"1.csv": "3\none\n", "2.csv": "3\ntwo\n"}
    assert "\nNote: /train.sh: taken from the pipeline's code\n" in sh("gitpipe inspect-job model", cwd=lab.root)
    raw = json.loads(sh("gitpipe inspect-job inference --raw", cwd=lab.root))
    assert raw["notes"] == ["/infer.sh: taken from the pipeline's code"]
