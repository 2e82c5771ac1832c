"""The shipped examples: the data can be made again, the scripts run by themselves, and they are copied with care."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gitpipe.errors import NotFound, Refused
from gitpipe.example import copy_example, list_examples

from .conftest import ROOT, Shell

IRIS = ROOT / "pipelines" / "iris"
LABELS = {
    "1.csv": "Iris-virginica\n",
    "2.csv": "Iris-versicolor\n" + "Iris-virginica\n" * 3 + "Iris-setosa\n" * 2,
}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_data_is_what_its_script_writes(tmp_path: Path, sh: Shell) -> None:
    sh(f"{sys.executable} {ROOT}/data/make.py {tmp_path}")
    for name in ("iris", "diabetes", "sentiment"):
        assert tree(tmp_path / name) == tree(ROOT / "data" / name) != {}


def test_the_iris_table_has_the_widespread_form() -> None:
    text = (ROOT / "data/iris/iris.csv").read_text()
    rows = [line.split(",") for line in text.splitlines() if line]
    assert len(text) == 4551 and len(rows) == 150 and {len(row) for row in rows} == {5}
    assert sorted({row[4] for row in rows}) == ["Iris-setosa", "Iris-versicolor", "Iris-virginica"]
    assert [len((ROOT / "data/iris/attributes" / name).read_bytes()) for name in LABELS] == [16, 96]


@pytest.mark.parametrize("kind", ["svm", "lda", "tree", "forest"])
def test_scripts_by_themselves(tmp_path: Path, sh: Shell, kind: str) -> None:
    """Each way of training gives the same labels; where chance has a part in it, the same model file again."""
    train = f"{sys.executable} {IRIS}/train-{kind}.py {ROOT}/data/iris/"
    sh(f"mkdir model again out && PYTHONHASHSEED=1 {train} model/")
    assert list(tree(tmp_path / "model")) == ["model.joblib"]
    if kind in ("tree", "forest"):
        sh(f"PYTHONHASHSEED=2 {train} again/")
        assert tree(tmp_path / "again") == tree(tmp_path / "model")
    sh(f"{sys.executable} {IRIS}/infer.py {tmp_path}/model/ {ROOT}/data/iris/attributes/ {tmp_path}/out/")
    assert {name: text.decode() for name, text in tree(tmp_path / "out").items()} == LABELS


@pytest.mark.parametrize("path", sorted(IRIS.glob("*.json")), ids=lambda path: path.name)
def test_specs_name_code_that_is_there(path: Path) -> None:
    spec = json.loads(path.read_text())
    assert spec["pipeline"]["name"] == ("inference" if path.name == "infer.json" else "model")
    assert spec["parallelism_spec"] == {"constant": "1"}
    assert spec["code"] == [spec["transform"]["cmd"][1]]
    assert (IRIS / spec["code"][0]).is_file()


def test_copy_example(tmp_path: Path) -> None:
    written = copy_example("iris", tmp_path)
    assert "pipelines/iris/train.json" in written and "samples/iris/attributes/1.csv" in written
    assert sorted(tree(tmp_path)) == written and not (tmp_path / "data").exists()
    assert copy_example("iris", tmp_path) == []


def test_copy_example_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "pipelines/iris").mkdir(parents=True)
    (tmp_path / "pipelines/iris/infer.py").write_text("mine")
    (tmp_path / "samples").write_text("a file where a folder is needed")
    before = tree(tmp_path)
    with pytest.raises(Refused, match=r"pipelines/iris/infer\.py, samples/iris/.*: there already"):
        copy_example("iris", tmp_path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["rose", "..", "iris/..", "/etc"])
def test_unknown_example_lists_what_there_is(tmp_path: Path, name: str) -> None:
    assert copy_example("", tmp_path) == list_examples() and "iris" in list_examples()
    with pytest.raises(NotFound, match=r"there is: .*iris"):
        copy_example(name, tmp_path)
    assert tree(tmp_path) == {}
