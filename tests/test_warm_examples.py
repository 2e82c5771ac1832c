"""The shipped pipelines give the same commits, bit for bit, whether their Python is forked or a process each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Shell, end_runner

STORIES = {
    "iris": """
        gitpipe create-repo training && gitpipe create-repo attributes
        gitpipe put-file training master iris.csv -f samples/iris/iris.csv
        gitpipe put-file attributes master -r -f samples/iris/attributes
        gitpipe create-pipeline -f pipelines/iris/train.json -f pipelines/iris/infer.json && gitpipe run
        for kind in lda tree forest; do gitpipe update-pipeline -f pipelines/iris/train-$kind.json && gitpipe run; done
    """,
    "diabetes": """
        gitpipe create-repo training_data && gitpipe create-repo qc_data && gitpipe create-repo attributes
        gitpipe put-file training_data master training_prod.csv -f samples/diabetes/training_prod.csv
        gitpipe put-file qc_data master holdout.csv -f samples/diabetes/holdout.csv
        gitpipe put-file attributes master -r -f samples/diabetes/attributes
        for name in model qc_pre_process qcontrol infer; do
          gitpipe create-pipeline -f pipelines/diabetes/$name.json || exit 1
        done
        gitpipe run
    """,
    "sentiment": """
        gitpipe create-repo training && gitpipe create-repo reviews
        gitpipe put-file training master -f samples/sentiment/labeledTrainData.tsv
        gitpipe put-file reviews master -r -f samples/sentiment/reviews
        gitpipe create-pipeline -f pipelines/sentiment/train.json -f pipelines/sentiment/infer.json && gitpipe run
    """,
}


@pytest.mark.parametrize("name", STORIES)
def test_the_same_commits_both_ways(name: str, tmp_path: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITPIPE", "0")
    for which in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{which}_DATE", "2026-01-01T00:00:00Z")
    made = []
    for preload in ("auto", "never"):
        repo = tmp_path / preload
        sh(f"git init -q -b main {repo} && cd {repo} && git commit -q --allow-empty -m Begin && gitpipe init")
        sh(f"git config gitpipe.preload {preload} && git config gitpipe.engine local", cwd=repo)
        sh(f"gitpipe example {name} && git add pipelines samples && git commit -qm Example", cwd=repo)
        sh(f"set -e\n{STORIES[name]}", cwd=repo, timeout=300)
        jobs = sh("gitpipe list-job --raw", cwd=repo).splitlines()
        assert len(jobs) >= 2 and all('"success"' in job for job in jobs)
        refs = sh("git for-each-ref --format='%(refname) %(objectname)' refs/heads", cwd=repo).splitlines()
        made.append([ref for ref in refs if not ref.startswith("refs/heads/__spec__")])
        end_runner(repo)
    assert made[0] == made[1]
