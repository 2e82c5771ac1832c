"""The Iris example in R: its scripts by themselves, and Python pipelines that are swapped for it in one step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gitpipe.example import copy_example
from tests.conftest import ROOT, Shell
from tests.lab import Lab
from tests.scenarios.served import listed
from tests.test_examples import LABELS, tree

R = ROOT / "pipelines" / "iris-r"
DATA = ROOT / "data" / "iris"

needs_r = pytest.mark.skipif(shutil.which("Rscript") is None, reason="Rscript is not installed here")


@needs_r
def test_the_scripts_give_the_labels_that_python_gives(tmp_path: Path, sh: Shell) -> None:
    sh(f"mkdir model again out && Rscript {R}/train.R {DATA}/ model/ && Rscript {R}/train.R {DATA}/ again/")
    assert list(tree(tmp_path / "model")) == ["model.rds"]
    assert tree(tmp_path / "model") == tree(tmp_path / "again")
    sh(f"Rscript {R}/infer.R model/ {DATA}/attributes/ out/")
    assert {name: text.decode() for name, text in tree(tmp_path / "out").items()} == LABELS


@needs_r
def test_the_model_is_right_on_the_flowers_that_it_has_seen(tmp_path: Path, sh: Shell) -> None:
    """147 of 150, as a linear discriminant analysis is."""
    flowers = [line.rpartition(",") for line in (DATA / "iris.csv").read_text().split()]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "all.csv").write_text("".join(f"{measured}\n" for measured, _, _ in flowers))
    sh(f"mkdir model out && Rscript {R}/train.R {DATA}/ model/ && Rscript {R}/infer.R model/ in/ out/")
    named = (tmp_path / "out" / "all.csv").read_text().split()
    assert sum(name == species for name, (_, _, species) in zip(named, flowers, strict=True)) == 147


@needs_r
def test_no_package_is_needed(tmp_path: Path, sh: Shell) -> None:
    """What R has without any recommended or added package is enough."""
    base = "Sys.setenv(R_LIBS_USER='-'); x <- rownames(installed.packages(priority='base')); cat(x)"
    loaded = f"source('{R}/train.R'); cat(setdiff(loadedNamespaces(), strsplit(Sys.getenv('BASE'), ' ')[[1]]))"
    said = sh(f'mkdir out && BASE="$(Rscript -e "{base}")" Rscript -e "{loaded}" {DATA}/ out/')
    assert said.strip() == "" and (tmp_path / "out" / "model.rds").exists()


@needs_r
@pytest.mark.parametrize("script", ["train.R", "infer.R"])
def test_wrong_arguments_are_one_clear_line(sh: Shell, script: str) -> None:
    assert f"usage: Rscript {script} " in sh(f"Rscript {R}/{script} one", status=1, stderr=True)


def test_specs_are_those_of_python_but_for_the_language() -> None:
    model, inference = (json.loads((R / name).read_text()) for name in ("train.json", "infer.json"))
    assert json.loads((R / "both.json").read_text()) == [model, inference]
    for spec, name in ((model, "train.json"), (inference, "infer.json")):
        python = json.loads((R.parent / "iris" / name).read_text())
        assert spec["transform"]["cmd"][0] == "Rscript" and (R / spec["code"][0]).is_file()
        assert spec["transform"]["cmd"][2:] == python["transform"]["cmd"][2:]
        assert spec["code"] == [spec["transform"]["cmd"][1]]
        assert {**spec, "transform": 0, "code": 0} == {**python, "transform": 0, "code": 0}


@needs_r
def test_python_is_swapped_for_r_in_one_step(lab: Lab) -> None:
    """One commit of specs, one job of each pipeline: R never meets a model of Python's, nor the other way round."""
    specs = lab.root / "pipelines"
    python = [str(specs / "iris" / name) for name in ("train-tree.json", "infer.json")]
    for name in ("iris", "iris-r"):
        copy_example(name, lab.root)
    lab.git("add", "pipelines", "samples")
    lab.git("commit", "-qm", "Iris pipelines")
    lab.data("training", {"iris.csv": (DATA / "iris.csv").read_text()})
    lab.data("attributes", {name: (DATA / "attributes" / name).read_text() for name in LABELS})
    lab.project.pipelines.create(python)
    once = ["model: 1 + 0 / 1 success", "inference: 2 + 0 / 2 success"]
    assert lab.ran() == once
    assert lab.files("inference") == LABELS
    assert listed(lab.root, "refs/heads/model") == ["model.joblib"]

    lab.project.pipelines.update([str(specs / "iris-r" / "both.json")])
    assert len(lab.commits("__spec__")) == 2
    assert lab.ran() == once
    assert lab.files("inference") == LABELS
    assert listed(lab.root, "refs/heads/model") == ["model.rds"]
    assert [len(lab.made(name)) for name in ("model", "inference")] == [2, 2]
    assert lab.made("inference")[-1].sources["model"] == lab.head("model")
    assert [job.state for job in lab.project.jobs.list()] == ["success"] * 4

    # Back again: Python's model and its results are still known, so there is nothing to compute.
    lab.project.pipelines.update(python)
    assert lab.ran() == ["model: 0 + 1 / 1 success", "inference: 0 + 2 / 2 success"]
    assert listed(lab.root, "refs/heads/model") == ["model.joblib"]
