"""The sentiment example: its scripts by themselves, its pipelines, and, where they are, the reviews of the tutorial.

Those are looked for in the folder that GITPIPE_SEED_DATA names, or beside the project in ``shared/data``.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from pathlib import Path

import pytest

from gitpipe.example import copy_example
from tests.conftest import ROOT, Shell
from tests.lab import Lab

FOLDER = ROOT / "pipelines" / "sentiment"
MADE = ROOT / "data" / "sentiment"
SEED = Path(os.environ.get("GITPIPE_SEED_DATA") or ROOT.parent / "shared" / "data") / "imdb"
PREDICTION = re.compile(r"Pred - \[\[ ([01]\.\d{8})  ([01]\.\d{8})\]\]\n")

with_seed = pytest.mark.skipif(not SEED.is_dir(), reason=f"the reviews of the tutorial are not in {SEED}")


def train(sh: Shell, out: Path, table: Path, *, flags: str = "-e 1 -eval 1", seed: int = 0, status: int = 0) -> str:
    """Train by the script itself; what it printed."""
    out.mkdir()
    command = f"PYTHONHASHSEED={seed} {sys.executable} {FOLDER}/examples/imdb/train.py -f {table} {flags}"
    return sh(f"{command} -s {out}/imdb.p --vocab_file {out}/imdb.vocab", status=status, stderr=True)


def infer(sh: Shell, model: Path, reviews: Path, out: Path) -> dict[str, float]:
    """Path of each review -> how favourable the script takes it to be; there is one prediction for each."""
    out.mkdir()
    files = f"--model_weights {model}/imdb.p --vocab_file {model}/imdb.vocab"
    sh(f"{sys.executable} {FOLDER}/auto_inference.py {files} --review_files {reviews} --output_dir {out}")
    assert files_in(out) == files_in(reviews)
    return {path: favourable((out / path).read_bytes()) for path in files_in(out)}


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def favourable(said: bytes) -> float:
    """The first figure of a prediction, which has to have the tutorial's form to the byte."""
    match = PREDICTION.fullmatch(said.decode())
    assert match and len(said) == 35, said
    assert round(float(match[1]) + float(match[2]), 8) == 1
    return float(match[1])


def rows(table: Path) -> list[list[str]]:
    """id, sentiment, review of each row, without the header."""
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", doublequote=False, escapechar="\\"))[1:]


# --- the scripts ---


def test_the_scripts_judge_the_made_up_reviews(tmp_path: Path, sh: Shell) -> None:
    """The same files byte for byte, whatever the hash seed; more epochs make another model."""
    table = MADE / "labeledTrainData.tsv"
    assert train(sh, tmp_path / "a", table) == "epoch 1: right on 27 of 30 held-out reviews, 90.0%\n"
    train(sh, tmp_path / "b", table, seed=5)
    train(sh, tmp_path / "c", table, flags="-e 2 -eval 1")
    models = {name: (tmp_path / name / "imdb.p").read_bytes() for name in "abc"}
    assert models["a"] == models["b"] != models["c"]
    vocabulary = (tmp_path / "a" / "imdb.vocab").read_text()
    assert vocabulary == (tmp_path / "b" / "imdb.vocab").read_text() == (tmp_path / "c" / "imdb.vocab").read_text()
    assert "the" in vocabulary.split() and "br" not in vocabulary.split()
    once, twice = (infer(sh, tmp_path / name, MADE / "reviews", tmp_path / f"{name}-out") for name in "ac")
    assert once["1.txt"] > 0.5 > once["2.txt"]
    assert once.keys() == {"1.txt", "2.txt"} and not set(once.values()) & set(twice.values())


@pytest.mark.parametrize(("flags", "told"), [("-e 4 -eval 2", [2, 4]), ("-e 2 -eval 0", []), ("-e 2 -eval 5", [])])
def test_it_evaluates_every_so_many_epochs(tmp_path: Path, sh: Shell, flags: str, told: list[int]) -> None:
    said = train(sh, tmp_path / "m", MADE / "labeledTrainData.tsv", flags=flags)
    assert [int(epoch) for epoch in re.findall(r"^epoch (\d+): right on", said, re.MULTILINE)] == told
    assert len(said.splitlines()) == len(told)


def test_quotes_breaks_and_odd_bytes_are_read(tmp_path: Path, sh: Shell) -> None:
    table = tmp_path / "t.tsv"
    good, bad = 'It\'s \\"lovely\\"<br /><br />Étonnant', "wretched<br />stuff"
    lines = [f'"{n}"\t{n % 2}\t"{good if n % 2 else bad}"\n' for n in range(8)]
    table.write_bytes(("id\tsentiment\treview\n" + "".join(lines) + "\n").encode() + b'"9"\t1\t"lovely \xff"\r\n')
    train(sh, tmp_path / "m", table, flags="-eval 1")
    assert sorted((tmp_path / "m" / "imdb.vocab").read_text().split()) == [
        "it's", "lovely", "stuff", "wretched", "étonnant",
    ]  # fmt: skip
    reviews = tmp_path / "reviews"
    (reviews / "deep").mkdir(parents=True)
    for name, text in (("none.txt", b""), ("odd.txt", b"\xff\x00 lovely"), ("unknown.txt", b"quite new")):
        (reviews / name).write_bytes(text)
    (reviews / "deep" / "bad.txt").write_bytes(b"WRETCHED stuff")
    said = infer(sh, tmp_path / "m", reviews, tmp_path / "out")
    assert said["odd.txt"] > said["none.txt"] == said["unknown.txt"] > said["deep/bad.txt"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "reviews of both sentiments"),
        ("id\tsentiment\treview\n", "reviews of both sentiments"),
        ('id\tsentiment\treview\n"a"\t1\t"good"\n', "reviews of both sentiments"),
        ('id\tsentiment\treview\n"a"\t1\t"good"\n"b"\t"bad"\n', "line 3: expected id, 0 or 1, and a review"),
        ('id\tsentiment\treview\n"a"\t2\t"good"\n', "line 2: expected id, 0 or 1, and a review"),
    ],
)
def test_a_wrong_table_is_one_clear_line(tmp_path: Path, sh: Shell, text: str, error: str) -> None:
    (tmp_path / "t.tsv").write_text(text)
    said = train(sh, tmp_path / "m", tmp_path / "t.tsv", status=1)
    assert error in said and len(said.splitlines()) == 1
    assert list((tmp_path / "m").iterdir()) == []


def test_a_vocabulary_of_another_training_is_noticed(tmp_path: Path, sh: Shell) -> None:
    train(sh, tmp_path / "m", MADE / "labeledTrainData.tsv")
    with (tmp_path / "m" / "imdb.vocab").open("a") as file:
        file.write("more\n")
    files = f"--model_weights {tmp_path}/m/imdb.p --vocab_file {tmp_path}/m/imdb.vocab"
    command = f"{sys.executable} {FOLDER}/auto_inference.py {files} --review_files {MADE}/reviews --output_dir ."
    assert "are not of one training" in sh(command, status=1, stderr=True)


# --- the pipelines ---


def example(lab: Lab, sh: Shell, table: Path, reviews: Path) -> None:
    """The example's specs in the lab's main branch, and the repos training and reviews."""
    copy_example("sentiment", lab.root)
    lab.git("add", "pipelines", "samples")
    lab.git("commit", "-qm", "Sentiment pipelines")
    sh("gitpipe create-repo training && gitpipe create-repo reviews", cwd=lab.root)
    sh(f"gitpipe -C {lab.root} put-file training master -c -f {table}", cwd=lab.root)
    sh(f"cp -r {reviews} reviews && cd reviews && gitpipe put-file reviews master -c -r -f .", cwd=lab.root)


def respec(lab: Lab, name: str, old: str, new: str) -> str:
    """Change a spec's text; its path."""
    path = lab.root / "pipelines" / "sentiment" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return str(path)


def results(lab: Lab) -> list[float]:
    """How favourable the pipelines take 1.txt and 2.txt to be."""
    files = lab.files("inference")
    assert list(files) == ["1.txt", "2.txt"]
    return [favourable(text.encode()) for text in files.values()]


def replay(lab: Lab, sh: Shell, table: Path, reviews: Path) -> None:
    """The tutorial from its data to its provenance; each step runs what it changes and nothing else."""
    both = ["model: 1 + 0 / 1 success", "inference: 2 + 0 / 2 success"]
    specs = lab.root / "pipelines" / "sentiment"
    example(lab, sh, table, reviews)
    lab.project.pipelines.create([str(specs / "train.json")])
    assert lab.ran() == both[:1]
    lab.project.pipelines.create([str(specs / "infer.json")])
    assert lab.ran() == both[1:]
    first = results(lab)
    assert first[0] > 0.5 > first[1]

    lab.project.pipelines.update([respec(lab, "infer.json", '"constant": "1"', '"constant": "10"')])
    assert lab.ran() == ["inference: 0 + 2 / 2 success"]
    assert results(lab) == first

    lab.project.pipelines.update([respec(lab, "train.json", '"-e",\n      "1"', '"-e",\n      "2"')])
    assert lab.ran() == both
    second = results(lab)
    assert not set(first) & set(second)

    lines = table.read_text(encoding="utf-8").split("\n")
    (lab.root / table.name).write_text("\n".join([lines[0], *lines[3:]]), encoding="utf-8")
    commit = sh("gitpipe start-commit training master", cwd=lab.root).strip()
    sh(f"gitpipe delete-file training {commit} {table.name}", cwd=lab.root)
    sh(f"gitpipe put-file training {commit} -f {table.name}", cwd=lab.root)
    sh(f"gitpipe finish-commit training {commit}", cwd=lab.root)
    assert lab.ran() == both
    assert not set(second) & set(results(lab))
    assert lab.made("inference")[-1].sources == {name: lab.head(name) for name in ("model", "reviews", "training")}
    assert lab.head("training") in sh("gitpipe inspect-commit inference master", cwd=lab.root)


def test_specs_have_the_form_of_the_tutorial() -> None:
    model, inference = (json.loads((FOLDER / name).read_text()) for name in ("train.json", "infer.json"))
    assert model["pipeline"]["name"] == "model" and inference["pipeline"]["name"] == "inference"
    assert " ".join(model["transform"]["cmd"]) == (
        "python examples/imdb/train.py -f /pfs/training/labeledTrainData.tsv -e 1 -eval 1"
        " -s /pfs/out/imdb.p --vocab_file /pfs/out/imdb.vocab"
    )
    assert " ".join(inference["transform"]["cmd"]) == (
        "python auto_inference.py --model_weights /pfs/model/imdb.p --vocab_file /pfs/model/imdb.vocab"
        " --review_files /pfs/reviews --output_dir /pfs/out"
    )
    for spec in (model, inference):
        assert spec["parallelism_spec"] == {"strategy": "CONSTANT", "constant": "1"}
        assert spec["code"] == [spec["transform"]["cmd"][1]] and (FOLDER / spec["code"][0]).is_file()


def test_the_tutorial_on_made_up_reviews(lab: Lab, sh: Shell) -> None:
    replay(lab, sh, MADE / "labeledTrainData.tsv", MADE / "reviews")


# --- the tutorial's own data ---


@with_seed
def test_the_tutorial_on_its_own_reviews(lab: Lab, sh: Shell) -> None:
    assert (SEED / "labeledTrainData.tsv").stat().st_size == 1_001_076
    replay(lab, sh, SEED / "labeledTrainData.tsv", SEED / "test")
    assert [path.stat().st_size for path in sorted((SEED / "test").iterdir())] == [770, 897]


@with_seed
@pytest.mark.parametrize("epochs", [1, 2])
def test_it_is_right_on_reviews_that_it_has_not_seen(tmp_path: Path, sh: Shell, epochs: int) -> None:
    """Trained on the first 550 reviews, on the last 200."""
    lines = (SEED / "labeledTrainData.tsv").read_text(encoding="utf-8").split("\n")
    (tmp_path / "first.tsv").write_text("\n".join(lines[:551]) + "\n", encoding="utf-8")
    last = rows(SEED / "labeledTrainData.tsv")[550:]
    reviews = tmp_path / "reviews"
    reviews.mkdir()
    for number, (_, _, text) in enumerate(last):
        (reviews / f"{number}.txt").write_text(text, encoding="utf-8")
    train(sh, tmp_path / "m", tmp_path / "first.tsv", flags=f"-e {epochs} -eval 1")
    said = infer(sh, tmp_path / "m", reviews, tmp_path / "out")
    right = sum((said[f"{number}.txt"] > 0.5) == (label == "1") for number, (_, label, _) in enumerate(last))
    assert len(last) == 200 and right / len(last) >= 0.78
