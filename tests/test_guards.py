"""What should not get into a commit, judged by the library with real git."""

from __future__ import annotations

import pytest

from gitpipe import guards
from gitpipe.errors import UsageError
from gitpipe.repo import Repo

from .lab import Lab

SHA = "a" * 40


@pytest.mark.parametrize(
    ("text", "size"), [("10MB", 10_000_000), ("512KiB", 524_288), ("7", 7), ("1.5 gb", 1_500_000_000), ("0", 0)]
)
def test_sizes(text: str, size: int) -> None:
    assert guards.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "10 parsecs", "-1MB", "1e6"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="expected a size such as 10MB"):
        guards.parse_size(text)


@pytest.mark.parametrize(
    "message",
    [
        f"s\n\nProvenance: training@{SHA}\n",
        f"s\n\ntext\n\nPipeline: model@{SHA}\nJob: {'b' * 32}\n",
        f"s\n\nprovenance: training@{SHA}\nSigned-off-by: A <a@b>\n",
        "s\n\nSigned-off-by: A <a@b>\nand words between\nProvenance: me\n",
        f"s\n\nProvenance: training@{SHA}\n\n# Please enter the commit message\n# On branch main\n",
        f"s\n\nProvenance: x@{SHA}\n# ------------------------ >8 ------------------------\ndiff --git a/a b/a\n",
    ],
)
def test_forged_trailers(lab: Lab, message: str) -> None:
    assert "by which gitpipe marks the outputs of pipelines" in guards.forged_trailers(Repo(lab.root), message)[0]


@pytest.mark.parametrize(
    "message",
    [
        "s\n",
        "s\n\nJob: 4711\nPipeline: nightly\n",
        f"s\n\nAs Provenance: training@{SHA} says, it was made from that.\n",
        f"s\n\nProvenance: training@{SHA}\n\nThat paragraph is not the last one.\n",
        f"s\n\n# Provenance: training@{SHA}\n",
        f"s\n# ------------------------ >8 ------------------------\n\nProvenance: training@{SHA}\n",
        "",
    ],
)
def test_honest_messages(lab: Lab, message: str) -> None:
    assert guards.forged_trailers(Repo(lab.root), message) == []


def test_a_message_that_is_taken_over_claims_nothing_new(lab: Lab) -> None:
    message = f"copy: 1 processed\n\nPipeline: copy@{SHA}\nJob: {'b' * 32}\n"
    tree = lab.git("rev-parse", "HEAD^{tree}")
    lab.git("update-ref", "refs/heads/main", lab.git("commit-tree", tree, "-p", "HEAD", "-m", message))
    assert guards.forged_trailers(Repo(lab.root), message) == []
    assert guards.forged_trailers(Repo(lab.root), message.replace("b", "c"))


def judge(lab: Lab, max_size: int = 1000, since: tuple[str, str] | None = None) -> list[str]:
    repo = Repo(lab.root)
    return guards.unfit_for_git(repo, guards.staged(repo, {}, since), {}, max_size)


def test_large_files_models_and_data(lab: Lab) -> None:
    (lab.root / "big.txt").write_text("x" * 1001)
    (lab.root / "fits.txt").write_text("x" * 1000)
    (lab.root / "Model.PKL").write_bytes(b"x" * 1_000_001)
    lab.git("add", "-f", ".")
    assert [line.split(":")[0] for line in judge(lab)] == [
        "Model.PKL has 1.0 MB, and 1000 bytes is the limit for a file in git",
        "big.txt has 1001 bytes, and 1000 bytes is the limit for a file in git",
    ]
    assert [line.split()[0] for line in judge(lab, 10**7)] == ["Model.PKL"]
    head = lab.head("main")
    lab.git("commit", "-qm", "all of it")
    assert judge(lab) == []  # in git already
    assert len(judge(lab, since=(head, lab.head("main")))) == 2


def test_data_in_git_is_a_mistake_on_a_data_branch_only(lab: Lab) -> None:
    (lab.root / "data").mkdir()
    (lab.root / "data/a.csv").write_text("1")
    (lab.root / "data/b.dvc").write_text("outs: []\n")
    lab.git("add", "-f", "data")
    assert judge(lab) == []
    (lab.root / "data.dvc").write_text("outs: []\n")
    lab.git("add", "-f", "data.dvc")
    (line,) = judge(lab)
    assert line.startswith("data/a.csv is data") and "`git rm --cached data/a.csv`" in line


def test_a_merge_is_answerable_for_what_it_adds_itself(lab: Lab) -> None:
    lab.git("switch", "-qc", "side")
    (lab.root / "big.txt").write_text("x" * 2000)
    lab.git("add", "big.txt")
    lab.git("commit", "-qm", "big")
    lab.git("switch", "-q", "main")
    lab.git("merge", "-q", "--no-ff", "--no-commit", "side")
    assert judge(lab) == []
    (lab.root / "own.txt").write_text("x" * 2000)
    lab.git("add", "own.txt")
    assert [line.split()[0] for line in judge(lab)] == ["own.txt"]


def test_output_branches(lab: Lab) -> None:
    lab.data("training", {"a": "1"})
    lab.pipeline("copy", {"training": "/*"})
    lab.run()
    project = lab.project
    assert guards.output_branch(project.repo, project.store) == []
    lab.git("symbolic-ref", "HEAD", "refs/heads/copy")
    (line,) = guards.output_branch(project.repo, project.store)
    assert line.startswith("copy is the output of a pipeline")
    lab.git("checkout", "-q", "-f", "--detach", "copy")
    assert guards.output_branch(project.repo, project.store) == []
