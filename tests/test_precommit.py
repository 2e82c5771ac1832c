"""The hooks of ``.pre-commit-hooks.yaml`` under the real pre-commit: at every stage, beside ours, by try-repo."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
import yaml

from gitpipe import hooks

from .conftest import ROOT, Shell, end_runner
from .test_hooks import fake_python, nudges
from .test_speccheck import spec

TYPES = (
    "pre-commit",
    "pre-merge-commit",
    "commit-msg",
    "pre-push",
    "post-commit",
    "post-merge",
    "post-rewrite",
    "post-checkout",
)
INSTALL = "pre-commit install --allow-missing-config"
COPY = spec("copy", "training").replace('"true"', '"cp", "-r", "/pfs/training/.", "/pfs/out"')


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `repo` is made once; the tests take copies."""
    return tmp_path_factory.mktemp("template") / "repo"


@pytest.fixture
def repo(template: Path, tmp_path: Path, sh: Shell) -> Path:
    """A repository as `init --pre-commit` proposes, with the data repo training checked out, where a file was added.

    gitpipe's own git hooks are taken out, so that what happens is pre-commit's doing.
    """
    if not template.exists():
        sh(f"git init -q {template} && cd {template} && git commit -q --allow-empty -m Begin")
        said = sh("gitpipe init --pre-commit", template)
        sh("gitpipe hooks uninstall && git config gitpipe.engine local", template)
        sh(said.rpartition("next: ")[2], template)
        sh("git add . && SKIP=gitpipe-check git commit -q -m Config", template)
        sh("GITPIPE=0 gitpipe create-repo training && git switch -q training && mkdir -p data", template)
        sh("git show main:.pre-commit-config.yaml > .pre-commit-config.yaml && echo 1 > data/a.csv", template)
        sh("gitpipe add data && git add . && GITPIPE=0 git commit -q -m One", template)
    shutil.copytree(template, tmp_path / "repo", symlinks=True)
    return tmp_path / "repo"


def install_all(repo: Path, sh: Shell) -> None:
    """The hooks as other repositories get them, at all stages; only that they are not installed by pip."""
    offered = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    local = [{**hook, "language": "system"} for hook in offered]
    config = {"default_install_hook_types": list(TYPES), "repos": [{"repo": "local", "hooks": local}]}
    (repo / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    sh(f"{INSTALL} && git add . && GITPIPE=0 git commit -q -m 'All hooks'", repo)


def listed(repo: Path, sh: Shell) -> list[str]:
    return [line.split()[0] for line in sh("gitpipe list-file training", repo).splitlines()[1:]]


# -- track -----------------------------------------------------------------------------------------------------------


def test_changed_data_is_added_and_the_commit_made_again(
    repo: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    sh("pre-commit uninstall -t commit-msg", repo)
    monkeypatch.setenv("SKIP", "gitpipe-check,gitpipe-guard")
    (repo / "data/b.csv").write_text("2\n")
    said = sh("git commit -m Two", repo, status=1, stderr=True)
    assert "data.dvc: 2 files (1 added, 0 changed, 0 deleted); next: git commit again\n" in said
    sh("git commit -q -m Two", repo)
    assert listed(repo, sh) == ["a.csv", "b.csv"]
    (repo / "data/b.csv").unlink()
    sh("git commit -q -a -m One", repo, status=1)  # git throws the index away that it made for this commit
    sh("git commit -q -a -m One", repo)
    assert listed(repo, sh) == ["a.csv"]
    assert sh("git status --porcelain", repo) == ""


def test_a_persons_own_choice_of_data_stands(repo: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    sh("pre-commit uninstall -t commit-msg", repo)
    monkeypatch.setenv("SKIP", "gitpipe-check,gitpipe-guard")
    for name in ("b", "c"):
        (repo / f"data/{name}.csv").write_text(name)
    sh("gitpipe add data/b.csv && git commit -q -m B", repo)
    (repo / "README").write_text("read me\n")
    sh("git add README && git commit -q -m 'The text alone' -- README", repo)
    sh("SKIP=gitpipe-track,$SKIP git commit -q --allow-empty -m Nothing", repo)
    assert listed(repo, sh) == ["a.csv", "b.csv"]


def test_unstaged_changes_come_through(repo: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """pre-commit puts them aside as a patch, which it could not restore over a ``data.dvc`` that was rewritten."""
    sh("pre-commit uninstall -t commit-msg", repo)
    monkeypatch.setenv("SKIP", "gitpipe-check,gitpipe-guard")
    (repo / "README").write_text("one\n")
    sh("git add README", repo)
    (repo / "README").write_text("two\n")
    (repo / "data/b.csv").write_text("2\n")
    sh("git commit -q -m B", repo, status=1)
    assert sh("git status --porcelain", repo) == "AM README\nM  data.dvc\n"
    sh("git commit -q -m B", repo)
    (repo / "data/c.csv").write_text("3\n")
    sh("dvc add -q data", repo)
    said = sh("git commit -m C", repo, status=1, stderr=True)
    assert "gitpipe: data.dvc is changed and not staged: `git add data.dvc`" in said
    assert "Rolling back" not in said
    assert sh("git status --porcelain", repo) == " M README\n M data.dvc\n"
    sh("git add data.dvc && git commit -q -m C", repo)
    assert (repo / "README").read_text() == "two\n"
    assert listed(repo, sh) == ["a.csv", "b.csv", "c.csv"]


# -- check, guard ----------------------------------------------------------------------------------------------------


def test_what_is_checked_is_what_is_staged(repo: Path, sh: Shell) -> None:
    sh("git switch -q main", repo)
    good, bad = spec("model", "training"), spec("model", "training", datum_tries="often")
    path = repo / "train.json"
    path.write_text(good)
    sh("git add train.json", repo)
    path.write_text(bad)
    sh("git commit -q -m Good", repo)
    assert path.read_text() == bad
    sh("git add train.json", repo)
    path.write_text(good)
    said = sh("git commit -m Bad", repo, status=1, stderr=True)
    assert "train.json:1: datum_tries: " in said
    assert path.read_text() == good
    sh("SKIP=gitpipe-check git commit -q -m Bad", repo)
    sh("pre-commit run --all-files", repo)  # looks at the files as they lie there
    assert "train.json:1: datum_tries: " in sh("git checkout train.json && pre-commit run --all-files", repo, status=1)


def test_the_guard(repo: Path, sh: Shell) -> None:
    sh("git switch -q main && printf %10000001s > weights.bin && git add weights.bin", repo)
    said = sh("git commit -m Large", repo, status=1, stderr=True)
    assert "weights.bin has 10.0 MB, and 10.0 MB is the limit for a file in git: " in said
    sh("sed -i s/10MB/20MB/ .pre-commit-config.yaml && git add . && git commit -q -m Large", repo)
    sh(f"printf 'Mine\\n\\nProvenance: training@{'a' * 40}\\n' > .git/message", repo)
    said = sh("git commit --allow-empty -F .git/message", repo, status=1, stderr=True)
    assert "by which gitpipe marks the outputs of pipelines" in said
    assert sh("git log -1 --format=%s", repo) == "Large\n"
    sh("sed -i s/20MB/much/ .pre-commit-config.yaml && git add .", repo)
    assert "--max-size=much: expected a size such as 10MB" in sh("git commit -m x", repo, status=1, stderr=True)


def test_no_commit_or_merge_by_hand_on_an_output(repo: Path, sh: Shell) -> None:
    sh("git switch -q main", repo)
    (repo / "copy.json").write_text(COPY)
    sh("GITPIPE=0 gitpipe create-pipeline -f copy.json && rm copy.json", repo)
    sh("git branch side $(git commit-tree -p main -m side main^{tree}) && git switch -q -c copy", repo)
    refusal = "copy is the output of a pipeline: commits there are made by gitpipe"
    assert refusal in sh("git commit --allow-empty -m Mine", repo, status=1, stderr=True)
    assert refusal in sh("git merge --no-ff side -m Merge", repo, status=1, stderr=True)
    sh("git merge --abort; git switch -q side && git commit -q --allow-empty -m Mine", repo)


# -- run, push, and gitpipe's own git hooks --------------------------------------------------------------------------


@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_our_own_hooks_nothing_is_done_twice(repo: Path, tmp_path: Path, sh: Shell, ours_first: bool) -> None:
    folder, python = repo / ".git/hooks", str(fake_python(tmp_path / "python"))
    sh("pre-commit uninstall -t pre-commit -t pre-merge-commit -t commit-msg", repo)
    if ours_first:
        hooks.install(folder, python, "-I")
    sh(f"{INSTALL} {' '.join(f'-t {name}' for name in TYPES)}", repo)
    hooks.install(folder, python, "-I")
    said = sh("git commit --allow-empty -m Two", repo, stderr=True)
    assert said.count("gitpipe run") == 1
    assert nudges(repo) == ["post-commit"]  # ours; a second one would be called `command`
    sh("git commit -q --amend --allow-empty -m Three", repo)
    assert nudges(repo) == ["post-commit", "post-commit", "post-rewrite"]


def test_a_refusal_is_said_once(repo: Path, tmp_path: Path, sh: Shell) -> None:
    """By gitpipe's own hook, which pre-commit calls; the guard alone says it where that does not run."""
    (repo / "copy.json").write_text(COPY)
    sh("GITPIPE=0 gitpipe create-pipeline -f copy.json && rm copy.json && git switch -q -c copy", repo)
    hooks.install(repo / ".git/hooks", str(fake_python(tmp_path / "python")), "-I")
    refusal = "copy is the output of a pipeline: "
    for command in (
        "git commit --allow-empty -m Mine",
        "SKIP=gitpipe-guard git commit --allow-empty -m Mine",
        "pre-commit run gitpipe-guard --all-files",
        "git merge --no-ff $(git commit-tree -p HEAD -m side HEAD^{tree})",
    ):
        assert sh(command, repo, status=1, stderr=True).count(refusal) == 1, command
    sh("git merge --abort; git switch -q -c free", repo)
    forged = f"git commit --allow-empty -m x -m 'Provenance: a@{'1' * 40}'"
    assert sh(forged, repo, status=1, stderr=True).count("the message ends in") == 1


def test_all_stages_by_pre_commit_alone(repo: Path, sh: Shell) -> None:
    """A commit runs the pipelines, a switch brings ``data/``, and what was kept aside is named."""
    try:
        install_all(repo, sh)
        (repo / "copy.json").write_text(COPY)
        sh("GITPIPE=0 gitpipe create-pipeline -f copy.json && rm copy.json && echo 2 > data/b.csv", repo)
        said = sh("gitpipe add data && git commit -m Two", repo, stderr=True)
        assert "gitpipe run" in said and "hook id" not in said
        assert "success" in sh("gitpipe wait >&2; gitpipe list-job", repo)  # it may be done before anybody waits
        assert sh("gitpipe get-file copy b.csv", repo) == "2\n"
        sh("git commit -q --amend -m Again && gitpipe wait", repo)
        assert sh("git rev-parse training", repo).strip() in sh("git log -1 --format=%B copy --", repo)
        (repo / "data/b.csv").write_text("mine\n")
        said = sh("git switch main", repo, status=1, stderr=True)  # as git answers for a hook that has something to say
        assert "- hook id: gitpipe-run" in said and "data/b.csv" in said
        assert not list((repo / "data").iterdir())
        assert "put back your changed data/b.csv" in sh("git switch training", repo, status=1, stderr=True)
        assert (repo / "data/a.csv").read_text() == "1\n"
        assert "Skipped" not in sh("SKIP= git checkout -- data.dvc", repo, stderr=True)
    finally:
        end_runner(repo)


def test_blobs_go_before_commits(repo: Path, tmp_path: Path, sh: Shell) -> None:
    store, bare = tmp_path / "store", tmp_path / "bare"
    store.mkdir()
    install_all(repo, sh)
    sh(f"git init -q --bare {bare} && git remote add origin {bare} && dvc remote add -q -d store {store}", repo)
    sh("GITPIPE=0 gitpipe create-repo other && echo 3 | GITPIPE=0 gitpipe put-file other c.csv -f -", repo)

    def blobs() -> int:
        return sum(path.is_file() for path in store.glob("files/md5/*/*"))

    sh("GITPIPE=0 git push -q origin main && git push -q origin --all", repo)
    # The empty listing, and two files with their listings: of the two refs pre-commit names one.
    assert blobs() == 5
    sh("echo 2 | GITPIPE=0 gitpipe put-file other d.csv -f -", repo)
    said = sh("git push origin other", repo, status=1, stderr=True)  # where some history is there, it hides changes
    assert "gitpipe: .dvc/config has changes that pre-commit keeps from its hooks" in said
    sh("GITPIPE=0 git commit -q -a -m Remote", repo)
    store.rename(tmp_path / "aside")
    store.write_text("no folder")
    said = sh("git push origin other", repo, status=1, stderr=True)
    assert len([line for line in said.splitlines() if "cannot push to DVC remote store: " in line]) == 1
    assert sh("git rev-parse other~1", repo) == sh("git rev-parse other", bare)
    store.unlink()
    (tmp_path / "aside").rename(store)
    sh("git config gitpipe.push false && git push -q origin other", repo)
    assert blobs() == 5


# -- installed from a repository, and here ---------------------------------------------------------------------------


def test_try_repo(scratch: Path, sh: Shell) -> None:
    """pre-commit clones this project and installs it: what it depends on is found where the tests have it."""
    found = [importlib.util.find_spec(name) for name in ("hatchling", "yaml")]
    folders = [str(Path(each.origin).parent.parent) for each in found if each and each.origin]
    if len(folders) < len(found):
        pytest.skip("hatchling, which builds this project, is not installed here")
    (scratch / "train.json").write_text(spec("model", "training"))
    (scratch / "package.json").write_text('{"name": "x"}')
    sh("git add .", scratch)
    path = os.pathsep.join(dict.fromkeys(folders))
    offline = f"PIP_NO_DEPS=1 PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0 PYTHONPATH={path}"
    said = sh(f"{offline} pre-commit try-repo {ROOT} --all-files", scratch, stderr=True)
    passed = [line.partition("...")[0] for line in said.splitlines() if line.endswith("Passed")]
    assert sorted(passed) == ["gitpipe check", "gitpipe guard", "gitpipe track"]


def test_this_project_passes_its_own_hooks(sh: Shell) -> None:
    said = sh("SKIP=ruff-check,ruff-format,mypy pre-commit run --all-files", ROOT)
    assert [line.partition("...")[0] for line in said.splitlines() if line.endswith("Passed")] == [
        "gitpipe check",
        "gitpipe guard",
    ]


def test_in_a_repository_without_gitpipe_there_is_nothing_to_do(scratch: Path, sh: Shell) -> None:
    for name in ("track", "check", "guard", "run", "push"):
        assert sh(f"gitpipe pre-commit {name}", scratch, stderr=True) == ""
    assert not (scratch / ".git/gitpipe").exists()


def test_a_hook_that_is_mistyped(sh: Shell) -> None:
    said = sh("gitpipe pre-commit chekc", status=2, stderr=True)
    assert said == "gitpipe: pre-commit chekc: expected one of track, check, guard, run, push\n"
