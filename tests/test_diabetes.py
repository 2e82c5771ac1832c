"""The diabetes pipelines: their scripts by themselves, Go beside Python, and the workshop's figures on its own data.

The last needs the workshop's files (``training_prod.csv``, ``training_prod_minus3.csv``, ``training_prod_minus6.csv``,
``holdout.csv``, ``test/1.json``, …), which are not part of this project.  They are looked for in ``diabetes/`` of the
folder that the environment variable ``GITPIPE_SEED_DATA`` names, by default ``../shared/data`` beside the project.
Where they are missing, the test is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gitpipe.example import copy_example

from .conftest import ROOT, Shell, end_runner

STAGES = ROOT / "pipelines" / "diabetes"
GO = ROOT / "pipelines" / "diabetes-go"
DATA = ROOT / "data" / "diabetes"
# Read when the module is imported: the tests' environment is sealed.
SEED = Path(os.environ.get("GITPIPE_SEED_DATA") or ROOT.parent / "shared" / "data") / "diabetes"

MODEL = """{
  "intercept": %s,
  "coefficients": [
    {
      "name": "bmi",
      "coefficient": %s
    },
    {
      "name": "ltg",
      "coefficient": %s
    }
  ]
}"""


def stage(name: str) -> str:
    return f"PYTHONDONTWRITEBYTECODE=1 {sys.executable} {STAGES}/{name}.py"


def module(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"diabetes_{name}", STAGES / f"{name}.py")
    assert found and found.loader
    made = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


def least_squares(table: Path) -> list[float]:
    """Intercept and coefficients of bmi and ltg, by another way than that of the stage."""
    rows = np.loadtxt(table, delimiter=",", skiprows=1)
    solution = np.linalg.lstsq(np.column_stack([np.ones(len(rows)), rows[:, [2, 8]]]), rows[:, 10], rcond=None)[0]
    return [float(value) for value in solution]


def figures(model: dict) -> list[float]:  # type: ignore[type-arg]
    assert [each["name"] for each in model["coefficients"]] == ["bmi", "ltg"]
    return [model["intercept"], *(each["coefficient"] for each in model["coefficients"])]


# -- the scripts by themselves


def test_train_fits_and_qcontrol_lets_through_what_is_good_enough(tmp_path: Path, sh: Shell) -> None:
    sh("mkdir model again patients passed kept out")
    for folder in ("model", "again"):
        sh(f"{stage('train')} -inFile={DATA}/training_prod.csv -outDir={folder}")
    text = (tmp_path / "model" / "model.json").read_text()
    assert (tmp_path / "again" / "model.json").read_text() == text
    model = json.loads(text)
    assert figures(model) == pytest.approx(least_squares(DATA / "training_prod.csv"), rel=1e-12)
    assert text == MODEL % tuple(map(repr, figures(model)))

    sh(f"{stage('qc_pre_process')} -inFile {DATA}/holdout.csv -outDir patients")
    assert sorted(path.name for path in (tmp_path / "patients").iterdir()) == sorted(f"{n}.json" for n in range(1, 45))
    table = np.loadtxt(DATA / "holdout.csv", delimiter=",", skiprows=1)
    first = json.loads((tmp_path / "patients" / "1.json").read_text())
    names = (DATA / "holdout.csv").read_text().split("\n")[0].split(",")[:-1]
    assert list(first) == ["independent_variables", "dependent_variable"]
    assert {each["name"]: each["value"] for each in first["independent_variables"]} == dict(
        zip(names, table[0].tolist(), strict=False)
    )
    assert first["dependent_variable"] == table[0, 10]

    check = f"{stage('qcontrol')} -inModelFile=model/model.json -inTestDir=patients"
    assert sh(f"{check} -threshold=60.0 -outDir=passed") == "RMSE 48.4558, threshold 60\n"
    passed = json.loads((tmp_path / "passed" / "model.json").read_text())
    assert list(passed) == ["rmse", "intercept", "coefficients"]
    a, b, c = figures(model)
    rmse = math.sqrt(np.mean((a + b * table[:, 2] + c * table[:, 8] - table[:, 10]) ** 2))
    assert passed["rmse"] == pytest.approx(rmse, rel=1e-12)
    sh(f"{check} -threshold={passed['rmse']!r} -outDir=kept -strict")  # at the threshold is good enough
    assert (tmp_path / "kept" / "model.json").read_bytes() == (tmp_path / "passed" / "model.json").read_bytes()

    assert "threshold 48\n" in sh(f"{check} -threshold=48 -outDir=out")
    said = sh(f"{check} -threshold=48 -outDir=out -strict", status=1, stderr=True)
    assert said.endswith("the model is not good enough: its RMSE is 48.4558, the threshold 48\n")
    assert list((tmp_path / "out").iterdir()) == []

    sh(f"{stage('infer')} -inModelDir=passed -inVarDir={DATA}/attributes -outDir=out")
    result = json.loads((tmp_path / "out" / "1.json").read_text())
    asked = json.loads((DATA / "attributes" / "1.json").read_text())
    values = [each["value"] for each in asked["independent_variables"]]
    assert list(result.items()) == [
        ("predicted_diabetes_progression", pytest.approx(a + b * values[0] + c * values[1], rel=1e-12)),
        *asked.items(),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.json", "2.json", "3.json"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (242.0, "242"),
        (0.0, "0"),
        (-0.044642, "-0.044642"),
        (6.1e-05, "0.000061"),
        (1e-06, "0.000001"),
        (9.5e-07, "9.5e-7"),
        (-1e-10, "-1e-10"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (46.44507083538092, "46.44507083538092"),
        (7, "7"),
    ],
)
def test_numbers_are_written_as_go_writes_them(value: float, text: str) -> None:
    assert module("gojson").number(value) == text and json.loads(text) == value


def test_json_is_indented_as_go_does_it() -> None:
    value = {"a": [], "b": {}, "c": [1.0, "ü"], "d": {"e": None, "f": True}}
    text = json.dumps(value, indent=2, ensure_ascii=False)
    assert module("gojson").dumps(value) == text.replace("1.0", "1")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("bmi,y\n1,2\n", "there is no column 'ltg'"),
        ("bmi,ltg,y\n", "0 rows are too few"),
        ("bmi,ltg,y\n1,2,3\n2,3,4\n", "2 rows are too few to fit 3 numbers"),
        ("bmi,ltg,y\n1,2,3\n1,3,4\n1,5,5\n1,9,5\n", "a column is constant"),
        ("bmi,ltg,y\n1,2,3\n2,4,4\n3,6,5\n4,8,5\n", "a column is constant, or follows from the others"),
        ("bmi,ltg,y\n0,2,3\n0,4,4\n0,6,5\n", "a column is constant"),
        ("bmi,ltg,y\n1,2,3\n2,x,4\n3,6,5\n", "'x'"),
        ("bmi,ltg,y\n1,2,3\n2,nan,4\n3,6,5\n", "not a finite number"),
    ],
)
def test_a_table_that_gives_no_line_gives_no_model(tmp_path: Path, sh: Shell, table: str, why: str) -> None:
    (tmp_path / "table.csv").write_text(table)
    said = sh(f"{stage('train')} -inFile=table.csv -outDir=.", status=1, stderr=True)
    assert said.startswith("table.csv: ") and why in said and said.count("\n") == 1
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize(
    "path", [*sorted(STAGES.glob("*.json")), GO / "model.json"], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_specs_name_code_that_is_there(path: Path) -> None:
    spec = json.loads(path.read_text())
    assert spec["pipeline"]["name"] == path.stem.removesuffix("-strict")
    assert spec["parallelism_spec"] == {"constant": "1"}
    if path.parent == GO:
        assert spec["transform"]["cmd"][0] == "/train" and spec["code"] == ["train"]
        return
    assert spec["code"][0] == spec["transform"]["cmd"][1]
    for name in spec["code"]:
        imports = re.findall(r"^import (gojson|line)$", (STAGES / name).read_text(), re.MULTILINE)
        assert {f"{each}.py" for each in imports} <= set(spec["code"])


# -- Go


@pytest.mark.skipif(not (shutil.which("go") and shutil.which("make")), reason="go or make is not installed here")
def test_the_program_in_go_writes_the_same_bytes(tmp_path: Path, sh: Shell) -> None:
    copy_example("diabetes-go", tmp_path)
    source = tmp_path / "pipelines" / "diabetes-go"
    (source / "train").unlink(missing_ok=True)
    cache = "GOCACHE=$PWD/cache GOFLAGS= GOTOOLCHAIN=local"
    sh(f"{cache} make -s -C {source} && test -z $(gofmt -l {source}) && mkdir python go")
    tables = [DATA / "training_prod.csv", *sorted(SEED.glob("training*.csv"))]
    for table in tables:
        sh(f"{stage('train')} -inFile={table} -outDir=python && {source}/train -inFile={table} -outDir=go")
        sh("cmp python/model.json go/model.json")
    first = (source / "train").read_bytes()
    sh(f"{cache} make -s -C {source} clean train")
    assert (source / "train").read_bytes() == first

    (tmp_path / "table.csv").write_text("bmi,y\n1,2\n")
    said = sh(f"{source}/train -inFile=table.csv -outDir=.", status=1, stderr=True)
    assert said == "train: table.csv: there is no column ltg\n"
    assert "Usage" in sh(f"{source}/train -inFile=table.csv", status=2, stderr=True)
    (tmp_path / "table.csv").write_text("bmi,ltg,y\n1,2,3\n2,nan,4\n3,6,5\n")
    assert "not a finite number" in sh(f"{source}/train -inFile=table.csv -outDir=.", status=1, stderr=True)


# -- the workshop, on its own data

EXPECTED = {
    "": (152.38005026421627, 670.4022409970744, 593.7168799545466, 46.44507083538092),
    "_minus3": (152.37622766145262, 674.5567753378417, 590.625007184401, 46.451910800472014),
    "_minus6": (152.17757154861354, 676.7442087119301, 594.2267311960092, 46.386116888198636),
}
BYTES = {"": "41.28KiB", "_minus3": "40.97KiB", "_minus6": "40.65KiB"}
PRINTED = {"", "_minus6"}  # these the workshop's pages show, digit by digit
PREDICTED = {"1.json": 205.56129090286984, "2.json": 183.88051219752163, "3.json": 158.07936339369482}
JOB = re.compile(
    r"^(\w+) +(\w+)@(\w+)  .*?  +(\d+) +(\d+ \+ \d+ / \d+) +([\d.]+\w+) +([\d.]+\w+) +(\w+)$", re.MULTILINE
)


def words(table: str) -> str:
    return " ".join(table.split())


def jobs(table: str) -> list[tuple[str, ...]]:
    """Of each line of ``list-job``: pipeline, RESTART, PROGRESS, DL, UL, STATE."""
    head, *lines = table.splitlines()
    assert words(head) == "ID OUTPUT COMMIT STARTED DURATION RESTART PROGRESS DL UL STATE"
    found = [match for line in lines if (match := JOB.match(line))]
    assert len(found) == len(lines)
    return [(match[2], *match.groups()[3:]) for match in found]


def job(pipeline: str, done: str, download: str, upload: str) -> tuple[str, ...]:
    return (pipeline, "0", done, download, upload, "success")


@pytest.mark.skipif(not SEED.is_dir(), reason="the workshop's data are not here (GITPIPE_SEED_DATA)")
def test_the_workshop_on_its_own_data(scratch: Path, sh: Shell) -> None:
    def pipe(command: str) -> str:
        return sh(f"gitpipe {command}", cwd=scratch)

    try:
        _workshop(scratch, sh, pipe)
    finally:
        end_runner(scratch)


def _workshop(repo: Path, sh: Shell, pipe: Shell) -> None:
    pipe("init")
    pipe("example diabetes")
    sh("git config gitpipe.engine local && git add pipelines && git commit -qm Pipelines", cwd=repo)
    spec = "-f pipelines/diabetes"
    for name in ("training_data", "qc_data", "attributes"):
        pipe(f"create-repo {name}")
    pipe(f"put-file training_data master training_prod.csv -f {SEED}/training_prod.csv")
    pipe(f"put-file qc_data master holdout.csv -f {SEED}/holdout.csv")
    sizes = {row.split()[0]: row.split()[-1] for row in pipe("list-repo").splitlines()[1:]}
    assert sizes == {"training_data": "41.28KiB", "qc_data": "4.586KiB", "attributes": "0B"}
    assert words(pipe("list-file training_data master")) == "NAME TYPE SIZE training_prod.csv file 41.28KiB"
    assert words(pipe("list-file qc_data master")) == "NAME TYPE SIZE holdout.csv file 4.586KiB"

    pipe(f"create-pipeline {spec}/model.json")
    pipe("wait")
    assert jobs(pipe("list-job")) == [job("model", "1 + 0 / 1", "41.28KiB", "207B")]
    pipe(f"create-pipeline {spec}/qc_pre_process.json")
    pipe(f"create-pipeline {spec}/qcontrol.json")
    pipe("wait")
    assert jobs(pipe("list-job"))[:2] == [
        job("qcontrol", "1 + 0 / 1", "27.99KiB", "236B"),
        job("qc_pre_process", "1 + 0 / 1", "4.586KiB", "27.78KiB"),
    ]
    assert words(pipe("list-file qcontrol master")) == "NAME TYPE SIZE model.json file 236B"

    for name in ("1.json", "2.json"):
        pipe(f"put-file attributes master {name} -f {SEED}/test/{name}")
    listed = "NAME TYPE SIZE 1.json file 166B 2.json file 167B"
    assert words(pipe("list-file attributes master")) == listed
    pipe(f"create-pipeline {spec}/infer.json")
    pipe("wait")
    assert jobs(pipe("list-job"))[0] == job("infer", "2 + 0 / 2", "805B", "443B")
    listed = "NAME TYPE SIZE 1.json file 221B 2.json file 222B"
    assert words(pipe("list-file infer master")) == listed
    _figures("", pipe)
    for name in ("1.json", "2.json"):
        result = pipe(f"get-file infer master {name}")
        prediction = json.loads(result)["predicted_diabetes_progression"]
        assert prediction == pytest.approx(PREDICTED[name], rel=1e-12)
        # Laid out as the attributes are, with the prediction in front of them, and no newline at the end.
        asked = (SEED / "test" / name).read_text().rstrip("\n")
        assert result == asked.replace("{\n", f'{{\n  "predicted_diabetes_progression": {prediction!r},\n', 1)

    text = (repo / "pipelines/diabetes/infer.json").read_text()
    (repo / "pipelines/diabetes/infer.json").write_text(text.replace('"constant": "1"', '"constant": "10"'))
    pipe(f"update-pipeline {spec}/infer.json")
    pipe("wait")
    assert pipe("list-worker").count("infer ") == 10

    first = sh("git rev-parse model", cwd=repo).strip()
    for kind in ("_minus3", "_minus6"):
        pipe(f"put-file training_data master training_prod.csv -o -f {SEED}/training_prod{kind}.csv")
        pipe("wait")
        assert jobs(pipe("list-job"))[:3] == [
            job("infer", "2 + 0 / 2", "805B", "443B"),
            job("qcontrol", "1 + 0 / 1", "27.99KiB", "236B"),
            job("model", "1 + 0 / 1", BYTES[kind], "207B"),
        ]
        _figures(kind, pipe)

    said = pipe("inspect-commit infer master")
    assert re.search(r"^Size: 443B$", said, re.MULTILINE)
    closure = dict(re.findall(r" (\w+)@([0-9a-f]{40})\b", said.partition("Provenance:")[2]))
    origins = {"training_data", "qc_data", "attributes", "model", "qc_pre_process", "qcontrol"}
    assert origins <= set(closure)
    assert closure["model"] == sh("git rev-parse model", cwd=repo).strip()
    assert pipe(f"get-file model {closure['model']} model.json") == MODEL % EXPECTED["_minus6"][:3]
    assert pipe(f"get-file model {first} model.json") == MODEL % EXPECTED[""][:3]

    pipe(f"put-file attributes master 3.json -f {SEED}/test/3.json")
    pipe(f"put-file training_data master training_prod.csv -o -f {SEED}/training_prod.csv")
    pipe("wait")
    third = json.loads(pipe("get-file infer 3.json"))["predicted_diabetes_progression"]
    assert third == pytest.approx(PREDICTED["3.json"], rel=1e-12)


def _figures(kind: str, pipe: Shell) -> None:
    """The model that passed its quality control has the figures of this training set."""
    *line, rmse = EXPECTED[kind]
    text = pipe("get-file qcontrol master model.json")
    model = json.loads(text)
    assert [*figures(model), model["rmse"]] == pytest.approx([*line, rmse], rel=1e-12)
    shown = [*line, rmse] if kind in PRINTED else [*figures(model), model["rmse"]]
    assert text.startswith('{\n  "rmse": ') and len(text) == 236
    assert pipe("get-file model master model.json") == MODEL % tuple(map(repr, shown[:3]))
    assert text == (MODEL % tuple(map(repr, shown[:3]))).replace("{", f'{{\n  "rmse": {model["rmse"]!r},', 1)
