"""`git switch` to a data repo with many files, whose hook fills ``data/``, against `git switch` and `dvc checkout`."""

from __future__ import annotations

from pathlib import Path

from harness import Row, data_repo, dvc_repo, informs, pairs, sh, small_files, timed


def run(scratch: Path, rounds: int = 3, files: int = 10_000) -> list[Row]:
    peer = dvc_repo(scratch)
    sh("git branch empty && git switch -q -c full", peer)
    small_files(peer / "data", files)
    sh("dvc add -q data && git add . && git commit -q -m files", peer)
    with data_repo(scratch, {}) as repo:
        small_files(repo.data, files)
        sh("gitpipe add data && git commit -q -m files && git branch -q empty HEAD~1", repo.src)

        def ours() -> float:
            sh("git switch -q empty", repo.src)
            return timed("git switch -q src", repo.src)

        def theirs() -> float:
            sh("git switch -q empty && dvc checkout -q && rm -rf data", peer)
            return timed("git switch -q full && dvc checkout -q", peer)

        times = pairs(rounds, ours, theirs)
    return [informs(f"git switch, {files:,} files come", "git switch && dvc checkout", *times)]
